"""`liftgs verify` and `liftgs gc`: what a person runs on a corpus. Found by the `liftgs` command as entry points."""

from __future__ import annotations

from typing import Annotated

import typer

from liftgs_platform import storage

Corpus = Annotated[str, typer.Argument(help="Corpus folder or URL (s3://...).")]


def verify(
    corpus: Corpus,
    deep: Annotated[bool, typer.Option("--deep", help="Decode every photo, depth map, mask and array too.")] = False,
) -> None:
    """Check every byte of a corpus against its commits; a line per fault, with its mending. Exit code 1 if any."""
    from liftgs_platform.manifest import read_manifest  # noqa: PLC0415 - torch-free, but NumPy and Pillow take a moment
    from liftgs_platform.verify import verify as check  # noqa: PLC0415

    faults = 0
    for fault in check(corpus, deep):
        faults += 1
        typer.echo(str(fault))
    if faults:
        typer.echo(f"{corpus}: {faults} fault{'s' if faults > 1 else ''}", err=True)
        raise typer.Exit(1)
    found = read_manifest(corpus)
    counts, lost = found["counts"], found["quarantine"]["rows"]
    typer.echo(
        f"{corpus}: sound. {len(found['shards']):,} shards, {counts['samples']:,} samples, {counts['views']:,} views, "
        f"{lost:,} row{'' if lost == 1 else 's'} in quarantine"
    )


def gc(
    corpus: Corpus,
    delete: Annotated[bool, typer.Option("--delete", help="Remove them; otherwise they are only listed.")] = False,
    older_than_s: Annotated[
        float, typer.Option(help="Leave younger files alone: a running job may be about to commit them.", min=0)
    ] = 3600.0,
) -> None:
    """List, or remove, what killed writers left in a corpus: tars without a commit, half-written files."""
    from liftgs_platform.verify import orphans  # noqa: PLC0415

    found = orphans(corpus, older_than_s)
    for uri in found:
        if delete:
            storage.delete(uri)
        typer.echo(f"{'deleted' if delete else 'orphan'} {uri}")
    hint = "" if delete or not found else "; --delete removes them"
    typer.echo(f"{corpus}: {len(found)} orphan{'' if len(found) == 1 else 's'}{' removed' if delete else ''}{hint}")
