"""Job x seeds -> stages: the very command lines, what they wait for and what they need.

1. `prepare`, once, where the job reads the embedded corpus and no data is given.
2. `<seed>/train`: train, quantize, evaluate the artifact's round trip.
3. `<seed>/eval`, after it: sliding windows, then score-first TTT, over Ray workers where the job
   asks for some, then its ledger verified. Over several nodes, workers also do the first.

A sweep has these stages for each variant, their keys after the variant's: `lr=0.01/<seed>/eval`.
Variants that share their training wait for the one that trains.

Nothing is written and nothing is started here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from golf.config import Job
from launcher.paths import ExperimentPaths, RunPaths
from launcher.stage import Command, Stage
from launcher.sweep import Variant

MEETING = "nodes"
"""Folder in a stage's own where the nodes of one job meet."""
NO_DATA = Path("DATA")
"""Stands in a plan for the folder that its user has not named yet."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """An experiment that could be started."""

    job: Job
    """Of a sweep the first variant's."""
    seeds: tuple[int, ...]
    data: Path
    paths: ExperimentPaths
    stages: tuple[Stage, ...]
    variants: tuple[Variant, ...] = ()
    """Of a sweep."""

    def of_variant(self, variant: Variant) -> Plan:
        """A variant's part, with the training that it shares."""
        own = [stage for stage in self.stages if stage.variant == variant.key]
        needed = {key for stage in own for key in stage.after}
        stages = tuple(stage for stage in self.stages if stage in own or stage.key in needed)
        return replace(self, job=variant.job, stages=stages)


def make_plan(
    job: Job,
    seeds: Sequence[int],
    paths: ExperimentPaths,
    data: Path | None,
    variants: Sequence[Variant] = (),
) -> Plan:
    """Lay out the stages of an experiment that is to live at `paths`.

    `data` is the user's folder; without one the job's source decides. With `variants`, `job` is the
    first of theirs.
    """
    prepares = data is None and job.data.source == "embedded"
    if prepares:
        data = paths.data.root
    elif data is None:
        data = NO_DATA if job.data.source == "challenge" else Path(job.data.source)
    folder = data if data == NO_DATA else data.absolute()
    stages = [_prepare(job, paths)] if prepares else []
    each: Sequence[Variant | None] = variants or (None,)
    for variant in each:
        stages += _runs(job, seeds, paths, folder, variant)
    if prepares:
        first = (stages[0].key,)
        stages = [replace(s, after=first) if s.kind == "train" else s for s in stages]
    return Plan(
        job=job,
        seeds=tuple(seeds),
        data=folder,
        paths=paths,
        stages=tuple(stages),
        variants=tuple(variants),
    )


def _runs(
    job: Job, seeds: Sequence[int], paths: ExperimentPaths, data: Path, variant: Variant | None
) -> list[Stage]:
    """The stages of one job over its seeds."""
    stages: list[Stage] = []
    if variant is None:
        for seed in seeds:
            stages += [_train(job, seed, paths, data), _evaluate(job, seed, paths, data)]
        return stages
    at = paths.runs(variant.key, variant.trained_by)
    for seed in seeds:
        if variant.trains:
            stages.append(_of(variant, _train(variant.job, seed, at, data)))
        stages.append(_of(variant, _evaluate(variant.job, seed, at, data)))
    return stages


def _of(variant: Variant, stage: Stage) -> Stage:
    """A seed's stage as that of a variant, which may wait for another's training."""
    trained = f"{stage.seed}/train"
    owners = {key: variant.trained_by if key == trained else variant.key for key in stage.after}
    return replace(
        stage,
        key=f"{variant.key}/{stage.key}",
        after=tuple(f"{owner}/{key}" for key, owner in owners.items()),
    )


def _prepare(job: Job, paths: ExperimentPaths) -> Stage:
    argv = ("golf", "prepare", "--docs", "embedded", "--out", str(paths.data.root))
    sizes = ("--vocab-size", str(job.model.vocab_size), "--val-docs", str(job.data.val_docs))
    return Stage(
        key="prepare",
        kind="prepare",
        seed=None,
        commands=(Command(name="prepare", argv=(*argv, *sizes), done="../data/manifest.json"),),
        resources=replace(job.resources, nodes=1, gpus_per_node=0),
        env=_env(job, ranks=1),
        image_id=job.container.image_id,
    )


