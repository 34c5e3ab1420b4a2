"""Small sources and small teachers for tests of the labelling job.

Of teachers there are two sets: the real classes of SAM and CLIP with random weights, and functions of the photo alone,
which need no torch, so that a killed process is soon back.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from liftgs.labels import renumber
from liftgs.teachers.captions import Captioner
from liftgs_platform import label_stages
from liftgs_platform.label_stages import Stage


def write_scene(folder: Path, frames: int = 4, seed: int = 0, size: tuple[int, int] = (64, 48)) -> Path:
    """A 7-Scenes folder: coloured blobs before a wall 2 m away, seen by a camera that moves sideways."""
    folder.mkdir(parents=True, exist_ok=True)
    width, height = size
    K = np.array([[width, 0, width / 2], [0, width, height / 2], [0, 0, 1]], float)
    np.savetxt(folder / "camera-intrinsics.txt", K)
    for frame in range(frames):
        rng = np.random.default_rng([seed, frame])
        blobs = Image.fromarray(rng.integers(0, 256, (4, 5, 3), np.uint8))
        blobs.resize(size, Image.Resampling.BICUBIC).save(folder / f"{name(frame)}.color.jpg", quality=92)
        depth_mm = 2000 + rng.integers(-20, 20, (height, width))
        Image.fromarray(depth_mm.astype(np.uint16)).save(folder / f"{name(frame)}.depth.png")
        pose = np.eye(4)
        pose[0, 3] = 0.05 * frame
        np.savetxt(folder / f"{name(frame)}.pose.txt", pose)
    return folder


def name(frame: int) -> str:
    """What a frame is called in a scene's folder."""
    return f"frame-{frame:06d}"


def write_scenes(folder: Path, scenes: int, frames: int = 4) -> Path:
    """A source of several scenes."""
    for scene in range(scenes):
        write_scene(folder / f"scene{scene:02d}", frames, seed=scene)
    return folder


def corpus_files(corpus: Path) -> dict[str, bytes]:
    """All files of a corpus but the records of its runs."""
    files = (file for file in sorted(corpus.rglob("*")) if file.is_file())
    named = {file.relative_to(corpus).as_posix(): file for file in files}
    return {path: file.read_bytes() for path, file in named.items() if not path.startswith("runs/")}


# ---- SAM and CLIP, random


@dataclass(frozen=True)
class BuildRandomSam:
    """SAM's own classes at 64 px, a 3x3 grid of points, and no filter on what they score."""

    def __call__(self, before: Mapping[str, Stage]) -> Stage:
        import torch

        from liftgs.labels import paint
        from liftgs.teachers.sam import SamArchitecture, build_architecture
        from liftgs.teachers.sam_masks import MaskGenerator, MaskSettings

        torch.set_num_threads(1)
        torch.manual_seed(0)
        small = {"img_size": 64, "embed_dim": 32, "depth": 1, "num_heads": 2, "global_attn_indexes": (0,)}
        sam = build_architecture(SamArchitecture(**small, stem=(), prompt_dim=32, decoder_downsample=2)).eval()
        all_pass = {"pred_iou_thresh": -100.0, "stability_score_thresh": 0.0, "box_nms_thresh": 0.9}
        generator = MaskGenerator(sam, MaskSettings(points_per_side=3, **all_pass))

        def segment(rgb: np.ndarray) -> np.ndarray:
            found = generator(rgb)
            return paint(found.masks, 8, found.predicted_iou, rgb.shape[:2])

        return label_stages.Segment(segment, "random-sam")


