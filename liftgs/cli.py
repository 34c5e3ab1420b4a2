"""The `liftgs` command: one scene, one corpus, one checkpoint, no cluster.

Commands that need the platform (corpora, jobs) live there and are found through the `liftgs.commands` entry points, so
that nothing here imports it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.metadata import entry_points
from typing import Annotated

import typer

from liftgs.scene import BadInput

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="3D visual-language grounding from rendered 2D supervision. Jobs run with `ray job submit jobs/NAME.yaml`.",
)


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

    def progress(line: str) -> None:
        typer.echo(line, err=True)

    _table(f"SAM {sam}", evaluate_sam(segmenter, held_out_scenes(rooms, seed, views), progress))
    _table(f"CLIP {clip}", evaluate_clip(embedder, held_out_scenes(rooms, seed, views)))


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
    except (BadInput, FileNotFoundError) as error:
        typer.echo(f"liftgs: {error}", err=True)
        raise SystemExit(1) from None
