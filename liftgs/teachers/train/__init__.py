"""How the small teachers that ship with the package are trained. Plain functions; knows nothing of jobs."""
