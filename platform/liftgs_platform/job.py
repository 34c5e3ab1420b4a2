"""The launcher: an executable YAML file becomes a run. The first line of each `jobs/*.yaml` names this module.

    ray job submit jobs/pseudolabel.yaml
    ray job submit --working-dir . -- jobs/pseudolabel.yaml source=s3://scans output=s3://corpora/scannet scale=cluster
    jobs/pseudolabel.yaml dry_run=true

A kind of job is a module (see `JOBS`) with `Spec`, a dataclass that has `output` and `dry_run`; `resolve(spec, uri,
name_or_file)`, which makes its paths absolute with the two functions it is given; and `run(spec, job)`. This file reads
the spec, says what is wrong with it in one line before anything starts, and gives the module what it needs: a Ray
cluster, and a place to record what ran.

Relative local paths mean, in a shell, the shell's folder; in a submitted job, the folder where `ray start` ran, since
Ray runs the job in a copy of the uploaded folder that is gone afterwards.
"""

from __future__ import annotations

import difflib
import importlib
import json
import os
import platform
import re
import shutil
import sys
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import Any

import yaml

from liftgs.scene import BadInput
from liftgs.secrecy import blanked
from liftgs_platform import spec as specs
from liftgs_platform import spec_help, storage
from liftgs_platform.revision import code_revision, git_revision
from liftgs_platform.spec import SpecError

#: `job:` in a YAML file -> the module that does it
JOBS = {
    "pseudolabel": "liftgs_platform.pseudolabel",
    "pretrain": "liftgs_platform.pretrain",
    "finetune": "liftgs_platform.finetune",
    "evaluate": "liftgs_platform.evaluate",
    "sweep": "liftgs_platform.sweep",
    "teachers": "liftgs_platform.teachers",
}

_JOB_CONFIG = "RAY_JOB_CONFIG_JSON_ENV_VAR"  # set by Ray for the driver of a submitted job


class JobFailed(RuntimeError):
    """The job cannot go on. The message is for the person who submitted it; no traceback is shown."""


@dataclass(frozen=True)
class Job:
    """What a kind of job may know of how it was started.

    Attributes:
        file: the YAML file.
        overrides: as typed.
    """

    file: Path
    overrides: tuple[str, ...] = ()

    def connect(self) -> None:
        """Join the Ray cluster that submitted us, else one that runs here, else start one on this machine."""
        connect()

    def record(self, spec: Any) -> str:
        """Write the resolved spec, its hash, and the code's revision to `{output}/runs/{n}/spec.yaml`.

        Returns:
            URI of the run's folder, `{output}/runs/{n}`, with n one more than the highest so far. Whatever is in there
            is for people and dashboards; nothing reads it to decide anything.
        """
        runs = storage.join(spec.output, "runs")
        taken = [re.match(r"(\d+)/", uri.removeprefix(runs + "/")) for uri in storage.list_files(runs)]
        folder = storage.join(runs, f"{max((int(m[1]) for m in taken if m), default=-1) + 1:04d}")
        identity = specs.identity(spec)
        facts = {
            "job": spec.job,
            "spec_hash": specs.digest(identity),
            "code_revision": code_revision(),
            "git_revision": git_revision(),
            "versions": {name: version(name) for name in ("liftgs", "ray", "torch", "numpy")}
            | {"python": platform.python_version()},
            "started": datetime.now(UTC).isoformat(timespec="seconds"),
            "submission_id": _job_config().get("metadata", {}).get("job_submission_id"),
            "file": str(self.file),
            "overrides": list(self.overrides),
            "spec": specs.plain(spec),
        }
        text = yaml.safe_dump(facts, sort_keys=False, allow_unicode=True, width=120)
        storage.write_bytes(storage.join(folder, "spec.yaml"), text.encode())
        return folder


