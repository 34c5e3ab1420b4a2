"""SAM's automatic mask generation: the masks of `segment_anything.SamAutomaticMaskGenerator`, several times faster.

The stock generator enlarges every candidate mask to the full image before it looks at predicted IoU, and run-length
encodes all that pass. Here the filter on predicted IoU comes before any mask is made (see `sam_decoder`), an
enlargement that changes nothing is skipped, and only the boxes and low-resolution logits of candidates are kept until
non-maximum suppression has chosen; so memory does not grow with candidates x image area either. Filters, their order
and their thresholds are the stock ones, and a test holds that the masks are equal.

One thing is added: prompting from coarse to fine (`MaskSettings.coarse_points_per_side`), off unless asked for.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Float32, Int, UInt8
from segment_anything.modeling import Sam
from segment_anything.utils.amg import (
    build_all_layer_point_grids,
    generate_crop_boxes,
    is_box_near_crop_edge,
)
from segment_anything.utils.transforms import ResizeLongestSide
from torch import Tensor
from torchvision.ops.boxes import batched_nms, box_area

from liftgs.teachers.configs import MaskSettings
from liftgs.teachers.sam_decoder import chosen_mask_logits, prompt_points

#: Candidate masks enlarged at a time: enough to keep a GPU busy, few enough for a CPU's caches.
_ENLARGED_AT_ONCE = {"cpu": 8, "cuda": 64}


@dataclass(frozen=True, eq=False)
class Masks:
    """What automatic mask generation found in one image, best predicted IoU first.

    Attributes:
        masks: one per row.
        predicted_iou: the model's own estimate of each mask's quality.
        boxes: (x0, y0, x1, y1) in pixels, of the first and last pixels inclusive, as SAM gives them.
    """

    masks: Bool[np.ndarray, "n h w"]
    predicted_iou: Float32[np.ndarray, " n"]
    boxes: Int[np.ndarray, "n 4"]

    def __len__(self) -> int:
        return len(self.masks)


@dataclass(frozen=True, eq=False)
class _Candidates:
    """Masks that passed the filters, still as low-resolution logits; boxes in the frame of their crop."""

    low_res: Float[Tensor, "n h w"]
    iou: Float[Tensor, " n"]
    boxes: Int[Tensor, "n 4"]

    def __getitem__(self, index: Tensor) -> _Candidates:
        return _Candidates(*(getattr(self, field.name)[index] for field in fields(self)))

    @staticmethod
    def cat(parts: list[_Candidates]) -> _Candidates:
        return _Candidates(*(torch.cat([getattr(part, field.name) for part in parts]) for field in fields(_Candidates)))

    def without_duplicates(self, box_nms_thresh: float) -> _Candidates:
        """Sorted by predicted IoU."""
        keep = batched_nms(self.boxes.float(), self.iou, torch.zeros_like(self.iou), box_nms_thresh)
        return self[keep]


@dataclass(frozen=True)
class _View:
    """How one crop of an image is seen by the model."""

    box: tuple[int, int, int, int]
    image_size: tuple[int, int]
    input_size: tuple[int, int]
    img_size: int

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the crop."""
        x0, y0, x1, y1 = self.box
        return y1 - y0, x1 - x0

    def enlarge(self, low_res: Float[Tensor, "n h w"]) -> Float[Tensor, "n crop_h crop_w"]:
        """`Sam.postprocess_masks`, less a second enlargement to the size it already has."""
        inside = _resize(low_res, (self.img_size, self.img_size))[..., : self.input_size[0], : self.input_size[1]]
        return inside if self.input_size == self.size else _resize(inside, self.size)


def _resize(images: Tensor, size: tuple[int, int]) -> Tensor:
    return F.interpolate(images[None], size, mode="bilinear", align_corners=False)[0]


