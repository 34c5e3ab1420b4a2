"""Fixtures that several test modules share."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import pytest
import s3

_SERVER = pytest.StashKey[s3.S3Server]()


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
        request.config.stash[_SERVER] = server
        yield server


@pytest.fixture
def s3_folder(s3_server: s3.S3Server) -> str:
    """URI of an empty folder in a new bucket."""
    import s3fs

    bucket = f"bucket-{uuid.uuid4().hex[:12]}"
    s3fs.S3FileSystem(skip_instance_cache=True).mkdir(bucket)
    return f"s3://{bucket}/corpora/small"


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Say which S3 it was, since an imitation proves less."""
    server = config.stash.get(_SERVER, None)
    if server is not None:
        imitation = ", an imitation: install ceph-mon, ceph-osd, ceph-mgr, radosgw, ceph-common for a real one"
        terminalreporter.write_line(f"S3 tests ran against {server.kind}{imitation if server.kind == 'moto' else ''}")
