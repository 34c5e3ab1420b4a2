"""The LIFT-GS network: points and queries in; Gaussians, masks and correspondences out."""
