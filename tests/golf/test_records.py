from __future__ import annotations

import json
from pathlib import Path

import pytest

from golf.records import (
    DataPaths,
    EvalPaths,
    JsonLines,
    RunError,
    TrainPaths,
    read_json,
    read_lines,
    replace_file,
    write_json,
)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# ---- whole files ----


def test_json_is_read_back_and_nothing_else_is_left(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "result.json"
    write_json(path, {"val_loss": 1.25, "name": "Ünïcode"})
    assert read_json(path) == {"val_loss": 1.25, "name": "Ünïcode"}
    assert names(path.parent) == ["result.json"]


def test_a_writer_that_fails_leaves_the_old_file_and_no_other(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    write_json(path, {"old": 1})

    def fail_half_way(temporary: Path) -> None:
        temporary.write_text("half")
        assert read_json(path) == {"old": 1}
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"), replace_file(path) as temporary:
        fail_half_way(temporary)
    assert read_json(path) == {"old": 1}
    assert names(tmp_path) == ["result.json"]


def test_a_reader_under_way_sees_the_old_file_whole(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    write_json(path, {"old": 1})
    with path.open() as reader:
        write_json(path, {"new": 2})
        assert json.load(reader) == {"old": 1}
    assert read_json(path) == {"new": 2}


@pytest.mark.parametrize("value", [float("nan"), float("inf"), object()])
def test_what_is_no_json_is_not_written(value: object, tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    write_json(path, 1)
    with pytest.raises((ValueError, TypeError)):
        write_json(path, {"x": value})
    assert read_json(path) == 1
    assert names(tmp_path) == ["result.json"]


def test_a_missing_file_reads_as_none_and_a_damaged_one_is_named(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    assert read_json(path) is None
    path.write_text('{"val_loss": 1.')
    with pytest.raises(RunError, match=r"result\.json is no valid JSON"):
        read_json(path)
    path.write_bytes(b"\xff\xff")
    with pytest.raises(RunError, match=r"result\.json is no valid JSON"):
        read_json(path)


# ---- files that grow by lines ----


def write_lines(path: Path, *values: int, keep: int = 0) -> None:
    lines = JsonLines(path, keep)
    for value in values:
        lines.append({"step": value})
    lines.close()


def steps(path: Path) -> list[int]:
    return [line["step"] for line in read_lines(path)]


def test_lines_can_be_read_as_soon_as_they_are_appended(tmp_path: Path) -> None:
    path = tmp_path / "new" / "metrics.jsonl"
    lines = JsonLines(path)
    lines.append({"step": 1})
    assert steps(path) == [1]
    lines.append({"step": 2}, sync=True)
    assert steps(path) == [1, 2]
    lines.close()


def test_an_unfinished_last_line_does_not_count(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    assert read_lines(path) == []
    write_lines(path, 1, 2)
    with path.open("ab") as file:
        file.write(b'{"step": 3}')  # complete but for its line end
    assert steps(path) == [1, 2]
    path.write_bytes(b'{"ste')
    assert read_lines(path) == []


def test_a_damaged_line_in_the_middle_is_an_error_that_names_the_file(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"step": 1}\n{"st\n{"step": 3}\n')
    with pytest.raises(RunError, match=r"metrics\.jsonl holds a damaged line"):
        read_lines(path)


@pytest.mark.parametrize(("keep", "kept"), [(0, []), (2, [1, 2]), (3, [1, 2, 3]), (9, [1, 2, 3])])
def test_a_resumed_file_keeps_so_many_lines_and_goes_on_after_them(
    keep: int, kept: list[int], tmp_path: Path
) -> None:
    path = tmp_path / "metrics.jsonl"
    write_lines(path, 1, 2, 3)
    write_lines(path, 10, keep=keep)
    assert steps(path) == [*kept, 10]


def test_a_resumed_file_loses_its_half_written_line(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    write_lines(path, 1, 2)
    with path.open("ab") as file:
        file.write(b'{"step": 3, "train_lo')
    write_lines(path, 3, keep=3)
    assert steps(path) == [1, 2, 3]


def test_a_line_that_is_no_json_is_not_begun(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    lines = JsonLines(path)
    with pytest.raises(ValueError, match="JSON"):
        lines.append({"train_loss": float("nan")})
    lines.close()
    assert path.read_bytes() == b""


# ---- paths ----


def test_shards_are_listed_by_split_in_reading_order(tmp_path: Path) -> None:
    for name in ("fineweb_train_000010", "fineweb_train_000002", "fineweb_val_000000"):
        (tmp_path / f"{name}.bin").touch()
    (tmp_path / "fineweb_train_000003.tmp").touch()
    paths = DataPaths(tmp_path)
    assert [p.stem[-2:] for p in paths.shards("train")] == ["02", "10"]
    assert [p.stem[-2:] for p in paths.shards("val")] == ["00"]


def test_a_run_s_files_are_where_users_look_for_them(tmp_path: Path) -> None:
    train, evaluation = TrainPaths(tmp_path), EvalPaths(tmp_path)
    relative = [
        str(path.relative_to(tmp_path))
        for path in (
            train.metrics,
            train.model,
            train.average("ema"),
            train.average("swa"),
            train.checkpoints,
            train.result,
            evaluation.result,
            evaluation.nll,
            evaluation.journal("ttt"),
        )
    ]
    assert relative == [
        "metrics.jsonl",
        "model.safetensors",
        "averages/ema.safetensors",
        "averages/swa.safetensors",
        "checkpoint",
        "result.json",
        "result.json",
        "nll.npy",
        "ledger.jsonl",
    ]
    assert evaluation.journal("sliding") != evaluation.ledger
