"""The job that labels raw posed RGB-D: plan, then load -> segment -> embed -> caption -> commit on Ray Data, then the
manifest. Whatever dies on the way, submitting the job again ends with the same corpus.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field, replace
from time import monotonic
from typing import Any

from liftgs.annotations import expressions_by_scene
from liftgs.chunks import ChunkingConfig
from liftgs.geometry import CloudConfig
from liftgs.readers import ReaderOptions, open_scene
from liftgs.scene import BadInput
from liftgs.teachers.captions import CaptionConfig
from liftgs.teachers.configs import EmbedConfig, SegmentConfig, split_weights
from liftgs_platform import manifest, preflight, shards, storage
from liftgs_platform import spec as specs
from liftgs_platform.forecast import of_labelling
from liftgs_platform.job import Job, JobFailed
from liftgs_platform.label_plan import Planner, frames_of, unplanned_scenes
from liftgs_platform.label_scale import ScaleSpec, build_pools, shortage
from liftgs_platform.label_stages import STAGES, LoadConfig, Stage, Tally, run_in_process
from liftgs_platform.label_teachers import BuildCaption, BuildCommit, BuildEmbed, BuildLoad, BuildSegment
from liftgs_platform.label_toll import Toll, check_scenes, committed
from liftgs_platform.ledger import Seen
from liftgs_platform.progress import Progress, State, clock
from liftgs_platform.revision import code_revision
from liftgs_platform.shard_plan import Plan, PlannedShard, read_plans, write_plan
from liftgs_platform.simulation import LabellingModel, Nodes
from liftgs_platform.spec import WHERE_ONLY

#: What an actor takes beside its models, and what a photo's pixel takes in the object store, about: bytes.
_ACTOR_BYTES, _PIXEL_BYTES = 600e6, 3

#: Shards in the object store for each actor: one at work, one waiting, one done.
_SHARDS_PER_ACTOR = 3


@dataclass(frozen=True)
class Spec:
    """What to label, with what, and where to.

    Attributes:
        source: a scene, a folder of scenes (a path or s3://...), or procedural:apartments?scenes=24.
        output: the corpus: a folder or s3://bucket/name. Submitting again with the same output does what is missing.
        job: the kind of job.
        annotations: files of referring expressions about the source's labelled scenes: of ScanRefer, ScanEnts3D,
            Locate 3D, Nr3D or Sr3D.
        pseudo_labels: ask the teachers. Without, a labelled source gives a corpus of 3D labels alone, to finetune and
            evaluate with.
        photo_long_side_px: larger photos are stored, and labelled, this small. Paper: 512x512 (appendix A.1).
        chunks_per_shard: samples per tar. A shard is what a killed process loses; a few tens of MB serve readers well.
        max_quarantine_rate: the job fails once more than this fraction of its frames (and more than 20) cannot be
            labelled, or of its scenes (and more than 2) not even opened. What is committed stays.
        retry: do what is missing, then again what is in quarantine; after a killed retry, finish that one.
        nodes: the cluster that `dry_run` makes its forecast for.
        dry_run: say what would be done and, once this output has begun, how long the rest takes; then stop.
        no_progress_timeout_s: fail if no shard leaves any stage for so long; a model's start, or a cluster's,
            must fit in.
    """

    source: str
    output: str = field(metadata=WHERE_ONLY)
    job: str = "pseudolabel"
    reader: ReaderOptions = field(default_factory=ReaderOptions)
    chunking: ChunkingConfig = field(default_factory=ChunkingConfig)
    cloud: CloudConfig = field(default_factory=CloudConfig)
    annotations: tuple[str, ...] = ()
    pseudo_labels: bool = True
    photo_long_side_px: int = 512
    segment: SegmentConfig = field(default_factory=SegmentConfig)
    embed: EmbedConfig = field(default_factory=EmbedConfig)
    caption: CaptionConfig = field(default_factory=CaptionConfig)
    chunks_per_shard: int = 4
    max_quarantine_rate: float = field(default=0.1, metadata=WHERE_ONLY)
    retry: bool = field(default=False, metadata=WHERE_ONLY)
    nodes: Nodes = field(default_factory=Nodes, metadata=WHERE_ONLY)
    dry_run: bool = field(default=False, metadata=WHERE_ONLY)
    no_progress_timeout_s: float = field(default=3600.0, metadata=WHERE_ONLY)
    scale: ScaleSpec = field(default_factory=ScaleSpec, metadata=WHERE_ONLY)

    def __post_init__(self) -> None:
        if self.chunks_per_shard < 1 or self.photo_long_side_px < 1:
            raise ValueError("chunks_per_shard and photo_long_side_px must be at least 1")
        if self.caption.captioner == "vllm" and self.caption.python and "caption" not in self.scale.layout:
            raise ValueError(
                "caption.python needs a pool for captions alone; choose scale=cluster, or name caption so in pools"
            )


def resolve(spec: Spec, uri: Callable[[str], str], name_or_file: Callable[[str], str]) -> Spec:
    """The spec with absolute paths."""
    tag, clip = split_weights(spec.embed.pretrained)
    return replace(
        spec,
        source=uri(spec.source),
        output=uri(spec.output),
        annotations=tuple(map(uri, spec.annotations)),
        segment=replace(spec.segment, checkpoint=name_or_file(spec.segment.checkpoint)),
        embed=replace(spec.embed, pretrained=(f"{tag}@" if tag else "") + name_or_file(clip)),
        caption=replace(
            spec.caption,
            vocabulary=name_or_file(spec.caption.vocabulary),
            cache=uri(spec.caption.cache) if spec.caption.cache else spec.caption.cache,
            python=uri(spec.caption.python) if spec.caption.python else "",
        ),
    )


def run(spec: Spec, job: Job) -> None:
    """Label what is missing, then, if `spec.retry`, what is in quarantine.

    Raises:
        JobFailed: the source or the output cannot be used, the machine fails, or too much cannot be labelled.
    """
    plans = open_plans(spec)
    todo = missing_shards(spec, plans)
    if spec.dry_run:
        print(forecast(spec, plans, todo))
        return
    preflight.require(checks(spec, todo))
    for name, text in outlook(spec, todo).items():
        print(f"{name:<9}{text}")
    begun_by = plans[0].provenance["code_revision"]
    if begun_by != code_revision():
        print(f"note: this corpus was begun by code {begun_by}; what is missing is made by {code_revision()}")
    write_plan(spec.output, plans[-1])
    run_folder = job.record(spec)
    # A retry that was killed is finished first, and is then the retry that was asked for.
    unfinished = len(plans) > 1 and (todo or not manifest.is_current(spec.output, plans))
    if todo:
        work(spec, plans, todo, job, run_folder)
    if spec.retry and not unfinished:
        plan = planner(spec).retry(plans, committed(spec.output))
        if plan is not None:
            write_plan(spec.output, plan)
            plans = [*plans, plan]
            if plan.shards:  # else all of it are scenes that still cannot be opened
                work(spec, plans, plan.shards, job, run_folder)
    finish(spec.output)


def work(spec: Spec, plans: Sequence[Plan], todo: Sequence[PlannedShard], job: Job, run_folder: str) -> None:
    """Label shards on Ray, and note how fast it went."""
    job.connect()
    preflight.require(
        [
            *preflight.nodes([spec.source, spec.output, *weights(spec), spec.caption.python]),
            *room_for(spec, plans, todo),
        ]
    )
    started = monotonic()
    state, tallies, frames_per_s = label(spec, plans, todo, factories(spec, plans))
    seconds = monotonic() - started
    facts = {
        "frames": state.done,
        "quarantined": state.quarantined,
        "seconds": round(seconds, 3),
        "frames_per_s": frames_per_s,
        "stages": {stage: vars(tallies[stage]) for stage in STAGES if stage in tallies},
    }
    name = f"result-retry{plans[-1].retry}.json" if plans[-1].retry else "result.json"
    storage.write_bytes(storage.join(run_folder, name), json.dumps(facts, indent=1).encode())
    print(speed_table(state, tallies, seconds, frames_per_s))


def run_here(spec: Spec, build: Mapping[str, Any] | None = None) -> float:
    """`run` without Ray, in this process: the same corpus, for a debugger, a test, or to compare speeds.

    Args:
        spec: of the job; its scale does not matter.
        build: stage -> what builds it, if not `factories`.

    Returns:
        The seconds it took.

    Raises:
        JobFailed: the source or the output cannot be used, or too much cannot be labelled.
    """
    start = monotonic()
    plans = open_plans(spec)
    write_plan(spec.output, plans[-1])
    stages: dict[str, Stage] = {}
    for name, factory in (build or factories(spec, plans)).items():
        stages[name] = factory(stages)
    todo = missing_shards(spec, plans)
    toll = Toll(spec.output, spec.max_quarantine_rate, plans, todo)
    for draft in run_in_process(list(stages.values()), todo):
        toll.add(draft.quarantine)
    manifest.write(spec.output)
    return round(monotonic() - start, 3)


def open_plans(spec: Spec) -> list[Plan]:
    """The plans of the corpus, or a first one, not yet written.

    Raises:
        JobFailed: the corpus was begun with another spec, or there is nothing to label.
    """
    try:
        plans = read_plans(spec.output)
        if not plans:
            plan = planner(spec).first(spec.source)
            scenes = {chunk.scene for shard in plan.shards for chunk in shard.chunks}
            check_annotations(spec.annotations, scenes)
            check_scenes(spec.source, spec.max_quarantine_rate, len(scenes), plan.quarantine)
            return [plan]
    except (ValueError, OSError) as fault:  # BadInput is one of the first, StorageError of the second
        raise JobFailed(f"nothing can be planned: {fault}") from fault
    differences = specs.differences(specs.completed(plans[0].spec, Spec), specs.identity(spec))
    if differences:
        raise JobFailed(
            f"{spec.output} holds a corpus of another spec ({'; '.join(differences)}); "
            "choose another output, or submit with the settings it was begun with"
        )
    return plans


def check_annotations(annotations: Iterable[str], scenes: Collection[str]) -> None:
    """See that each file can be read, and speaks of some scene.

    Raises:
        BadInput: one cannot, or does not.
    """
    for uri in annotations:
        about = expressions_by_scene([uri])
        if scenes and about.keys().isdisjoint(scenes):
            example = f", e.g. of {next(iter(about))!r}" if about else ""
            raise BadInput(uri, f"speaks of {len(about)} scenes{example}, and of none of the source's {len(scenes)}")


def planner(spec: Spec) -> Planner:
    """What plans this job's scenes."""
    provenance = {
        "code_revision": code_revision(),
        "teachers": {
            "segment": spec.segment.checkpoint,
            "embed": ":".join(filter(None, (spec.embed.model, spec.embed.pretrained))),
            "caption": ":".join(filter(None, (spec.caption.captioner, spec.caption.model))),
        },
    }
    return Planner(spec.reader, spec.chunking, spec.chunks_per_shard, specs.identity(spec), provenance)


def checks(spec: Spec, todo: Sequence[PlannedShard]) -> list[preflight.Finding]:
    """What can be known before a cluster is there."""
    findings = [preflight.writable(spec.output), preflight.present("weights", weights(spec))]
    if todo and not spec.source.startswith("procedural:"):
        chunk = todo[0].chunks[0]
        read = preflight.readable("reading", lambda: open_scene(chunk.scene_uri, spec.reader).load(chunk.frame_ids[0]))
        findings.append(read)
    return findings


def weights(spec: Spec) -> list[str]:
    """Files that the teachers need; or names, or URLs, of what is fetched where it is needed."""
    clip = split_weights(spec.embed.pretrained)[1]
    return [spec.segment.checkpoint, clip, spec.caption.vocabulary] if spec.pseudo_labels else []


def room_for(spec: Spec, plans: Sequence[Plan], todo: Sequence[PlannedShard]) -> list[preflight.Finding]:
    """Whether the nodes have memory for the processes, and the object store for the shards between them."""
    import ray  # noqa: PLC0415

    pools = build_pools(spec.scale, spec.caption.python, factories(spec, plans), ray.cluster_resources())
    actors = sum(pool.min for pool in pools)
    shard = max((frames_of([shard]) for shard in todo), default=0) * spec.photo_long_side_px**2 * _PIXEL_BYTES
    advice = "give scale.pools fewer actors, or the cluster more"
    return [
        preflight.room("memory", actors * _ACTOR_BYTES, preflight.node_bytes("memory"), advice),
        preflight.room(
            "objects", actors * _SHARDS_PER_ACTOR * shard, preflight.node_bytes("object_store_memory"), advice
        ),
    ]


def missing_shards(spec: Spec, plans: Sequence[Plan]) -> list[PlannedShard]:
    """Planned shards that are not committed."""
    committed = set(shards.committed_indices(spec.output))
    return [shard for plan in plans for shard in plan.shards if shard.index not in committed]


def factories(spec: Spec, plans: Sequence[Plan]) -> dict[str, Any]:
    """Stage -> what builds it in an actor."""
    pools = {stage: pool for name, pool in spec.scale.layout.items() for stage in name.split("+")}

    def where(stage: str) -> dict[str, Any]:
        return {"device": "cuda" if pools[stage].num_gpus > 0 else "cpu", "threads": pools[stage].threads}

    by_clip = spec.embed if spec.caption.captioner == "vocabulary" else None
    provenance = {"code_revision": code_revision(), "spec_hash": plans[0].spec_hash}
    load = LoadConfig(spec.reader, spec.cloud, spec.photo_long_side_px, provenance, spec.annotations)
    teachers = {
        "segment": BuildSegment(spec.segment, **where("segment")),
        "embed": BuildEmbed(spec.embed, **where("embed")),
        "caption": BuildCaption(spec.caption, by_clip, **where("caption")),
    }
    return {
        "load": BuildLoad(load),
        **(teachers if spec.pseudo_labels else {}),
        "commit": BuildCommit(spec.output, {plan.retry: plan.sha256 for plan in plans}),
    }


def label(
    spec: Spec, plans: Sequence[Plan], todo: Sequence[PlannedShard], build: Mapping[str, Any]
) -> tuple[State, dict[str, Tally], float | None]:
    """Run shards through the pools, and watch.

    Args:
        spec: of the job.
        plans: all plans of the corpus.
        todo: the shards to make.
        build: stage -> `label_pool.StageFactory`; see `factories`.

    Returns:
        How far it came, what each stage did, and frames per second from when work began.

    Raises:
        JobFailed: see `run`.
    """
    # Ray is imported here, since most that imports this module only wants the spec.
    import ray  # noqa: PLC0415

    from liftgs_platform import label_pool  # noqa: PLC0415
    from liftgs_platform.monitoring import LabellingMetrics  # noqa: PLC0415

    label_pool.configure(spec.no_progress_timeout_s)
    pools = build_pools(spec.scale, spec.caption.python, build, ray.cluster_resources())
    lacking = shortage(pools, ray.cluster_resources())
    if lacking:
        print(f"note: {lacking}; the job waits for more nodes, or give it smaller pools (scale.pools)")
    ledger = label_pool.start_ledger()
    toll = Toll(spec.output, spec.max_quarantine_rate, plans, todo)
    frames = {shard.index: frames_of([shard]) for shard in todo}
    state = State(sum(frames.values()))
    print(f"{len(todo)} shards, {state.total} frames to label on {', '.join(map(str, pools))}")

    metrics = LabellingMetrics(spec.output, build, state.total)

    latest = Seen(None, {})

    def seen() -> Seen:
        nonlocal latest
        latest = ray.get(ledger.seen.remote(), timeout=10)
        metrics.show(latest.tallies)
        return latest

    with closing(metrics), Progress(state, seen) as progress:
        try:
            for result in label_pool.results(label_pool.pipeline(todo, pools, ledger)):
                if result.failure is not None:
                    raise JobFailed(str(result.failure))
                progress.advance(frames[result.shard], toll.add(result.quarantine))
        except ray.exceptions.RayError as error:
            raise JobFailed(label_pool.obituary(error, ledger)) from error
    with suppress(ray.exceptions.RayError):  # all is committed: what is told of it may be a moment old
        seen()
    return state, latest.tallies, progress.frames_per_s(latest)


def forecast(spec: Spec, plans: Sequence[Plan], todo: Sequence[PlannedShard]) -> str:
    """What `run` would do, how much it is and how long it would take, as far as earlier runs tell."""
    planned = [shard for plan in plans for shard in plan.shards]
    chunks = [chunk for shard in planned for chunk in shard.chunks]
    frames = frames_of(todo)
    lost = len(unplanned_scenes(plans))
    lines = {
        "source": spec.source,
        "corpus": spec.output,
        "spec": plans[0].spec_hash[:16],
        "scenes": f"{len({chunk.scene for chunk in chunks})}" + (f", and {lost} that cannot be opened" if lost else ""),
        "chunks": str(len(chunks)),
        "frames": str(frames_of(planned)),
        "shards": f"{len(planned)}, of which {len(planned) - len(todo)} are committed",
        "to do": f"{len(todo)} shards, {frames} frames",
        **outlook(spec, todo),
        **{finding.what: finding.text for finding in checks(spec, todo)},
        "pools": ", ".join(
            f"{name} x {pool.min}" + ("" if pool.max == pool.min else f"..{pool.max or 'as many as fit'}")
            for name, pool in spec.scale.layout.items()
        ),
    }
    return "\n".join(f"{name:<8}{text}" for name, text in lines.items()) + "\ndry run: nothing was done"


def outlook(spec: Spec, todo: Sequence[PlannedShard]) -> dict[str, str]:
    """How much it will be, how long it will take and what it will cost, as far as earlier runs tell."""
    frames = frames_of(todo)
    done = list(shards.load_indices(spec.output, shards.committed_indices(spec.output)[:64]))
    stored = sum(index.counts["views"] for index in done)
    size_mb = frames * sum(i.tar_size for i in done) / stored / 1e6 if stored else 0.0
    rate = last_rate(spec.output)
    time = {"time": "unknown as yet"}
    if rate and todo:
        job = LabellingModel(len(todo), frames / len(todo) / rate, size_mb / len(todo))
        time = of_labelling(job, spec.nodes) | {"speed": f"{rate:.2f} frames/s a node, as in the last run"}
    return {"size": f"about {size_mb:,.1f} MB" if stored else "unknown as yet", **time}


def last_rate(corpus: str) -> float | None:
    """Frames per second of the newest run of this corpus that measured it."""
    for uri in sorted(storage.list_files(storage.join(corpus, "runs")), reverse=True):
        if uri.endswith(".json"):
            rate = json.loads(storage.read_bytes(uri)).get("frames_per_s")
            if rate:
                return float(rate)
    return None


def speed_table(state: State, tallies: Mapping[str, Tally], seconds: float, frames_per_s: float | None) -> str:
    """What the stages did, for the end of a job's log."""
    lines = [f"{'stage':<10}{'frames':>8}{'masks':>9}{'MB':>9}{'lost':>6}{'busy s':>9}{'s/frame':>9}"]
    for stage in STAGES:
        if stage in tallies:
            t = tallies[stage]
            lines.append(
                f"{stage:<10}{t.frames:>8}{t.masks:>9}{t.bytes / 1e6:>9.1f}{t.quarantined:>6}{t.seconds:>9.1f}"
                f"{t.seconds / max(t.frames, 1):>9.3f}"
            )
    rate = f", {frames_per_s:.2f} frames/s after start-up" if frames_per_s else ""
    return "\n".join([*lines, f"{state.done} frames in {clock(seconds)}{rate}"])


def finish(corpus: str) -> None:
    """Write the manifest and its companions, and say what is in the corpus and where it is.

    Raises:
        JobFailed: another job took shards away meanwhile.
    """
    try:
        companions = manifest.write(corpus)
    except ValueError as fault:
        raise JobFailed(str(fault)) from fault
    counts = ", ".join(f"{number} {name}" for name, number in companions.manifest["counts"].items())
    print(f"corpus: {corpus}\n  {len(companions.manifest['shards'])} shards: {counts}")
    if companions.quarantine:
        print(f"  quarantine: {len(companions.quarantine)} rows, see quarantine.jsonl; mend them and add retry=true")
        reasons = Counter((row["stage"], row["error"]) for row in companions.quarantine)
        for (stage, error), count in reasons.most_common(5):
            print(f"  {count:>6} x {stage}: {error}")
    print(f"look at it: liftgs inspect {corpus}")
