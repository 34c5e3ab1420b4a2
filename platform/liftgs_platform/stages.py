"""Stages of a sweep: jobs whose folders are named after everything that decides what comes out.

A stage is a job's spec in which what other stages make is written as `stage:KIND-HASH`. Its own hash is that of the
whole resolved spec, less the fields that say where and how fast it runs, with every corpus and network that it reads
from elsewhere replaced by a hash of its content. So two sweeps that want the same thing mean the same folder, and a
folder that was computed on another machine counts here once it is copied in.

    STAGES/finetune-3f2a9c0d1b7e5a64/
      stage.json     what to do: kind, spec, hash, inputs; enough to do it anywhere
      ...            what the job writes
      done.json      written last: it says that all is there, how long it took and by what code
"""

from __future__ import annotations

import hashlib
import importlib
import json
import re
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from functools import cached_property
from types import ModuleType
from typing import Any

from liftgs_platform import spec as specs
from liftgs_platform import storage
from liftgs_platform.job import JOBS, JobFailed
from liftgs_platform.manifest import MANIFEST
from liftgs_platform.mixture import content_hash
from liftgs_platform.reader import CorpusReader
from liftgs_platform.revision import code_revision

#: Kinds of stages, in the order of a sweep.
KINDS = ("pseudolabel", "pretrain", "finetune", "evaluate")
_REFERENCE = re.compile(r"stage:([a-z]+)-([0-9a-f]{64})$")


@dataclass(frozen=True)
class Stage:
    """One job of a sweep.

    Attributes:
        kind: of job; a key of `JOBS`.
        title: for people: "finetune apartments, ratio 0.1, seed 0".
        spec: of the job. Its output is not looked at; inputs from other stages are `stage:KIND-HASH`.
    """

    kind: str
    title: str = field(compare=False)
    spec: Any

    @property
    def module(self) -> ModuleType:
        """That does it."""
        return importlib.import_module(JOBS[self.kind])

    @cached_property
    def hash(self) -> str:
        """Of all that decides what comes out.

        Raises:
            JobFailed: an input from outside the sweep is missing or damaged.
        """
        named = pin if self.kind == "pseudolabel" else pin_network  # names of teachers, names of networks
        pinned = self.module.resolve(self.spec, pin, named)
        facts: dict[str, Any] = {"kind": self.kind, "spec": specs.identity(pinned)}
        if self.kind in ("pretrain", "finetune"):
            facts["network"] = _architecture(self.spec.model)  # not its name alone: what ships may change
        return specs.digest(facts)

    @cached_property
    def inputs(self) -> tuple[str, ...]:
        """Hashes of the stages that it needs, each once."""
        found: dict[str, None] = {}

        def see(uri: str) -> str:
            match = _REFERENCE.match(uri)
            if match:
                found[match[2]] = None
            return uri

        self.module.resolve(self.spec, see, see)
        return tuple(found)

    @property
    def reference(self) -> str:
        """What another stage's spec says where it wants this one's output."""
        return f"stage:{self.kind}-{self.hash}"

    @property
    def name(self) -> str:
        """Of its folder."""
        return _folder_name(self.kind, self.hash)

    def encode(self) -> bytes:
        """As stage.json."""
        facts = {"kind": self.kind, "title": self.title, "hash": self.hash, "inputs": list(self.inputs)}
        return json.dumps(facts | {"spec": specs.plain(self.spec)}, indent=1).encode() + b"\n"


def _folder_name(kind: str, digest: str) -> str:
    return f"{kind}-{digest[:16]}"


def pin(uri: str) -> str:
    """An input by its content, if it is a finished corpus; anything else stands for itself.

    Raises:
        JobFailed: it looks like a corpus, and cannot be read.
    """
    try:
        if uri and not _REFERENCE.match(uri) and storage.exists(storage.join(uri, MANIFEST)):
            return f"corpus:{content_hash(CorpusReader(uri))}"
    except (OSError, ValueError) as fault:
        raise JobFailed(f"{uri}: {fault}") from fault
    return uri


def _architecture(model: Any) -> dict[str, Any] | None:
    """Of a network that starts from random weights; that of another is told by its weights."""
    from liftgs.model.liftgs import LiftGSConfig  # noqa: PLC0415  torch

    return None if model.start else asdict(LiftGSConfig.named(model.config))


