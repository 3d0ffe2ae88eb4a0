"""No single change to a ledger, its plan or its result goes unnoticed, and none is legal."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from golf.cli import main
from golf.evaluate.ledger import Ledger, LegalityError, encode_line, line_hash
from golf.evaluate.verify import NoLedgerError, verify
from golf.records import EvalPaths, read_json, read_lines

Lines = list[dict[str, Any]]


@pytest.fixture
def folder(finished_ttt: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished_ttt, tmp_path / "copy"))


def failures(folder: Path) -> set[str]:
    return {verdict.name for verdict in verify(folder) if not verdict.ok}


def rewrite(folder: Path, change: Callable[[Lines], Lines], rechain: bool = False) -> None:
    """Change the ledger; with `rechain`, as a forger would, mend all hashes and the head."""
    paths = EvalPaths(folder)
    lines = change(read_lines(paths.ledger))
    if rechain:
        head = hashlib.sha256(paths.plan.read_bytes()).hexdigest()
        for line in lines:
            line["previous"] = head
            head = line_hash(encode_line(line))
        result = read_json(paths.result)
        paths.result.write_text(json.dumps({**result, "ledger_head": head}))
    paths.ledger.write_bytes(b"".join(encode_line(line) + b"\n" for line in lines))


def test_an_honest_ledger_passes(folder: Path):
    assert failures(folder) == set()


def test_every_changed_field_of_every_line_is_noticed(folder: Path):
    lines = read_lines(EvalPaths(folder).ledger)
    changed = {
        int: lambda v: v + 1,
        float: lambda v: v * 1.001 + 1e-9,
        str: lambda v: v[::-1] + "x",
    }
    for number, line in enumerate(lines):
        for key, value in line.items():
            forged = [dict(one) for one in lines]
            forged[number][key] = changed[type(value)](value)
            rewrite(folder, lambda _, forged=forged: forged)
            assert failures(folder), (number, key)


def test_every_missing_added_or_swapped_line_is_noticed(folder: Path):
    lines = read_lines(EvalPaths(folder).ledger)
    for number in range(len(lines)):
        missing = lines[:number] + lines[number + 1 :]
        added = [*lines[:number], lines[number], *lines[number:]]
        swapped = lines[:number] + lines[number : number + 2][::-1] + lines[number + 2 :]
        for forged in (missing, added, *([swapped] if number + 1 < len(lines) else [])):
            rewrite(folder, lambda _, forged=forged: [dict(line) for line in forged])
            assert "chain" in failures(folder) or "files" in failures(folder)


def test_every_single_changed_byte_is_noticed(folder: Path):
    ledger = EvalPaths(folder).ledger
    honest = ledger.read_bytes()
    for position in range(0, len(honest), 37):
        forged = bytearray(honest)
        forged[position] ^= 1
        ledger.write_bytes(forged)
        assert failures(folder), position


def test_a_rehashed_pre_eval_order_is_noticed(folder: Path):
    def train_first(lines: Lines) -> Lines:
        return sorted(lines, key=lambda line: (line["chunk"], line["kind"] == "score"))

    rewrite(folder, train_first, rechain=True)
    assert "order" in failures(folder)


def test_a_rehashed_second_look_at_a_chunk_is_noticed(folder: Path):
    rewrite(folder, lambda lines: [lines[0], dict(lines[0]), *lines[1:]], rechain=True)
    assert {"order"} <= failures(folder)


def test_rehashed_scores_by_foreign_weights_are_noticed(folder: Path):
    def foreign(lines: Lines) -> Lines:
        lines[4]["weights"] = "0" * 64
        return lines

    rewrite(folder, foreign, rechain=True)
    assert failures(folder) == {"lineage"}


@pytest.mark.parametrize("key", ["lr", "steps", "end"])
def test_rehashed_training_other_than_planned_is_noticed(folder: Path, key: str):
    def other(lines: Lines) -> Lines:
        lines[1][key] += 1
        return lines

    rewrite(folder, other, rechain=True)
    assert failures(folder) == {"training"}


def test_a_rehashed_gap_in_the_coverage_is_noticed(folder: Path):
    def gap(lines: Lines) -> Lines:
        lines[2]["start"] += 8
        lines[2]["tokens"] -= 8
        return lines

    rewrite(folder, gap, rechain=True)
    assert "coverage" in failures(folder)


@pytest.mark.parametrize(
    "key", ["val_bpb", "val_loss", "nll_sum_nats", "tokens", "bytes", "ledger_head", "weights"]
)
def test_a_changed_result_is_noticed(folder: Path, key: str):
    path = EvalPaths(folder).result
    result = read_json(path)
    value = result[key]
    result[key] = value[::-1] if isinstance(value, str) else value * 0.999
    path.write_text(json.dumps(result))
    assert failures(folder)


def test_a_changed_plan_is_noticed(folder: Path):
    path = EvalPaths(folder).plan
    path.write_text(path.read_text().replace('"lr": 0.02', '"lr": 0.03'))
    assert {"chain", "training"} <= failures(folder)


def test_an_unfinished_evaluation_does_not_pass(folder: Path):
    EvalPaths(folder).result.unlink()
    assert failures(folder) == {"files"}


def test_a_folder_without_a_ledger_is_told_apart(tmp_path: Path):
    with pytest.raises(NoLedgerError, match="holds no ledger"):
        verify(tmp_path)


def test_the_command_exits_0_3_and_2(folder: Path, tmp_path: Path, capsys):
    assert main(["verify", str(folder)]) == 0
    rewrite(folder, lambda lines: lines[:-1])
    assert main(["verify", str(folder), "--json"]) == 3
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["valid"] is False
    assert main(["verify", str(tmp_path / "nowhere")]) == 2


def test_the_ledger_refuses_training_on_what_is_not_scored():
    ledger = Ledger(None, "plan", "weights")
    with pytest.raises(LegalityError, match="score first"):
        ledger.train(chunk=0, start=0, end=64, lr=0.1, steps=1, weights="after")


def test_the_ledger_refuses_to_score_twice_or_leave_out():
    ledger = Ledger(None, "plan", "weights")
    ledger.score(chunk=0, start=0, end=64, nll_sum=1.0, num_bytes=9)
    for start in (0, 32, 65):
        with pytest.raises(LegalityError, match="scored once, in order"):
            ledger.score(chunk=1, start=start, end=128, nll_sum=1.0, num_bytes=9)
