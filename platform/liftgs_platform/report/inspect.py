"""`liftgs inspect CORPUS`: one self-contained HTML page that shows what is in a corpus."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from liftgs_platform import storage
from liftgs_platform.report.page import fill

MASK_BINS_PX = [2.0**power for power in range(6, 20)]


@dataclass
class Census:
    """What was counted over the views that were read."""

    views: int = 0
    mask_areas: list[int] = field(default_factory=list)  # scaled to 512x512
    masks_per_view: list[int] = field(default_factory=list)
    names: Counter[str] = field(default_factory=Counter)


def inspect(
    corpus: Annotated[str, typer.Argument(help="Corpus folder or URL (s3://...).")],
    output: Annotated[Path | None, typer.Option(help="Where the page goes; default: NAME.html in this folder.")] = None,
    samples: Annotated[int, typer.Option(help="Samples in the contact sheet.", min=1)] = 12,
    census_views: Annotated[int, typer.Option(help="Most views to read for the histograms.", min=1)] = 2000,
) -> None:
    """Write one HTML page about a corpus: counts, histograms, quarantine, photos with their masks and captions."""
    page = render(corpus, samples, census_views)
    target = output or Path(storage.name_of(corpus) + ".html")
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(page, encoding="utf-8")
    typer.echo(f"wrote {target} ({len(page) / 1e6:.1f} MB): open it in a browser")


def render(corpus: str, samples: int = 12, census_views: int = 2000) -> str:
    """The page.

    Args:
        corpus: folder or URL.
        samples: how many to show, spread evenly over the corpus.
        census_views: how many views, spread evenly, the histograms count.

    Raises:
        FileNotFoundError: no corpus there.
    """
    from liftgs_platform.manifest import read_manifest, read_quarantine  # noqa: PLC0415
    from liftgs_platform.reader import CorpusReader  # noqa: PLC0415

    manifest = read_manifest(corpus)
    quarantine = read_quarantine(corpus)
    reader = CorpusReader(corpus)
    census = take_census(reader, census_views)
    return fill(
        "inspect",
        name=storage.name_of(corpus),
        uri=corpus,
        spec_hash=manifest["spec_hash"],
        tiles=_tiles(manifest, quarantine),
        charts=_charts(census),
        names=census.names.most_common(8),
        quarantine=_reasons(quarantine),
        samples=[_sample(reader, place) for place in _spread(len(reader), samples)],
    )


def take_census(reader: Any, most_views: int) -> Census:
    """Count masks and captions over at most `most_views` views, whole samples, spread evenly over the corpus."""
    from liftgs.sample import decode_sample  # noqa: PLC0415

    census = Census()
    if not len(reader):
        return census
    views_per_sample = max(1, round(reader.contents.head["counts"]["views"] / len(reader)))
    for place in _spread(len(reader), max(1, most_views // views_per_sample)):
        sample = decode_sample(reader[place], f"{reader.corpus}#{reader.key(place)}")
        for view in sample.views:
            census.views += 1
            if view.segments is None:
                continue
            areas = np.bincount(view.segments.semantics.ravel(), minlength=1)[1:]
            height, width = view.segments.semantics.shape
            census.mask_areas += (areas * (512 * 512 / (height * width))).round().astype(int).tolist()
            census.masks_per_view.append(len(areas))
            census.names.update(view.segments.captions or ())
    return census


def _spread(samples: int, count: int) -> list[int]:
    """`count` samples at even distances, or all if there are fewer."""
    return [int(i * samples / count) for i in range(count)] if samples > count else list(range(samples))


def _tiles(manifest: dict[str, Any], quarantine: Sequence[Any]) -> list[dict[str, Any]]:
    counts = manifest["counts"]
    size = sum(shard["size"] for shard in manifest["shards"])
    tiles: list[dict[str, Any]] = [
        {"label": name, "value": f"{counts[name]:,}"}
        for name in ("samples", "views", "segments", "captions", "points", "expressions")
        if counts.get(name)
    ]
    tiles.append({"label": f"in {len(manifest['shards']):,} shards", "value": human_bytes(size)})
    tiles.append({"label": "quarantined", "value": f"{len(quarantine):,}", "bad": bool(quarantine)})
    return tiles


def human_bytes(size: float) -> str:
    """1536 -> "1.5 kB"; powers of 1000."""
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" or size >= 100 else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"


def _charts(census: Census) -> list[dict[str, Any]]:
    if not census.mask_areas:
        return []
    most = max(census.masks_per_view)
    step = max(1, -(-(most + 1) // 40))
    edges = list(range(0, most + step + 1, step))
    return [
        _chart(
            "Mask size (pixels at 512×512)",
            np.histogram(census.mask_areas, [0, *MASK_BINS_PX, np.inf])[0],
            [f"under {int(MASK_BINS_PX[0])}", *(f"{int(edge)} to {int(edge) * 2}" for edge in MASK_BINS_PX)],
            ["", *(f"2{_superscript(i + 6)}" for i in range(len(MASK_BINS_PX)))],
            f"{len(census.mask_areas):,} masks of {census.views:,} views; median "
            f"{int(np.median(census.mask_areas)):,} px",
        ),
        _chart(
            "Masks per frame",
            np.histogram(census.masks_per_view, edges)[0],
            [str(edge) if step == 1 else f"{edge} to {edge + step - 1}" for edge in edges[:-1]],
            [str(edge) if i % max(1, len(edges) // 10) == 0 else "" for i, edge in enumerate(edges[:-1])],
            f"mean {np.mean(census.masks_per_view):.1f}, of {census.views:,} views; "
            f"{census.masks_per_view.count(0)} views have none",
        ),
    ]


def _superscript(number: int) -> str:
    return str(number).translate(str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹"))


def _chart(title: str, counts: Iterable[int], labels: list[str], ticks: list[str], note: str) -> dict[str, Any]:
    """Bars in a 400x150 drawing with its base line at y = 132."""
    heights = [int(count) for count in counts]
    highest, width = max(heights), 400 / len(heights)
    bars = [
        {
            "x": round(i * width + 1, 1),
            "y": round(132 - 116 * count / highest, 1),
            "width": round(width - 2, 1),
            "height": round(116 * count / highest, 1),
            "label": label,
            "count": count,
            "tick": tick,
        }
        for i, (count, label, tick) in enumerate(zip(heights, labels, ticks, strict=True))
    ]
    return {"title": title, "bars": bars, "highest": f"{highest:,}", "note": note}


def _reasons(quarantine: Sequence[Any]) -> list[dict[str, Any]]:
    """Rows grouped by stage and reason, most frequent first; a reason is the error without the URI it starts with."""
    groups: dict[tuple[str, str], list[Any]] = {}
    for row in quarantine:
        reason = row["error"].removeprefix(f"{row['uri']}: ")
        groups.setdefault((row["stage"], reason), []).append(row)
    ordered = sorted(groups.items(), key=lambda group: (-len(group[1]), group[0]))
    return [
        {"stage": stage, "reason": reason, "count": len(rows), "example": rows[0]["uri"]}
        for (stage, reason), rows in ordered
    ]


def _sample(reader: Any, place: int) -> dict[str, Any]:
    """Pictures and words of one sample: a view as photo and masks; the cloud from there and from above."""
    from liftgs.sample import decode_sample  # noqa: PLC0415
    from liftgs_platform.report import drawing  # noqa: PLC0415

    key = reader.key(place)
    sample = decode_sample(reader[place], f"{reader.corpus}#{key}")
    view = max(sample.views, key=lambda candidate: 0 if candidate.segments is None else len(candidate.segments))
    voxel_m = float(reader.contents.head["spec"]["cloud"]["voxel_size_m"])
    pictures = [{"uri": drawing.data_uri(view.photo), "caption": f"photo {view.id}"}]
    chips: list[dict[str, str]] = []
    if view.segments is not None:
        captions = list(view.segments.captions or [])
        masks = drawing.overlay(view.photo, view.segments.semantics)
        pictures.append({"uri": drawing.data_uri(masks), "caption": f"{len(view.segments)} masks"})
        colours = drawing.segment_colours(len(view.segments))
        chips = [
            {"text": caption, "colour": "#" + colour.tobytes().hex()}
            for caption, colour in zip(captions, colours, strict=False)
        ]
    same_view = drawing.splat(sample.cloud, view.camera, voxel_m)
    pictures.append({"uri": drawing.data_uri(same_view), "caption": "cloud, same camera"})
    cloud = sample.cloud
    if sample.meta.get("gravity") == "z-up":
        low, high = cloud.xyz[:, 2].min(), cloud.xyz[:, 2].max()
        cloud = cloud[cloud.xyz[:, 2] < high - 0.12 * (high - low)]  # without the ceiling, to look into the room
    above = drawing.splat(cloud, drawing.overhead_camera(cloud.xyz, 384), voxel_m)
    pictures.append({"uri": drawing.data_uri(above), "caption": "cloud from above"})
    expressions = [] if sample.labels is None else [expression.text for expression in sample.labels.expressions[:4]]
    return {
        "key": key,
        "note": f"{len(sample.views)} views · {len(sample.cloud):,} points · {sample.meta['scene_uri']}",
        "pictures": pictures,
        "chips": chips,
        "expressions": expressions,
    }