def connect() -> None:
    """Join the cluster of `RAY_ADDRESS` or one that runs on this machine; start a local one if there is none."""
    import ray  # noqa: PLC0415  --help and mistakes in a spec are told without waiting for it

    if ray.is_initialized():
        return
    if os.environ.get("RAY_ADDRESS", "").startswith("http"):
        raise JobFailed(
            "RAY_ADDRESS is where jobs are submitted: `ray job submit --working-dir . -- FILE …`; unset it to run here"
        )
    options: dict[str, Any] = {"logging_level": "warning", "log_to_driver": True}
    uploaded = _uploaded_folder()
    if uploaded is not None and (uploaded / "platform" / "liftgs_platform").is_dir():
        # Ray changes into the uploaded folder before it starts Python, on every node.
        options["runtime_env"] = {"env_vars": {"PYTHONPATH": "platform"}}
    try:
        ray.init(address=_address(), **options)
    except RuntimeError as error:
        if "Version mismatch" not in str(error):
            raise
        raise JobFailed(f"{' '.join(str(error).split())}; use the cluster's versions of Ray and Python here") from None
    except ConnectionError:
        if os.environ.get("RAY_ADDRESS"):
            raise JobFailed(f"no Ray cluster answers at RAY_ADDRESS={os.environ['RAY_ADDRESS']}") from None
        ray.init(include_dashboard=False, **options)
        print(f"no Ray cluster runs here: started one of {ray.cluster_resources().get('CPU', 0):g} CPUs for this job")


def _address() -> str:
    """$RAY_ADDRESS, or what the cluster that was last started here, if it still runs, calls itself; else "auto".

    Ray's "auto" takes a lone cluster on loopback for one at this host's address, and waits in vain.
    """
    from ray._private import services  # noqa: PLC0415

    def port(address: str) -> str:
        return address.rpartition(":")[2]

    if asked := os.environ.get("RAY_ADDRESS"):
        return asked
    noted = services.find_bootstrap_address(None)
    return noted if noted and port(noted) in map(port, services.find_gcs_addresses()) else "auto"


def home() -> Path:
    """The folder that relative local paths are relative to; the module's docstring says which.

    Raises:
        SpecError: this job runs in an uploaded copy, and where Ray was started cannot be found out.
    """
    if _uploaded_folder() is None:
        return Path.cwd()
    import ray  # noqa: F401, PLC0415  brings its own psutil

    psutil = importlib.import_module("psutil")
    try:
        raylet = next(p for p in psutil.Process().parents() if "raylet" in p.name())
        return Path(raylet.cwd())
    except (StopIteration, psutil.Error):
        raise SpecError(
            "relative paths cannot be used here: the job runs in an uploaded copy of the folder, and where `ray start` "
            "ran is unknown; give absolute paths or URIs"
        ) from None


def resolve(uri: str) -> str:
    """A local path made absolute against `home()`; other URIs as they are."""
    path = storage.local_path(uri)
    if path is None or os.path.isabs(os.path.expanduser(uri)) or "://" in uri or _has_scheme(uri):
        return uri
    return os.path.normpath(os.path.join(home(), uri))


def resolve_if_file(value: str) -> str:
    """As `resolve`, if a file or folder is there; else `value`, which then is a name ("tiny", "laion2b_s32b_b82k")."""
    if not value or "://" in value:
        return value
    path = resolve(value)
    return path if os.path.exists(path) else value


def _has_scheme(uri: str) -> bool:
    """`procedural:apartments` has one; a path with a colon in a later part has not."""
    return re.match(r"[a-z][a-z0-9+.-]+:", uri) is not None


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a job file. Returns the exit code: 0 done, 1 failed, 2 the spec is wrong."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    if not arguments or arguments[0] in ("-h", "--help"):
        print("usage: python -m liftgs_platform.job JOB.yaml [key=value ...]\n\nJOB.yaml --help tells about a job.")
        return 0 if arguments else 2
    _prefer_uploaded_code()
    try:
        return start(Path(arguments[0]), arguments[1:])
    except SpecError as error:
        print(f"error: {blanked(str(error))}", file=sys.stderr)
        return 2
    except (JobFailed, BadInput, OSError) as error:  # of the last, a StorageError is one
        print(f"error: {blanked(str(error))}", file=sys.stderr)
        return 1


