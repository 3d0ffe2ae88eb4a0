"""SentencePiece tokenizers: how many bytes each token stands for, and training one.

1. `ByteTable.load` reads a model once and keeps three arrays over its token ids.
2. `ByteTable.count` turns pairs (previous token, target token) into bytes of text. It is the
   denominator of bits per byte, so it follows the challenge's rule to the letter.
3. `train_tokenizer` trains a BPE model with the challenge's settings.

Bytes are those of the normalised text: `nmt_nfkc` folds characters, turns line ends into spaces and
drops surplus spaces before anything is encoded.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import sentencepiece

from golf.data.sample import SENTENCE_BYTES
from golf.records import RunError, replace_file

SPACE = "▁"
"""SentencePiece writes a space as U+2581."""

TRAINER_SETTINGS: dict[str, Any] = {
    "model_type": "bpe",
    "character_coverage": 0.999,  # of the challenge's exporter; rarer characters become bytes
    "byte_fallback": True,
    "split_digits": True,
    "normalization_rule_name": "nmt_nfkc",
    "add_dummy_prefix": False,
    "pad_id": 0,
    "bos_id": 1,
    "eos_id": 2,
    "unk_id": 3,
}


class TokenizerError(RunError):
    """A tokenizer that cannot be read, fits no model or cannot be trained; the text says why."""


def load_processor(path: Path) -> Any:
    """The SentencePiece processor of a `.model` file.

    Raises:
        TokenizerError: the file is missing or no SentencePiece model.
    """
    try:
        proto = path.read_bytes()
    except OSError as error:
        raise TokenizerError(
            f"{path}: cannot be read ({error.strerror}); name a SentencePiece .model file"
        ) from error
    try:
        if not proto:
            raise ValueError("it is empty")
        processor = sentencepiece.SentencePieceProcessor(model_proto=proto)
    except Exception as error:  # the binding raises whatever its C++ status maps to
        raise TokenizerError(
            f"{path}: no SentencePiece model ({error}); name another .model file"
        ) from error
    return processor


@dataclass(frozen=True)
class ByteTable:
    """What each token id, `[vocab_size]`, adds to the text."""

    base_bytes: npt.NDArray[np.int16]
    """UTF-8 bytes of the piece without its leading space; 1 for a byte piece, 0 for a boundary."""
    leading_space: npt.NDArray[np.bool_]
    """The piece starts with a space, which counts unless the token before is a boundary."""
    boundary: npt.NDArray[np.bool_]
    """Control, unknown and unused pieces, and ids beyond the tokenizer."""

    @classmethod
    def load(cls, tokenizer_path: Path, vocab_size: int) -> ByteTable:
        """The table of a SentencePiece model, padded with boundaries to `vocab_size` ids.

        Raises:
            TokenizerError: the model cannot be read, or has more pieces than `vocab_size`.
        """
        processor = load_processor(tokenizer_path)
        num_pieces = processor.vocab_size()
        if num_pieces > vocab_size:
            raise TokenizerError(
                f"{tokenizer_path}: {num_pieces} pieces do not fit a vocabulary of {vocab_size}; "
                f"set the vocabulary (model.vocab_size) to {num_pieces} or more"
            )
        base_bytes = np.zeros(vocab_size, dtype=np.int16)
        leading_space = np.zeros(vocab_size, dtype=np.bool_)
        boundary = np.ones(vocab_size, dtype=np.bool_)
        for token in range(num_pieces):
            if (
                processor.is_control(token)
                or processor.is_unknown(token)
                or processor.is_unused(token)
            ):
                continue
            boundary[token] = False
            piece = processor.id_to_piece(token)
            if processor.is_byte(token):
                base_bytes[token] = 1
            else:
                leading_space[token] = piece.startswith(SPACE)
                base_bytes[token] = len(piece.removeprefix(SPACE).encode())
        return cls(base_bytes, leading_space, boundary)

    def count(
        self, previous: npt.NDArray[np.integer], targets: npt.NDArray[np.integer]
    ) -> npt.NDArray[np.int64]:
        """Bytes of each of `targets`, given the token before it; any shape, both the same."""
        assert previous.shape == targets.shape, (previous.shape, targets.shape)
        space = self.leading_space[targets] & ~self.boundary[previous]
        num_bytes: npt.NDArray[np.int64] = self.base_bytes[targets].astype(np.int64) + space
        return num_bytes


def train_tokenizer(sentences: Iterable[str], vocab_size: int, path: Path) -> None:
    """Train a BPE model of exactly `vocab_size` pieces, the same bytes for the same sentences.

    Raises:
        TokenizerError: the text holds too little for the vocabulary, or the vocabulary too few
            pieces for the text's characters; the text names a size that works.
    """
    model = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(sentences),
            model_writer=model,
            vocab_size=vocab_size,
            max_sentence_length=SENTENCE_BYTES,
            num_threads=1,
            minloglevel=2,
            **TRAINER_SETTINGS,
        )
    except RuntimeError as error:
        raise TokenizerError(_training_failure(str(error), vocab_size)) from error
    with replace_file(path) as temporary:
        temporary.write_bytes(model.getvalue())


def _training_failure(reason: str, vocab_size: int) -> str:
    """SentencePiece's internal check in the words of the setting that mends it."""
    if found := re.search(r"Vocabulary size too high .*<= (\d+)", reason):
        return (
            f"the text yields no vocabulary of {vocab_size} pieces; choose a vocabulary of at most "
            f"{found[1]}, or prepare more text"
        )
    if found := re.search(r"smaller than required_chars\. \d+ vs (\d+)", reason):
        return (
            f"a vocabulary of {vocab_size} pieces cannot hold the text's characters beside the 256 "
            f"bytes and 4 control pieces; choose a vocabulary of at least {found[1]}"
        )
    if "sentences_.empty()" in reason or "all_chars_count" in reason:
        return "there is no text to train a tokenizer on; prepare more text"
    return f"SentencePiece could not train a vocabulary of {vocab_size} pieces: {reason}"
