"""Where a teacher's weights are: a path or any URL becomes a local file. Knows no model."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from pathlib import Path

import fsspec

from liftgs.scene import BadInput
from liftgs.secrecy import blanked


def local_checkpoint(uri: str) -> Path:
    """The local file behind a checkpoint's path or URL; what is remote is downloaded once.

    Downloads are kept under `$LIFTGS_CACHE` (default `~/.cache/liftgs`) and appear there whole or not at all, so that
    many actors of one machine may start at once.

    Args:
        uri: a path, or a URL of any kind that fsspec opens (https://, s3://, file://).

    Raises:
        BadInput: nothing there, or the download failed.
    """
    if "://" not in uri:
        path = Path(uri).expanduser()
        if not path.is_file():
            raise BadInput(uri, "no such checkpoint file; give the path or URL of an existing one")
        return path
    cache = Path(os.environ.get("LIFTGS_CACHE", "~/.cache/liftgs")).expanduser() / "checkpoints"
    name = uri.split("?", maxsplit=1)[0].rstrip("/").rsplit("/", 1)[-1]
    target = cache / f"{hashlib.sha256(uri.encode()).hexdigest()[:16]}-{name}"
    if not target.is_file():
        cache.mkdir(parents=True, exist_ok=True)
        _download(uri, target)
    return target


def _download(uri: str, target: Path) -> None:
    handle, partial = tempfile.mkstemp(dir=target.parent, prefix=target.name)
    try:
        with os.fdopen(handle, "wb") as out, fsspec.open(uri, "rb") as source:
            shutil.copyfileobj(source, out, 1 << 22)
        os.replace(partial, target)
    except Exception as error:  # fsspec's back ends raise errors of their own kinds
        said = blanked(f"{type(error).__name__}: {error}")
        raise BadInput(uri, f"cannot download this checkpoint ({said})") from None
    finally:
        Path(partial).unlink(missing_ok=True)


def file_digest(path: Path) -> str:
    """The first 16 hex digits of a file's sha256: which weights these are, whatever they are called."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]
