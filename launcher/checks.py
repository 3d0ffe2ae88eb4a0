"""What can be known before any time is spent, each as one line: verdict, figure and fix.

1. Seeds: enough of them for an interval.
2. The disk and the data: there, complete, and of the job's vocabulary.
3. The job: nothing that no executor can run.
4. The machine, for stages that run on it: cores, memory, GPUs.

A failed check refuses the launch; a warning does not.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from golf.config import Job, ModelConfig
from golf.records import DataPaths, read_json
from launcher.machine import GIB, Machine, free_disk_bytes
from launcher.plan import NO_DATA, Plan

FLOAT_COPIES_PER_SEED = 9
"""float32 copies of the weights on disk at most, while a seed trains: the exported model, two
averages, a checkpoint of weights, two moments and two averages, and a part being replaced."""
DISK_RESERVE_BYTES = GIB // 2


class Verdict(StrEnum):
    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True, kw_only=True)
class Check:
    """One line of the plan."""

    name: str
    verdict: Verdict
    figure: str
    fix: str = ""


def check_plan(plan: Plan, machine: Machine) -> tuple[Check, ...]:
    """Every check of a plan on this machine."""
    return (
        *common_checks(plan),
        _cores(plan, machine),
        _memory(plan, machine),
        _gpus(plan, machine),
        *_one_node(plan.job),
        *_container(plan.job),
    )


def common_checks(plan: Plan) -> tuple[Check, ...]:
    """Those that hold wherever the stages run."""
    return (_seeds(plan), _disk(plan), _data(plan), *_unsupported(plan.job))


def check_variants(plan: Plan, checks_of: Callable[[Plan], Sequence[Check]]) -> tuple[Check, ...]:
    """A plan's checks; of a sweep also what they find amiss with the other variants' jobs.

    What is swept in training and adaptation alone changes no check and is not asked again.
    """
    found = [*checks_of(plan)]
    asked = {_checked(plan.job)}
    for variant in plan.variants:
        if _checked(variant.job) not in asked:
            asked.add(_checked(variant.job))
            checks = checks_of(plan.of_variant(variant))
            amiss = [check for check in checks if check.verdict is not Verdict.OK]
            news = [check for check in amiss if check not in found]
            found += [replace(check, name=f"{check.name}, {variant.key}") for check in news]
    return (*_sweep(plan), *found)


def _checked(job: Job) -> str:
    """What checks and forecasts read of a job."""
    parts = (job.model, job.data, job.schedule, job.ttt.schedule, job.fanout)
    return repr((*parts, job.budget, job.resources))


def _sweep(plan: Plan) -> Iterator[Check]:
    if plan.variants:
        trained = sum(variant.trains for variant in plan.variants)
        shared = "" if trained == len(plan.variants) else f", {trained} of them trained"
        keys = ", ".join(variant.key for variant in plan.variants)
        figure = f"{len(plan.variants)} variants of each seed{shared}: {keys}"
        yield Check(name="sweep", verdict=Verdict.OK, figure=figure)


def refused(checks: tuple[Check, ...]) -> bool:
    return any(check.verdict is Verdict.FAIL for check in checks)


def _seeds(plan: Plan) -> Check:
    count = len(plan.seeds)
    if count == 1:
        return Check(
            name="seeds",
            verdict=Verdict.WARN,
            figure="1: no spread, no interval",
            fix="three seeds or more tell noise from progress, as in --seeds 1337,42,7",
        )
    return Check(name="seeds", verdict=Verdict.OK, figure=f"{count}, all different")


def _cores(plan: Plan, machine: Machine) -> Check:
    wanted = plan.job.resources.cpus_per_task
    figure = f"{wanted} a stage, {machine.num_cores} here"
    if wanted > machine.num_cores:
        return Check(
            name="cores",
            verdict=Verdict.FAIL,
            figure=figure,
            fix=f"--set resources.cpus_per_task={machine.num_cores}, or a larger machine",
        )
    return Check(name="cores", verdict=Verdict.OK, figure=figure)


def _memory(plan: Plan, machine: Machine) -> Check:
    wanted, there = plan.job.resources.mem_gb, machine.memory_bytes / GIB
    figure = f"{wanted} GiB a stage, {there:.0f} GiB here"
    if wanted > there:
        return Check(
            name="memory",
            verdict=Verdict.FAIL,
            figure=figure,
            fix=f"--set resources.mem_gb={int(there)} if that is enough, or a larger machine",
        )
    return Check(name="memory", verdict=Verdict.OK, figure=figure)


def _gpus(plan: Plan, machine: Machine) -> Check:
    wanted, there = plan.job.resources.gpus_per_node, len(machine.gpus)
    figure = f"{wanted} a stage, {there} here"
    if wanted <= there:
        return Check(
            name="GPUs", verdict=Verdict.OK, figure="none needed" if wanted == 0 else figure
        )
    seeds = ",".join(map(str, plan.seeds))
    fewer = max((n for n in (1, 2, 4, 8) if n <= there), default=0)
    resources = f"--set resources.gpus_per_node={fewer}" + (
        f" --set resources.cpus_per_task={machine.num_cores}"
        f" --set resources.mem_gb={int(machine.memory_bytes / GIB)}"
        if fewer == 0
        else ""
    )
    on = f"on {fewer} GPUs, slower" if fewer else "on the CPU, for patience or a much smaller model"
    return Check(
        name="GPUs",
        verdict=Verdict.FAIL,
        figure=figure,
        fix=f"run it on a machine with {wanted} GPUs; to see the whole path here: "
        f"golf-launch smoke --seeds {seeds}; or this job {on}: {resources}",
    )


def _disk(plan: Plan) -> Check:
    per_seed = 4 * FLOAT_COPIES_PER_SEED * num_parameters(plan.job.model)
    trained = sum(variant.trains for variant in plan.variants) or 1
    wanted = per_seed * len(plan.seeds) * trained + DISK_RESERVE_BYTES
    free = free_disk_bytes(plan.paths.root)
    figure = f"about {wanted / 1e9:.1f} GB, {free / 1e9:.1f} GB free"
    if wanted > free:
        return Check(
            name="disk",
            verdict=Verdict.FAIL,
            figure=figure,
            fix="free some, or put the runs elsewhere with --runs DIR",
        )
    return Check(name="disk", verdict=Verdict.OK, figure=figure)


def _data(plan: Plan) -> Check:
    if any(stage.kind == "prepare" for stage in plan.stages):
        return Check(name="data", verdict=Verdict.OK, figure="embedded corpus, prepared first")
    if plan.data == NO_DATA:
        return Check(
            name="data",
            verdict=Verdict.FAIL,
            figure="the job reads the challenge's shards, and no folder is given",
            fix="--data DIR with fineweb_train_*.bin, fineweb_val_*.bin and tokenizer.model; "
            "golf download fetches them",
        )
    problem = _problem_of(DataPaths(plan.data), plan.job.model)
    if problem:
        return Check(
            name="data",
            verdict=Verdict.FAIL,
            figure=f"{plan.data}: {problem}",
            fix="golf prepare or golf download fills such a folder; name another with --data DIR",
        )
    paths = DataPaths(plan.data)
    shards = f"{len(paths.shards('train'))} training and {len(paths.shards('val'))} validation"
    return Check(name="data", verdict=Verdict.OK, figure=f"{shards} shards in {plan.data}")


def _problem_of(paths: DataPaths, model: ModelConfig) -> str:
    """Why a data folder cannot serve, or nothing."""
    if not paths.root.is_dir():
        return "no such folder"
    for split in ("train", "val"):
        if not paths.shards(split):
            return f"no fineweb_{split}_*.bin"
    if not paths.tokenizer.exists():
        return "no tokenizer.model, without which bytes cannot be counted"
    manifest = read_json(paths.manifest)
    settings = manifest.get("settings", {}) if isinstance(manifest, dict) else {}
    made_for = settings.get("vocab_size", model.vocab_size)
    if made_for != model.vocab_size:
        return f"made for a vocabulary of {made_for}, the job's is {model.vocab_size}"
    return ""


def _unsupported(job: Job) -> list[Check]:
    """Settings that no executor can run yet; no line for what is not asked."""
    found = []
    if job.resources.nodes > 1:
        figure = f"{job.resources.nodes}; training runs on one"
        fix = "--set resources.nodes=1; to evaluate over several: --set fanout.nodes=N"
        found.append(("nodes", figure, fix))
    if job.ttt.schedule == "pipelined" and job.fanout.workers < 2:
        figure = "pipelined; it takes a worker that adapts and one that scores"
        found.append(("schedule", figure, "--set fanout.workers=2, or --set ttt.schedule=strict"))
    return [
        Check(name=name, verdict=Verdict.FAIL, figure=figure, fix=fix)
        for name, figure, fix in found
    ]


def _one_node(job: Job) -> list[Check]:
    if job.fanout.nodes == 1:
        return []
    figure = f"fanout.nodes={job.fanout.nodes}; this machine is one"
    fix = '--set fanout.nodes=1, or a profile with site.executor = "slurm"'
    return [Check(name="nodes", verdict=Verdict.FAIL, figure=figure, fix=fix)]


def _container(job: Job) -> list[Check]:
    if job.container.runtime == "none":
        return []
    figure = f"{job.container.runtime}; stages run without one on this machine"
    fix = '--runtime none, or a profile with site.executor = "slurm"'
    return [Check(name="container", verdict=Verdict.FAIL, figure=figure, fix=fix)]


def num_parameters(model: ModelConfig) -> int:
    """Parameters of the model that a job describes."""
    width, kv_width = model.model_dim, model.num_kv_heads * model.head_dim
    hidden = int(model.mlp_mult * width)
    half = model.num_layers // 2
    matrices = 2 * width * width + 2 * width * kv_width + 2 * width * hidden
    block = matrices + model.num_heads + 4 * width  # query gains, two scales, residual mix
    bigram = model.bigram_vocab_size * model.bigram_dim + model.bigram_dim * width + 1
    values = 0
    if model.ve_layers:
        values = model.vocab_size * model.ve_dim + model.ve_dim * kv_width + 1
        values += len(model.ve_layers)
    skips = min(half, model.num_layers - half) * width
    embedding, gate = model.vocab_size * width, width
    return embedding + gate + bigram + values + skips + model.num_layers * block


def longest_s(plan: Plan, machine: Machine) -> float:
    """Time by which the limits end every stage, stages side by side where there is room."""
    limit_s = 60.0 * plan.job.resources.time_minutes
    places = max(1, machine.places(plan.job.resources))
    rounds = -(-len(plan.seeds) // places)
    prepares = sum(stage.kind == "prepare" for stage in plan.stages)
    return limit_s * (2 * rounds + prepares)


def clock(seconds: float) -> str:
    """Hours and minutes, as `2:30 h`."""
    return time.strftime("%-H:%M h", time.gmtime(seconds))