@dataclass(frozen=True)
class BuildRandomClip:
    """open_clip's own CLIP at 32 px."""

    def __call__(self, before: Mapping[str, Stage]) -> Stage:
        import open_clip
        import torch

        from liftgs.teachers.crops import crop_segments

        torch.set_num_threads(1)
        torch.manual_seed(0)
        model = open_clip.CLIP(
            embed_dim=16,
            vision_cfg={"image_size": 32, "layers": 1, "width": 32, "patch_size": 16, "head_width": 16},
            text_cfg={"context_length": 8, "vocab_size": 64, "width": 16, "heads": 2, "layers": 1},
        ).eval()

        @torch.inference_mode()
        def embed(rgb: np.ndarray, semantics: np.ndarray) -> np.ndarray:
            crops = list(crop_segments(rgb, semantics, "keep", 0, 0.0, False, mean_rgb=(0.0, 0.0, 0.0)))
            if not crops:
                return np.zeros((0, 16), np.float16)
            small = [np.asarray(Image.fromarray(np.ascontiguousarray(crop)).resize((32, 32))) for crop in crops]
            pixels = torch.from_numpy(np.stack(small)).permute(0, 3, 1, 2).float() / 255
            rows: np.ndarray = torch.nn.functional.normalize(model.encode_image(pixels), dim=-1).numpy()
            return rows.astype(np.float16)

        return label_stages.Embed(embed, "random-clip")


# ---- without torch


@dataclass(frozen=True)
class BuildPatches:
    """Segments are the patches of a 3x4 grid that are brighter than the photo.

    `seconds`: how long a frame takes. `deadly`: the process dies at photos whose mean brightness is this.
    """

    seconds: float = 0.0
    deadly: float | None = None

    def __call__(self, before: Mapping[str, Stage]) -> Stage:
        def segment(rgb: np.ndarray) -> np.ndarray:
            time.sleep(self.seconds)
            grey = rgb.mean(-1)
            if self.deadly is not None and abs(grey.mean() - self.deadly) < 1e-6:
                os._exit(139)
            rows, columns = (np.arange(n) * parts // n for n, parts in zip(grey.shape, (3, 4), strict=True))
            patch = rows[:, None] * 4 + columns
            mean = np.bincount(patch.ravel(), grey.ravel()) / np.bincount(patch.ravel())
            return renumber(np.where(mean[patch] > grey.mean(), patch + 1, 0).astype(np.uint16))[0]

        return label_stages.Segment(segment, "patches")


@dataclass(frozen=True)
class BuildColours:
    """A segment's embedding is its mean colour."""

    def __call__(self, before: Mapping[str, Stage]) -> Stage:
        def embed(rgb: np.ndarray, semantics: np.ndarray) -> np.ndarray:
            segments = range(1, int(semantics.max()) + 1)
            rows = np.array([rgb[semantics == i].mean(0) + 1 for i in segments]).reshape(-1, 3)
            unit: np.ndarray = rows / np.linalg.norm(rows, axis=1, keepdims=True)
            return unit.astype(np.float16)

        return label_stages.Embed(embed, "colours")


class Channels(Captioner):
    """ "thing 2": the largest feature of a segment."""

    @property
    def revision(self) -> str:
        return "channels"

    def __call__(self, rgb: np.ndarray, semantics: np.ndarray, embeds: np.ndarray | None) -> list[str]:
        assert embeds is not None
        return [f"thing {int(row.argmax())}" for row in embeds]


@dataclass(frozen=True)
class BuildChannels:
    """Builds `Channels`."""

    def __call__(self, before: Mapping[str, Stage]) -> Stage:
        return label_stages.Caption(Channels(), "channels")


def with_random_models(build: Mapping[str, Any]) -> dict[str, Any]:
    """A job's stages with small random models."""
    return {**build, "segment": BuildRandomSam(), "embed": BuildRandomClip(), "caption": BuildChannels()}


def with_quick_teachers(build: Mapping[str, Any], seconds: float = 0.0, deadly: float | None = None) -> dict[str, Any]:
    """A job's stages without torch."""
    patches = BuildPatches(seconds, deadly)
    return {**build, "segment": patches, "embed": BuildColours(), "caption": BuildChannels()}
