"""The guarantees of a corpus hold on S3 too: commits, listings, ranges, kills, and errors without secrets."""

from __future__ import annotations

import hashlib
import os
import random
import re
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import s3
import test_shards
import tiny
import tiny_corpora
from clusters import ROOT, start_cluster

from liftgs.scene import BadInput
from liftgs_platform import manifest, pseudolabel, shards, spec, storage
from liftgs_platform.pseudolabel import Spec
from liftgs_platform.reader import CorpusReader
from liftgs_platform.shard_plan import write_plan
from liftgs_platform.verify import orphans, verify


def content(corpus: str) -> dict[str, bytes]:
    return {uri.removeprefix(corpus): storage.read_bytes(uri) for uri in storage.list_files(corpus)}


def test_bytes_ranges_and_listings(s3_folder: str):
    uri = storage.join(s3_folder, "a", "b")
    for data in (b"old", b"", b"0123456789"):
        storage.write_bytes(uri, data)
        assert storage.read_bytes(uri) == data
        assert storage.list_files(s3_folder) == {uri: len(data)}, "listings are never stale"
    assert storage.read_bytes(uri, 3, 4) == b"3456"
    assert storage.read_bytes(uri, 8, 100) == b"89"
    assert storage.read_bytes(uri, 10, 5) == b""
    assert storage.read_bytes(uri, 10) == b""
    assert abs(storage.modified_s(uri) - time.time()) < 60
    assert not storage.exists(storage.join(s3_folder, "a")), "a prefix is not a file"
    storage.delete(uri)
    storage.delete(uri)
    assert storage.list_files(s3_folder) == {}


def test_what_another_process_writes_is_seen(s3_folder: str):
    uri = storage.join(s3_folder, "x")
    assert storage.list_files(s3_folder) == {}
    assert not storage.exists(uri)
    code = f"from liftgs_platform import storage; storage.write_bytes({uri!r}, b'theirs')"
    subprocess.run([sys.executable, "-c", code], check=True)
    assert storage.list_files(s3_folder) == {uri: 6}
    assert storage.read_bytes(uri) == b"theirs"


def test_a_large_object_goes_up_in_parts_and_comes_back_whole(s3_folder: str):
    data = os.urandom(1 << 20) * 101  # above s3fs's limit for one PUT
    uri = storage.join(s3_folder, "large")
    storage.write_bytes(uri, data)
    assert hashlib.sha256(storage.read_bytes(uri)).digest() == hashlib.sha256(data).digest()
    assert storage.read_bytes(uri, 60 << 20, 1 << 20) == data[: 1 << 20]


def test_listings_have_no_page_limit(s3_folder: str):
    names = [f"{s3_folder}/shards/{i:06d}.json" for i in range(1050)]  # S3 answers 1000 at a time
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda uri: storage.write_bytes(uri, b"{}"), names))
    assert list(storage.list_files(s3_folder)) == names


def test_a_corpus_is_the_same_bytes_as_on_a_disk(s3_folder: str, tmp_path: Path):
    plan = tiny_corpora.plan()
    lost = [tiny_corpora.row(plan.shards[0].chunks[0], "frame-0001")]
    for corpus in (s3_folder, str(tmp_path)):
        tiny_corpora.write(corpus, plan, lost)
    assert content(s3_folder) == content(str(tmp_path))
    assert list(verify(s3_folder, deep=True)) == []
    assert shards.committed_indices(s3_folder) == [0, 1, 2]
    assert list(CorpusReader(s3_folder)) == list(CorpusReader(str(tmp_path)))
    with ThreadPoolExecutor(8) as pool:
        found = CorpusReader(s3_folder)
        assert list(pool.map(found.read, found.keys)) == list(CorpusReader(str(tmp_path)))


def test_committing_twice_is_harmless(s3_folder: str):
    plan = tiny_corpora.plan()
    with ThreadPoolExecutor(4) as pool:
        indices = list(pool.map(lambda _: tiny_corpora.commit(s3_folder, plan, plan.shards[0]), range(8)))
    assert len({index.encode() for index in indices}) == 1
    assert len(storage.list_files(s3_folder)) == 2


