"""What the network is taught by: matching, grounding losses (2D and 3D alike) and per-pixel losses."""
