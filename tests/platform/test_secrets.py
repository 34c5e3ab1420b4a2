"""Secrets in the environment reach no file, no log and no message, though servers repeat them."""

from __future__ import annotations

import base64
import json
import threading
import traceback
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import quote, quote_plus

import pytest
import s3fs
import tiny
import torch
from clusters import ROOT
from toy_training import LoopConfig, Toy, write_corpora

from liftgs.readers import open_scene
from liftgs.teachers.captions import CaptionConfig
from liftgs_platform import job as launcher
from liftgs_platform import pseudolabel, storage
from liftgs_platform.faults import describe
from liftgs_platform.training import train

SECRETS = {
    "AWS_ACCESS_KEY_ID": "AKIAPLANTED123456789",
    "AWS_SECRET_ACCESS_KEY": "planted/aws+secret/0123456789abcdef==",
    "AWS_SESSION_TOKEN": "planted-session-token-0123456789",
    "HF_TOKEN": "hf_plantedPlantedPlanted",
    "LLM_LOGIN": "sk-planted-llm-key-0123456789",  # named by caption.api_key_env alone
}
LABELLING, PRETRAINING = ROOT / "jobs" / "pseudolabel.yaml", ROOT / "jobs" / "pretrain.yaml"


def forms(secret: str) -> set[bytes]:
    plain = secret.encode()
    bases = {base64.b64encode(plain), base64.urlsafe_b64encode(plain)}
    quoted = {quote(secret), quote(secret, safe=""), quote_plus(secret), json.dumps(secret)[1:-1]}
    return {plain, *(form.rstrip(b"=") for form in bases), *(form.encode() for form in quoted)}


