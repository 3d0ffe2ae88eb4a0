"""The challenge's rules, each held against the worst seed, with the file that proves it.

1. Limits: artifact bytes with the code, training seconds, evaluation seconds.
2. Proofs: every token scored exactly once, ledgers verified.
3. Completeness: every registered seed accounted for, attention and hardware recorded.

What lies outside the rules (another machine than one node of 8 H100s, a pipelined schedule) fails
nothing here, but is said: the 600 s are not its limit.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from golf.config import BudgetConfig, Job
from launcher.paths import RunPaths
from launcher.reporting.seed_report import FINAL, SeedReport
from launcher.reporting.units import recognize, totals_problem
from launcher.states import TERMINAL

ARTIFACT = "artifact with its code"
TRAINING = "last training step begun"
EVALUATION = "TTT evaluation"
RULE_GPUS = 8
RULE_DEVICE = "H100"


@dataclass(frozen=True, kw_only=True)
class Gate:
    """One rule, held against the worst seed."""

    name: str
    figure: float | None
    limit: float | None
    unit: str
    passed: bool | None
    """None where nothing was measured, or nothing is limited."""
    seed: int | None
    """The seed of the figure."""
    variant: str = ""
    """Of a sweep, the variant of the figure."""
    evidence: str = ""
    """The file that the figure was read from, relative to the experiment."""
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class Sheet:
    """The seeds and where their files are."""

    seeds: tuple[SeedReport, ...]
    paths: RunPaths
    root: Path
    """The experiment's folder, from which evidence is named."""

    def evaluated(self) -> list[SeedReport]:
        return [seed for seed in self.seeds if seed.scores[FINAL] is not None]

    def relative(self, path: Path) -> str:
        return str(path).removeprefix(f"{self.root}/")


def gates(sheet: Sheet, budget: BudgetConfig) -> tuple[Gate, ...]:
    """Every rule, in the order in which people ask for them."""
    return (
        _artifact(sheet, budget.artifact_bytes),
        _training(sheet, budget.train_seconds),
        _quantization(sheet),
        _evaluation(sheet, budget.eval_seconds),
        _coverage(sheet),
        *_totals(sheet),
        _ledgers(sheet),
        _registered(sheet),
        _recorded(sheet, "attention recorded", lambda seed: seed.attention),
        _recorded(sheet, "hardware recorded", _hardware),
        *_one_image(sheet),
    )


def worst_of(variants: Sequence[tuple[str, Sequence[Gate]]]) -> tuple[Gate, ...]:
    """Each rule over all variants of a sweep: counts added up, of amounts the worst."""
    found: dict[str, list[Gate]] = {}
    for variant, judged in variants:
        for gate in judged:
            found.setdefault(gate.name, []).append(replace(gate, variant=variant))
    return tuple(_worst_gate(alike) for alike in found.values())


def _worst_gate(alike: Sequence[Gate]) -> Gate:
    verdicts = {gate.passed for gate in alike}
    passed = False if False in verdicts else True if True in verdicts else None
    worst = max(alike, key=lambda gate: (gate.passed is False, gate.figure or 0.0))
    if worst.unit != "seeds":
        return replace(worst, passed=passed, variant="" if worst.seed is None else worst.variant)
    broken = worst.passed is False
    return replace(
        worst,
        unit="runs",
        figure=sum(gate.figure or 0.0 for gate in alike),
        limit=sum(gate.limit or 0.0 for gate in alike),
        passed=passed,
        variant=worst.variant if broken else "",
        evidence=worst.evidence
        if broken
        else worst.evidence.replace(f"variants/{worst.variant}/", "variants/*/"),
    )


def outside_the_rule(seeds: Sequence[SeedReport], job: Job) -> tuple[str, ...]:
    """Why the challenge's 600 s do not apply to these runs as they are, or will be, made."""
    found = []
    resources = job.resources
    nodes = max(resources.nodes, job.fanout.nodes)
    if nodes > 1:
        found.append(f"{nodes} nodes, and the rule is one node of {RULE_GPUS} GPUs")
    elif resources.gpus_per_node != RULE_GPUS:
        have = f"{resources.gpus_per_node} GPUs" if resources.gpus_per_node else "no GPU"
        found.append(f"{have}, and the rule is one node of {RULE_GPUS} {RULE_DEVICE}s")
    else:
        others = {s.device for s in seeds if s.device and RULE_DEVICE not in s.device}
        found += [f"{device}, and the rule is {RULE_DEVICE}" for device in sorted(others)]
    schedules = {seed.schedule for seed in seeds} | {job.ttt.schedule}
    if "pipelined" in schedules:
        found.append("pipelined schedule: order is proved by provenance, not by wall-clock")
    return tuple(found)


def _worst(
    sheet: Sheet, measure: Callable[[SeedReport], float | None]
) -> tuple[float | None, SeedReport | None]:
    measured = [(figure, seed) for seed in sheet.seeds if (figure := measure(seed)) is not None]
    return max(measured, key=lambda pair: pair[0]) if measured else (None, None)


