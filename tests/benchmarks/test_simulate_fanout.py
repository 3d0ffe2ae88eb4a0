"""The simulator's arithmetic, on cases that can be counted on fingers."""

from __future__ import annotations

from dataclasses import replace

import pytest
import simulate_fanout
from simulate_fanout import best_pipelined, pipelined_s, strict_s

from golf.config import Job
from golf.evaluate.split import ChunkWork, Times, best_split

UNIT = Times(window_s=1.0, step_s=0.0, row_s=1.0)
WORK = ChunkWork(windows=4, step_rows=(4, 4))


def test_a_chunk_of_the_record_is_512_windows_and_three_steps_of_16_rows():
    assert ChunkWork.of(Job()) == simulate_fanout.RECORD


def test_strict_workers_share_windows_and_rows():
    assert strict_s(UNIT, WORK, 10, 1) == 10 * (4 + 8)
    assert strict_s(UNIT, WORK, 10, 2) == 10 * (2 + 4)
    assert strict_s(UNIT, WORK, 10, 3) == 10 * (2 + 4), "the slowest has two of each"
    assert strict_s(UNIT, WORK, 10, 64) == 10 * (1 + 2)


def test_fixed_costs_are_not_shared():
    times = replace(UNIT, step_s=0.5, reduce_s=0.25, digest_s=0.125, chunk_s=0.0625)
    assert strict_s(times, WORK, 1, 1) == 4 + 8 + 2 * 0.5 + 0.125 + 0.0625
    assert strict_s(times, WORK, 1, 4) == 1 + 2 + 2 * (0.5 + 0.25) + 0.125 + 0.0625


def test_a_pipeline_is_as_fast_as_its_slower_half():
    """Training takes 8 a chunk by one, scoring 4: the adapter decides, but for the first and last.

    The tenth chunk is handed over after nine trainings and still has to be scored.
    """
    assert pipelined_s(UNIT, WORK, 10, 2, 1) == 9 * 8 + 4
    slow = replace(UNIT, window_s=5.0)  # 20 a chunk: now the scorer decides
    assert pipelined_s(slow, WORK, 10, 2, 1) == 10 * 20


def test_more_scorers_take_chunks_in_turn():
    slow = replace(UNIT, window_s=5.0)
    # Chunk c is handed over at 8c; two scorers end every other chunk 20 later, in turn.
    assert pipelined_s(slow, WORK, 4, 3, 1) == max(8 * 2 + 20, 20 + 20, 8 + 40)


def test_adapters_wait_where_too_many_chunks_are_unscored():
    """With one chunk ahead, the next is handed over only when the last is scored."""
    slow = replace(UNIT, window_s=5.0)
    assert pipelined_s(slow, WORK, 3, 3, 1, run_ahead=1) == 3 * 20
    assert pipelined_s(slow, WORK, 3, 3, 1) < 3 * 20


def test_too_few_cores_slow_all_down_alike():
    assert strict_s(UNIT, WORK, 10, 4, cores=2) == 2 * strict_s(UNIT, WORK, 10, 4)
    assert pipelined_s(UNIT, WORK, 10, 2, 1, cores=2) == pipelined_s(UNIT, WORK, 10, 2, 1)
    # One core does all the work there is, one thing or another: 9 trainings and 10 scorings.
    assert pipelined_s(UNIT, WORK, 10, 2, 1, cores=1) == pytest.approx(9 * 8 + 10 * 4)


def test_the_split_gives_the_greater_half_to_the_greater_work():
    assert best_split(UNIT, WORK, 2) == 1
    assert best_split(replace(UNIT, window_s=100.0), WORK, 8) == 1
    assert best_split(replace(UNIT, row_s=100.0), WORK, 8) == 4, "no more than there are rows"
    seconds, adapters = best_pipelined(UNIT, WORK, 50, 6)
    assert seconds == min(pipelined_s(UNIT, WORK, 50, 6, a) for a in range(1, 6))
    assert seconds == pipelined_s(UNIT, WORK, 50, 6, adapters)


def test_published_times_give_back_what_they_were_taken_from():
    eager, compiled, _ = simulate_fanout.published_scenarios()
    free = {"digest_s": 0.0, "chunk_s": 0.0}
    for scenario, published_s in ((eager, 408.0), (compiled, 316.0)):
        times = replace(scenario.times, **free)
        seconds = strict_s(times, simulate_fanout.RECORD, simulate_fanout.FINEWEB_CHUNKS, 8)
        assert seconds == pytest.approx(published_s, rel=0.002)


def test_more_gpus_never_take_longer(capsys: pytest.CaptureFixture[str]):
    simulate_fanout.show([8, 16, 24, 64])
    told = capsys.readouterr().out
    assert "Assumed of H100s" in told
    rows = [line.split() for line in told.splitlines() if " s " in line and "+" in line]
    assert len(rows) == 12
    for scenario in (rows[0:4], rows[4:8], rows[8:12]):
        for column in (1, 3):
            seconds = [float(row[column]) for row in scenario]
            assert seconds == sorted(seconds, reverse=True)
