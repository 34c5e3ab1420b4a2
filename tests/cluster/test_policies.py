"""The policies allow what the jobs do, by a server that enforces them, and nothing beyond."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest
import s3
import yaml

from liftgs_platform import pseudolabel, storage
from liftgs_platform.storage import StorageError
from liftgs_platform.verify import verify

POLICIES = Path(__file__).parents[2] / "cluster" / "policies"
#: What `liftgs_platform.storage` and the readers ask of S3: get, head, put (in parts too), delete, list.
READS, WRITES = {"s3:GetObject", "s3:ListBucket"}, {"s3:PutObject", "s3:DeleteObject", "s3:AbortMultipartUpload"}
#: AWS knows no resources for these; they only look.
LOOKS = re.compile(r"ec2:Describe[A-Za-z]+")


def allowed() -> Iterator[tuple[str, dict[str, Any]]]:
    for file in sorted((POLICIES / "aws").glob("*.json")):
        for statement in json.loads(file.read_text()).get("Statement", []):
            if statement["Effect"] == "Allow":
                yield file.stem, statement


def test_nothing_is_allowed_wholesale() -> None:
    for name, statement in allowed():
        actions, resources = statement["Action"], statement.get("Resource", [])
        assert not [action for action in actions if "*" in action], name
        assert all(LOOKS.fullmatch(action) for action in actions) or "*" not in resources, name
        assert statement.get("Principal") != "*", name
        assert not {"NotAction", "NotResource", "NotPrincipal"} & statement.keys(), name


def test_jobs_may_do_what_storage_does_and_nothing_else() -> None:
    for job, source, output in (("labelling", "SOURCE", "CORPUS"), ("training", "CORPUS", "RUN")):
        granted = {
            (action, resource.removeprefix("arn:aws:s3:::").removesuffix("/*").removesuffix("_BUCKET"))
            for name, statement in allowed()
            if name == job
            for action in statement["Action"]
            for resource in statement["Resource"]
        }
        wanted = {(action, place) for place in (source, output) for action in READS}
        assert granted == wanted | {(action, output) for action in WRITES}


def test_the_head_may_start_what_its_spec_asks_for() -> None:
    spec = yaml.safe_load((POLICIES.parent / "aws.yaml").read_text())
    granted = {
        (action, resource) for name, statement in allowed() if name == "autoscaler"
        for action in statement["Action"] for resource in statement["Resource"]
    }  # fmt: skip
    assert spec["provider"]["cache_stopped_nodes"] is False, "it may end instances, not stop them"
    for node in spec["available_node_types"].values():
        image, profile = node["node_config"]["ImageId"], node["node_config"]["IamInstanceProfile"]["Name"]
        parameter = f"arn:aws:ssm:REGION::parameter{image.removeprefix('resolve:ssm:')}"
        assert any(action == "ssm:GetParameters" and fnmatch(parameter, resource) for action, resource in granted)
        assert profile == "liftgs-ray-head" or ("iam:PassRole", f"arn:aws:iam::ACCOUNT:role/{profile}") in granted
    assert "liftgs-ray-head" not in str(granted), "it cannot make others like itself"


def test_google_roles_are_as_narrow() -> None:
    roles = {name: json.loads((POLICIES / "gcs" / f"{name}.json").read_text()) for name in ("reader", "writer")}
    reads = {"storage.objects.get", "storage.objects.list"}
    assert set(roles["reader"]["includedPermissions"]) == reads
    writes = {"storage.objects.create", "storage.objects.delete"}
    uploads = {"storage.multipartUploads.create", "storage.multipartUploads.abort"}
    assert set(roles["writer"]["includedPermissions"]) == reads | writes | uploads


def test_uploads_that_were_never_finished_are_removed() -> None:
    [aws] = json.loads((POLICIES / "aws" / "lifecycle.json").read_text())["Rules"]
    assert aws["Status"] == "Enabled"
    assert aws["AbortIncompleteMultipartUpload"]["DaysAfterInitiation"] >= 1
    assert "Expiration" not in aws
    [google] = json.loads((POLICIES / "gcs" / "lifecycle.json").read_text())["rule"]
    assert google["action"] == {"type": "AbortIncompleteMultipartUpload"}


@pytest.fixture
def labeller(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """An S3 that enforces policies, used as one who has `labelling.json`; yields its administrator."""
    settings = pytest.importorskip("moto.settings", reason="needs moto[server]")
    boto3 = pytest.importorskip("boto3", reason="needs boto3, which moto brings")
    import s3fs

    monkeypatch.setattr(storage, "RETRY_PAUSES_S", ())
    with s3._moto("127.0.0.1") as server:
        for name in s3.client_variables():
            monkeypatch.delenv(name)
        for name, value in (server.environment | {"AWS_DEFAULT_REGION": "us-east-1"}).items():
            monkeypatch.setenv(name, value)
        admin, iam = boto3.client("s3"), boto3.client("iam")
        for bucket in ("scans", "corpora", "others"):
            admin.create_bucket(Bucket=bucket)
        policy = (POLICIES / "aws" / "labelling.json").read_text()
        policy = policy.replace("SOURCE_BUCKET", "scans").replace("CORPUS_BUCKET", "corpora")
        iam.create_user(UserName="labeller")
        iam.put_user_policy(UserName="labeller", PolicyName="labelling", PolicyDocument=policy)
        key = iam.create_access_key(UserName="labeller")["AccessKey"]

        def enforce() -> None:
            monkeypatch.setattr(settings, "INITIAL_NO_AUTH_ACTION_COUNT", 0)
            monkeypatch.setenv("AWS_ACCESS_KEY_ID", key["AccessKeyId"])
            monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", key["SecretAccessKey"])
            s3fs.S3FileSystem.clear_instance_cache()

        admin.enforce = enforce
        yield admin
    s3fs.S3FileSystem.clear_instance_cache()


def test_labelling_works_with_its_policy_and_touches_nothing_else(labeller: Any) -> None:
    room = "procedural:apartments?scenes=1&views=2&width=48&height=36"
    labeller.put_object(Bucket="scans", Key="a/scan.txt", Body=b"scan")
    labeller.put_object(Bucket="others", Key="a.txt", Body=b"private")
    labeller.enforce()
    spec = pseudolabel.Spec(room, "s3://corpora/rooms", pseudo_labels=False)
    pseudolabel.run_here(spec)
    assert not [str(fault) for fault in verify(spec.output)]
    storage.delete("s3://corpora/rooms/README.md")
    assert storage.read_bytes("s3://scans/a/scan.txt") == b"scan"
    assert list(storage.list_files("s3://scans/a")) == ["s3://scans/a/scan.txt"]
    for forbidden in (
        lambda: storage.write_bytes("s3://scans/a/scan.txt", b"other"),
        lambda: storage.delete("s3://scans/a/scan.txt"),
        lambda: storage.read_bytes("s3://others/a.txt"),
        lambda: storage.list_files("s3://others"),
        lambda: storage.write_bytes("s3://others/b.txt", b"x"),
    ):
        with pytest.raises(StorageError, match=r"(?i)denied|forbidden"):
            forbidden()
