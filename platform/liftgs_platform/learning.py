"""What jobs that train share: where they start, what they check before, their run, and their forecast."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, partial
from itertools import product
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from jaxtyping import Float, UInt8
from torch import Tensor

from liftgs.labels import decode_embeds
from liftgs.model.liftgs import LiftGS, LiftGSConfig
from liftgs.model.text import Phrases
from liftgs.sample import Sample, decode_sample
from liftgs.scene import BadInput
from liftgs.tasks.phrases import Encode
from liftgs.teachers.clip import build_clip
from liftgs.teachers.configs import EmbedConfig
from liftgs.training.trainer import OptimConfig, TrainingDiverged
from liftgs_platform import checkpoints, preflight, storage
from liftgs_platform import spec as specs
from liftgs_platform.checkpoints import Cursor
from liftgs_platform.forecast import of_training
from liftgs_platform.job import Job, JobFailed
from liftgs_platform.label_teachers import use_threads
from liftgs_platform.loader import TooManyBadSamples
from liftgs_platform.manifest import MANIFEST
from liftgs_platform.mixture import CorpusSpec, Mixture
from liftgs_platform.progress import clock
from liftgs_platform.shared_scenes import shared_scenes
from liftgs_platform.simulation import Nodes, TrainingModel
from liftgs_platform.spec import WHERE_ONLY
from liftgs_platform.training import Context, LoopConfig, WorkerConfig, claim, train
from liftgs_platform.training_log import read
from liftgs_platform.training_task import Task, Validation


@dataclass(frozen=True)
class ModelSpec:
    """Which network.

    Attributes:
        config: "tiny" or "base" (the paper's).
        start: a checkpoint to start from, instead of random weights: a folder or URI with config.json and
            model.safetensors, whose config is taken; "" = none.
    """

    config: str = "tiny"
    start: str = ""

    def __post_init__(self) -> None:
        LiftGSConfig.named(self.config)


@dataclass(frozen=True)
class TrainingSpec:
    """What the specs of these jobs have in common.

    Attributes:
        output: the run: a folder or s3://bucket/name. Submitting again with the same output goes on where it was
            killed.
        job: the kind of job.
        corpora: to learn from, each with a uri and a weight.
        model: the network.
        optim: how weights are updated.
        seed: of the weights, of the order of the samples and of all that is random about them.
        loop: checkpoints, panels, log and reading.
        worker: the processes that train.
        nodes: the cluster that `dry_run` makes its forecast for.
        dry_run: say what would be done and, once this output has begun, how long the rest takes; then stop.
    """

    output: str = field(metadata=WHERE_ONLY)
    job: str = ""
    corpora: tuple[CorpusSpec, ...] = ()
    model: ModelSpec = field(default_factory=ModelSpec)
    optim: OptimConfig = field(default_factory=OptimConfig)
    seed: int = 0
    loop: LoopConfig = field(default_factory=LoopConfig, metadata=WHERE_ONLY)
    worker: WorkerConfig = field(default_factory=WorkerConfig, metadata=WHERE_ONLY)
    nodes: Nodes = field(default_factory=Nodes, metadata=WHERE_ONLY)
    dry_run: bool = field(default=False, metadata=WHERE_ONLY)

    def __post_init__(self) -> None:
        if not self.corpora:
            raise ValueError("corpora needs at least one: corpora=[{uri: corpora/apartments}]")
        if self.seed < 0:
            raise ValueError("seed must not be negative")
        if self.worker.most > self.optim.batch_size:
            raise ValueError(
                f"worker.most is {self.worker.most}, but a batch has {self.optim.batch_size} items to share; "
                "lower worker.most or raise optim.batch_size"
            )
        if self.optim.schedule == "plateau" and not self.held_out:
            raise ValueError(
                "optim.schedule=plateau needs scenes to validate on, as job finetune can: "
                "validation.corpora=[{uri: corpora/validation}]"
            )

    @property
    def learned(self) -> tuple[CorpusSpec, ...]:
        """Corpora to learn from: `corpora`, and then those that some kinds of job add."""
        return self.corpora

    @property
    def held_out(self) -> tuple[CorpusSpec, ...]:
        """Corpora to validate on: `validation.corpora`, in kinds of job that have it."""
        return ()


@dataclass(frozen=True)
class SpecifiedTask:
    """What of a `training.Task` follows from any such spec."""

    spec: TrainingSpec

    @property
    def hopeless(self) -> tuple[type[Exception], ...]:
        """See `Task`."""
        return (TrainingDiverged,)

    @property
    def validation(self) -> Validation | None:
        """See `Task`."""
        return None

    @property
    def steps(self) -> int:
        """See `Task`."""
        return self.spec.optim.steps

    @property
    def batch_size(self) -> int:
        """See `Task`."""
        return self.spec.optim.batch_size

    @property
    def seed(self) -> int:
        """See `Task`."""
        return self.spec.seed

    def mixture(self) -> Mixture:
        """See `Task`."""
        return Mixture(self.spec.learned, self.spec.seed, self.spec.loop.cache_mb * 2**20)


S = TypeVar("S", bound=TrainingSpec)

#: Raises BadInput for a sample that such a network cannot learn from; corpora are judged by their first.
Check = Callable[[Sample, LiftGSConfig], None]


def resolve(spec: S, uri: Callable[[str], str], name_or_file: Callable[[str], str]) -> S:
    """The spec with absolute paths."""
    return replace(
        spec,
        output=uri(spec.output),
        corpora=tuple(replace(corpus, uri=uri(corpus.uri)) for corpus in spec.corpora),
        model=replace(spec.model, start=name_or_file(spec.model.start)),
    )


def run(spec: TrainingSpec, job: Job, task: Task, suits: Check) -> None:
    """Train from the newest checkpoint on, or say what that would be.

    Raises:
        JobFailed: a corpus or the output cannot be used, training diverges, or the worker dies too often.
    """
    if spec.dry_run:
        print(forecast(spec, suits))
        return
    mixture = open_corpora(spec, suits)
    preflight.require([preflight.writable(spec.output)])
    claim(spec.output, identity(spec, mixture), type(spec))
    job.connect()
    preflight.require([*preflight.nodes([spec.output, spec.model.start, *uris(spec.learned)]), room_for(spec)])
    folder = job.record(spec)
    from liftgs_platform.training_ray import train_on_ray  # noqa: PLC0415  a dry run needs no Ray

    end = train_on_ray(task, spec.output, spec.loop, spec.worker)
    _note(spec, end, folder, spec.output)
    lost = f", {end.skipped_steps} steps skipped, {end.bad_samples} bad samples"
    print(f"{spec.job}: {end.step} steps, {end.samples_consumed} samples in {clock(end.seconds)}{lost}")
    print(f"model: {spec.output}\nlook at it: {storage.join(spec.output, 'report.html')}")


def run_here(spec: TrainingSpec, task: Task, suits: Check) -> float:
    """`run` in this process, without Ray, with the weights that `run` comes to; returns the seconds of its steps.

    Raises:
        JobFailed: a corpus or the output cannot be used, or training diverges.
    """
    claim(spec.output, identity(spec, open_corpora(spec, suits)), type(spec))
    use_threads(spec.worker.cpus)
    hopeless: tuple[type[Exception], ...] = (TooManyBadSamples, BadInput, FileNotFoundError, *task.hopeless)
    try:
        end = train(task, spec.output, spec.loop, Context("cuda" if spec.worker.gpus else "cpu"))
    except hopeless as reason:
        raise JobFailed(str(reason)) from reason
    _note(spec, end, spec.output)
    return end.seconds


def _note(spec: TrainingSpec, end: Cursor, *folders: str) -> None:
    for folder in folders:
        facts = json.dumps(result(spec.output, end), indent=1)
        storage.write_bytes(storage.join(folder, "result.json"), facts.encode())


def result(output: str, end: Cursor) -> dict[str, Any]:
    """What became of a run, for JSON.

    "plateau" says whether validation stopped rising before the budget was used up; "validation" are steps and scores.
    """
    rows = [row for row in read(output) if "event" not in row]
    return {
        "steps": end.step,
        "samples": end.samples_consumed,
        "seconds": end.seconds,
        "plateau": end.plateau is not None,
        "validation": [list(one) for one in end.checks],
        "last": rows[-1] if rows else {},
    }


def uris(corpora: Sequence[CorpusSpec]) -> list[str]:
    """Where they are."""
    return [corpus.uri for corpus in corpora]


def room_for(spec: TrainingSpec) -> preflight.Finding:
    """Whether the nodes have memory for the workers that start: the network, its average, its gradients and Adam's two
    moments in float32 (on a CPU), the samples kept, and a gigabyte for the rest."""
    network = 0 if spec.worker.gpus else (20 if spec.optim.average else 16) * _parameters(spec)
    needed = spec.worker.least * (1e9 + network + spec.loop.cache_mb * 2**20)
    advice = "set fewer worker.least or less loop.cache_mb, or give the cluster more"
    return preflight.room("memory", needed, preflight.node_bytes("memory"), advice)


def check_labels(sample: Sample, config: LiftGSConfig) -> None:
    """Raises:
    BadInput: a sample without 3D labels.
    """
    if sample.labels is None:
        raise BadInput(sample.uri, "has no 3D labels; build a corpus from a labelled source with jobs/pseudolabel.yaml")


def check_pseudo_labels(sample: Sample, config: LiftGSConfig) -> None:
    """Raises:
    BadInput: a sample without labels, or labelled by another CLIP than the network knows.
    """
    embeds = [data for name, data in sample.members.items() if name.endswith(".embeds.npy")]
    if not embeds:
        raise BadInput(sample.uri, "has no labels to learn from; label the corpus with jobs/pseudolabel.yaml")
    width = decode_embeds(embeds[0], sample.uri).shape[1]
    if width != config.embed_dim:
        raise BadInput(
            sample.uri,
            f"is labelled with embeddings of {width} numbers and the network takes {config.embed_dim}, those of "
            f"{config.clip}: choose another model, or label with that teacher",
        )


def stacked(rows: Sequence[UInt8[np.ndarray, "h w 3"]]) -> UInt8[np.ndarray, "h w 3"]:
    """Pictures below each other, on white."""
    width = max(row.shape[1] for row in rows)
    edges = [((0, 4), (0, width - row.shape[1]), (0, 0)) for row in rows]
    return np.concatenate([np.pad(row, edge, constant_values=255) for row, edge in zip(rows, edges, strict=True)])


def model_config(model: ModelSpec) -> LiftGSConfig:
    """Of the network that is trained."""
    return _config_of(model.start) if model.start else LiftGSConfig.named(model.config)


@cache
def _config_of(checkpoint: str) -> LiftGSConfig:
    """Read once per process, since every item asks for its voxel size."""
    return LiftGS.from_pretrained(checkpoint).config


def phrase_encoder(config: LiftGSConfig) -> Encode:
    """What turns words into queries of such a network; can be sent to loaders."""
    return partial(_encode, config.clip, config.clip_pretrained)


def _encode(clip: str, pretrained: str, phrases: Sequence[str]) -> Float[Tensor, "p f"]:
    return _phrases(clip, pretrained)(phrases)


@cache
def _phrases(clip: str, pretrained: str) -> Phrases:
    """One CLIP per process, on the CPU, where the loaders are."""
    return Phrases(build_clip(EmbedConfig(model=clip, pretrained=pretrained)))


def check_manifests(corpora: Sequence[CorpusSpec]) -> None:
    """Raises:
    JobFailed: one is not there, or its job has not finished.
    """
    for corpus in corpora:
        if not storage.exists(storage.join(corpus.uri, MANIFEST)):
            raise JobFailed(
                f"{corpus.uri}: no finished corpus is there; make it with jobs/pseudolabel.yaml output={corpus.uri}"
            )


def open_corpora(spec: TrainingSpec, suits: Check) -> Mixture:
    """The corpora, after a look whether they can be learned from.

    Raises:
        JobFailed: one is missing, damaged, empty or does not suit; or the checkpoint to start from is.
    """
    check_manifests((*spec.learned, *spec.held_out))
    try:
        config = model_config(spec.model)
        mixture = Mixture(spec.learned, spec.seed)
        held_out = Mixture(spec.held_out, spec.seed).readers if spec.held_out else []
        own, added = mixture.readers[: len(spec.corpora)], mixture.readers[len(spec.corpora) :]
        for check, readers in ((suits, own), (check_labels, held_out), (check_pseudo_labels, added)):
            for reader in readers:
                first = decode_sample(reader[0], f"{reader.corpus}#{reader.key(0)}")
                check(first, config)
                if first.meta.get("gravity") == "unknown":
                    print(f"{reader.corpus}: up is unknown, at least in its first scene, and taken for z", flush=True)
        for reader, (learned, used) in product(held_out, zip(own, mixture.kept[: len(own)], strict=True)):
            for scene in shared_scenes(reader, learned, used):
                raise JobFailed(
                    f"scene {scene} of {reader.corpus}: is learned from, in {learned.corpus}, so it cannot validate; "
                    "give validation scenes of its own"
                )
    except (FileNotFoundError, BadInput) as fault:
        raise JobFailed(str(fault)) from fault
    return mixture


def identity(spec: TrainingSpec, mixture: Mixture) -> dict[str, Any]:
    """What decides the weights that come out: a corpus counts by what is in it, not by where it lies."""
    corpora = [
        {"content": content, "weight": corpus.weight}
        for content, corpus in zip(mixture.hashes, spec.learned, strict=True)
    ]
    decides = {**specs.identity(spec), "corpora": {str(i): corpus for i, corpus in enumerate(corpora)}}
    if len(spec.learned) > len(spec.corpora):
        decides["replay"] = {**decides["replay"], "corpora": []}  # they are among the others
    if spec.held_out:
        held_out = Mixture(spec.held_out, spec.seed)
        decides["validation"] = {**decides["validation"], "corpora": list(held_out.hashes)}
    return decides


def forecast(spec: TrainingSpec, suits: Check) -> str:
    """What `run` would do, how much it is and how long it would take, as far as this run's own log tells."""
    optim, total = spec.optim, spec.optim.steps * spec.optim.batch_size
    at = checkpoints.newest(spec.output)
    try:
        cursor = checkpoints.cursor_of(at) if at else Cursor()
    except BadInput as fault:
        raise JobFailed(str(fault)) from fault
    step, end = cursor.step, optim.steps if cursor.plateau is None else cursor.plateau
    lines = {"output": spec.output, "writing": preflight.writable(spec.output).text}
    try:
        mixture = open_corpora(spec, suits)
        lines |= {
            f"corpus{i}": f"{corpus.uri}: {len(kept)} samples, weight {corpus.weight:g}"
            for i, (corpus, kept) in enumerate(zip(spec.learned, mixture.kept, strict=True))
        }
        epochs = f", {mixture.epochs(total):.1f} epochs"
        if spec.held_out:
            kept = sum(map(len, Mixture(spec.held_out, spec.seed).kept))
            lines["checked"] = f"on {kept} samples of {', '.join(corpus.uri for corpus in spec.held_out)}"
    except JobFailed as reason:
        lines |= {"corpora": f"cannot be used as yet: {reason}"}
        epochs = ""
    parameters = _parameters(spec)
    lines["model"] = f"{spec.model.start or spec.model.config}, {parameters / 1e6:.1f} M parameters"
    training = measured(spec, steps_left=end - step)
    unknown = "unknown until the first steps are done" if step < end else "none, all is done"
    most = "at most " if optim.schedule == "plateau" else ""
    checkpoint_mb = parameters * 4 * (4 if optim.average else 3) / 1e6  # weights, two moments of Adam, the average
    lines |= {
        "steps": f"{most}{optim.steps} of {optim.batch_size} items = {total} items{epochs}",
        "done": f"{step} steps, by {at}" if at else "nothing",
        **(of_training(training, spec.nodes) if training else {"time": unknown}),
        "storage": f"{checkpoint_mb:,.0f} MB a checkpoint, of which {spec.loop.keep_last} or more are kept",
        "worker": f"{spec.worker.least} to {spec.worker.most} of {spec.worker.cpus} CPUs, {spec.worker.gpus} GPUs",
    }
    return "\n".join(f"{name:<9}{text}" for name, text in lines.items()) + "\ndry run: nothing was done"


def start_model(model: ModelSpec, checkpoint: str | Path | None) -> LiftGS:
    """The network of a checkpoint of the run, if there is one, else the one that the run starts from."""
    start = str(checkpoint or model.start)
    return LiftGS.from_pretrained(start) if start else LiftGS(LiftGSConfig.named(model.config))


def measured(spec: TrainingSpec, steps_left: int) -> TrainingModel | None:
    """What this run's own log says of its speed; None if it has none."""
    rows = [row for row in read(spec.output) if "step_s" in row]
    if not rows or not steps_left:
        return None
    share = [row["step_s"] / math.ceil(spec.optim.batch_size / row["workers"]) for row in rows]
    return TrainingModel(
        steps=steps_left,
        item_s=float(np.median(share)),
        batch_size=spec.optim.batch_size,
        checkpoint_every=spec.loop.checkpoint_every,
        commit_s=max(row["commit_s"] for row in rows),
        resize_every_s=spec.worker.resize_every_s,
        least=spec.worker.least,
        most=spec.worker.most,
    )


def _parameters(spec: TrainingSpec) -> int:
    import torch  # noqa: PLC0415

    config = model_config(spec.model)  # which may load a checkpoint
    with torch.device("meta"):
        return sum(p.numel() for p in LiftGS(config).parameters())
