from pathlib import Path

import numpy as np
import pytest

from golf.data.shards import (
    HEADER_BYTES,
    INCOMPLETE_MARKER,
    ShardError,
    find_shards,
    open_shard,
    read_split,
    write_shard,
)
from golf.records import DataPaths


@pytest.fixture
def shard(tmp_path: Path) -> Path:
    path = tmp_path / "fineweb_val_000000.bin"
    write_shard(path, np.arange(100, dtype=np.int64))
    return path


def test_a_shard_has_the_challenges_layout(tmp_path: Path) -> None:
    path = tmp_path / "s.bin"
    write_shard(path, np.array([7, 65535, 258]))
    data = path.read_bytes()
    assert data[:12] == bytes([0x88, 0xD8, 0x34, 0x01, 1, 0, 0, 0, 3, 0, 0, 0])
    assert data[12:1024] == bytes(1012)
    assert data[1024:] == bytes([7, 0, 255, 255, 2, 1])
    assert [file.name for file in tmp_path.iterdir()] == ["s.bin"]


def test_an_opened_shard_is_read_only(shard: Path) -> None:
    tokens = open_shard(shard)
    assert tokens.dtype == np.uint16
    np.testing.assert_array_equal(tokens, np.arange(100))
    with pytest.raises(ValueError, match="read-only"):
        tokens[0] = 1


@pytest.mark.parametrize(
    ("damage", "complaint"),
    [
        (lambda data: data[:-1], "truncated, 1,223 bytes where 100 tokens need 1,224"),
        (lambda data: data + b"\0\0", "too long"),
        (lambda data: data[:500], "header alone"),
        (lambda data: b"", "truncated, 0 bytes"),
        (lambda data: b"\x01" + data[1:], "no token shard"),
        (lambda data: data[:4] + b"\x02" + data[5:], "version 2"),
        (lambda data: data[:8] + bytes(4) + data[12:HEADER_BYTES], "counts 0 tokens"),
        (lambda data: data[:11] + b"\xff" + data[12:], "counts -"),
    ],
)
def test_a_damaged_shard_is_refused_with_its_name_and_the_fix(shard, damage, complaint) -> None:
    shard.write_bytes(damage(shard.read_bytes()))
    with pytest.raises(ShardError, match=complaint) as refusal:
        open_shard(shard)
    assert str(shard) in str(refusal.value)
    assert "again" in str(refusal.value) or "version 1" in str(refusal.value)


def test_a_missing_shard_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ShardError, match=r"nowhere\.bin: cannot be read \(No such file"):
        open_shard(tmp_path / "nowhere.bin")


@pytest.mark.parametrize("tokens", [np.array([-1]), np.array([65536]), np.array([], dtype=int)])
def test_tokens_that_fit_no_shard_are_not_written(tmp_path: Path, tokens: np.ndarray) -> None:
    with pytest.raises(ShardError):
        write_shard(tmp_path / "s.bin", tokens)
    assert not list(tmp_path.iterdir())


def test_a_split_is_read_in_sorted_order(tmp_path: Path) -> None:
    write_shard(tmp_path / "fineweb_val_000001.bin", np.array([4, 5]))
    write_shard(tmp_path / "fineweb_val_000000.bin", np.array([1, 2, 3]))
    write_shard(tmp_path / "fineweb_train_000000.bin", np.array([9]))
    np.testing.assert_array_equal(read_split(DataPaths(tmp_path), "val"), [1, 2, 3, 4, 5])


def test_a_folder_without_shards_says_how_to_make_them(tmp_path: Path) -> None:
    with pytest.raises(ShardError, match=r"no fineweb_val_\*\.bin; make them with `golf prepare`"):
        read_split(DataPaths(tmp_path), "val")


def test_tokens_outside_the_models_vocabulary_are_refused(shard: Path) -> None:
    assert len(read_split(DataPaths(shard.parent), "val", vocab_size=100)) == 100
    with pytest.raises(ShardError, match=r"token 99 .* vocabulary of 99; .*model\.vocab_size"):
        read_split(DataPaths(shard.parent), "val", vocab_size=99)


def test_a_half_prepared_folder_is_not_read(shard: Path) -> None:
    paths = DataPaths(shard.parent)
    (paths.root / INCOMPLETE_MARKER).touch()
    with pytest.raises(ShardError, match="has not finished"):
        find_shards(paths, "val")
    paths.manifest.write_text("{}")
    assert find_shards(paths, "val") == [shard]
