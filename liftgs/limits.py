"""How much foreign bytes may become: a small file must not fill the memory, nor keep a process busy for hours.

What grows as it is decoded is limited here: pictures and archives. What does not (raw arrays, text, PLY, .sens) is read
no further than its file goes, whatever its header claims.
"""

from __future__ import annotations

import zipfile

from liftgs.scene import BadInput

#: Larger pictures are refused before they are decoded: no camera of a scan has more, but a forged file may.
MAX_PIXELS = 64_000_000

#: What FFmpeg may take a file for. Its playlists (HLS, concat, SDP) would open further files and addresses.
CONTAINERS = "mov,matroska,avi,mpegts"

#: Passes over a JPEG; each costs the time of a whole picture. Encoders make about ten.
MAX_SCANS = 100

#: All members of an archive together, unpacked: a cloud of 35 million points, which no window of a scan has.
MAX_UNPACKED_BYTES = 512 << 20

_SCAN = b"\xff\xda"
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)


def check_picture(width: int, height: int, data: bytes, uri: str) -> None:
    """Refuse a picture by its header.

    Raises:
        BadInput: more pixels than `MAX_PIXELS`, or more scans than `MAX_SCANS`.
    """
    if width * height > MAX_PIXELS:
        raise BadInput(uri, f"the image has {width}x{height} pixels, more than {MAX_PIXELS / 1e6:g} million")
    if data.startswith(b"\xff\xd8") and (scans := data.count(_SCAN)) > MAX_SCANS:
        raise BadInput(uri, f"the JPEG has {scans} scans, more than {MAX_SCANS}")


def read_archive(archive: zipfile.ZipFile, uri: str) -> dict[str, bytes]:
    """All members of a zip archive by name.

    Raises:
        BadInput: they claim more than `MAX_UNPACKED_BYTES`, or are packed in a way that NumPy never writes.
        zipfile.BadZipFile, zlib.error, EOFError: damaged, or a member holds something else than it claims.
    """
    members = archive.infolist()
    claimed = sum(member.file_size for member in members)
    if claimed > MAX_UNPACKED_BYTES:
        raise BadInput(
            uri, f"{len(members)} members of {claimed:,} bytes, unpacked; more than {MAX_UNPACKED_BYTES:,} are not read"
        )
    return {member.filename: read_member(archive, member, uri) for member in members}


def read_member(archive: zipfile.ZipFile, member: zipfile.ZipInfo, uri: str) -> bytes:
    """One member, which takes the memory that it claims, even if it holds more.

    Raises:
        as `read_archive`.
    """
    if member.compress_type not in _METHODS:  # of others, Python unpacks all at once
        raise BadInput(uri, f"member {member.filename!r} is neither stored nor deflated")
    with archive.open(member) as stream:
        # Not `read()`, nor `archive.read()`: they unpack all that there is before they cut it to what is claimed.
        data = stream.read(member.file_size)
        stream.read(1)  # at the end of what is claimed the checksum is compared
    return data
