"""The `liftgs` command: one scene, one corpus, one checkpoint, no cluster.

Commands that need the platform (corpora, jobs) live there and are found through the `liftgs.commands` entry points, so
that nothing here imports it.
"""

from __future__ import annotations

from collections.abc import Sequence
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
    scenes: Annotated[int, typer.Option(help="Held-out rooms of each embedded corpus.")] = 8,
    views: Annotated[int, typer.Option(help="Frames of each room.")] = 4,
    sam: Annotated[str, typer.Option(help="SAM checkpoint: 'tiny', a path or a URL.")] = "tiny",
    clip: Annotated[str, typer.Option(help="CLIP: 'tiny' or an open_clip model name.")] = "tiny",
    clip_pretrained: Annotated[str, typer.Option(help="Weights of that open_clip model: tag, path or URL.")] = "",
) -> None:
    """Score teachers on held-out procedural rooms: SAM's best mask per instance, CLIP's names for crops."""
    from liftgs.teachers.evaluate import report  # noqa: PLC0415 - torch loads only for the command that needs it

    typer.echo(report(scenes=scenes, views=views, sam=sam, clip=clip, clip_pretrained=clip_pretrained))


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
