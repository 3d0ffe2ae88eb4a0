"""Token shards in the challenge's binary format.

A shard is a header of 256 little-endian int32 (magic 20240520, version 1, number of tokens, zeros)
followed by that many little-endian uint16 tokens.

1. `write_shard` writes one, whole or not at all.
2. `open_shard` maps one read-only, after holding its header against the size of the file.
3. `find_shards` lists a split in reading order, and refuses a folder whose preparation was cut off.
4. `read_split` concatenates the shards of a split: the validation set.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from golf.records import DataPaths, RunError, replace_file

Tokens = npt.NDArray[np.uint16]

MAGIC = 20240520
VERSION = 1
HEADER_INTS = 256
HEADER_BYTES = 4 * HEADER_INTS
TOKEN_BYTES = 2
MAX_SHARD_TOKENS = 2**31 - 1
"""The header holds the count as an int32."""

INCOMPLETE_MARKER = ".incomplete"
"""Lies in a data folder from the first file written to it until its manifest is there."""


class ShardError(RunError):
    """A token shard that is missing or damaged, or tokens that fit no shard or no model."""


def write_shard(path: Path, tokens: npt.NDArray[np.integer]) -> None:
    """Write `tokens` (1-D, each in [0, 65535]) to `path`, whole or not at all.

    Raises:
        ShardError: there are no tokens, too many, or some that fit no uint16.
    """
    assert tokens.ndim == 1, tokens.shape
    if not 1 <= len(tokens) <= MAX_SHARD_TOKENS:
        raise ShardError(
            f"{path}: a shard holds 1 to {MAX_SHARD_TOKENS:,} tokens, not {len(tokens):,}; "
            "choose another number of tokens a shard"
        )
    if tokens.dtype != np.uint16 and (tokens.min() < 0 or tokens.max() > np.iinfo(np.uint16).max):
        raise ShardError(
            f"{path}: tokens from {tokens.min()} to {tokens.max()} do not fit uint16; "
            "use a vocabulary of at most 65,536"
        )
    header = np.zeros(HEADER_INTS, dtype="<i4")
    header[:3] = MAGIC, VERSION, len(tokens)
    with replace_file(path) as temporary, temporary.open("wb") as file:
        file.write(header.tobytes())
        file.write(np.ascontiguousarray(tokens, dtype="<u2").data)


def open_shard(path: Path) -> Tokens:
    """Map a shard's tokens read-only: uint16 `[num_tokens]`, read from disk as they are touched.

    Raises:
        ShardError: the file is missing, no shard, truncated or too long; the text names the fix.
    """
    fix = "prepare or download it again"
    try:
        size_bytes = path.stat().st_size
        with path.open("rb") as file:
            head = file.read(HEADER_BYTES)
    except OSError as error:
        raise ShardError(f"{path}: cannot be read ({error.strerror}); {fix}") from error
    if len(head) < HEADER_BYTES:
        raise ShardError(
            f"{path}: truncated, {size_bytes:,} bytes where the header alone has "
            f"{HEADER_BYTES:,}; {fix}"
        )
    magic, version, num_tokens = (int(value) for value in np.frombuffer(head, dtype="<i4")[:3])
    if magic != MAGIC:
        raise ShardError(f"{path}: no token shard, its magic is {magic} and not {MAGIC}; {fix}")
    if version != VERSION:
        raise ShardError(
            f"{path}: shard version {version}, only version {VERSION} can be read; {fix}"
        )
    if num_tokens < 1:
        raise ShardError(f"{path}: its header counts {num_tokens} tokens; {fix}")
    expected_bytes = HEADER_BYTES + TOKEN_BYTES * num_tokens
    if size_bytes != expected_bytes:
        state = "truncated" if size_bytes < expected_bytes else "too long"
        raise ShardError(
            f"{path}: {state}, {size_bytes:,} bytes where {num_tokens:,} tokens need "
            f"{expected_bytes:,}; {fix}"
        )
    return np.memmap(path, dtype="<u2", mode="r", offset=HEADER_BYTES, shape=(num_tokens,))


def find_shards(paths: DataPaths, split: str) -> list[Path]:
    """The shards of `train` or `val` in reading order, at least one.

    Raises:
        ShardError: there is none, or the folder's preparation has not finished.
    """
    if (paths.root / INCOMPLETE_MARKER).exists() and not paths.manifest.exists():
        raise ShardError(
            f"{paths.root}: its preparation or download has not finished; wait for it, or run the "
            "same command again"
        )
    found = paths.shards(split)
    if not found:
        raise ShardError(
            f"{paths.root}: no fineweb_{split}_*.bin; make them with `golf prepare` or "
            "`golf download`, or name the folder that holds them"
        )
    return found


def read_split(paths: DataPaths, split: str, vocab_size: int | None = None) -> Tokens:
    """All tokens of a split in order, uint16 `[num_tokens]`; meant for the validation set.

    Raises:
        ShardError: a shard is missing or damaged, or a token is not below `vocab_size`.
    """
    shards = [open_shard(path) for path in find_shards(paths, split)]
    tokens = shards[0] if len(shards) == 1 else np.concatenate(shards)
    if vocab_size is not None:
        check_vocabulary(tokens, vocab_size, paths.root)
    return tokens


def check_vocabulary(tokens: npt.NDArray[np.integer], vocab_size: int, root: Path) -> None:
    """Refuse tokens that an embedding of `vocab_size` rows does not hold.

    Raises:
        ShardError: naming the largest token and the fix.
    """
    largest = int(tokens.max(initial=0))
    if largest >= vocab_size:
        raise ShardError(
            f"{root}: token {largest} lies outside the model's vocabulary of {vocab_size}; these "
            "shards were made with a larger tokenizer, set model.vocab_size to its size or use "
            "other data"
        )


class ShardWriter:
    """Cuts the tokens of one split into shards of `shard_tokens`, the last one shorter."""

    def __init__(self, root: Path, split: str, shard_tokens: int) -> None:
        self.files: list[Path] = []
        self.num_tokens = 0
        self._root = root
        self._split = split
        self._buffer = np.empty(shard_tokens, dtype=np.uint16)  # touched, and so held, as it fills
        self._filled = 0

    def add(self, tokens: Tokens) -> None:
        """Append `[n]` tokens; every full shard is written at once."""
        self.num_tokens += len(tokens)
        while len(tokens):
            taken = min(len(tokens), len(self._buffer) - self._filled)
            self._buffer[self._filled : self._filled + taken] = tokens[:taken]
            self._filled += taken
            tokens = tokens[taken:]
            if self._filled == len(self._buffer):
                self.close()

    def close(self) -> None:
        """Write what no full shard holds yet."""
        if self._filled:
            path = self._root / f"fineweb_{self._split}_{len(self.files):06d}.bin"
            write_shard(path, self._buffer[: self._filled])
            self.files.append(path)
            self._filled = 0
