"""A shard's bytes are a function of its content, and every tool reads the same out of them."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import zlib
from io import BytesIO
from pathlib import Path

import pytest
import tiny_corpora
import webdataset
from hypothesis import given, settings
from hypothesis import strategies as st

from liftgs_platform.tars import build_tar

SAMPLES = {chunk.key: tiny_corpora.sample(chunk) for chunk in tiny_corpora.chunks()}

# Among the letters some that no plain tar header can hold.
keys = st.text("abcdefghijklmnopqrstuvwxyz0123456789-_é漢", min_size=1, max_size=120)
names = st.text("abcdefghijklmnopqrstuvwxyz0123456789_.", min_size=1, max_size=60).filter(lambda name: name[0] != ".")
members = st.dictionaries(names, st.binary(max_size=2000), max_size=4)


@settings(max_examples=40, deadline=None)
@given(st.dictionaries(keys, members, max_size=4))
def test_any_content_reads_back_by_tarfile_and_by_span(samples):
    tar, spans = build_tar(samples)
    with tarfile.open(fileobj=BytesIO(tar), mode="r:") as archive:
        read = {entry.name: archive.extractfile(entry).read() for entry in archive}
        offsets = {entry.name: entry.offset_data for entry in archive}
    assert read == {f"{key}.{name}": data for key, held in samples.items() for name, data in held.items()}
    for key, held in spans.items():
        for name, span in held.items():
            data = samples[key][name]
            assert span == (offsets[f"{key}.{name}"], len(data), zlib.crc32(data))
            assert tar[span.offset : span.offset + span.size] == data


def test_tar_tarfile_and_webdataset_read_the_same(tmp_path: Path):
    path = tmp_path / "000000.tar"
    path.write_bytes(build_tar(SAMPLES)[0])
    listed = subprocess.run(["tar", "tf", path], capture_output=True, text=True, check=True)
    expected = [f"{key}.{name}" for key in sorted(SAMPLES) for name in sorted(SAMPLES[key])]
    assert listed.stdout.split() == expected
    assert listed.stderr == ""
    read = {}
    for item in webdataset.WebDataset(str(path), shardshuffle=False, empty_check=False):
        assert item["__key__"] not in read, "members of one key lie side by side"
        read[item["__key__"]] = {name: data for name, data in item.items() if not name.startswith("__")}
    assert read == SAMPLES


def test_a_tar_of_no_samples_is_a_tar(tmp_path: Path):
    path = tmp_path / "000000.tar"
    path.write_bytes(build_tar({})[0])
    assert subprocess.run(["tar", "tf", path], capture_output=True, check=True).stdout == b""
    assert list(webdataset.WebDataset(str(path), shardshuffle=False, empty_check=False)) == []


def test_bytes_do_not_depend_on_order_process_user_or_umask():
    code = (
        "import sys, tiny_corpora; from liftgs_platform.tars import build_tar;"
        "samples = {chunk.key: tiny_corpora.sample(chunk) for chunk in reversed(tiny_corpora.chunks())};"
        "sys.stdout.buffer.write(build_tar(samples)[0])"
    )
    outputs = set()
    for seed, umask in (("1", 0o077), ("2", 0o000)):
        environment = os.environ | {"PYTHONHASHSEED": seed, "TZ": f"UTC{seed}"}
        ran = subprocess.run(
            [sys.executable, "-c", code],
            cwd=Path(__file__).parent,
            env=environment,
            umask=umask,
            capture_output=True,
            check=True,
        )
        outputs.add(ran.stdout)
    assert outputs == {build_tar(SAMPLES)[0]}


@pytest.mark.parametrize(
    ("key", "name"),
    [("scene0000_00.v2-000", "cloud.npz"), ("a/b", "cloud.npz"), ("a b", "cloud.npz"), ("", "cloud.npz"),
     ("a", "x/y.png"), ("a", "00.RGB.jpg"), ("a", ".png"), ("a", "")],
)  # fmt: skip
def test_names_that_webdataset_would_read_as_others_are_refused(key: str, name: str):
    with pytest.raises(ValueError, match="cannot be a WebDataset"):
        build_tar({key: {name: b""}})
