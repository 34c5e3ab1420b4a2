"""One method on one sample, kept as a file. Knows no Ray."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property, lru_cache, partial
from typing import Any, get_args

import numpy as np

from liftgs import codecs
from liftgs.lifting import LiftingConfig
from liftgs.model.liftgs import LiftGS
from liftgs.model.text import Phrases
from liftgs.sample import decode_sample
from liftgs.scene import BadInput
from liftgs.tasks.benchmark_files import write_predictions
from liftgs.tasks.evaluation import ExamConfig, Method, Paper, by_network, examine
from liftgs.tasks.instances import Overlaps
from liftgs.tasks.lifted import Way, lifted
from liftgs.tasks.phrases import Encode
from liftgs.tasks.referral import Referral
from liftgs.tasks.scannet_classes import BenchmarkClasses
from liftgs.teachers.clip import build_clip
from liftgs.teachers.configs import EmbedConfig
from liftgs_platform import storage
from liftgs_platform.reader import CorpusReader

_PAPERS = "papers"
_ARRAYS = ("truth_label", "truth_points", "label", "score", "points", "void", "shared")


#: URI -> way, of methods that are no networks.
LIFTED: Mapping[str, Way] = {f"lifted:{way}": way for way in get_args(Way)}


def lifted_way(checkpoint: str) -> Way | None:
    """Which way of lifting a checkpoint's URI names; None if it is a network's.

    Raises:
        ValueError: there is no such way.
    """
    if checkpoint.startswith("lifted:") and checkpoint not in LIFTED:
        raise ValueError(f"{checkpoint!r} names no way of lifting; there are {', '.join(LIFTED)}")
    return LIFTED.get(checkpoint)


def labelling_clip(reader: CorpusReader) -> EmbedConfig:
    """The CLIP that a corpus is labelled with.

    Raises:
        BadInput: its manifest names none.
    """
    spec = reader.contents.head["spec"]
    embed = spec.get("embed") if spec.get("pseudo_labels", True) else None
    if not embed:
        raise BadInput(reader.corpus, "has no pseudo-labels to lift; label it with jobs/pseudolabel.yaml")
    return EmbedConfig(model=embed["model"], pretrained=embed["pretrained"])


@dataclass(frozen=True)
class Sheet:
    """A method and a sample.

    Attributes:
        name: of the method.
        checkpoint: its URI.
        number: of the corpus in the spec.
        corpus: its URI.
        position: of the sample in the corpus.
        key: of the sample.
    """

    name: str
    checkpoint: str
    number: int
    corpus: str
    position: int
    key: str

    @property
    def scene(self) -> str:
        """What scores call it; unique among all corpora."""
        return f"{self.number:02d}-{self.key}"

    @property
    def path(self) -> str:
        """Of the file with the answers, within the output."""
        return f"{_PAPERS}/{self.name}/{self.scene}.npz"

    @property
    def picture(self) -> str:
        """Of the picture."""
        return self.path.removesuffix(".npz") + ".png"


@dataclass(frozen=True, eq=False)
class Marked:
    """What is kept of the answers of one method about one sample.

    Attributes:
        sheet: which.
        overlaps: of instances; None if the sample is bad.
        referrals: of expressions.
        error: what is wrong with the sample; "" if nothing is.
    """

    sheet: Sheet
    overlaps: Overlaps | None
    referrals: list[Referral]
    error: str = ""

    @property
    def scene(self) -> str:
        """See `Sheet.scene`."""
        return self.sheet.scene

    def encode(self) -> bytes:
        """As a file."""
        rows = json.dumps([asdict(record) for record in self.referrals])
        arrays = {"referrals": np.array(rows), "error": np.array(self.error)}
        if self.overlaps is not None:
            arrays |= {name: getattr(self.overlaps, name) for name in _ARRAYS}
        return codecs.encode_npz(arrays)

    @classmethod
    def read(cls, output: str, sheet: Sheet) -> Marked:
        """The inverse.

        Raises:
            BadInput: the file is damaged; says how to mend it.
        """
        uri = storage.join(output, sheet.path)
        arrays = codecs.decode_npz(storage.read_bytes(uri), uri)
        try:
            rows = [
                Referral(**{**row, "groups": tuple(row["groups"])}) for row in json.loads(arrays["referrals"].item())
            ]
            error = str(arrays["error"].item())
            overlaps = None if error else Overlaps(*(arrays[name] for name in _ARRAYS))
        except (KeyError, TypeError, ValueError) as fault:
            raise BadInput(uri, f"is damaged ({fault}); delete it and submit again") from None
        return cls(sheet, overlaps, rows, error)


def marked(output: str) -> set[str]:
    """Paths of the files that are there."""
    root = output.rstrip("/") + "/"
    found = storage.list_files(storage.join(output, _PAPERS))
    return {uri.removeprefix(root) for uri in found if uri.endswith(".npz")}


@dataclass(frozen=True)
class Examiner:
    """Examines sheets, and writes what comes out. Keeps the last network and the corpora open.

    Attributes:
        output: URI of the job's output.
        classes: what is asked for.
        exam: how.
        class_of: see `examine`.
        nyu40_of: see `examine`.
        predictions_for: benchmark in whose form to write predictions, too.
        device: of the network.
    """

    output: str
    classes: tuple[str, ...]
    exam: ExamConfig
    class_of: Mapping[str, str] = field(default_factory=dict)
    nyu40_of: Mapping[str, int] | None = None
    predictions_for: BenchmarkClasses | None = None
    device: str = "cpu"

    def __call__(self, sheet: Sheet) -> None:
        """Examine one, unless its sample is bad, which is written down too."""
        method, encode = self._method(sheet)
        try:
            sample = decode_sample(self._reader(sheet.corpus)[sheet.position], f"{sheet.corpus}#{sheet.key}")
            paper = examine(method, sample, sheet.scene, self.classes, encode, self.exam, self.class_of, self.nyu40_of)
        except BadInput as fault:
            result = Marked(sheet, None, [], str(fault))
        else:
            result = Marked(sheet, paper.overlaps, paper.referrals)
            self._show(sheet, paper)
        storage.write_bytes(storage.join(self.output, sheet.path), result.encode())  # last: it says that all is there

    def _show(self, sheet: Sheet, paper: Paper) -> None:
        storage.write_bytes(storage.join(self.output, sheet.picture), codecs.encode_png(paper.picture()))
        if self.predictions_for:
            folder = storage.join(self.output, f"predictions/{sheet.name}")
            write_predictions(folder, sheet.key, paper.predictions, self.predictions_for)

    def _method(self, sheet: Sheet) -> tuple[Method, Encode]:
        way = lifted_way(sheet.checkpoint)
        if way is None:
            return self._network(sheet.checkpoint)
        encode = self._phrases(sheet.corpus)
        return partial(lifted, way, encode, LiftingConfig()), encode

    @cached_property
    def _phrases(self) -> Any:
        return lru_cache(1)(lambda corpus: Phrases(build_clip(labelling_clip(self._reader(corpus)))))

    @cached_property
    def _network(self) -> Any:
        return lru_cache(1)(self._load)

    def _load(self, checkpoint: str) -> tuple[Method, Encode]:
        model = LiftGS.from_pretrained(checkpoint, self.device)
        return by_network(model), Phrases(model.clip())

    @cached_property
    def _reader(self) -> Any:
        return lru_cache(64)(CorpusReader)


def examine_here(examiner: Examiner, sheets: Sequence[Sheet]) -> None:
    """All, in this process."""
    for sheet in sheets:
        examiner(sheet)
