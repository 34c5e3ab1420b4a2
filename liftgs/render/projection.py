"""Gaussians to splats on the image plane, in plain torch: differentiable, any dtype, any device."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from liftgs.render.gaussians import Gaussians, Pinhole

EPS2D = 0.3
NEAR, FAR = 0.01, 1e10
ALPHA_MIN = 1 / 255


@dataclass(frozen=True)
class Splats:
    """Gaussians as the camera sees them, in the order of the input. Rows that are not `visible` mean nothing.

    Attributes:
        means2d: centres, pixels.
        conics: inverse covariances (xx, xy, yy), per square pixel.
        depths: z of the centres, metres.
        opacities: as given.
        radii: half sizes of the bounding boxes, whole pixels.
        visible: in front of the camera, opaque enough to see, and the box meets the image.
    """

    means2d: Float[Tensor, "n 2"]
    conics: Float[Tensor, "n 3"]
    depths: Float[Tensor, " n"]
    opacities: Float[Tensor, " n"]
    radii: Float[Tensor, "n 2"]
    visible: Bool[Tensor, " n"]


def project(gaussians: Gaussians, camera: Pinhole) -> Splats:
    """EWA projection.

    Source: Zwicker et al. 2002; the blur, the clamp of the linearisation to 1.3 times the field of view and the extent
    by opacity (Radl et al. 2024, section B.2) as in gsplat 1.5.3.
    """
    means, opacities = gaussians.means, gaussians.opacities
    viewmat, K = camera.viewmat.to(means), camera.K.to(means)
    R, t = viewmat[:3, :3], viewmat[:3, 3]
    fx, fy, cx, cy = K[0, 0], K[1, 1], K[0, 2], K[1, 2]
    x, y, z = (means @ R.T + t).unbind(1)
    in_front = (z > NEAR) & (z < FAR)
    z = torch.where(in_front, z, 1.0)  # keeps gradients of what is hidden finite
    means2d = torch.stack([fx * x / z + cx, fy * y / z + cy], 1)

    slack_x, slack_y = 0.15 * camera.width / fx, 0.15 * camera.height / fy
    slope_x = torch.clamp(x / z, -cx / fx - slack_x, (camera.width - cx) / fx + slack_x)
    slope_y = torch.clamp(y / z, -cy / fy - slack_y, (camera.height - cy) / fy + slack_y)
    zero = torch.zeros_like(z)
    J = torch.stack([fx / z, zero, -fx * slope_x / z, zero, fy / z, -fy * slope_y / z], 1).view(-1, 2, 3)
    M = J @ R
    covars2d = M @ gaussians.covars @ M.mT
    xx, yy = covars2d[:, 0, 0] + EPS2D, covars2d[:, 1, 1] + EPS2D
    xy = (covars2d[:, 0, 1] + covars2d[:, 1, 0]) / 2
    det = xx * yy - xy * xy
    conics = torch.stack([yy, -xy, xx], 1) / det[:, None]

    extent = torch.sqrt(2 * torch.log((opacities.detach() / ALPHA_MIN).clamp(min=1))).clamp(max=3.33)
    radii = torch.ceil(extent[:, None] * torch.sqrt(torch.stack([xx, yy], 1).detach()))
    u, v = means2d.detach().unbind(1)
    inside = (u + radii[:, 0] > 0) & (u - radii[:, 0] < camera.width)
    inside &= (v + radii[:, 1] > 0) & (v - radii[:, 1] < camera.height)
    visible = in_front & inside & (det > 0) & (opacities >= ALPHA_MIN)
    return Splats(means2d, conics, z, opacities, radii, visible)
