"""Rendering: Gaussians and a camera to images of any channels, differentiable. Knows nothing of networks or losses."""

from liftgs.render.base import Rasterization
from liftgs.render.gaussians import Gaussians, NotFinite, Pinhole
from liftgs.render.rasterize import rasterize, render

__all__ = ["Gaussians", "NotFinite", "Pinhole", "Rasterization", "rasterize", "render"]
