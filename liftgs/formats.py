"""Versions of what is stored. Each kind of file names its own, such as "liftgs-shard/1"; one without any is version 1.

What is added to a file that older code may ignore, and newer code may miss, needs no new version.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from liftgs.scene import BadInput

UPGRADE = "upgrade liftgs"


class NewerFormat(BadInput):
    """Nothing is wrong with the data; the code is too old for it. Never a reason to write it anew."""


def check_format(content: Mapping[str, Any], known: str, uri: str) -> None:
    """See that code which knows a format up to some version may read a file.

    Args:
        content: of the file; "format" is absent or names the kind and the version.
        known: the newest version that is known, such as "liftgs-shard/1".
        uri: for messages.

    Raises:
        NewerFormat: a later version of the same kind.
        ValueError: another kind, or no version at all.
    """
    kind, _, newest = known.rpartition("/")
    found = content.get("format", f"{kind}/1")
    version = re.fullmatch(rf"{re.escape(kind)}/([1-9][0-9]{{0,8}})", str(found))
    if version is None:
        raise ValueError(f"format {found!r}, not {known!r}")
    if int(version[1]) > int(newest):
        raise NewerFormat(uri, f"{found} was written by a newer liftgs than this, which knows {known}; {UPGRADE}")
