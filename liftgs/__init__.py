"""LIFT-GS: 3D visual-language grounding learned from rendered 2D supervision. Plain PyTorch; knows nothing of Ray."""
