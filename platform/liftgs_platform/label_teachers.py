"""Configurations -> stages with their models loaded. Each builder runs inside the actor that keeps the model."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from liftgs_platform import label_stages, storage
from liftgs_platform.label_stages import LoadConfig, Stage
from liftgs_platform.shard_plan import plan_filename

if TYPE_CHECKING:  # importing these imports torch, which the processes without a model are spared
    from liftgs.teachers.captions import CaptionConfig
    from liftgs.teachers.configs import EmbedConfig, SegmentConfig

#: of glibc's malloc.h
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4


@dataclass(frozen=True)
class BuildLoad:
    """Builds `label_stages.Load`."""

    config: LoadConfig

    def __call__(self, before: Mapping[str, Stage]) -> Stage:
        """See `label_pool.StageFactory`."""
        return label_stages.Load(self.config)


@dataclass(frozen=True)
class BuildSegment:
    """Builds `label_stages.Segment` with a SAM on `device`."""

    config: SegmentConfig
    device: str
    threads: int

    def __call__(self, before: Mapping[str, Stage]) -> Stage:
        """See `label_pool.StageFactory`."""
        use_threads(self.threads)
        from liftgs.teachers.sam import Segment  # noqa: PLC0415

        teacher = Segment(self.config, self.device)
        return label_stages.Segment(teacher, segment_revision(self.config))


@dataclass(frozen=True)
class BuildEmbed:
    """Builds `label_stages.Embed` with a CLIP on `device`."""

    config: EmbedConfig
    device: str
    threads: int

    def __call__(self, before: Mapping[str, Stage]) -> Stage:
        """See `label_pool.StageFactory`."""
        use_threads(self.threads)
        from liftgs.teachers.clip import Embed  # noqa: PLC0415

        teacher = Embed(self.config, self.device)
        return label_stages.Embed(teacher, teacher.revision)


@dataclass(frozen=True)
class BuildCaption:
    """Builds `label_stages.Caption`; the vocabulary captioner shares the CLIP of an embedder in the same process."""

    config: CaptionConfig
    embed: EmbedConfig | None
    device: str
    threads: int

    def __call__(self, before: Mapping[str, Stage]) -> Stage:
        """See `label_pool.StageFactory`."""
        from liftgs.teachers.captions import build_captioner  # noqa: PLC0415

        teacher: Any = None
        if self.embed is not None:
            use_threads(self.threads)
            neighbour = before.get("embed")
            if isinstance(neighbour, label_stages.Embed):
                teacher = neighbour.teacher
            else:
                from liftgs.teachers.clip import Embed  # noqa: PLC0415

                teacher = Embed(self.embed, self.device)
        captioner = build_captioner(self.config, teacher)
        return label_stages.Caption(captioner, captioner.revision if captioner else "")


@dataclass(frozen=True)
class BuildCommit:
    """Builds `label_stages.Commit`."""

    corpus: str
    plans: Mapping[int, str]

    def __call__(self, before: Mapping[str, Stage]) -> Stage:
        """See `label_pool.StageFactory`.

        Raises:
            StorageError: this machine writes elsewhere than the driver, which has put the plan there.
        """
        plan = storage.join(self.corpus, plan_filename(0))
        if not storage.exists(plan):
            raise storage.StorageError(
                f"{plan}: this node does not see what the driver wrote there; give s3://, or a folder that all share"
            )
        return label_stages.Commit(self.corpus, self.plans)


def segment_revision(config: SegmentConfig) -> str:
    """Which weights, by their content."""
    from liftgs.teachers.checkpoints import file_digest, local_checkpoint  # noqa: PLC0415
    from liftgs.teachers.configs import is_small_sam, small_sam_weights  # noqa: PLC0415

    small = is_small_sam(config.checkpoint)
    path = local_checkpoint(small_sam_weights(config.checkpoint) if small else config.checkpoint)
    return f"{path.stem}:sha256-{file_digest(path)}"


def use_threads(threads: int) -> None:
    """Threads of torch in this process. The number decides the last bits of a CPU's results."""
    import torch  # noqa: PLC0415

    torch.set_num_threads(threads)
    _keep_freed_memory()


def _keep_freed_memory() -> None:
    """Let glibc reuse freed memory instead of giving it back: a network on a CPU frees and asks for the same megabytes
    in every layer, and fresh pages cost an eighth of the segmenter's time. Other C libraries are left as they are.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        for option, value in ((_M_MMAP_MAX, 0), (_M_TRIM_THRESHOLD, 2**31 - 1), (_M_TOP_PAD, 2**26)):
            mallopt(option, value)
