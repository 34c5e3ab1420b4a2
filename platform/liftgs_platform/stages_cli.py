"""`liftgs stages FOLDER`: what sweeps have made; and one stage by itself, without Ray, on this or any machine."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from liftgs_platform.job import JobFailed
from liftgs_platform.progress import clock
from liftgs_platform.stages import Store, run_without_ray


def stages(
    folder: Annotated[str, typer.Argument(help="Folder of a sweep's stages, or URL (s3://...).")],
    run: Annotated[
        str, typer.Option(help="Do this stage here, in this process: its folder's name, or how its hash begins.")
    ] = "",
    cpus: Annotated[int, typer.Option(help="Threads to compute with.", min=1)] = 1,
    gpu: Annotated[bool, typer.Option("--gpu", help="Train and evaluate on this machine's GPU.")] = False,
) -> None:
    """List the stages that sweeps share, or run one.

    A stage's folder may be copied to another machine, say one with a GPU, done there, and copied back.
    """
    store = Store(folder)
    try:
        if run:
            stage = store.load(run)
            run_without_ray(store, [stage], cpus, gpu)
            typer.echo(f"done: {stage.title}: {store.folder(stage)}")
            return
        ends = store.all_done()
        table = Table("stage", "what", "state", "took")
        for name, known in sorted(store.known().items()):
            if isinstance(known, JobFailed):
                table.add_row(name, str(known), "unreadable", "")
                continue
            done = ends.get(name)
            table.add_row(name, known.title, "done" if done else "not done", clock(done.seconds) if done else "")
        Console().print(table)
    except JobFailed as fault:
        typer.echo(str(fault), err=True)
        raise typer.Exit(1) from None
