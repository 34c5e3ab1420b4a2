"""LIFT-GS at scale: jobs, corpora, elastic training and sweeps on Ray."""