class Parrot(BaseHTTPRequestHandler):
    """Refuses everything, and repeats every secret in every form, as a proxy's debugging page would."""

    protocol_version = "HTTP/1.1"  # which answers "Expect: 100-continue"

    def _refuse(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        chat = "chat" in self.path
        heard = [secret for name, secret in SECRETS.items() if chat or name != "LLM_LOGIN"]  # S3 never hears of it
        said = " ".join(sorted(form.decode() for secret in heard for form in forms(secret)))
        said += f" {self.headers.get('Authorization')}"
        if chat:
            status, body = 401, json.dumps({"error": {"message": f"Incorrect API key provided: {said}"}})
        else:
            status, body = 403, f"<Error><Code>AccessDenied</Code><Message>{said}</Message></Error>"
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body.encode())

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _refuse

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """URL of a parrot, which is the S3 of this process; the secrets are planted."""
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)
    parrot = ThreadingHTTPServer(("127.0.0.1", 0), Parrot)
    threading.Thread(target=parrot.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{parrot.server_port}"
    monkeypatch.setenv("AWS_ENDPOINT_URL", url)
    s3fs.S3FileSystem.clear_instance_cache()
    yield url
    s3fs.S3FileSystem.clear_instance_cache()
    parrot.shutdown()
    parrot.server_close()


def assert_silent(folder: Path, printed: str) -> None:
    """No file of a folder and nothing that was printed holds a secret in any form."""
    files = {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    for place, content in {**files, "what was printed": printed.encode()}.items():
        for name, secret in SECRETS.items():
            found = [form for form in forms(secret) if form in content]
            assert not found, f"{place} holds {name}"


def tell(error: BaseException) -> None:
    """As a log shows it, with its causes."""
    print("".join(traceback.format_exception(error)))
    print(*describe(error, "somewhere"))


def test_a_search_for_secrets_would_find_them(tmp_path: Path) -> None:
    for form in forms(SECRETS["AWS_SECRET_ACCESS_KEY"]):
        (tmp_path / "leak.json").write_bytes(b'{"a": "' + form + b'"}')
        with pytest.raises(AssertionError, match=r"leak\.json holds AWS_SECRET_ACCESS_KEY"):
            assert_silent(tmp_path, "")
    (tmp_path / "leak.json").unlink()
    with pytest.raises(AssertionError, match="printed holds HF_TOKEN"):
        assert_silent(tmp_path, f"HTTP 401: {SECRETS['HF_TOKEN']}")


def test_a_labelling_job_tells_none(tmp_path: Path, server: str, capfd: pytest.CaptureFixture[str]) -> None:
    source, corpus = tiny.write_scenes(tmp_path / "scans", scenes=1), tmp_path / "corpus"
    (source / "scene00" / f"{tiny.name(1)}.color.jpg").write_bytes(b"torn")
    arguments = [f"source={source}", f"output={corpus}", "caption.captioner=vocabulary", "dry_run=true"]
    assert launcher.main([str(LABELLING), *arguments]) == 0
    spec = pseudolabel.Spec(str(source), str(corpus), chunks_per_shard=1)
    launcher.Job(LABELLING, ("caption.api_key_env=LLM_LOGIN",)).record(spec)
    pseudolabel.run_here(spec, tiny.with_quick_teachers(pseudolabel.factories(spec, pseudolabel.open_plans(spec))))
    http = CaptionConfig("http", model="m", base_url=f"{server}/v1/chat", api_key_env="LLM_LOGIN")
    asked = replace(spec, output=str(tmp_path / "asked"), caption=http)
    build = pseudolabel.factories(asked, pseudolabel.open_plans(asked))
    with pytest.raises(Exception, match="HTTP 401: Incorrect API key provided") as caught:
        pseudolabel.run_here(asked, tiny.with_quick_teachers(build) | {"caption": build["caption"]})
    tell(caught.value)
    printed = "".join(capfd.readouterr())
    assert "HTTP 401" in printed
    assert list((corpus / "shards").glob("*.json"))
    assert_silent(tmp_path, printed)


def test_storage_that_refuses_tells_none(tmp_path: Path, server: str, capfd: pytest.CaptureFixture[str]) -> None:
    for attempt in (
        lambda: storage.read_bytes("s3://bucket/key"),
        lambda: storage.write_bytes("s3://bucket/key", b"x"),
        lambda: storage.list_files("s3://bucket/folder"),
        lambda: open_scene("s3://bucket/scan"),
    ):
        with pytest.raises(Exception, match="s3://bucket") as caught:
            attempt()
        tell(caught.value)
    assert launcher.main([str(LABELLING), "source=s3://bucket/scans", f"output={tmp_path}/a", "dry_run=true"]) == 1
    assert launcher.main([str(LABELLING), f"source={tmp_path}", "output=s3://bucket/corpus", "dry_run=true"]) == 1
    printed = "".join(capfd.readouterr())
    assert printed.count("***") >= 4
    assert_silent(tmp_path, printed)


def test_a_training_tells_none(tmp_path: Path, server: str, capfd: pytest.CaptureFixture[str]) -> None:
    torch.set_num_threads(1)
    toy = Toy(write_corpora(tmp_path), steps=4, bad="room0-001")
    train(toy, str(tmp_path / "run"), LoopConfig(checkpoint_every=2, panel_every=2))
    assert (
        launcher.main([str(PRETRAINING), f"output={tmp_path}/x", f"corpora=[{{uri: {tmp_path}/a}}]", "dry_run=true"])
        == 0
    )
    assert list((tmp_path / "run" / "tensorboard").iterdir())
    assert_silent(tmp_path, "".join(capfd.readouterr()))


@pytest.mark.parametrize(
    ("argument", "key", "what"),
    [
        ("caption.api_key_env=${oc.env:HF_TOKEN}", "caption.api_key_env", "HF_TOKEN"),
        ("source=s3://AKID:pass/word@bucket/scans", "source", "password"),
        ("caption.base_url=https://me:password@host/v1", "caption.base_url", "password"),
        ("segment.checkpoint=https://host/sam.pt?X-Amz-Signature=0123456789", "segment.checkpoint", "signature"),
        ("annotations=[https://me:password@host/a.json]", "annotations", "password"),
    ],
)
def test_specs_with_secrets_are_refused_without_repeating_them(
    tmp_path: Path, server: str, capfd: pytest.CaptureFixture[str], argument: str, key: str, what: str
) -> None:
    arguments = [f"source={tmp_path}", f"output={tmp_path}/corpus", argument, "dry_run=true"]
    assert launcher.main([str(LABELLING), *arguments]) == 2
    printed = "".join(capfd.readouterr())
    assert printed.startswith(f"error: {key} holds ")
    assert what in printed
    for secret in (*SECRETS.values(), "pass/word", "me:password", "0123456789"):
        assert secret not in printed
    assert not list(tmp_path.iterdir())