@dataclass(frozen=True, kw_only=True)
class _Amount:
    """A rule on one figure of each seed."""

    name: str
    measure: Callable[[SeedReport], float | None]
    evidence: Callable[[int], Path]
    """The file of a seed from which its figure was read."""
    unit: str = "s"
    note: str = ""

    def gate(self, sheet: Sheet, limit: float | None) -> Gate:
        """The worst seed's figure, held against a limit if there is one."""
        figure, worst = _worst(sheet, self.measure)
        return Gate(
            name=self.name,
            figure=figure,
            limit=limit,
            unit=self.unit,
            passed=None if figure is None or limit is None else figure <= limit,
            seed=worst.seed if worst else None,
            evidence=sheet.relative(self.evidence(worst.seed)) if worst else "",
            note=self.note,
        )


def _artifact(sheet: Sheet, limit: int) -> Gate:
    _, worst = _worst(sheet, lambda seed: seed.total_bytes)
    known = worst and worst.model_bytes is not None and worst.code_bytes is not None
    return _Amount(
        name=ARTIFACT,
        measure=lambda seed: seed.total_bytes,
        evidence=sheet.paths.artifact_sizes,
        unit="bytes",
        note=f"model {worst.model_bytes:,} + code {worst.code_bytes:,}" if worst and known else "",
    ).gate(sheet, limit)


def _training(sheet: Sheet, limit: float) -> Gate:
    return _Amount(
        name=TRAINING,
        measure=lambda seed: seed.last_step_began_s,
        evidence=lambda seed: sheet.paths.train(seed).metrics,
        note="the step that uses up the time is finished",
    ).gate(sheet, limit)


def _quantization(sheet: Sheet) -> Gate:
    """As GPTQ-lite reads no training data, the challenge's rules do not count it as training."""
    return _Amount(
        name="quantization",
        measure=lambda seed: seed.quantize_seconds,
        evidence=lambda seed: sheet.paths.run_stage(seed, "train").status,
        note="reads no training data, so it is not counted as training",
    ).gate(sheet, None)


def _evaluation(sheet: Sheet, limit: float) -> Gate:
    return _Amount(
        name=EVALUATION,
        measure=lambda seed: seed.eval_seconds,
        evidence=lambda seed: sheet.paths.evaluation(seed, FINAL).result,
    ).gate(sheet, limit)


def _count(
    sheet: Sheet, name: str, among: Sequence[SeedReport], kept: Callable[[SeedReport], bool]
) -> Gate:
    """A rule that each seed keeps or breaks; the first that breaks it is named."""
    broken = [seed.seed for seed in among if not kept(seed)]
    return Gate(
        name=name,
        figure=float(len(among) - len(broken)),
        limit=float(len(among)),
        unit="seeds",
        passed=None if not among else not broken,
        seed=broken[0] if broken else None,
    )


def _coverage(sheet: Sheet) -> Gate:
    gate = _count(
        sheet,
        "each token scored once",
        sheet.evaluated(),
        lambda seed: seed.coverage == "exactly once",
    )
    return _with_evidence(sheet, gate, "ledger.jsonl")


def _ledgers(sheet: Sheet) -> Gate:
    gate = _count(
        sheet, "ledgers verified", sheet.evaluated(), lambda seed: seed.ledger == "verified"
    )
    return _with_evidence(sheet, gate, "ledger.jsonl")


def _with_evidence(sheet: Sheet, gate: Gate, name: str) -> Gate:
    seed = "*" if gate.seed is None else str(gate.seed)
    path = sheet.paths.root / "seeds" / seed / "eval" / FINAL / name
    evidence = sheet.relative(path) if gate.limit else ""
    return replace(gate, evidence=evidence)


def _totals(sheet: Sheet) -> tuple[Gate, ...]:
    """Tokens and bytes against those of the set, where it is a known one."""
    known = [seed for seed in sheet.evaluated() if recognize(seed.validation.tokens)]
    if not known:
        return ()
    gate = _count(
        sheet,
        "bytes of the known set",
        known,
        lambda s: not totals_problem(s.validation.tokens, s.validation.bytes),
    )
    problems = [totals_problem(s.validation.tokens, s.validation.bytes) for s in known]
    note = next(filter(None, problems), "")
    return (_with_evidence(sheet, replace(gate, note=note), "result.json"),)


def _registered(sheet: Sheet) -> Gate:
    gate = _count(sheet, "registered seeds ended", sheet.seeds, lambda s: s.state in TERMINAL)
    note = "failed ones are reported too"
    return replace(gate, evidence="experiment.json", note=note)


def _one_image(sheet: Sheet) -> tuple[Gate, ...]:
    """All stages of all seeds in one and the same image, where they run in images."""
    inside = [seed for seed in sheet.seeds if seed.images]
    if not inside:
        return ()
    images = list(dict.fromkeys(image for seed in inside for image in seed.images))
    gate = _count(sheet, "one container image", inside, lambda s: s.images == (images[0],))
    seed = "*" if gate.seed is None else str(gate.seed)
    trained = sheet.paths.training or sheet.paths.root
    evidence = sheet.relative(trained / "seeds" / seed / "train" / "status.json")
    return (replace(gate, evidence=evidence, note=", ".join(images)),)


def _hardware(seed: SeedReport) -> str | None:
    if seed.device is None or seed.num_devices is None:
        return None
    return f"{seed.num_devices} × {seed.device}"


def _recorded(sheet: Sheet, name: str, fact: Callable[[SeedReport], str | None]) -> Gate:
    among = sheet.evaluated()
    gate = _count(sheet, name, among, lambda seed: fact(seed) is not None)
    words = sorted({found for seed in among if (found := fact(seed)) is not None})
    return _with_evidence(sheet, replace(gate, note=", ".join(words)), "result.json")
