from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from golf.config import NUM_SPANS, ConfigError
from golf.data.loader import StepLoader, TokenStream
from golf.data.shards import ShardError, write_shard
from golf.records import DataPaths

SHARD_TOKENS = (1000, 1, 37, 900)


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> DataPaths:
    """Four shards whose tokens count up from 0, so that a token tells its position."""
    root = tmp_path_factory.mktemp("data")
    tokens = np.split(np.arange(sum(SHARD_TOKENS)), np.cumsum(SHARD_TOKENS)[:-1])
    for index, part in enumerate(tokens):
        write_shard(root / f"fineweb_train_{index:06d}.bin", part)
    return DataPaths(root)


@given(start=st.integers(0, 10_000), count=st.integers(0, 7000))
@settings(deadline=None)
def test_the_stream_wraps_around_without_a_seam(paths: DataPaths, start: int, count: int) -> None:
    stream = TokenStream(paths.shards("train"))
    expected = np.arange(start, start + count) % sum(SHARD_TOKENS)
    np.testing.assert_array_equal(stream.read(start, count), expected)


@pytest.mark.parametrize("world_size", [1, 2, 4, 8])
@pytest.mark.parametrize("step", [0, 1, 4])
def test_any_number_of_ranks_reads_the_same_eight_spans(paths, world_size, step) -> None:
    """768 tokens a step are spans of 97: the steps wrap around from the third on."""
    micro = [
        StepLoader(paths, 768, 32, rank, world_size).micro_batches(step)
        for rank in range(world_size)
    ]
    spans = [micro[index % world_size][index // world_size] for index in range(NUM_SPANS)]
    assert {len(batches) for batches in micro} == {NUM_SPANS // world_size}
    for index, (inputs, targets) in enumerate(spans):
        first = (step * NUM_SPANS + index) * 97
        expected = np.arange(first, first + 97) % sum(SHARD_TOKENS)
        assert inputs.shape == targets.shape == (3, 32)
        assert inputs.dtype == targets.dtype == np.int64
        np.testing.assert_array_equal(inputs.ravel(), expected[:-1])
        np.testing.assert_array_equal(targets.ravel(), expected[1:])


def test_a_step_larger_than_the_data_reads_it_several_times(paths: DataPaths) -> None:
    inputs, _ = StepLoader(paths, 40_000, 5000).micro_batches(0)[7]
    first = 7 * 5001
    np.testing.assert_array_equal(inputs[0], np.arange(first, first + 5000) % sum(SHARD_TOKENS))


def test_a_step_depends_on_its_number_alone(paths: DataPaths) -> None:
    once, fresh = StepLoader(paths, 256, 32), StepLoader(paths, 256, 32)
    for step in (0, 1, 2):
        once.micro_batches(step)
    np.testing.assert_array_equal(once.micro_batches(3), fresh.micro_batches(3))


def test_golden_shards_are_read_in_the_public_loaders_order(golden_dir, tmp_path) -> None:
    """The public loader takes a chunk of W spans a micro-step off one wrapping stream."""
    golden = np.load(golden_dir / "train.npz")
    parts = [golden["shard0"], golden["shard1"]]
    for index, part in enumerate(parts):
        write_shard(tmp_path / f"fineweb_train_{index:06d}.bin", part)
    endless = np.tile(np.concatenate(parts), 3)
    loader = StepLoader(DataPaths(tmp_path), 1024, 64, vocab_size=256)
    taken = np.concatenate(
        [
            np.append(inputs.ravel(), targets[-1, -1])
            for step in range(30)
            for inputs, targets in loader.micro_batches(step)
        ]
    )
    np.testing.assert_array_equal(taken, endless[: 30 * 8 * 129])


@pytest.mark.parametrize("world_size", [0, 3, 5, 16])
def test_ranks_that_do_not_divide_a_step_are_refused(paths: DataPaths, world_size: int) -> None:
    with pytest.raises(ConfigError, match="run 1, 2, 4 or 8 ranks"):
        StepLoader(paths, 256, 32, 0, world_size)


def test_spans_of_broken_rows_are_refused(paths: DataPaths) -> None:
    with pytest.raises(ConfigError, match="multiple of 8 x"):
        StepLoader(paths, 300, 32)


def test_a_rank_outside_the_group_is_refused(paths: DataPaths) -> None:
    with pytest.raises(ConfigError, match=r"rank 2 must lie in \[0, 2\)"):
        StepLoader(paths, 256, 32, 2, 2)


def test_tokens_of_another_vocabulary_are_refused(paths: DataPaths) -> None:
    loader = StepLoader(paths, 256, 32, vocab_size=200)
    with pytest.raises(ShardError, match="token 230 lies outside the model's vocabulary of 200"):
        loader.micro_batches(0)


def test_a_folder_without_training_shards_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ShardError, match=r"no fineweb_train_\*\.bin"):
        StepLoader(DataPaths(tmp_path), 256, 32)
