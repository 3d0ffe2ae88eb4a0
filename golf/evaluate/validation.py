"""The validation set of a data folder: its tokens, and how many bytes of text each stands for."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from golf.data.shards import Tokens, read_split
from golf.data.tokenizer import ByteTable
from golf.records import DataPaths


@dataclass(frozen=True)
class ValidationSet:
    """What every evaluation scores."""

    tokens: Tokens
    """uint16 [num_tokens]."""
    bytes_of: ByteTable
    tokenizer: Path

    @classmethod
    def load(
        cls, paths: DataPaths, vocab_size: int, tokenizer: Path | None = None
    ) -> ValidationSet:
        """Read all validation shards, and the byte table of the folder's tokenizer or another.

        Raises:
            RunError: shards or tokenizer are missing, damaged or of another vocabulary.
        """
        tokenizer = tokenizer or paths.tokenizer
        tokens = read_split(paths, "val", vocab_size)
        return cls(tokens, ByteTable.load(tokenizer, vocab_size), tokenizer)

    def count_bytes(self, start: int, end: int) -> int:
        """Bytes of the text that scored positions [start, end) predict."""
        window = self.tokens[start : end + 1]
        return int(self.bytes_of.count(window[:-1], window[1:]).sum())

    def identity(self) -> dict[str, str | int]:
        """What tells this set from any other."""
        return {
            "tokens": len(self.tokens),
            "tokens_sha256": hashlib.sha256(self.tokens.tobytes()).hexdigest(),
            "tokenizer_sha256": hashlib.sha256(self.tokenizer.read_bytes()).hexdigest(),
        }
