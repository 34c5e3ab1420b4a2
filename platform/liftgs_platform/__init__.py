"""LIFT-GS at scale: jobs, corpora and (later) elastic training on Ray."""