def pin_network(uri: str) -> str:
    """A network by its weights.

    Raises:
        JobFailed: there is none.
    """
    if not uri or _REFERENCE.match(uri):
        return uri
    from liftgs.model.liftgs import weights_bytes  # noqa: PLC0415  torch

    try:
        return f"weights:{hashlib.sha256(weights_bytes(uri)).hexdigest()}"
    except (OSError, ValueError) as fault:
        raise JobFailed(f"{uri}: {fault}") from fault


@dataclass(frozen=True)
class PoolSpec:
    """How stages are run.

    Attributes:
        cpus: CPUs that a stage reserves, and computes with.
        gpus: GPUs that a stage reserves; a fraction shares one.
        on_ray: stages are Ray jobs within the job: labelling and evaluation in their pools, training on as many workers
            as there is room for. Otherwise each runs in one process, which is quicker where stages are small.
        most: stages at once; 0 = as many as its nodes have room for. A cluster that grows needs a number, for which
            nodes then come.
        retries: a stage whose process dies is started again so often; it goes on where it was.
    """

    cpus: int = 1
    gpus: float = 0.0
    on_ray: bool = False
    most: int = 0
    retries: int = 5

    def __post_init__(self) -> None:
        if self.cpus < 1 or self.gpus < 0 or self.most < 0 or self.retries < 0:
            raise ValueError("cpus must be at least 1; gpus, most and retries not negative")


@dataclass(frozen=True)
class Done:
    """How a stage ended.

    Attributes:
        hash: of the stage.
        seconds: of work, over all attempts as far as the job counts them.
        finished: when, as ISO 8601.
        code_revision: that did the last of it.
        device: that did: "CPU", or the name of a GPU; "" = not known.
    """

    hash: str
    seconds: float
    finished: str
    code_revision: str
    device: str = ""


@dataclass(frozen=True)
class Store:
    """The folder of all stages, of any number of sweeps.

    Attributes:
        root: a folder or s3://bucket/name.
    """

    root: str

    def folder(self, stage: Stage) -> str:
        """Where a stage's output is."""
        return storage.join(self.root, stage.name)

    def describe(self, stage: Stage) -> None:
        """Write stage.json, unless it says the same already; an older version's may lack fields."""
        uri, told = storage.join(self.folder(stage), "stage.json"), stage.encode()
        try:
            there = storage.read_bytes(uri)
        except FileNotFoundError:
            there = b""
        if there != told:
            storage.write_bytes(uri, told)

    def done(self, stage: Stage) -> Done | None:
        """How it ended, if it has.

        Raises:
            JobFailed: the folder holds another stage's output, or done.json is damaged.
        """
        return self._read_done(self.folder(stage), stage.hash)

    def all_done(self) -> dict[str, Done]:
        """Of every finished stage: its folder's name -> how it ended."""
        found = {name: self._read_done(storage.join(self.root, name), "") for name in self._names("done.json")}
        return {name: done for name, done in found.items() if done is not None}

    def finish(self, stage: Stage, seconds: float, device: str = "") -> Done:
        """Write done.json."""
        now = datetime.now(UTC).isoformat(timespec="seconds")
        done = Done(stage.hash, round(seconds, 3), now, code_revision(), device)
        uri = storage.join(self.folder(stage), "done.json")
        storage.write_bytes(uri, json.dumps(vars(done), indent=1).encode() + b"\n")
        return done

    def load(self, wanted: str) -> Stage:
        """The stage whose folder is called so, or whose hash begins so.

        Raises:
            JobFailed: there is none, or several, or its stage.json is damaged, or says what today is another stage.
        """
        known = {name: name.rpartition("-")[2] for name in self._names()}
        found = [name for name, digest in known.items() if name == wanted or digest.startswith(wanted[:16])]
        if len(found) != 1:
            raise JobFailed(f"{self.root}: {len(found) or 'no'} stages are called {wanted!r}; see its folders' names")
        stage = self._read(found[0])
        if stage.name != found[0]:
            folder = storage.join(self.root, found[0])
            raise JobFailed(
                f"{folder}: would be {stage.name} today, since an input or what ships has changed; plan the sweep again"
            )
        return stage

    def known(self) -> dict[str, Stage | JobFailed]:
        """All stages that were ever planned here, or why they cannot be read, by their folders' names."""
        found: dict[str, Stage | JobFailed] = {}
        for name in sorted(self._names()):
            try:
                found[name] = self._read(name)
            except JobFailed as fault:
                found[name] = fault
        return found

    def ready_spec(self, stage: Stage) -> Any:
        """The spec as the job takes it: with the folders of its inputs, and its own.

        Raises:
            JobFailed: an input is not done.
        """
        missing: list[str] = []

        def place(uri: str) -> str:
            match = _REFERENCE.match(uri)
            if not match:
                return uri
            folder = storage.join(self.root, _folder_name(match[1], match[2]))
            if self._read_done(folder, match[2]) is None:
                missing.append(folder)
            return folder

        spec = stage.module.resolve(stage.spec, place, place)
        if missing:
            raise JobFailed(f"{stage.name} needs {', '.join(dict.fromkeys(missing))}, which is not done")
        return replace(spec, output=self.folder(stage))

    def _read(self, name: str) -> Stage:
        uri = storage.join(self.root, name, "stage.json")
        try:
            facts = json.loads(storage.read_bytes(uri))
            module = importlib.import_module(JOBS[facts["kind"]])
            return Stage(facts["kind"], facts["title"], specs.build(module.Spec, facts["spec"], uri))
        except FileNotFoundError:
            raise JobFailed(f"{uri}: is missing; plan the sweep again") from None
        except (KeyError, TypeError, ValueError) as fault:
            raise JobFailed(f"{uri}: is damaged ({fault}); plan the sweep again") from None

    def _names(self, holding: str = "stage.json") -> set[str]:
        root = self.root.rstrip("/") + "/"
        found = [uri.removeprefix(root).split("/") for uri in storage.list_files(self.root)]
        return {parts[0] for parts in found if parts[1:] == [holding]}

    def _read_done(self, folder: str, wanted: str) -> Done | None:
        uri = storage.join(folder, "done.json")
        try:
            done = Done(**json.loads(storage.read_bytes(uri)))
        except FileNotFoundError:
            return None
        except (TypeError, ValueError) as fault:
            raise JobFailed(f"{uri}: is damaged ({fault}); delete it, and the stage is looked at again") from None
        if wanted and done.hash != wanted:
            raise JobFailed(f"{uri}: is of stage {done.hash[:16]}, not of {wanted[:16]}; move that folder away")
        return done


