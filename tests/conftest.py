"""Fixtures that several test modules share."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import s3

#: Which S3 the tests ran against, once one has asked for it.
_KIND = pytest.StashKey[str]()


@pytest.fixture(scope="session")
def s3_server(request: pytest.FixtureRequest) -> Iterator[s3.S3Server]:
    """An S3 server; the environment of this process, and of those it starts, points to it and to nothing else."""
    with s3.serve() as server, pytest.MonkeyPatch.context() as patch:
        if server is None:
            pytest.skip("needs Ceph (radosgw, ceph-mon, ceph-osd) or moto[server]")
        for name in s3.client_variables():
            patch.delenv(name)
        for name, value in server.environment.items():
            patch.setenv(name, value)
        request.config.stash[_KIND] = server.kind
        getattr(request.config, "workeroutput", {})["s3"] = server.kind  # of a process of `pytest -n`, to the first one
        yield server


@pytest.fixture
def s3_folder(s3_server: s3.S3Server) -> str:
    """URI of an empty folder in a new bucket."""
    import s3fs

    bucket = f"bucket-{uuid.uuid4().hex[:12]}"
    s3fs.S3FileSystem(skip_instance_cache=True).mkdir(bucket)
    return f"s3://{bucket}/corpora/small"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The platform's first: theirs are the long files, and `pytest -n` would wait for one that comes last."""
    items.sort(key=lambda item: Path(__file__).with_name("platform") not in item.path.parents)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any, error: object) -> None:
    """What a process of `pytest -n` has told, as it ends."""
    if kind := getattr(node, "workeroutput", {}).get("s3"):
        node.config.stash[_KIND] = kind


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Say which S3 it was, since an imitation proves less."""
    kind = config.stash.get(_KIND, None)
    if kind is not None:
        imitation = ", an imitation: install ceph-mon, ceph-osd, ceph-mgr, radosgw, ceph-common for a real one"
        terminalreporter.write_line(f"S3 tests ran against {kind}{imitation if kind == 'moto' else ''}")