class MaskGenerator:
    """Everything that a SAM finds in an image, prompted by a grid of points."""

    def __init__(self, sam: Sam, settings: MaskSettings):
        self.sam = sam
        self.settings = settings
        self._resize = ResizeLongestSide(sam.image_encoder.img_size)
        self._grids = _point_grids(settings)

    @torch.no_grad()
    def __call__(self, rgb: UInt8[np.ndarray, "h w 3"]) -> Masks:
        """Find masks."""
        settings, image_size = self.settings, rgb.shape[:2]
        crops, layers = generate_crop_boxes(image_size, settings.crop_n_layers, settings.crop_overlap_ratio)
        views: list[_View] = []
        found: list[_Candidates] = []
        for (x0, y0, x1, y1), layer in zip(crops, layers, strict=True):
            view = _View((x0, y0, x1, y1), image_size, *self._input_size(y1 - y0, x1 - x0))
            views.append(view)
            found.append(self._search(rgb[y0:y1, x0:x1], view, layer))
        return self._finish(found, views, image_size)

    def _input_size(self, height: int, width: int) -> tuple[tuple[int, int], int]:
        img_size = self._resize.target_length
        return self._resize.get_preprocess_shape(height, width, img_size), img_size

    def _search(self, rgb: np.ndarray, view: _View, layer: int) -> _Candidates:
        """All candidates of one crop, without duplicates."""
        pixels = torch.as_tensor(self._resize.apply_image(rgb), device=self.sam.device)
        embedding = self.sam.image_encoder(self.sam.preprocess(pixels.permute(2, 0, 1)[None].contiguous()))
        height, width = view.size
        rounds = [grid * (width, height) for grid in self._grids[layer]]
        parts: list[_Candidates] = []
        for number, points in enumerate(rounds):
            free = points if number == 0 else points[~self._covered(points, _Candidates.cat(parts), view)]
            for start in range(0, len(free), self.settings.points_per_batch):
                parts.append(self._candidates(embedding, free[start : start + self.settings.points_per_batch], view))
        return _Candidates.cat(parts).without_duplicates(self.settings.box_nms_thresh)

    def _candidates(self, embedding: Tensor, points: np.ndarray, view: _View) -> _Candidates:
        """Prompt some points of a crop, (x, y) in its pixels; filter what comes out."""
        settings, sam = self.settings, self.sam
        inputs = torch.as_tensor(self._resize.apply_coords(points, view.size), device=sam.device)
        prompted = prompt_points(sam, embedding, inputs)
        iou = prompted.iou[:, 1:]  # token 0 is for a single mask from several prompts
        least = settings.pred_iou_thresh if settings.pred_iou_thresh > 0 else -math.inf  # 0 turns the filter off
        prompt, mask = torch.nonzero(iou > least, as_tuple=True)
        low_res = chosen_mask_logits(sam.mask_decoder, prompted, prompt, mask + 1)
        stable, boxes = self._measure(low_res, view)
        keep = torch.nonzero(stable & ~is_box_near_crop_edge(boxes, list(view.box), _whole(view.image_size)))[:, 0]
        return _Candidates(low_res, iou[prompt, mask], boxes)[keep]

    def _measure(self, low_res: Tensor, view: _View) -> tuple[Bool[Tensor, " n"], Int[Tensor, "n 4"]]:
        """Whether each mask is stable, and its box, at full resolution."""
        settings, threshold = self.settings, self.sam.mask_threshold
        stable = torch.ones(len(low_res), dtype=torch.bool, device=low_res.device)
        boxes = torch.zeros(len(low_res), 4, dtype=torch.int64, device=low_res.device)
        step = _ENLARGED_AT_ONCE.get(low_res.device.type, 8)
        for start in range(0, len(low_res), step):
            part = slice(start, start + step)
            logits = view.enlarge(low_res[part])
            boxes[part] = _mask_boxes(_above(logits, threshold))
            if settings.stability_score_thresh > 0:
                offset = settings.stability_score_offset
                high, low = (_count(_above(logits, threshold + shift)) for shift in (offset, -offset))
                stable[part] = high / low >= settings.stability_score_thresh  # one lies in the other, so this is IoU
        return stable, boxes

    def _covered(self, points: np.ndarray, found: _Candidates, view: _View) -> Bool[np.ndarray, " points"]:
        """Which points of a crop lie in a mask found so far, to the precision of the low-resolution masks."""
        found = found.without_duplicates(self.settings.box_nms_thresh)
        if len(found.iou) == 0:
            return np.zeros(len(points), bool)
        cells = self._resize.apply_coords(points, view.size) * (found.low_res.shape[-1] / view.img_size)
        x, y = torch.as_tensor(cells, device=found.low_res.device).long().unbind(-1)
        covered = (found.low_res[:, y, x] > self.sam.mask_threshold).any(dim=0)
        return covered.cpu().numpy()

    def _finish(self, found: list[_Candidates], views: list[_View], image_size: tuple[int, int]) -> Masks:
        """Merge the crops; only now are masks made at full resolution."""
        offsets = [
            torch.tensor(view.box[:2] * 2, device=part.boxes.device) for part, view in zip(found, views, strict=True)
        ]
        boxes = torch.cat([part.boxes + offset for part, offset in zip(found, offsets, strict=True)])
        iou = torch.cat([part.iou for part in found])
        crop = torch.cat([torch.full((len(part.iou),), i) for i, part in enumerate(found)]).to(boxes.device)
        if len(found) > 1:  # masks of smaller crops win
            areas = box_area(torch.tensor([view.box for view in views], device=boxes.device))
            keep = batched_nms(boxes.float(), 1 / areas[crop], torch.zeros_like(iou), self.settings.crop_nms_thresh)
        else:
            keep = torch.arange(len(iou), device=boxes.device)
        starts = np.cumsum([0, *(len(part.iou) for part in found)])
        masks = np.zeros((len(keep), *image_size), bool)
        for row, index in enumerate(keep.tolist()):
            view, part = views[crop[index]], found[crop[index]]
            x0, y0, x1, y1 = view.box
            low_res = part.low_res[index - starts[crop[index]]]
            masks[row, y0:y1, x0:x1] = _above(view.enlarge(low_res[None]), self.sam.mask_threshold)[0].cpu().numpy()
        return Masks(masks, iou[keep].float().cpu().numpy(), boxes[keep].cpu().numpy())


