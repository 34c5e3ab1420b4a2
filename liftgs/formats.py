"""Versions of what is stored. Each kind of file names its own, such as "liftgs-shard/1".

Models, samples and runs of version 1 may name none, as they began without.

What is added to a file that older code may ignore, and newer code may miss, needs no new version.
"""

from __future__ import annotations

import re

from liftgs.scene import BadInput

UPGRADE = "upgrade liftgs"


class NewerFormat(BadInput):
    """Nothing is wrong with the data; the code is too old for it. Never a reason to write it anew."""


def check_format(found: object, known: str, uri: str) -> None:
    """See that code which knows a format up to some version may read a file.

    Args:
        found: what the file says of itself, the kind and the version.
        known: the newest version that is known, such as "liftgs-shard/1".
        uri: for messages.

    Raises:
        NewerFormat: a later version of the same kind.
        ValueError: another kind, or no version.
    """
    kind, _, newest = known.rpartition("/")
    version = re.fullmatch(rf"{re.escape(kind)}/([1-9][0-9]{{0,8}})", str(found))
    if version is None:
        raise ValueError(f"format {found!r}, not {known!r}")
    if int(version[1]) > int(newest):
        raise NewerFormat(uri, f"{found} was written by a newer liftgs than this, which knows {known}; {UPGRADE}")
