"""2D teachers: photos -> masks (SAM), embeddings (CLIP) and captions."""
