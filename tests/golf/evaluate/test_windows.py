"""Whatever the sizes, every position is scored once, and only scored positions are trained on."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from golf.config import EvaluateConfig
from golf.evaluate.windows import WindowGrid, plan_windows, split_chunks

sizes = st.tuples(
    st.integers(1, 3000), st.integers(1, 200), st.integers(1, 200), st.integers(1, 600)
).map(lambda s: (s[0], s[1], min(s[2], s[1]), max(s[3], s[1])))


@given(sizes)
def test_windows_score_each_position_exactly_once_and_in_order(size):
    total, seq_len, stride, _ = size
    grid = WindowGrid(total, seq_len, stride)
    scored = [
        p
        for k in range(grid.num_windows)
        for p in range(grid.window(k).first_scored, grid.window(k).end)
    ]
    assert scored == list(range(total))


@given(sizes)
def test_windows_start_on_the_grid_and_never_exceed_the_sequence(size):
    total, seq_len, stride, _ = size
    grid = WindowGrid(total, seq_len, stride)
    for k in range(grid.num_windows):
        window = grid.window(k)
        assert window.start == k * stride
        assert window.start <= window.first_scored < window.end <= window.start + seq_len


@given(sizes)
def test_chunks_cover_all_windows_once(size):
    total, seq_len, stride, chunk_tokens = size
    grid = WindowGrid(total, seq_len, stride)
    chunks = split_chunks(grid, chunk_tokens)
    assert [k for c in chunks for k in c.windows] == list(range(grid.num_windows))
    assert chunks[0].score_start == 0
    assert chunks[-1].score_end == total
    assert all(a.score_end == b.score_start for a, b in pairwise(chunks))


@given(sizes)
def test_a_chunk_trains_only_on_positions_that_it_or_an_earlier_chunk_scored(size):
    total, seq_len, stride, chunk_tokens = size
    for chunk in split_chunks(WindowGrid(total, seq_len, stride), chunk_tokens):
        assert chunk.start + chunk.num_rows * seq_len <= chunk.end <= chunk.score_end


@given(sizes)
def test_a_window_belongs_to_the_chunk_of_its_first_scored_position(size):
    total, seq_len, stride, chunk_tokens = size
    grid = WindowGrid(total, seq_len, stride)
    for chunk in split_chunks(grid, chunk_tokens):
        for k in chunk.windows:
            assert chunk.start <= grid.window(k).first_scored < chunk.end


def test_the_fineweb_validation_set_has_the_published_chunks():
    config = EvaluateConfig(tail="cut")
    grid = plan_windows(62_021_846, config, "ttt")
    assert grid.num_positions == 62_021_632
    # The public code counts 969,088 windows, of which 31 score the tail again.
    assert grid.num_windows == 969_088 - 31
    assert len(split_chunks(grid, 32_768)) == 1_893


def test_the_tail_is_kept_unless_it_is_cut():
    config = EvaluateConfig(eval_seq_len=64, stride=16)
    assert plan_windows(200, config, "sliding").num_positions == 199
    cut = EvaluateConfig(eval_seq_len=64, stride=16, tail="cut")
    assert plan_windows(200, cut, "sliding").num_positions == 192


def test_nothing_to_score_is_an_error_that_names_the_settings():
    with pytest.raises(ValueError, match=r"evaluate\.eval_seq_len=64 with tail='cut'"):
        plan_windows(60, EvaluateConfig(eval_seq_len=64, stride=16, tail="cut"), "sliding")