def test_an_overwritten_tar_is_noticed_and_named(s3_folder: str):
    tiny_corpora.write(s3_folder, tiny_corpora.plan())
    found = CorpusReader(s3_folder)
    tar = shards.tar_uri(s3_folder, 1)
    storage.write_bytes(tar, storage.read_bytes(shards.tar_uri(s3_folder, 2)))
    with pytest.raises(BadInput, match=rf"{tar}#room0-002\.[\w.]+: differs from what was committed"):
        found.read("room0-002")
    storage.write_bytes(tar, storage.read_bytes(tar)[:2000])
    assert any("000001.tar: 2000 bytes instead of" in str(fault) for fault in verify(s3_folder))
    storage.delete(tar)
    with pytest.raises(FileNotFoundError, match=f"{tar}: no such file"):
        found.read("room0-002")
    assert [str(fault) for fault in verify(s3_folder)] == [
        f"{tar}: committed, but the tar is gone; submit the job again to label it again"
    ]


def test_orphans_on_s3(s3_folder: str):
    tiny_corpora.write(s3_folder, tiny_corpora.plan())
    storage.delete(shards.index_uri(s3_folder, 1))
    assert orphans(s3_folder) == [], "it is young"
    assert orphans(s3_folder, older_than_s=0) == [shards.tar_uri(s3_folder, 1)]


def test_the_commands_take_s3(s3_folder: str):
    tiny_corpora.write(s3_folder, tiny_corpora.plan())
    code = "from liftgs.cli import main; main()"
    ran = subprocess.run(
        [sys.executable, "-c", code, "verify", "--deep", s3_folder], capture_output=True, text=True, check=False
    )
    assert ran.stdout == f"{s3_folder}: sound. 3 shards, 6 samples, 12 views, 0 rows in quarantine\n", ran.stderr


# --- killed writers ------------------------------------------------------------------------------------------------


def test_killed_writer_leaves_no_readable_part_of_a_shard(s3_folder: str):
    killed, undisturbed = f"{s3_folder}/killed", f"{s3_folder}/undisturbed"
    for corpus in (killed, undisturbed):
        write_plan(corpus, test_shards.big_plan())
    test_shards.kill_at_random(killed, kills=3)
    assert 0 < len(shards.committed_indices(killed)) < 30, "the kills hit writers at work"
    for corpus in (killed, undisturbed):
        test_shards.commit_big(corpus)
        manifest.write(corpus)
    assert content(killed) == content(undisturbed)
    assert list(verify(killed)) == []


def test_an_upload_in_parts_that_is_killed_leaves_the_old_object(s3_folder: str):
    uri = storage.join(s3_folder, "large")
    storage.write_bytes(uri, b"old")
    code = (
        "from liftgs_platform import storage; data = bytes(300 << 20); print('ready', flush=True)\n"
        f"storage.write_bytes({uri!r}, data); print('done', flush=True)"
    )
    writer = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    assert writer.stdout.readline() == b"ready\n"
    time.sleep(random.Random(0).uniform(0.1, 0.3))
    writer.send_signal(signal.SIGKILL)
    said = writer.communicate()[0]
    assert storage.size_of(uri) == (300 << 20 if said else 3)


# --- what cannot be had --------------------------------------------------------------------------------------------


def test_missing_objects_and_buckets_are_told_apart(s3_folder: str):
    nowhere = "s3://no-such-bucket-here/corpus"
    with pytest.raises(FileNotFoundError, match=f"^{s3_folder}/x: no such file$"):
        storage.read_bytes(f"{s3_folder}/x")
    for attempt in (storage.read_bytes, storage.list_files, lambda uri: storage.write_bytes(uri, b"x")):
        with pytest.raises(FileNotFoundError, match=f"^{nowhere}: no such bucket$"):
            attempt(nowhere)
    with pytest.raises(FileNotFoundError, match=nowhere):
        CorpusReader(nowhere)


