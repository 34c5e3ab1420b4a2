"""Answers as a picture: the network's own Gaussians, rendered, with each phrase's best mask blended in."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Float32, UInt8
from PIL import Image, ImageDraw, ImageFont

from liftgs.ground.files import phrase_colours
from liftgs.ground.grounding import Grounding, Match
from liftgs.ground.views import best_frame, overview
from liftgs.render import Gaussians, Pinhole, render
from liftgs.scene import Camera

_BACKGROUND = 0.12  # grey where no Gaussian is
_MASK_WEIGHT = 0.6
_LINE_PX, _TEXT_PX = 26, 16


def draw(found: Grounding, width: int = 640) -> UInt8[np.ndarray, "h w 3"]:
    """A picture of the answers with a legend.

    A scan with photos is shown from the camera that sees the most of the answers: the photo on the left, the rendered
    colours on the right. A plain cloud is shown from above a corner; if it is as tall as a room, its ceiling and its
    near walls are left out. Masks are rendered, so what hides an object hides its mask, on the photo too.

    Args:
        found: from `ground`.
        width: of a panel, pixels.
    """
    best = [found.best(phrase) for phrase in found.phrases]
    wanted = [found.scan.cloud.xyz[match.points] for match in best if match is not None]
    photos: list[Float[np.ndarray, "h w 3"]] = []
    if found.scan.frames:
        frame = best_frame(found.scan.frames, wanted)
        camera = frame.camera.resized(width, round(width * frame.camera.height / frame.camera.width))
        photo = Image.fromarray(frame.rgb).resize((camera.width, camera.height), Image.Resampling.BICUBIC)
        photos.append(np.asarray(photo, np.float32) / 255)
        shown = np.ones(len(found.encoded.gaussians.means), bool)
    else:
        xyz = found.encoded.gaussians.means.detach().cpu().numpy()
        camera, shown = overview(xyz, np.concatenate([xyz[:0], *wanted]), width, round(0.75 * width))
        for match in best:
            shown |= match.voxels if match is not None else False
    rendered, masks = _render(found, camera, best, shown)
    panels = [_blend(panel, masks) for panel in (*photos, rendered)]
    picture = np.rint(np.concatenate(panels, axis=1).clip(0, 1) * 255).astype(np.uint8)
    return np.concatenate([picture, _legend(found, best, picture.shape[1])])


def save(found: Grounding, path: Path) -> None:
    """Draw and write a PNG; folders are made if need be."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(draw(found)).save(path, "PNG")


def _render(
    found: Grounding, camera: Camera, best: list[Match | None], shown: np.ndarray
) -> tuple[Float32[np.ndarray, "h w 3"], Float32[np.ndarray, "h w p"]]:
    """Colours on a dark background, and how much of each pixel each mask covers."""
    encoded = found.encoded
    device = encoded.colours.device
    none = np.zeros(len(shown), bool)
    masks = np.stack([none if match is None else match.voxels for match in best], axis=1)
    channels = torch.cat([encoded.colours.clamp(0, 1), torch.from_numpy(masks).to(device).float()], dim=1)
    kept = torch.from_numpy(shown).to(device)
    whole = encoded.gaussians
    gaussians = Gaussians(whole.means[kept], whole.covars[kept], whole.opacities[kept])
    with torch.no_grad():
        image, alpha = render(gaussians, Pinhole.of(camera, device), channels[kept])
    colours = image[..., :3] + (1 - alpha[..., None]) * _BACKGROUND
    return colours.cpu().numpy(), image[..., 3:].cpu().numpy()


def _blend(image: Float[np.ndarray, "h w 3"], masks: Float32[np.ndarray, "h w p"]) -> Float[np.ndarray, "h w 3"]:
    for mask, colour in zip(np.moveaxis(masks, 2, 0), phrase_colours(masks.shape[2]), strict=True):
        weight = _MASK_WEIGHT * mask[..., None]
        image = image * (1 - weight) + weight * (colour / np.float32(255))
    return image


def _legend(found: Grounding, best: list[Match | None], width: int) -> UInt8[np.ndarray, "h w 3"]:
    """A line per phrase: its colour, its words, the score of its best answer."""
    legend = Image.new("RGB", (width, _LINE_PX * len(best) + 8), (20, 20, 22))
    pen = ImageDraw.Draw(legend)
    font = ImageFont.load_default(_TEXT_PX)
    for line, (phrase, match, colour) in enumerate(
        zip(found.phrases, best, phrase_colours(len(best)).tolist(), strict=True)
    ):
        top = 4 + line * _LINE_PX
        pen.rectangle((10, top + 5, 26, top + 21), fill=tuple(colour))
        said = "nothing found" if match is None else f"{match.score:.2f}"
        pen.text((36, top + 3), f"{phrase}   {said}", fill=(235, 235, 235), font=font)
    return np.asarray(legend)
