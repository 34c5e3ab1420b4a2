"""The job that trains the small teachers, SAM and CLIP, on procedural rooms. What it makes ships in the package."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from liftgs.teachers.train.clip import ClipTrainConfig
from liftgs.teachers.train.sam_train import SamTrainConfig
from liftgs_platform import storage
from liftgs_platform.job import Job, JobFailed
from liftgs_platform.spec import WHERE_ONLY, SpecError

Teacher = Literal["sam", "clip"]


@dataclass(frozen=True)
class Spec:
    """Which teachers to train, how, and where to.

    Attributes:
        output: folder or s3://bucket/name for the weights. Submitting again goes on where it was killed.
        job: the kind of job.
        train: which teachers; they train side by side, one CPU each.
        sam: of the small SAM.
        clip: of the small CLIP.
        threads: of each training. Weights are the same for equal `threads`, on equal machines.
        dry_run: say what would be trained, and stop.
    """

    output: str = field(metadata=WHERE_ONLY)
    job: str = "teachers"
    train: tuple[Teacher, ...] = ("sam", "clip")
    sam: SamTrainConfig = field(default_factory=SamTrainConfig)
    clip: ClipTrainConfig = field(default_factory=ClipTrainConfig)
    threads: int = 1
    dry_run: bool = field(default=False, metadata=WHERE_ONLY)

    def __post_init__(self) -> None:
        if not self.train or not set(self.train) <= {"sam", "clip"} or self.threads < 1:
            raise ValueError("train needs sam, clip or both, and threads at least 1")


def resolve(spec: Spec, uri: Callable[[str], str], name_or_file: Callable[[str], str]) -> Spec:
    """The spec with absolute paths."""
    return replace(spec, output=uri(spec.output))


def run(spec: Spec, job: Job) -> None:
    """Train what is asked for, side by side.

    Raises:
        SpecError: the output holds a half-trained teacher of another config.
        JobFailed: a training died.
    """
    if spec.dry_run:
        print(forecast(spec))
        return
    job.connect()
    import ray  # noqa: PLC0415  a dry run needs no Ray

    folder = job.record(spec)
    # A dead worker is started again and goes on from its checkpoint; a mistake in the config is not.
    remote = ray.remote(num_cpus=1, max_retries=5)(_train)
    running = {remote.remote(name, spec): name for name in spec.train}
    found: dict[str, dict[str, Any]] = {}
    while running:
        done, _ = ray.wait(list(running), num_returns=1)
        name = running.pop(done[0])
        try:
            found[name] = metrics = ray.get(done[0])
        except ray.exceptions.RayTaskError as error:
            if isinstance(error.cause, ValueError):
                raise SpecError(f"{name}: {error.cause}") from None
            raise JobFailed(f"{name}: {error.cause!r}") from error
        except ray.exceptions.RayError as error:
            raise JobFailed(f"{name}: {error}") from error
        print(f"{name}: " + ", ".join(f"{key} {_short(value)}" for key, value in metrics.items()), flush=True)
    storage.write_bytes(storage.join(folder, "result.json"), json.dumps(found, indent=1).encode())
    print(f"teachers: {spec.output}")


def forecast(spec: Spec) -> str:
    """What would be trained."""
    lines = []
    if "sam" in spec.train:
        steps = " + ".join(f"{stage.steps} steps at {stage.size} px" for stage in spec.sam.stages)
        lines.append(f"sam: {len(spec.sam.rooms.scenes())} rooms, {steps}")
    if "clip" in spec.train:
        lines.append(f"clip: {spec.clip.rooms.rooms} rooms, {spec.clip.steps} steps at {spec.clip.network.image_px} px")
    return "\n".join([*lines, f"into {spec.output}"])


def _train(name: Teacher, spec: Spec) -> dict[str, Any]:
    """Train one teacher in this process, then publish its weights. Also runs without Ray."""
    import torch  # noqa: PLC0415  only the worker needs it

    torch.set_num_threads(spec.threads)
    folder = _workdir(spec.output, name)
    folder.mkdir(parents=True, exist_ok=True)

    def progress(line: str) -> None:
        print(f"{name}: {line}", flush=True)

    if name == "sam":
        from liftgs.teachers.train.sam_train import train_sam  # noqa: PLC0415

        metrics = train_sam(spec.sam, folder, progress)
    else:
        from liftgs.teachers.train.clip import train_clip  # noqa: PLC0415

        metrics = train_clip(spec.clip, folder, progress)
    for file in sorted(folder.iterdir()):
        if file.suffix in (".json", ".safetensors", ".gz", ".txt"):
            storage.write_bytes(storage.join(spec.output, file.name), file.read_bytes())
    return metrics


def _workdir(output: str, name: str) -> Path:
    """Where a training keeps its pictures and checkpoints: in the output if that is local, else in the user's cache."""
    local = storage.local_path(output)
    if local is not None:
        return Path(local) / name
    return Path.home() / ".cache" / "liftgs" / "teachers" / hashlib.sha256(output.encode()).hexdigest()[:16] / name


def _short(value: Any) -> str:
    return f"{value:.4f}" if isinstance(value, float) else str(value)
