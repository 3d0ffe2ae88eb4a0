from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from golf.config import EvaluateConfig, Job, job_to_sections, load_job
from launcher.errors import LaunchError
from launcher.spec import find_job, parse_seeds, shipped_jobs


@pytest.mark.parametrize(
    "words",
    [
        ["1337,42,7"],
        ["1337 42 7"],
        ["1337", "42", "7"],
        ["1337,", "42", ",7"],
        ["1337, 42", "7"],
    ],
)
def test_seeds_may_be_parted_by_commas_or_spaces_and_keep_their_order(words: list[str]) -> None:
    assert parse_seeds(words) == (1337, 42, 7)


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        ([], "no seeds given"),
        ([" , "], "no seeds given"),
        (["1,2,1"], "seed 1 is given twice"),
        (["01", "1"], "seed 1 is given twice"),
        (["-1"], "seed -1 must lie between 0 and 4294967295"),
        (["4294967296"], "must lie between"),
        (["1.5"], "'1.5' is no whole number"),
        (["1e3"], "'1e3' is no whole number"),
        (["²"], "is no whole number"),
        (["42", "smoke"], "'smoke' is no whole number; write --seeds 1337,42,7, after the job"),
    ],
)
def test_seeds_that_name_no_runs_are_refused(words: list[str], problem: str) -> None:
    with pytest.raises(LaunchError, match=problem):
        parse_seeds(words)


def test_the_record_job_spells_every_key_out_with_the_record_s_values() -> None:
    path = find_job("record")
    job = load_job(path)
    assert tomllib.loads(path.read_text()) == job_to_sections(job)
    assert job == Job(evaluate=EvaluateConfig(tail="cut"))


def test_every_shipped_job_is_valid() -> None:
    assert {"record", "smoke"} <= set(shipped_jobs())
    for path in shipped_jobs().values():
        load_job(path)


def test_a_job_is_found_by_name_with_or_without_its_ending_and_by_path(tmp_path: Path) -> None:
    own = tmp_path / "mine.toml"
    own.write_text('[job]\nname = "mine"\n')
    assert find_job("smoke") == find_job("smoke.toml") == shipped_jobs()["smoke"]
    assert find_job(str(own)) == own


def test_an_unknown_job_is_answered_with_the_nearest_job_or_command() -> None:
    with pytest.raises(LaunchError, match="did you mean smoke"):
        find_job("smoek")
    with pytest.raises(LaunchError, match="did you mean golf-launch status"):
        find_job("statsu", ["status"])
    with pytest.raises(LaunchError, match="known jobs: record, smoke"):
        find_job("zzz")
