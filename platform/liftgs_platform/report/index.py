"""`liftgs runs FOLDER`: what jobs have left there, as a table, and as `index.html` that links their pages."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Annotated
from urllib.parse import quote

import typer

from liftgs_platform import storage
from liftgs_platform.report.page import fill
from liftgs_platform.runs import Run, find


def runs(
    folder: Annotated[str, typer.Argument(help="Folder or URL (s3://...) with outputs of jobs, at any depth.")] = ".",
    page: Annotated[bool, typer.Option("--page/--no-page", help="Write index.html into the folder.")] = True,
) -> None:
    """List corpora, trainings, evaluations and sweeps below a folder, and link their pages from its index.html."""
    from rich.console import Console  # noqa: PLC0415  only this command needs them
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    found = find(folder)
    table = Table(title=f"{folder}: {summary(found)}", title_justify="left")
    for column in ("kind", "name", "state", "submitted", "what came out"):
        table.add_column(column)
    for run in found:
        cells = (run.kind, run.name, run.state, when(run.started), run.figure)
        table.add_row(*map(Text, cells))  # names may look like markup
    Console().print(table)
    if page:
        uri = storage.join(folder, "index.html")
        storage.write_bytes(uri, render(folder, found).encode())
        typer.echo(f"wrote {uri}: open it in a browser", err=True)


def render(folder: str, found: Sequence[Run]) -> str:
    """The page; its links are relative, so that the folder may be moved."""
    kinds = dict.fromkeys(run.kind for run in found)
    return fill(
        "index",
        name=storage.name_of(folder) or folder,
        uri=folder,
        summary=summary(found),
        groups={kind: [run for run in found if run.kind == kind] for kind in kinds},
        link=lambda path: "./" + quote(path),  # a name with a colon must not become a scheme
        when=when,
    )


def summary(found: Sequence[Run]) -> str:
    """How many of each kind."""
    counted = Counter(run.kind for run in found)
    return ", ".join(f"{count} {kind}" for kind, count in counted.items()) or "no output of a job is here"


def when(started: str) -> str:
    """2026-01-31T12:34:56+00:00 -> 2026-01-31 12:34."""
    return started[:16].replace("T", " ")
