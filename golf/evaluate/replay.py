"""`golf verify --replay K`: repeats some chunks of a finished `ttt` evaluation and compares.

1. Weights, data and settings must be those that the evaluation's plan names.
2. K chunks are drawn. Each is reached from the nearest checkpoint before it, or from the starting
   weights, by repeating the training in between; a checkpoint must hold the weights that the ledger
   names there.
3. The chunk is scored and, unless it is the last, trained on, and compared with its two lines.

The first chunk, for which nothing was trained, is scored in any case. Where it comes out the same
to the last bit, as on the same kind of machine with as many ranks and threads, all sums and digests
must; elsewhere scores must within `TOLERANCE_NATS` a token, and digests cannot be compared.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from golf.config import ConfigError
from golf.distributed import Ranks
from golf.evaluate.group import LocalGroup
from golf.evaluate.options import EvalOptions
from golf.evaluate.ttt import learning_rate
from golf.evaluate.validation import ValidationSet
from golf.evaluate.verify import EvalFiles, Verdict
from golf.evaluate.windows import Chunk
from golf.model.precision import DTYPES
from golf.records import EvalPaths

TOLERANCE_NATS = 1e-4


def replay(
    folder: Path,
    count: int,
    seed: int,
    weights: dict[str, Tensor],
    validation: ValidationSet,
    ranks: Ranks,
) -> Verdict:
    """Repeat `count` chunks, drawn by `seed`, of an evaluation that `verify` has found sound.

    Raises:
        ConfigError: these are not the weights or the data that were evaluated.
        WeightsError: a checkpoint is damaged.
    """
    again = _Replay(EvalFiles.read(EvalPaths(folder)), folder, weights, validation, ranks)
    chosen = sorted(
        random.Random(seed).sample(again.chunks, min(count, len(again.chunks))), key=_at
    )
    problem = next((p for chunk in chosen for p in again.problems(chunk)), None)
    how = "bit for bit" if again.exact else f"scores within {TOLERANCE_NATS} nats a token"
    names = ", ".join(str(chunk.index) for chunk in chosen)
    return Verdict("replay", problem, f"chunks {names}: {how}")


def _at(chunk: Chunk) -> int:
    return chunk.index


class _Replay:
    """A replica that walks forward through the chunks."""

    def __init__(
        self,
        files: EvalFiles,
        folder: Path,
        weights: dict[str, Tensor],
        validation: ValidationSet,
        ranks: Ranks,
    ) -> None:
        self.files, self.chunks, plan = files, files.chunks, files.plan
        if validation.identity() != plan["validation"]:
            raise ConfigError(f"--data holds other tokens than those evaluated in {folder}")
        here = plan["device"] == ranks.device.type
        options = EvalOptions(
            job=files.job,
            protocol=plan["protocol"],
            out=folder,
            dtype=DTYPES[plan["dtype"]],
            compiled=plan["compiled"],
            attention=plan["attention"] if here else None,
        )
        self.group = LocalGroup(options, weights, validation.tokens, ranks)
        if self.group.digest() != plan["weights"]:
            raise ConfigError(f"these are other weights than those evaluated in {folder}")
        self.trained = 0
        self.line_of: dict[tuple[str, int], dict[str, Any]] = {
            (line["kind"], line["chunk"]): line for line in files.lines
        }
        alike = here and plan["world_size"] == ranks.world_size
        self.exact = alike and self._difference(self.chunks[0]) == 0

    def problems(self, chunk: Chunk) -> Iterator[str]:
        """What comes out differently on the way to `chunk` and in it."""
        yield from self._jump(chunk.index)
        while self.trained < chunk.index:
            yield from self._train(self.chunks[self.trained])
        yield from self._score(chunk)
        if chunk.index < len(self.chunks) - 1:
            yield from self._train(chunk)

    def _jump(self, index: int) -> Iterator[str]:
        checkpoint = self.group.checkpoints.load_before(index)
        if checkpoint is None or int(checkpoint.metadata["trained_chunks"]) <= self.trained:
            return
        self.trained = self.group.load(checkpoint)
        if self.group.digest() != self.line_of["train", self.trained - 1]["weights"]:
            yield f"the checkpoint after {self.trained} chunks holds other weights than the ledger"

    def _difference(self, chunk: Chunk) -> float:
        """Nats by which the chunk scores more now than the ledger says."""
        nll_sum = float(self.group.score(chunk.windows).sum(dtype=np.float64))
        return nll_sum - float(self.line_of["score", chunk.index]["nll_sum"])

    def _score(self, chunk: Chunk) -> Iterator[str]:
        line, difference = self.line_of["score", chunk.index], self._difference(chunk)
        slack = 0.0 if self.exact else TOLERANCE_NATS * line["tokens"]
        if not abs(difference) <= slack:
            yield (
                f"chunk {chunk.index} scores {line['nll_sum'] + difference} nats, the ledger says "
                f"{line['nll_sum']}"
            )

    def _train(self, chunk: Chunk) -> Iterator[str]:
        lr = learning_rate(self.files.job.ttt, chunk.index, len(self.chunks))
        self.group.adapt(chunk.start, chunk.num_rows, lr)
        self.trained = chunk.index + 1
        if self.exact and self.group.digest() != self.line_of["train", chunk.index]["weights"]:
            yield f"training on chunk {chunk.index} leaves other weights than the ledger says"