def order(stages: Iterable[Stage]) -> list[Stage]:
    """Each stage once, after those that it needs.

    Raises:
        ValueError: a stage needs one that is not among them.
    """
    by_hash: dict[str, Stage] = {}
    for stage in stages:
        by_hash.setdefault(stage.hash, stage)
    ordered: dict[str, Stage] = {}

    def add(stage: Stage) -> None:
        if stage.hash in ordered:
            return
        for needed in stage.inputs:
            if needed not in by_hash:
                raise ValueError(f"{stage.title} needs a stage that is not planned: {needed[:16]}")
            add(by_hash[needed])
        ordered[stage.hash] = stage

    for stage in by_hash.values():
        add(stage)
    return list(ordered.values())


#: What does a stage: gets the job's spec, returns the seconds of work, and the device that did it.
Work = Callable[[Stage, Any], tuple[float, str]]


def run_stage(store: Store, stage: Stage, work: Work) -> Done:
    """Do a stage, or what is missing of it; nothing if it is done.

    Raises:
        JobFailed: it cannot be done.
    """
    done = store.done(stage)
    if done is not None:
        return done
    store.describe(stage)
    return store.finish(stage, *work(stage, store.ready_spec(stage)))


def here(cpus: int = 1, gpu: bool = False) -> Work:
    """Work in this process, with so many threads; training and evaluation on its GPU, if so wished.

    Raises:
        JobFailed: from the work, if there is no such GPU.
    """

    def work(stage: Stage, spec: Any) -> tuple[float, str]:
        device = ""  # labelling has its own from its scale
        for processes in ("worker", "pool"):
            if hasattr(spec, processes):
                device = _gpu() if gpu else "CPU"
                like = replace(getattr(spec, processes), cpus=cpus, gpus=int(gpu))
                spec = replace(spec, **{processes: like})
        return stage.module.run_here(spec), device

    return work


def _gpu() -> str:
    """Its name."""
    import torch  # noqa: PLC0415

    if not torch.cuda.is_available():
        raise JobFailed("a GPU is asked for, and PyTorch sees none here; leave --gpu (or pool.gpus) out")
    return torch.cuda.get_device_name()


def run_without_ray(store: Store, stages: Iterable[Stage], cpus: int = 1, gpu: bool = False) -> None:
    """All that is missing, one after the other, in this process; see `here`.

    Raises:
        JobFailed: one cannot be done.
    """
    for stage in stages:
        run_stage(store, stage, here(cpus, gpu))
