"""Learning from 3D labels: masks over the voxels, named by text. Knows no cluster and no files."""