def _above(logits: Float[Tensor, "n h w"], threshold: float) -> Bool[Tensor, "n h w"]:
    """`logits > threshold`; on a CPU by numpy, which takes a sixth of torch's time."""
    if logits.device.type != "cpu":
        return logits > threshold
    return torch.from_numpy(logits.numpy() > np.float32(threshold))


def _count(masks: Bool[Tensor, "n h w"]) -> Int[Tensor, " n"]:
    """Pixels of each mask."""
    if masks.device.type != "cpu":
        return masks.sum(dim=(1, 2))
    return torch.tensor([np.count_nonzero(mask) for mask in masks.numpy()])


def _mask_boxes(masks: Bool[Tensor, "n h w"]) -> Int[Tensor, "n 4"]:
    """(x0, y0, x1, y1), last pixels inclusive; zeros for an empty mask. `batched_mask_to_box`, many times faster."""
    pixels = masks.view(torch.uint8)  # `any` of booleans is not vectorised on CPUs, `amax` of bytes is
    columns, rows = pixels.amax(dim=1).int(), pixels.amax(dim=2).int()
    first = torch.stack([columns.argmax(1), rows.argmax(1)], dim=1)
    last = torch.stack(
        [columns.shape[1] - 1 - columns.flip(1).argmax(1), rows.shape[1] - 1 - rows.flip(1).argmax(1)], dim=1
    )
    return torch.cat([first, last], dim=1) * rows.amax(dim=1, keepdim=True)


def _whole(image_size: tuple[int, int]) -> list[int]:
    return [0, 0, image_size[1], image_size[0]]


def _point_grids(settings: MaskSettings) -> list[list[Float[np.ndarray, "points 2"]]]:
    """Per layer of crops, the rounds of prompts: (x, y) in units of the crop's sides."""

    def grids(per_side: int) -> list[np.ndarray]:
        return build_all_layer_point_grids(per_side, settings.crop_n_layers, settings.crop_n_points_downscale_factor)

    fine = grids(settings.points_per_side)
    if settings.coarse_points_per_side is None:
        return [[grid] for grid in fine]
    return [list(rounds) for rounds in zip(grids(settings.coarse_points_per_side), fine, strict=True)]
