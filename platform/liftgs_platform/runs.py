"""Finds what jobs have left below a folder: corpora, trainings, evaluations, sweeps. Reads their small files only.

A folder is known by what lies in it: manifest.json or plan.jsonl make a corpus, run.json a training or an evaluation,
runs/ the output of any job. Folders inside of one are its own affair and not looked into.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import yaml

from liftgs.readers.files import Folder
from liftgs.scene import BadInput
from liftgs_platform.manifest import MANIFEST

#: Folders this far below are found; deeper ones belong to something else.
DEPTH = 5

#: What a job's output is called, in the order in which they are shown.
KINDS = {
    "pseudolabel": "corpus",
    "pretrain": "training",
    "finetune": "training",
    "teachers": "teachers",
    "evaluate": "evaluation",
    "sweep": "sweep",
}


@dataclass(frozen=True)
class Run:
    """What a job has made, or is making.

    Attributes:
        name: path below the folder that was searched; "." is that folder itself.
        kind: one of `KINDS`' values, or the name of another job.
        state: "complete", or how far it is, or "damaged".
        started: when it was last submitted, ISO 8601; "" if that is not recorded.
        figure: what one wants to know first.
        page: path of its page below the folder that was searched, or "".
    """

    name: str
    kind: str
    state: str
    started: str
    figure: str
    page: str


def find(folder: str) -> list[Run]:
    """All below a folder, by kind, the newest first.

    Raises:
        BadInput: there is no such folder.
    """
    order = list(dict.fromkeys(KINDS.values()))
    found = sorted(_search(Folder(folder), "", DEPTH), key=lambda run: run.started, reverse=True)
    return sorted(found, key=lambda run: order.index(run.kind) if run.kind in order else len(order))


def _search(root: Folder, path: str, depth: int) -> Iterator[Run]:
    try:
        entries = root.entries(path)
    except BadInput as fault:
        if not path:
            raise
        yield Run(path, "unknown", "damaged", "", str(fault), "")
        return
    if entries.keys() & {MANIFEST, "plan.jsonl", "run.json"} or entries.get("runs"):
        found = _read(root.child(path) if path else root, path or ".", entries)
        if found is not None:
            yield found
            return
    if depth:
        for name, is_folder in entries.items():
            if is_folder and not name.startswith("."):
                yield from _search(root, f"{path}/{name}" if path else name, depth - 1)


def _read(folder: Folder, name: str, entries: dict[str, bool]) -> Run | None:
    """None if its runs/ is not that of a job."""
    pages = [page for page in ("report.html", "README.md") if page in entries]
    page = f"{name}/{pages[0]}".removeprefix("./") if pages else ""
    kind, started = "", ""
    try:
        submission = _last_submission(folder) if entries.get("runs") else {}
        started = str(submission.get("started", ""))
        if entries.keys() & {MANIFEST, "plan.jsonl"}:
            kind = "corpus"
            state, figure = _corpus(folder, entries)
        else:
            begun = _mapping(folder, "run.json") if "run.json" in entries else {}
            job = str(begun.get("job") or submission.get("job") or "")
            if not job:
                return None
            kind = KINDS.get(job, job)
            state, figure = _HOW_FAR.get(kind, _other)(folder, entries, begun)
    except BadInput as fault:
        return Run(name, kind or "unknown", "damaged", started, str(fault), page)
    return Run(name, kind, state, started, figure, page)


def _corpus(folder: Folder, entries: dict[str, bool]) -> tuple[str, str]:
    if MANIFEST not in entries:
        return "not finished", ""
    manifest = _mapping(folder, MANIFEST)
    try:
        counts, lost = manifest["counts"], manifest["quarantine"]["rows"]
        figure = f"{counts['samples']:,} samples, {counts['views']:,} views"
    except (KeyError, TypeError, ValueError) as fault:
        raise BadInput(folder.uri_of(MANIFEST), f"is not the manifest of a corpus ({fault!r})") from None
    return "complete", figure + (f", {lost:,} in quarantine" if lost else "")


def _training(folder: Folder, entries: dict[str, bool], begun: dict[str, Any]) -> tuple[str, str]:
    optim = begun.get("optim")
    steps = optim.get("steps") if isinstance(optim, dict) else None
    row = _last_row(folder) if entries.get("log") else {}
    loss = row.get("loss")
    figure = f"loss {loss:.4g}" if isinstance(loss, int | float) else ""
    if "config.json" in entries:  # the last that a training writes
        return "complete", figure
    return f"step {row.get('step', 0)} of {steps}", figure


def _last_row(folder: Folder) -> dict[str, Any]:
    """The newest row of a training's log."""
    files = [name for name in folder.entries("log") if name.endswith(".jsonl")]
    if not files:
        return {}
    file = f"log/{files[-1]}"
    text = folder.text(file)
    try:
        rows = [dict(json.loads(line)) for line in text.splitlines()]
    except (ValueError, TypeError, RecursionError) as fault:
        raise BadInput(folder.uri_of(file), f"is not the log of a training ({fault})") from None
    return next((row for row in reversed(rows) if "event" not in row), {})


def _evaluation(folder: Folder, entries: dict[str, bool], begun: dict[str, Any]) -> tuple[str, str]:
    if "result.json" not in entries:
        return "not finished", ""
    networks = _mapping(folder, "result.json").get("networks")
    try:
        scores = {name: network["figures"]["AP25"]["value"] for name, network in dict(networks or {}).items()}
        known = [f"{name} {100 * score:.1f}" for name, score in scores.items() if score is not None]
    except (KeyError, TypeError, ValueError) as fault:
        raise BadInput(folder.uri_of("result.json"), f"is not the result of an evaluation ({fault!r})") from None
    return "complete", f"AP25 %: {', '.join(known)}" if known else ""


def _other(folder: Folder, entries: dict[str, bool], begun: dict[str, Any]) -> tuple[str, str]:
    """Jobs end by leaving a result beside the spec of their submission."""
    number = _submissions(folder)[-1:] if entries.get("runs") else []
    results = [name for one in number for name in folder.entries(f"runs/{one}") if name.startswith("result")]
    return ("complete" if results else "not finished"), ""


_HOW_FAR = {"training": _training, "evaluation": _evaluation}


def _submissions(folder: Folder) -> list[str]:
    return [name for name, is_folder in folder.entries("runs").items() if is_folder and name.isdecimal()]


def _last_submission(folder: Folder) -> dict[str, Any]:
    """What the newest submission recorded; nothing if runs/ holds none."""
    numbers = _submissions(folder)
    if not numbers:
        return {}
    file = f"runs/{numbers[-1]}/spec.yaml"
    try:
        facts = yaml.safe_load(folder.text(file))
    except yaml.YAMLError as fault:
        raise BadInput(folder.uri_of(file), f"not YAML ({' '.join(str(fault).split())})") from None
    if not isinstance(facts, dict):
        raise BadInput(folder.uri_of(file), "is not the record of a submission")
    return facts


def _mapping(folder: Folder, file: str) -> dict[str, Any]:
    content = folder.json(file)
    if not isinstance(content, dict):
        raise BadInput(folder.uri_of(file), "is not an object")
    return content
