"""The job that measures networks on labelled corpora: instance AP and referential accuracy, with intervals.

Every pair of a network and a sample is a file of the output, written when it is done. So a killed job goes on with what
is missing, and the scores are made from the files alone.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from time import monotonic
from typing import Any

from liftgs import codecs
from liftgs.readers.scannet_labels import read_label_table
from liftgs.scene import BadInput
from liftgs.tasks.evaluation import ExamConfig
from liftgs_platform import preflight, storage
from liftgs_platform import spec as specs
from liftgs_platform.classes import benchmark, check_table, class_names, class_of_words
from liftgs_platform.evaluate_scores import Scores, score
from liftgs_platform.evaluate_work import Examiner, Marked, Sheet, examine_here, labelling_clip, lifted_way, marked
from liftgs_platform.job import Job, JobFailed
from liftgs_platform.learning import check_manifests, uris
from liftgs_platform.mixture import CorpusSpec, Mixture
from liftgs_platform.progress import clock
from liftgs_platform.report import evaluation as page
from liftgs_platform.spec import WHERE_ONLY
from liftgs_platform.training import claim


@dataclass(frozen=True)
class CheckpointSpec:
    """A network to measure, or what stands beside it.

    Attributes:
        name: what tables call it; letters, digits, ".", "_" and "-".
        uri: "tiny", a run of pretraining or finetuning, or any folder with config.json and model.safetensors. Without
            a network: "lifted:points" (features of segments averaged per voxel, as in ConceptFusion) or
            "lifted:instances" (segments joined to instances), on corpora that are pseudo-labelled as well.
    """

    name: str
    uri: str

    def __post_init__(self) -> None:
        if not self.name or not all(letter.isalnum() or letter in "._-" for letter in self.name):
            raise ValueError(f"{self.name!r} cannot name a checkpoint; use letters, digits, '.', '_' and '-'")
        lifted_way(self.uri)


@dataclass(frozen=True)
class PoolConfig:
    """The processes that evaluate.

    Attributes:
        least: processes that evaluation starts with.
        most: processes that there are when the cluster has room.
        cpus: CPUs that each process reserves, and computes with.
        gpus: GPUs that each process reserves; a fraction shares one.
    """

    least: int = 1
    most: int = 2
    cpus: int = 1
    gpus: float = 0.0

    def __post_init__(self) -> None:
        if not 1 <= self.least <= self.most or self.cpus < 1 or self.gpus < 0:
            raise ValueError("least must be from 1 to most, cpus at least 1, gpus not negative")


@dataclass(frozen=True)
class Spec:
    """What to measure, on what, and where to.

    Attributes:
        output: a folder or s3://bucket/name. Submitting again with the same output goes on where it was killed.
        job: the kind of job.
        checkpoints: networks or methods without one, each with a name and a uri. Differences are from the first.
        corpora: labelled, each with a uri; they count as one.
        classes: "procedural" (the embedded corpora's kinds), "scannet20", "scannet200", or names of your own kinds.
        label_table: ScanNet's scannetv2-labels.combined.tsv, for its benchmarks on corpora of its raw labels.
        exam: what is asked, and how answers are counted.
        draws: of the bootstrap over scenes.
        seed: of these draws.
        predictions: write predictions in the form of ScanNet's official files as well, under predictions/NAME/. Their
            masks are over a sample's points, so that its evaluation takes them with labels over the same points only.
        max_bad_rate: the job fails if more than this share of the samples cannot be read.
        pool: the processes that evaluate.
        dry_run: say what would be done, and stop.
    """

    output: str = field(metadata=WHERE_ONLY)
    job: str = "evaluate"
    checkpoints: tuple[CheckpointSpec, ...] = ()
    corpora: tuple[CorpusSpec, ...] = ()
    classes: tuple[str, ...] = ("procedural",)
    label_table: str = ""
    exam: ExamConfig = field(default_factory=ExamConfig)
    draws: int = 1000
    seed: int = 0
    predictions: bool = False
    max_bad_rate: float = 0.0
    pool: PoolConfig = field(default_factory=PoolConfig, metadata=WHERE_ONLY)
    dry_run: bool = field(default=False, metadata=WHERE_ONLY)

    def __post_init__(self) -> None:
        names = [checkpoint.name for checkpoint in self.checkpoints]
        if not names or not self.corpora:
            raise ValueError("needs checkpoints=[{name: pretrained, uri: tiny}] and corpora=[{uri: corpora/held-out}]")
        if len(set(names)) < len(names):
            raise ValueError("two checkpoints have the same name")
        if self.predictions and benchmark(self.classes) is None:
            raise ValueError("predictions are for classes=[scannet20] or classes=[scannet200]")
        check_table(self.label_table, self.classes, "classes")
        if self.draws < 1 or self.seed < 0 or not 0 <= self.max_bad_rate < 1:
            raise ValueError("draws must be at least 1, seed not negative, and max_bad_rate in [0, 1)")


def resolve(spec: Spec, uri: Callable[[str], str], name_or_file: Callable[[str], str]) -> Spec:
    """The spec with absolute paths."""
    return replace(
        spec,
        output=uri(spec.output),
        corpora=tuple(replace(corpus, uri=uri(corpus.uri)) for corpus in spec.corpora),
        checkpoints=tuple(replace(one, uri=name_or_file(one.uri)) for one in spec.checkpoints),
        label_table=uri(spec.label_table) if spec.label_table else "",
    )


def run(spec: Spec, job: Job) -> None:
    """Examine what is missing, then score.

    Raises:
        JobFailed: a corpus, a checkpoint or the output cannot be used, or too many samples cannot be read.
    """
    if spec.dry_run:
        print(forecast(spec))
        return
    examiner = _examiner(spec)
    sheets, missing = _open(spec)
    job.connect()
    networks = [checkpoint.uri for checkpoint in spec.checkpoints]
    preflight.require(preflight.nodes([spec.output, *networks, *uris(spec.corpora)]))
    folder = job.record(spec)
    seconds = examine_on_ray(examiner, missing, spec.pool)
    scores, facts = _close(spec, sheets, seconds)
    storage.write_bytes(storage.join(folder, "result.json"), facts)
    print(scores.table())
    print(f"{len(missing)} examined in {clock(seconds)}\nlook at it: {storage.join(spec.output, 'report.html')}")


def run_here(spec: Spec) -> float:
    """`run` in this process, without Ray; returns the seconds it took."""
    start = monotonic()
    examiner = _examiner(spec, "cuda" if spec.pool.gpus else "cpu")
    sheets, missing = _open(spec)
    examine_here(examiner, missing)
    seconds = round(monotonic() - start, 3)
    _close(spec, sheets, seconds)
    return seconds


def _open(spec: Spec) -> tuple[list[Sheet], list[Sheet]]:
    """All that is to be examined, and what of it is missing."""
    mixture, weights = look(spec)
    sheets = list(sheets_of(spec, mixture))
    there = marked(spec.output)
    preflight.require([preflight.writable(spec.output)])
    claim(spec.output, identity(spec, mixture, weights), Spec)
    return sheets, [sheet for sheet in sheets if sheet.path not in there]


def _examiner(spec: Spec, device: str = "cpu") -> Examiner:
    """Reads ScanNet's label table, so that no process that examines needs to reach it.

    Raises:
        JobFailed: it is missing or damaged.
    """
    known = benchmark(spec.classes)
    written = known if spec.predictions else None
    examiner = Examiner(spec.output, class_names(spec.classes), spec.exam, predictions_for=written, device=device)
    if not spec.label_table or known is None:
        return examiner
    try:
        labels = read_label_table(spec.label_table)
    except (FileNotFoundError, BadInput) as fault:
        raise JobFailed(str(fault)) from fault
    nyu40_of = {word: label.nyu40id for word, label in labels.items()}
    return replace(examiner, class_of=class_of_words(labels, known), nyu40_of=nyu40_of)


def _close(spec: Spec, sheets: Sequence[Sheet], seconds: float) -> tuple[Scores, bytes]:
    """Scores from the files; writes draws.npz (a figure's draws, of each network), the page, and result.json."""
    scores = collect(spec, sheets)
    drawn = {f"{of.name}/{figure}": values for of in scores.networks for figure, values in of.drawn.items()}
    storage.write_bytes(storage.join(spec.output, "draws.npz"), codecs.encode_npz(drawn))
    page.write(spec.output, scores)
    facts = codecs.encode_json(scores.plain() | {"seconds": seconds, "classes": class_names(spec.classes)})
    storage.write_bytes(storage.join(spec.output, "result.json"), facts)
    return scores, facts


def look(spec: Spec) -> tuple[Mixture, dict[str, str]]:
    """The corpora, and the hash of each network's weights.

    Raises:
        JobFailed: one is missing or damaged.
    """
    try:
        check_manifests(spec.corpora)
        mixture = Mixture(spec.corpora, spec.seed)
        if any(lifted_way(one.uri) for one in spec.checkpoints):
            for reader in mixture.readers:
                labelling_clip(reader)
        return mixture, {one.name: weights_hash(one.uri) for one in spec.checkpoints}
    except (FileNotFoundError, BadInput) as fault:
        raise JobFailed(str(fault)) from fault


def forecast(spec: Spec) -> str:
    """What `run` would do."""
    lines = {
        "output": spec.output,
        "writing": preflight.writable(spec.output).text,
        "networks": ", ".join(f"{one.name} ({one.uri})" for one in spec.checkpoints),
        "classes": f"{len(class_names(spec.classes))}",
    }
    try:
        _examiner(spec)
        sheets = list(sheets_of(spec, look(spec)[0]))
        there = marked(spec.output)
        done = sum(sheet.path in there for sheet in sheets)
        lines["samples"] = (
            f"{len(sheets) // len(spec.checkpoints)}, asked of each network; {done} of {len(sheets)} done"
        )
    except JobFailed as reason:
        lines["corpora"] = f"cannot be used as yet: {reason}"
    pool = spec.pool
    lines["pool"] = f"{pool.least} to {pool.most} processes of {pool.cpus} CPUs and {pool.gpus:g} GPUs"
    return "\n".join(f"{name:<9}{text}" for name, text in lines.items()) + "\ndry run: nothing was done"


def collect(spec: Spec, sheets: Sequence[Sheet]) -> Scores:
    """Scores from the files. A sample that one network could not be asked about is left out for all.

    Raises:
        JobFailed: more samples are bad than `max_bad_rate`.
    """
    examined = [Marked.read(spec.output, sheet) for sheet in sheets]
    bad = {paper.scene: paper.error for paper in examined if paper.error}
    papers: dict[str, list[Marked]] = {checkpoint.name: [] for checkpoint in spec.checkpoints}
    for paper in examined:
        if paper.scene not in bad:
            papers[paper.sheet.name].append(paper)
    if len(bad) > spec.max_bad_rate * len(sheets) / len(spec.checkpoints):
        key, error = next(iter(bad.items()))
        raise JobFailed(f"{len(bad)} samples cannot be evaluated, e.g. {key}: {error}; see max_bad_rate")
    known = benchmark(spec.classes)
    groups = known.by_group() if known else None
    return score(papers, class_names(spec.classes), spec.exam.min_points, spec.draws, spec.seed, bad, groups)


def sheets_of(spec: Spec, mixture: Mixture) -> Iterator[Sheet]:
    """Every network with every sample."""
    for checkpoint in spec.checkpoints:
        for number, (reader, kept) in enumerate(zip(mixture.readers, mixture.kept, strict=True)):
            for position in kept:
                yield Sheet(checkpoint.name, checkpoint.uri, number, reader.corpus, position, reader.key(position))


def identity(spec: Spec, mixture: Mixture, weights: dict[str, str]) -> dict[str, Any]:
    """What decides the scores: networks and corpora count by what is in them."""
    return {**specs.identity(spec), "corpora": list(mixture.hashes), "checkpoints": weights}


def weights_hash(checkpoint: str) -> str:
    """Of a checkpoint's weights; what has none is known by its name."""
    if lifted_way(checkpoint):
        return checkpoint
    from liftgs.model.liftgs import weights_bytes  # noqa: PLC0415  torch

    return hashlib.sha256(weights_bytes(checkpoint)).hexdigest()


def examine_on_ray(examiner: Examiner, sheets: Sequence[Sheet], pool: PoolConfig) -> float:
    """In a pool of actors, which Ray restarts when they die; returns the seconds it took."""
    start = monotonic()
    if sheets:
        from liftgs_platform.evaluate_pool import examine_all  # noqa: PLC0415  a dry run needs no Ray

        shown = start
        for done in examine_all(examiner, sheets, pool.least, pool.most, pool.cpus, pool.gpus):
            if monotonic() - shown > 5 or done == len(sheets):
                shown = monotonic()
                left = (shown - start) / done * (len(sheets) - done)
                print(f"[{clock(shown - start)}] {done}/{len(sheets)} examined | about {clock(left)} left", flush=True)
    return round(monotonic() - start, 1)
