"""The challenge's submission folder, of an experiment whose seeds are all done.

1. `train_gpt.py`: the file that the experiment made of its own copy of the code (`golf.bundle`). It
   runs alone, and its bytes are those that every seed's gate has counted.
2. A log a seed, `submission.json`, `requirements.txt` and a README made of the report.
3. What was chosen from a sweep says so, with the sweep's whole ranking.
"""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path
from typing import Any

from golf.records import read_json, replace_file, write_json
from launcher.errors import LaunchError
from launcher.experiment import Runs
from launcher.report import Report
from launcher.reporting import sweep_tables
from launcher.reporting.scores import SeedScore
from launcher.reporting.tables import markdown
from launcher.states import State
from launcher.sweep_report import SweepReport
from launcher.text_table import markdown_rows

REQUIREMENTS = ("numpy", "safetensors", "sentencepiece", "torch>=2.7", "zstandard")


def write(
    runs: Runs,
    report: Report,
    out: Path,
    author: dict[str, str],
    sweep: SweepReport | None = None,
) -> Path:
    """Write the folder; returns the path of its `submission.json`.

    Raises:
        LaunchError: a seed is not done, or there is something in the folder already.
    """
    missing = [str(seed.seed) for seed in report.seeds if seed.state is not State.DONE]
    if missing:
        raise LaunchError(
            f"seeds {', '.join(missing)} are not done, and every registered seed belongs to a "
            f"submission; finish them with golf-launch resume {runs.whole.root.name}"
        )
    if out.exists() and any(out.iterdir()):
        raise LaunchError(f"{out} is not empty; name another folder with --out")
    script = _script(runs)
    code_bytes = _counted_code(report, len(script))
    with replace_file(out / "train_gpt.py") as temporary:
        temporary.write_bytes(script)
    scores = report.final_scores(str(runs.paths.root)).seeds
    sizes = {s.seed: s.total_bytes for s in report.seeds if s.total_bytes is not None}
    _write(out / "requirements.txt", "\n".join(REQUIREMENTS) + "\n")
    for seed, score in scores.items():
        _write(out / f"train_seed{seed}.log", _log(runs, seed, score, sizes[seed]))
    readme = _readme(report, code_bytes, max(sizes.values()))
    content = _submission(report, scores, sizes, code_bytes, author)
    if sweep is not None:
        readme += _chosen(sweep)
        content["sweep"] = {
            place.variant: place.bpb.mean if place.bpb else None for place in sweep.ranking
        }
    _write(out / "README.md", readme)
    path = out / "submission.json"
    write_json(path, content)
    return path


def _script(runs: Runs) -> bytes:
    """The file that ships.

    Raises:
        LaunchError: it is not there.
    """
    try:
        return runs.paths.script.read_bytes()
    except FileNotFoundError:
        raise LaunchError(
            f"{runs.paths.script} is missing: {runs.name} is older than the file that ships, or "
            "lost it; launch it again with this version"
        ) from None


def _counted_code(report: Report, size: int) -> int:
    """The bytes of the file that ships, which must be those that the gate has counted.

    Raises:
        LaunchError: it has been changed since.
    """
    counted = {seed.code_bytes for seed in report.seeds}
    if counted != {size}:
        figures = ", ".join(f"{found or 0:,}" for found in counted)
        raise LaunchError(
            f"train_gpt.py of {report.name} has {size:,} bytes, and its seeds counted {figures}; "
            "put the file back as it was registered"
        )
    return size


def _write(path: Path, text: str) -> None:
    with replace_file(path) as temporary:
        temporary.write_text(text)


def _log(runs: Runs, seed: int, score: SeedScore, total_bytes: int) -> str:
    """What the seed's stages printed, and the result under the challenge's labels."""
    logs = [runs.whole.stage(stage.key).log for stage in runs.stages_of(seed)]
    text = "".join(log.read_text(errors="replace") for log in logs if log.exists())
    tokens = scored_tokens(runs, seed)
    ends = [f"seed:{seed}", f"val_tokens: {tokens}"] if tokens else [f"seed:{seed}"]
    if score.train_seconds is not None:
        ms = f"{1000 * score.train_seconds:.0f}ms"
        ends.append(f"stopping_early: train_time:{ms} step:{score.steps}/{score.steps}")
    ends.append(f"Total submission size int6+zstd: {total_bytes} bytes")
    ends.append(
        f"legal_ttt_exact val_loss:{score.val_loss:.8f} val_bpb:{score.val_bpb:.8f} "
        f"eval_time:{1000 * (score.eval_seconds or 0):.0f}ms"
    )
    return text + "\n".join(ends) + "\n"


def scored_tokens(runs: Runs, seed: int) -> int | None:
    """Tokens that a seed's TTT evaluation scored."""
    result: dict[str, Any] = read_json(runs.paths.evaluation(seed, "ttt").result) or {}
    return result.get("tokens")


def _submission(
    report: Report,
    scores: dict[int, SeedScore],
    sizes: dict[int, int],
    code_bytes: int,
    author: dict[str, str],
) -> dict[str, Any]:
    bpb, loss = report.summaries["ttt"]["val_bpb"], report.summaries["ttt"]["val_loss"]
    first = report.seeds[0]
    return {
        **author,
        "name": author.get("name") or report.name,
        "date": time.strftime("%Y-%m-%d", time.localtime(report.created_at)),
        "val_loss": loss.mean if loss else None,
        "val_bpb": bpb.mean if bpb else None,
        "val_bpb_std": bpb.std if bpb else None,
        "bytes_total": max(sizes.values()),
        "bytes_code": code_bytes,
        "seeds": list(scores),
        "seed_results": {
            str(seed): {
                "val_loss": score.val_loss,
                "val_bpb": score.val_bpb,
                "artifact_bytes": sizes[seed],
                "steps": score.steps,
                "train_time_s": score.train_seconds,
                "eval_time_s": score.eval_seconds,
            }
            for seed, score in scores.items()
        },
        "compliance": {g.name: g.passed for g in report.gates if g.limit is not None},
        "validation": dataclasses.asdict(report.final_scores("").validation),
        "outside_rule": list(report.outside_rule),
        "hardware": f"{first.num_devices} x {first.device}",
        "attention": first.attention,
    }


def _chosen(sweep: SweepReport) -> str:
    """The ranking from which a variant was chosen."""
    ranking = sweep_tables.ranking(sweep)
    lines = ["", "## Chosen from a sweep", "", ranking.title + ":", "", *markdown_rows(ranking)]
    lines += ["", *(f"- {name}: {text}" for name, text in sweep_tables.significance(sweep))]
    return "\n".join(lines) + "\n"


def _readme(report: Report, code_bytes: int, total_bytes: int) -> str:
    """The report, after the way to run it again."""
    seeds = ", ".join(str(seed.seed) for seed in report.seeds)
    return (
        f"{markdown(report)}\n## Run it again\n\n"
        "```\npip install -r requirements.txt\n"
        f"python train_gpt.py --data DATA --seed {report.seeds[0].seed}\n```\n\n"
        f"`train_gpt.py` holds all of the training code in {code_bytes:,} bytes; with the heaviest "
        f"model it is {total_bytes:,} bytes. Seeds: {seeds}; a log of each is beside this file.\n"
    )
