"""The `liftgs` command: one scene, one corpus, one checkpoint, no cluster.

Commands that need the platform (corpora, jobs) live there and are found through the `liftgs.commands` entry points, so
that nothing here imports it.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from liftgs.scene import BadInput

if TYPE_CHECKING:
    from liftgs.ground import Grounding
    from liftgs.readers import ReaderOptions
    from liftgs.tasks.zero_shot import ZeroShotScores

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="3D visual-language grounding from rendered 2D supervision. Jobs run with `ray job submit jobs/NAME.yaml`.",
)

# What commands that read a scan share.
SceneUri = Annotated[str, typer.Argument(help="A scene that the readers know, `procedural:...`, or a `.ply`.")]
Frames = Annotated[int, typer.Option(help="Most frames that are read, spread over the scene.", min=1)]
Stride = Annotated[int, typer.Option(help="Consider every so many-th frame.", min=1)]
MetresPerUnit = Annotated[float, typer.Option(help="Of a .ply, COLMAP or nerfstudio scene.")]
DepthUnitsPerM = Annotated[float | None, typer.Option(help="Of depth images; 1000 is millimetres.")]
Device = Annotated[str, typer.Option(help="A torch device.")]


@app.command()
def teachers(
    rooms: Annotated[int, typer.Option(help="Held-out rooms; the three embedded corpora take turns.", min=1)] = 60,
    views: Annotated[int, typer.Option(help="Frames of each room.", min=1)] = 3,
    seed: Annotated[int, typer.Option(help="Of the rooms; 1,000,000 and more were never trained on.")] = 1_000_000,
    sam: Annotated[str, typer.Option(help="SAM checkpoint: 'tiny', a path or a URL.")] = "tiny",
    clip: Annotated[str, typer.Option(help="CLIP: 'tiny' or an open_clip model name.")] = "tiny",
    pretrained: Annotated[str, typer.Option(help="Weights of that open_clip model: a tag, path or URL.")] = "",
) -> None:
    """Score the teachers on held-out procedural rooms: SAM's best mask per instance, CLIP's names for crops."""
    # torch loads only for the command that needs it
    from liftgs.teachers.clip import Embed  # noqa: PLC0415
    from liftgs.teachers.configs import EmbedConfig, SegmentConfig  # noqa: PLC0415
    from liftgs.teachers.evaluate_clip import evaluate_clip, held_out_scenes  # noqa: PLC0415
    from liftgs.teachers.evaluate_sam import evaluate_sam  # noqa: PLC0415
    from liftgs.teachers.sam import Segment  # noqa: PLC0415

    segmenter, embedder = Segment(SegmentConfig(checkpoint=sam)), Embed(EmbedConfig(clip, pretrained))

    _table(f"SAM {sam}", evaluate_sam(segmenter, held_out_scenes(rooms, seed, views), _progress))
    _table(f"CLIP {clip}", evaluate_clip(embedder, held_out_scenes(rooms, seed, views)))


@app.command(name="zero-shot")
def zero_shot(
    checkpoint: Annotated[str, typer.Argument(help="A pretrained network: 'tiny', or a folder: a path or fsspec URL.")],
    rooms: Annotated[int, typer.Option(help="Held-out rooms; the three embedded corpora take turns.", min=1)] = 30,
    views: Annotated[int, typer.Option(help="Frames of each room.", min=1)] = 6,
    seed: Annotated[
        int, typer.Option(help="Of the rooms; 1,000,000 and more were never trained on.", min=0)
    ] = 1_000_000,
    at_once: Annotated[int, typer.Option(help="Class names that the network hears together.", min=1)] = 64,
    top_k: Annotated[int, typer.Option(help="Most instances of a scene.", min=1)] = 500,
    nms_iou: Annotated[float, typer.Option(help="Masks overlap better ones at most so far.", min=0, max=1)] = 0.25,
    untrained: Annotated[bool, typer.Option(help="Compare with a network of fresh weights.")] = True,
    device: Device = "cpu",
) -> None:
    """Score class names as queries in held-out procedural rooms: instance AP, and the best mask of each class."""
    from liftgs.ground import load  # noqa: PLC0415  as above
    from liftgs.model.text import encode_phrases  # noqa: PLC0415
    from liftgs.tasks.proposals import ProposalConfig  # noqa: PLC0415
    from liftgs.tasks.zero_shot import (  # noqa: PLC0415
        class_phrases,
        evaluate_zero_shot,
        labelled_clouds,
        untrained_twin,
    )
    from liftgs.teachers.evaluate_clip import held_out_scenes  # noqa: PLC0415

    grounder = load(checkpoint, device)
    model, queries = grounder.model, encode_phrases(class_phrases(), grounder.clip)
    config = ProposalConfig(at_once, top_k, nms_iou)
    clouds = list(labelled_clouds(held_out_scenes(rooms, seed, views)))
    found = evaluate_zero_shot(model, queries, clouds, config=config, progress=_progress)
    twin = None
    if untrained:
        twin = evaluate_zero_shot(untrained_twin(model, seed), queries, clouds, config=config, progress=_progress)
    _show_classes(found)
    _show_scores(f"{checkpoint}: zero-shot, {rooms} rooms", found, twin)


@app.command()
def ground(
    checkpoint: Annotated[str, typer.Argument(help="A pretrained network: 'tiny', or a folder: a path or fsspec URL.")],
    scene: SceneUri,
    phrases: Annotated[list[str], typer.Argument(help='What to find: "the red chair" "a table".')],
    out: Annotated[str, typer.Option(help="Folder for a coloured .ply and JSON.")] = "",
    image: Annotated[Path | None, typer.Option(help="Write a rendered picture (.png) here.")] = None,
    top: Annotated[int, typer.Option(help="Most answers to a phrase.", min=1)] = 3,
    threshold: Annotated[float, typer.Option(help="Least score of an answer.", min=0, max=1)] = 0.0,
    frames: Frames = 60,
    stride: Stride = 1,
    metres_per_unit: MetresPerUnit = 1.0,
    depth_units_per_m: DepthUnitsPerM = None,
    device: Device = "cpu",
) -> None:
    """Find what phrases name in a scan: masks, boxes and scores."""
    if not all(phrase.strip() for phrase in phrases):
        raise typer.BadParameter('a phrase is empty; say what to find, like "the red chair"')
    from liftgs.ground import files, load, open_scan, picture  # noqa: PLC0415  as above
    from liftgs.ground import ground as find  # noqa: PLC0415

    options = _reader_options(metres_per_unit, depth_units_per_m)
    grounder = load(checkpoint, device)
    voxel_size_m = grounder.model.config.voxel_size_m
    scan = open_scan(scene, voxel_size_m, frames, stride, options)
    found = find(grounder, scan, phrases, top, threshold)
    _show_matches(found)
    written = files.write(found, out, checkpoint, voxel_size_m) if out else []
    if image is not None:
        picture.save(found, image)
        written.append(str(image))
    for path in written:
        typer.echo(f"wrote {path}", err=True)


@app.command()
def view(
    scene: SceneUri,
    checkpoint: Annotated[
        str, typer.Option(help="A pretrained network: 'tiny', or a folder: a path or fsspec URL.")
    ] = "tiny",
    host: Annotated[
        str,
        typer.Option(help="Where to listen. Any other than the default is open to the network, without a password."),
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="0 takes any that is free.", min=0, max=65535)] = 8080,
    open_browser: Annotated[bool, typer.Option("--open/--no-open", help="Open it in the browser.")] = True,
    frames: Frames = 60,
    stride: Stride = 1,
    metres_per_unit: MetresPerUnit = 1.0,
    depth_units_per_m: DepthUnitsPerM = None,
    device: Device = "cpu",
) -> None:
    """Look at a scan in the browser; what you type lights up. Ctrl-C ends."""
    try:
        from liftgs.viewer.page import Page, check_address  # noqa: PLC0415  as above
    except ModuleNotFoundError as error:
        if error.name != "viser":
            raise
        typer.echo("liftgs: the viewer needs viser: pip install 'liftgs[viewer]'", err=True)
        raise typer.Exit(1) from None
    from liftgs.ground import encode, load, open_scan  # noqa: PLC0415

    options = _reader_options(metres_per_unit, depth_units_per_m)
    try:
        check_address(host, port)  # before the work
    except OSError as error:
        raise typer.BadParameter(str(error)) from None
    grounder = load(checkpoint, device)
    scan = open_scan(scene, grounder.model.config.voxel_size_m, frames, stride, options)
    page = Page(grounder, encode(grounder, scan), host, port)
    typer.echo(f"{scene} is at {page.url}; Ctrl-C ends")
    if open_browser:
        typer.launch(page.url)
    try:
        threading.Event().wait()
    except KeyboardInterrupt:
        pass
    finally:
        page.close()


def _reader_options(metres_per_unit: float, depth_units_per_m: float | None) -> ReaderOptions:
    from liftgs.readers import ReaderOptions  # noqa: PLC0415

    try:
        return ReaderOptions(metres_per_unit=metres_per_unit, depth_units_per_m=depth_units_per_m)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


@app.command()
def video(
    source: Annotated[str, typer.Argument(help="A video: a path or fsspec URL. Poses may be in NAME.transforms.json.")],
    out: Annotated[str, typer.Argument(help="The scene folder to make, on this machine.")],
    max_frames: Annotated[int, typer.Option(help="Most keyframes.", min=5)] = 300,
    min_motion: Annotated[
        float, typer.Option(help="Between keyframes, as a fraction of the picture's longer side.", min=0.001, max=0.1)
    ] = 0.05,
    long_side_px: Annotated[int, typer.Option(help="Of the stored photos.", min=64)] = 1280,
    median_distance_m: Annotated[
        float, typer.Option(help="From the camera to what it sees; sets the scale of a video without poses.")
    ] = 2.5,
) -> None:
    """Make a scene folder of a video: keyframes, cameras by structure from motion, a sparse cloud.

    Started again it goes on where it was stopped; OUT appears when it is whole. Without poses the scale is a guess and
    up is estimated. Poses beside the video are nerfstudio's transforms.json whose frames have "frame", their position
    in the video, instead of "file_path".
    """
    try:
        from liftgs.video import VideoConfig, convert  # noqa: PLC0415  as above
        from liftgs.video.keyframes import KeyframeConfig  # noqa: PLC0415
    except ModuleNotFoundError as error:
        typer.echo(f"liftgs: {error}; videos need the extra: pip install 'liftgs[sfm]'", err=True)
        raise typer.Exit(1) from None
    try:
        config = VideoConfig(KeyframeConfig(min_motion, max_frames), long_side_px, median_distance_m)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    convert(source, out, config, _progress)
    typer.echo(f"wrote {out}", err=True)


def _progress(line: str) -> None:
    typer.echo(line, err=True)


def _show_matches(found: Grounding) -> None:
    table = Table(title=f"{found.scan.uri}: {len(found.scan.cloud):,} points", title_justify="left")
    table.add_column("phrase")
    for column in ("rank", "score", "points", "box centre (m)", "box size (m)"):
        table.add_column(column, justify="right")
    for phrase in found.phrases:
        matches = [match for match in found.matches if match.phrase == phrase]
        for match in matches:
            centre, size = (" ".join(f"{value:.2f}" for value in values) for values in (match.centre, match.size))
            name = phrase if match.rank == 1 else ""
            table.add_row(name, str(match.rank), f"{match.score:.3f}", f"{len(match.points):,}", centre, size)
        if not matches:
            table.add_row(phrase, "-", "-", "0", "nothing found", "")
    Console().print(table)


def _show_scores(title: str, found: ZeroShotScores, twin: ZeroShotScores | None) -> None:
    table = Table(title=title, title_justify="left")
    for column in ("%", "network", *(("untrained", "ratio") if twin else ())):
        table.add_column(column, justify="left" if column == "%" else "right")
    plain = twin.summary() if twin else {}
    for name, value in found.summary().items():
        row = [name, f"{100 * value:.2f}"]
        if twin:
            row += [f"{100 * plain[name]:.2f}", f"{value / plain[name]:.1f}" if plain[name] else "inf"]
        table.add_row(*row)
    Console().print(table)


def _show_classes(found: ZeroShotScores) -> None:
    table = Table(title="AP by class, %", title_justify="left")
    for column in ("class", "instances", "AP", "AP50", "AP25"):
        table.add_column(column, justify="left" if column == "class" else "right")
    for name, count, row in found.by_class():
        table.add_row(name, str(count), *(f"{100 * value:.1f}" for value in row))
    Console().print(table)


def _table(title: str, scores: Mapping[str, float]) -> None:
    typer.echo(f"\n{title}")
    for name, value in scores.items():
        typer.echo(f"  {name:<32} {value:>10,}" if isinstance(value, int) else f"  {name:<32} {value:>10.3f}")


def build() -> typer.Typer:
    """The command line with the platform's commands."""
    present = {command.name for command in app.registered_commands}
    for command in sorted(entry_points(group="liftgs.commands"), key=lambda point: point.name):
        if command.name not in present:
            app.command(name=command.name)(command.load())
    return app


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point; bad input ends in one line on stderr and exit code 1."""
    try:
        build()(arguments)
    except (BadInput, OSError) as error:
        typer.echo(f"liftgs: {error}", err=True)
        raise SystemExit(1) from None
