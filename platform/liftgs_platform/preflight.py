"""What must be right before a job works: storage that can be written, weights that are there, nodes that fit.

A check ends in a line for a person, `ok` or what is wrong and what to do. Nothing here knows what a job does.
"""

from __future__ import annotations

import os
import platform
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

from liftgs.scene import BadInput
from liftgs_platform import storage
from liftgs_platform.job import JobFailed
from liftgs_platform.revision import code_revision

#: A node starts a process to answer.
ANSWER_WITHIN_S = 60.0

_PROBE = b"liftgs writes this before a job, and takes it away again\n"


@dataclass(frozen=True)
class Finding:
    """How a check went.

    Attributes:
        what: was looked at, in a word.
        ok: what was found to be right.
        problem: what is wrong, and what to do; "" = nothing.
        stops: whether the job cannot go on with this problem, or it is only told.
    """

    what: str
    ok: str = ""
    problem: str = ""
    stops: bool = True

    @property
    def text(self) -> str:
        """For a person."""
        return f"{'PROBLEM' if self.stops else 'note'}: {self.problem}" if self.problem else f"ok, {self.ok}"


@dataclass(frozen=True)
class NodeFacts:
    """What a node says of itself.

    Attributes:
        versions: of Python, Ray and this code.
        missing: which of the paths that it was asked for are not there.
    """

    versions: Mapping[str, str]
    missing: tuple[str, ...]


def require(findings: Sequence[Finding]) -> None:
    """Tell all findings.

    Raises:
        JobFailed: one of them stops the job.
    """
    for finding in findings:
        print(f"{finding.what:<9}{finding.text}")
    problems = [f"{finding.what}: {finding.problem}" for finding in findings if finding.problem and finding.stops]
    if problems:
        raise JobFailed(f"nothing was begun, since {'; '.join(problems)}")


def writable(output: str) -> Finding:
    """Put, get and delete a small file where a job will write."""
    probe = storage.join(_there(output), f".preflight-{uuid.uuid4().hex}.tmp")
    try:
        storage.write_bytes(probe, _PROBE)
        found = storage.read_bytes(probe)
        storage.delete(probe)
    except OSError as error:  # StorageError is one
        return Finding("writing", problem=f"{error}; the job must write, read and delete below {output}")
    if found != _PROBE:
        return Finding("writing", problem=f"{output}: what is read there is not what was written")
    return Finding("writing", "can be written, read and deleted")


def readable(what: str, read: Callable[[], object]) -> Finding:
    """Try to read something. Whatever is wrong with the data itself is for the job to find."""
    try:
        read()
    except BadInput:
        return Finding(what, "can be read, though the first of it is bad")
    except OSError as error:
        return Finding(what, problem=f"{error}")
    return Finding(what, "can be read")


def present(what: str, files: Iterable[str]) -> Finding:
    """Whether files are on this machine. Others may have them, which `nodes` asks."""
    lacking = [file for file in local(files) if not os.path.exists(file)]
    if lacking:
        return Finding(what, problem=f"this machine lacks {_few(lacking)}; so must not those that work", stops=False)
    return Finding(what, "what comes from files is there")


def local(places: Iterable[str]) -> list[str]:
    """Those that are absolute paths; the rest are names, or URIs that each node reaches by itself."""
    return [path for path in map(storage.local_path, filter(os.path.isabs, places)) if path is not None]


def nodes(paths: Iterable[str]) -> list[Finding]:
    """Ask every node of the cluster for its versions, and for the paths among these. Who joins later is not asked."""
    ours, wanted = versions(), local(paths)
    facts, silent = survey(wanted)
    skewed = [
        f"{node} has {name} {theirs}, and this job {ours[name]}"
        for node, said in facts.items()
        for name, theirs in said.versions.items()
        if theirs != ours[name]
    ]
    told = ", ".join(f"{name} {number}" for name, number in ours.items())
    findings = [Finding("nodes", f"{len(facts)} with {told}")]
    if skewed:
        advice = "install the same there, or submit with --working-dir, which brings the code"
        findings = [Finding("nodes", problem=f"{_few(skewed)}; {advice}", stops=False)]
    if silent:
        said = f"no answer within {ANSWER_WITHIN_S:g} s from {_few(silent)}"
        findings.append(Finding("answers", problem=said, stops=False))
    lacking = {path: [node for node, said in facts.items() if path in said.missing] for path in wanted}
    nowhere = [path for path, without in lacking.items() if facts and len(without) == len(facts)]
    some = [f"{_few(without)} lacks {path}" for path, without in lacking.items() if without and path not in nowhere]
    if nowhere:
        findings.append(Finding("files", problem=f"no node has {_few(nowhere)}; mend the spec, or put it there"))
    elif some:
        advice = "nothing that works there can use it; give s3://, or a folder that all share"
        findings.append(Finding("files", problem=f"{_few(some)}; {advice}", stops=False))
    return findings


def room(kind: str, needed: float, per_node: Sequence[float], advice: str) -> Finding:
    """Whether what a job holds at once fits into the cluster.

    Args:
        kind: of room, in a word or two.
        needed: bytes.
        per_node: bytes that each node has of it.
        advice: what to do if it does not fit.
    """
    has = f"{needed / 1e9:.2g} GB of {sum(per_node) / 1e9:.2g} GB"
    if needed > sum(per_node):
        return Finding(kind, problem=f"about {has} are needed; {advice}", stops=False)
    return Finding(kind, f"about {has}")


def node_bytes(resource: str) -> list[float]:
    """Of "memory" or "object_store_memory", what each living node has."""
    import ray  # noqa: PLC0415  most checks need none

    return [node["Resources"].get(resource, 0.0) for node in ray.nodes() if node["Alive"]]


def versions() -> dict[str, str]:
    """Of this process."""
    return {"python": platform.python_version(), "ray": version("ray"), "liftgs": code_revision()}


def survey(paths: Sequence[str]) -> tuple[dict[str, NodeFacts], list[str]]:
    """What each node says, by its address, and who says nothing."""
    import ray  # noqa: PLC0415
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy  # noqa: PLC0415

    ask = ray.remote(num_cpus=0, max_retries=1)(look)
    asked: dict[Any, str] = {}
    for node in ray.nodes():
        if node["Alive"]:
            there = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
            name = f"{node['NodeManagerAddress']}:{node['NodeManagerPort']}"
            asked[ask.options(scheduling_strategy=there).remote(paths)] = name
    answered, waiting = ray.wait(list(asked), num_returns=len(asked), timeout=ANSWER_WITHIN_S)
    facts: dict[str, NodeFacts] = {}
    silent = [asked[one] for one in waiting]
    for one in answered:
        try:
            facts[asked[one]] = ray.get(one)
        except ray.exceptions.RayError:
            silent.append(asked[one])
    return facts, silent


def look(paths: Sequence[str]) -> NodeFacts:
    """What a node is asked."""
    return NodeFacts(versions(), tuple(path for path in paths if not os.path.exists(path)))


def _there(output: str) -> str:
    """The nearest folder that exists, so that a check leaves none behind; object stores have no folders."""
    path = storage.local_path(output)
    while path is not None and not os.path.exists(path) and path != os.path.dirname(path):
        path = os.path.dirname(path)
    return output if path is None else path


def _few(items: Sequence[str], count: int = 3) -> str:
    more = f" and {len(items) - count} more" if len(items) > count else ""
    return ", ".join(items[:count]) + more