def start(file: Path, overrides: Sequence[str]) -> int:
    """Read the job file and do what it says, or tell about it if `--help` is among the overrides.

    Raises:
        SpecError: the spec is wrong; nothing was started.
        JobFailed: the job started and could not finish.
    """
    module = _module(file)
    if "--help" in overrides or "-h" in overrides:
        print(help_text(file, module.Spec))
        return 0
    spec = module.resolve(specs.load(file, overrides, module.Spec), resolve, resolve_if_file)
    specs.refuse_secrets(spec)
    return int(module.run(spec, Job(file, tuple(overrides))) or 0)


def help_text(file: Path, spec: type) -> str:
    """All that a person needs to use a job: its purpose, its keys, its config groups, examples."""
    width = min(shutil.get_terminal_size((120, 24)).columns, 140)
    lines = [*spec_help.purpose(file), "", "keys (key=value on the command line, or in the file):", ""]
    values = specs.defaults(file, spec)
    for key in spec_help.keys(spec):
        lines.append(f"  {key.name}={values.get(key.name, key.default)}   [{key.type}]")
        lines += textwrap.wrap(key.doc, width, initial_indent=" " * 6, subsequent_indent=" " * 6)
    choices = spec_help.group_choices(file)
    for group, options in choices.items():
        lines += ["", f"{group}=...:"]
        lines += [f"  {group}={name:<10} {text}".rstrip() for name, text in options.items()]
    lines += ["", "examples:", "", f"  {file} dry_run=true", f"  ray job submit {file}"]
    scale = " scale=cluster caption.python=/opt/vllm/bin/python" if "scale" in choices else ""
    lines += [f"  ray job submit --working-dir . -- {file} output=s3://bucket/name{scale}", ""]
    lines += ["relative paths: in a shell, of its folder; in a submitted job, of the folder where `ray start` ran"]
    return "\n".join(lines)


def _module(file: Path) -> ModuleType:
    """The module that does the job a file asks for."""
    kind = specs.read_yaml(file).get("job")
    if kind not in JOBS:
        near = difflib.get_close_matches(str(kind), JOBS, n=1)
        hint = f"did you mean '{near[0]}'?" if near else f"there are {', '.join(JOBS)}"
        raise SpecError(f"{file}: no kind of job is called '{kind}' (key 'job'); {hint}")
    return importlib.import_module(JOBS[kind])


def _job_config() -> dict[str, Any]:
    """What Ray tells the driver of a submitted job about itself; empty outside of one."""
    return dict(json.loads(os.environ.get(_JOB_CONFIG, "{}")))


def _uploaded_folder() -> Path | None:
    """This node's copy of the folder that `ray job submit --working-dir` uploaded, else None."""
    return Path.cwd() if _job_config().get("runtime_env", {}).get("working_dir") else None


def _prefer_uploaded_code() -> None:
    """Start again with the uploaded checkout's code, where a job came with one: it is what the person meant to run.

    `liftgs` is found in the uploaded folder by itself, `liftgs_platform` one level down is not; a mix would be worse
    than either.
    """
    uploaded = _uploaded_folder()
    if uploaded is None or not (uploaded / "platform" / "liftgs_platform").is_dir():
        return
    if Path(__file__).resolve().is_relative_to(uploaded.resolve()):
        return
    path = os.pathsep.join([str(uploaded / "platform"), str(uploaded), os.environ.get("PYTHONPATH", "")])
    os.environ["PYTHONPATH"] = path.rstrip(os.pathsep)
    os.execv(sys.executable, [sys.executable, "-m", "liftgs_platform.job", *sys.argv[1:]])


if __name__ == "__main__":
    # Under the module's real name, so that `JobFailed` here and in the jobs is one class.
    sys.exit(importlib.import_module("liftgs_platform.job").main())