def test_no_error_tells_a_credential(s3_server: s3.S3Server, s3_folder: str):
    """With a wrong secret every verb fails, in a process of its own, since clients keep what they began with."""
    if s3_server.kind == "moto":
        pytest.skip("moto takes any credentials")
    code = (
        "import traceback; from liftgs_platform import storage; from liftgs_platform.storage import StorageError\n"
        f"uri = {s3_folder + '/x'!r}\n"
        "verbs = [storage.read_bytes, storage.list_files, storage.exists, storage.delete]\n"
        "for verb in [*verbs, lambda uri: storage.write_bytes(uri, b'x')]:\n"
        "    try: verb(uri); print('went through')\n"
        "    except StorageError as error: print('refused', error); traceback.print_exc()\n"
    )
    secret = "wrong/" + s3_server.secret_key[:20]
    environment = os.environ | {"AWS_SECRET_ACCESS_KEY": secret}
    ran = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert len(re.findall(rf"^refused cannot .*{s3_folder}/x: ", ran.stdout, re.M)) == 5, ran.stdout
    for text in (ran.stdout, ran.stderr):
        assert secret not in text
        assert s3_server.access_key not in text
        assert s3_server.secret_key not in text


def test_nothing_that_is_stored_tells_a_credential(s3_server: s3.S3Server, s3_folder: str):
    tiny_corpora.write(s3_folder, tiny_corpora.plan())
    stored = b"".join(content(s3_folder).values())
    for secret in (s3_server.access_key, s3_server.secret_key, s3_server.endpoint):
        assert secret.encode() not in stored


# --- many at once --------------------------------------------------------------------------------------------------


def test_threads_share_the_client(s3_folder: str):
    uris = [f"{s3_folder}/{i}" for i in range(64)]
    barrier = threading.Barrier(8)

    def work(lane: int) -> bool:
        barrier.wait()
        for uri in uris[lane::8]:
            storage.write_bytes(uri, uri.encode())
        return all(storage.read_bytes(uri) == uri.encode() for uri in uris[lane::8])

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(work, range(8)))


def test_a_fork_of_a_process_that_used_s3_can_use_it(s3_folder: str):
    uri = storage.join(s3_folder, "x")
    code = (
        "import os; from liftgs_platform import storage\n"
        f"storage.write_bytes({uri!r}, b'parent'); child = os.fork()\n"
        f"if child == 0: storage.write_bytes({uri!r} + '2', storage.read_bytes({uri!r})); os._exit(0)\n"
        f"assert os.waitpid(child, 0)[1] == 0; print(storage.read_bytes({uri!r} + '2').decode())"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert ran.stdout == "parent\n"


@pytest.mark.timeout(300)
def test_a_job_makes_the_same_corpus_from_s3_to_s3_as_on_a_disk(
    ray_settings: None, s3_folder: str, tmp_path: Path
) -> None:
    """Scans in the bucket, corpus in the bucket, teachers that ship; the cluster has the credentials, the spec none."""
    scans = storage.join(s3_folder, "scans")
    local = tiny.write_scenes(tmp_path / "scans", 2, frames=2)
    for file in local.rglob("*.*"):
        storage.write_bytes(storage.join(scans, str(file.relative_to(local))), file.read_bytes())
    command = [sys.executable, "-m", "liftgs_platform.job", str(ROOT / "jobs" / "pseudolabel.yaml")]
    settings = [f"source={scans}", "chunks_per_shard=1"]
    corpus = storage.join(s3_folder, "corpus")
    with start_cluster() as cluster:
        environment = {**os.environ, "RAY_ADDRESS": cluster.address}
        subprocess.run([*command, *settings, f"output={corpus}"], env=environment, cwd=tmp_path, check=True)
    here = spec.load(ROOT / "jobs" / "pseudolabel.yaml", [*settings, f"output={tmp_path / 'corpus'}"], Spec)
    pseudolabel.run_here(here)
    in_bucket = {name: data for name, data in content(corpus).items() if not name.startswith("/runs/")}
    assert len([name for name in in_bucket if name.endswith(".tar")]) == 2
    assert in_bucket == {f"/{name}": data for name, data in tiny.corpus_files(tmp_path / "corpus").items()}
    assert not list(verify(corpus, deep=True))
    secrets = [os.environ["AWS_ACCESS_KEY_ID"], os.environ["AWS_SECRET_ACCESS_KEY"]]
    assert not [name for name, data in content(corpus).items() for secret in secrets if secret.encode() in data]
