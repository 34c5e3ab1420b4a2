"""Phrases -> masks and boxes in a scan, from a checkpoint. What `liftgs ground` does, in Python:

    from liftgs.ground import ground, load
    model = load("runs/pretrain")
    found = ground(model, "scans/kitchen", ["the red chair"])

`found.matches` are masks, boxes and scores; `liftgs.ground.files` writes them, `liftgs.ground.picture` draws them.
"""

from liftgs.ground.grounding import EncodedScan, Grounder, Grounding, Match, encode, ground, load
from liftgs.ground.scans import Scan, open_scan

__all__ = ["EncodedScan", "Grounder", "Grounding", "Match", "Scan", "encode", "ground", "load", "open_scan"]
