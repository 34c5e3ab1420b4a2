"""Pretraining by rendered supervision: labelled chunks become items, items become losses, losses become steps."""
