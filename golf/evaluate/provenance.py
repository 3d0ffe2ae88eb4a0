"""The ledger of the pipelined schedule: it proves which weights, having seen what, scored a chunk.

1. A `train` line stands for the weights that training on chunks 0 to c left behind; they come in
   the order of the chunks, each once.
2. A `score` line names chunk, weights by digest and how many chunks they have trained on. These are
   exactly the chunks before, and the train line that left such weights stands before it.
3. Lines are written as things happen: chunks are scored in any order, each once, and a chunk may be
   trained on before its score is recorded, never with a say in it.

So each token is scored by weights that have seen earlier chunks only. What the strict ledger shows
beyond, that the score was on disk before the training began, this one does not claim.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from golf.evaluate.ledger import Ledger, LegalityError
from golf.evaluate.windows import Chunk

Lines = Iterable[tuple[int, dict[str, Any]]]


class ProvenanceLedger(Ledger):
    """The growing ledger of one pipelined evaluation."""

    def __init__(
        self, path: Path | None, plan_hash: str, weights: str, chunks: Sequence[Chunk]
    ) -> None:
        super().__init__(path, plan_hash, weights)
        self.chunks = chunks
        self.lineage = [weights]
        """Digests of the weights after 0, 1, 2, ... chunks."""
        self.scored: set[int] = set()
        self.first_unscored = 0

    @property
    def num_trained(self) -> int:
        """Chunks of which the training is recorded."""
        return len(self.lineage) - 1

    def score_by(self, *, chunk: Chunk, nll_sum: float, num_bytes: int, weights: str) -> None:
        """Record that `chunk` was scored with `weights`, as the scorer itself digests them."""
        self._append(
            {
                "kind": "score",
                "chunk": chunk.index,
                "start": chunk.score_start,
                "end": chunk.score_end,
                "nll_sum": nll_sum,
                "tokens": chunk.score_end - chunk.score_start,
                "bytes": num_bytes,
                "trained_chunks": chunk.index,
                "weights": weights,
            }
        )

    def _check_score(self, line: dict[str, Any]) -> None:
        index = line["chunk"]
        if not 0 <= index < len(self.chunks) or index in self.scored:
            raise LegalityError(f"chunk {index} is scored twice, or is none of this evaluation")
        chunk = self.chunks[index]
        if (line["start"], line["end"]) != (chunk.score_start, chunk.score_end):
            raise LegalityError(
                f"chunk {index} scores [{line['start']}, {line['end']}), its windows are "
                f"[{chunk.score_start}, {chunk.score_end})"
            )
        if line["trained_chunks"] != index or self.lineage[index : index + 1] != [line["weights"]]:
            raise LegalityError(
                f"chunk {index} is not scored with the weights that training on exactly the "
                f"{index} chunks before it left behind"
            )
        self.scored.add(index)
        while self.first_unscored in self.scored:
            self.first_unscored += 1

    def _check_train(self, line: dict[str, Any]) -> None:
        if line["chunk"] != self.num_trained or line["chunk"] >= len(self.chunks) - 1:
            raise LegalityError(
                f"training on chunk {line['chunk']} is out of turn: {self.num_trained} is next"
            )
        self.weights = line["weights"]
        self.lineage.append(self.weights)


def order_problems(lines: Lines, num_chunks: int) -> list[str]:
    """What contradicts the order that provenance asks for, in lines numbered from 1."""
    problems, scored, num_trained = [], set[int](), 0
    for number, line in lines:
        chunk = line["chunk"]
        if line["kind"] == "train":
            if chunk != num_trained or chunk >= num_chunks - 1:
                problems.append(f"line {number} trains on chunk {chunk}, not on {num_trained}")
            num_trained += 1
        elif line["kind"] != "score":
            problems.append(f"line {number} is {line['kind']!r}")
        elif chunk in scored or not 0 <= chunk < num_chunks:
            problems.append(f"line {number} scores chunk {chunk} again, or none that there is")
        elif chunk > num_trained:
            problems.append(
                f"line {number} scores chunk {chunk} before its weights, after {num_trained} chunks"
            )
        if line["kind"] == "score":
            scored.add(chunk)
    if len(scored) != num_chunks or num_trained != num_chunks - 1:
        problems.append(
            f"{len(scored)} chunks are scored and {num_trained} trained on, of {num_chunks}"
        )
    return problems


def lineage_problems(lines: Lines, start: str) -> list[str]:
    """Score lines whose weights are not those that exactly the chunks before left behind."""
    lineage, problems = [start], []
    for number, line in lines:
        if line["kind"] == "train":
            lineage.append(line["weights"])
        elif line["trained_chunks"] != line["chunk"]:
            problems.append(
                f"line {number} scores chunk {line['chunk']} with weights that have trained on "
                f"{line['trained_chunks']} chunks"
            )
        elif lineage[line["chunk"] : line["chunk"] + 1] != [line["weights"]]:
            problems.append(
                f"line {number} is scored with other weights than training on the "
                f"{line['chunk']} chunks before left behind"
            )
    return problems
