from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from liftgs import cli, sample
from liftgs.labels import SegmentMap
from liftgs.scene import Camera, Chunk, Frame, LoadedChunk, PointCloud
from liftgs_platform import manifest, shards
from liftgs_platform.report import inspect
from liftgs_platform.shard_plan import Plan, PlannedShard, QuarantineRow, write_plan


def chunk_of(index: int, frames: tuple[str, ...] = ("a", "b")) -> Chunk:
    return Chunk("somewhere/room", "room", index, frames, frames)


def members_of(chunk: Chunk) -> dict[str, bytes]:
    rng = np.random.default_rng(chunk.index)
    pose = np.eye(4)
    K = np.array([[64, 0, 32], [0, 64, 24], [0, 0, 1.0]])
    frames = [
        Frame(name, f"somewhere/{name}.jpg", Camera(K, pose, 64, 48), rng.integers(0, 256, (48, 64, 3), np.uint8))
        for name in chunk.view_ids
    ]
    semantics = np.zeros((48, 64), np.uint16)
    semantics[:24], semantics[30:, 10:30] = 1, 2
    embeds = np.eye(4, dtype=np.float16)[:2]
    segments = [SegmentMap(semantics, embeds, ("a red <chair>", "a table")) for _ in frames]
    xyz = rng.uniform([-1, -1, 1], [1, 1, 3], (200, 3)).astype(np.float32)
    cloud = PointCloud(xyz, rng.integers(0, 256, (200, 3), np.uint8))
    return sample.encode_chunk(LoadedChunk(chunk, cloud, frames, "z-up"), {}, segments)


def write_corpus(folder: Path, chunks: int = 3, lost: str | None = "b") -> str:
    """A committed corpus of `chunks` samples of two frames; of the first, one frame is in quarantine."""
    corpus = str(folder)
    planned = PlannedShard(0, tuple(chunk_of(index) for index in range(chunks)))
    plan = Plan({"cloud": {"voxel_size_m": 0.05}}, "0" * 64, (planned,), {})
    write_plan(corpus, plan)
    rows: list[QuarantineRow] = []
    samples = {chunk.key: members_of(chunk) for chunk in planned.chunks}
    if lost is not None:
        kept = replace(planned.chunks[0], view_ids=tuple(v for v in planned.chunks[0].view_ids if v != lost))
        samples[kept.key] = members_of(kept)
        fields: dict[str, Any] = {"uri": f"somewhere/{lost}.jpg", "scene": "room", "chunk": 0, "frame": lost}
        error = f"somewhere/{lost}.jpg: truncated JPEG"
        rows.append(QuarantineRow(**fields, stage="load", error=error, traceback="", attempt=0))
    shards.commit(corpus, plan.sha256, planned, samples, rows)
    manifest.write(corpus)
    return corpus


def test_the_page_stands_alone_and_counts_right(tmp_path: Path) -> None:
    page = inspect.render(write_corpus(tmp_path))
    assert not re.search(r"(?:src|href)=\"(?!data:)", page)  # nothing is fetched from anywhere
    assert ">5</b>" in re.sub(r"\s", "", page)  # views: 3 x 2 less one
    assert "10 masks of 5 views" in page
    assert page.count('<div class="sample">') == 3


def test_captions_cannot_inject_markup(tmp_path: Path) -> None:
    page = inspect.render(write_corpus(tmp_path))
    assert "<chair>" not in page
    assert "a red &lt;chair&gt;" in page


def test_quarantine_shows_the_reason_apart_from_the_place(tmp_path: Path) -> None:
    page = inspect.render(write_corpus(tmp_path))
    assert "<td>truncated JPEG</td>" in page
    assert "<code>somewhere/b.jpg</code>" in page
    assert "retry=true" in page
    assert "retry=true" not in inspect.render(write_corpus(tmp_path / "whole", lost=None))


def test_mask_sizes_are_told_at_512(tmp_path: Path) -> None:
    from liftgs_platform.reader import CorpusReader

    census = inspect.take_census(CorpusReader(write_corpus(tmp_path, lost=None)), 100)
    assert sorted(set(census.mask_areas)) == [round(18 * 20 * 512 * 512 / (48 * 64)), 24 * 64 * 512 * 512 // (48 * 64)]
    assert census.masks_per_view == [2] * 6


def test_small_masks_are_drawn_too() -> None:
    census = inspect.Census()
    census.mask_areas, census.masks_per_view, census.views = [10] * 99, [99], 1
    sizes, _ = inspect._charts(census)
    assert [bar["count"] for bar in sizes["bars"]] == [99] + [0] * len(inspect.MASK_BINS_PX)


def test_the_command_writes_the_page_and_says_where(tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path / "rooms")
    result = CliRunner().invoke(cli.build(), ["inspect", corpus, "--output", str(tmp_path / "page.html")])
    assert result.exit_code == 0, result.output
    assert str(tmp_path / "page.html") in result.output.replace("\n", "")
    assert (tmp_path / "page.html").stat().st_size > 10_000


def test_a_folder_without_a_corpus_is_refused_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_code:
        cli.main(["inspect", str(tmp_path)])
    assert exit_code.value.code == 1
    message = capsys.readouterr().err
    assert message.startswith(f"liftgs: {tmp_path}")
    assert message.count("\n") == 1