def _train(job: Job, seed: int, paths: RunPaths, data: Path) -> Stage:
    out = paths.train(seed).root
    config, device = _config(paths), _device(job)
    artifact = str(paths.artifact(seed))
    train = (*config, "--data", str(data), "--out", str(out), "--seed", str(seed), *device)
    weights, code = ("--checkpoint", str(paths.train(seed).model)), ("--code", str(paths.script))
    quantize = (*config, *weights, *code, "--out", artifact)
    commands = (
        Command(
            name="train",
            argv=(*_golf(job), "train", *train, "--resume"),
            done=paths.train(seed).result.name,
        ),
        Command(
            name="quantize",
            argv=("golf", "quantize", *quantize),
            done=paths.artifact_sizes(seed).name,
        ),
        _protocol(job, "sequential", paths, seed, data, paths.round_trip(seed).root, "roundtrip"),
    )
    return _stage(job, seed, "train", commands)


def _evaluate(job: Job, seed: int, paths: RunPaths, data: Path) -> Stage:
    commands = tuple(
        _protocol(job, protocol, paths, seed, data, paths.evaluation(seed, protocol).root, protocol)
        for protocol in ("sliding", "ttt")
    )
    ledger = paths.evaluation(seed, "ttt").root
    verify = Command(name="verify", argv=("golf", "verify", str(ledger)))
    stage = _stage(job, seed, "eval", (*commands, verify))
    return replace(
        stage,
        after=(f"{seed}/train",),
        env=_env(job, ranks=max(job.ranks_per_node, job.fanout.workers_per_node)),
        resources=replace(job.resources, nodes=job.fanout.nodes),
    )


def _protocol(
    job: Job, protocol: str, paths: RunPaths, seed: int, data: Path, out: Path, name: str
) -> Command:
    several = job.fanout.nodes > 1  # a second node that waited for the first would cost as much
    fans_out = job.fanout.workers > 0 and (protocol == "ttt" or (several and protocol == "sliding"))
    together: tuple[str, ...] = ()
    if fans_out and several:
        together = ("--meeting", str(out.parent / MEETING))
    if fans_out and protocol == "sliding":
        together += ("--set", "ttt.schedule=strict")  # the other is a way to adapt
    program = ("python", "-m", "launcher.fanout") if fans_out else (*_golf(job), "eval")
    words = (*_config(paths), "--data", str(data), "--artifact", str(paths.artifact(seed)))
    more = ("--protocol", protocol, "--out", str(out), *_device(job), "--resume", *together)
    return Command(name=name, argv=(*program, *words, *more), done=f"{out.name}/result.json")


def _stage(job: Job, seed: int, kind: str, commands: tuple[Command, ...]) -> Stage:
    return Stage(
        key=f"{seed}/{kind}",
        kind=kind,
        seed=seed,
        commands=commands,
        resources=job.resources,
        env=_env(job, ranks=job.ranks_per_node),
        image_id=job.container.image_id,
    )


def _golf(job: Job) -> tuple[str, ...]:
    """The start of a command line that runs on every rank of a node."""
    if job.ranks_per_node == 1:
        return ("golf",)
    ranks = f"--nproc_per_node={job.ranks_per_node}"
    return ("torchrun", "--standalone", ranks, "-m", "golf")


def _config(paths: RunPaths) -> tuple[str, ...]:
    return ("--config", str(paths.job))


def _device(job: Job) -> tuple[str, ...]:
    """Said outright, so that a node without its GPUs is an error and no slow run."""
    return ("--device", "cuda" if job.resources.gpus_per_node else "cpu")


def _env(job: Job, ranks: int) -> dict[str, str]:
    """One thread for each core that a rank owns; torch would else take the whole machine's."""
    return {"OMP_NUM_THREADS": str(max(1, job.resources.cpus_per_task // ranks))}
