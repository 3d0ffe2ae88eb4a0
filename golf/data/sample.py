"""A bounded sample of sentences to train a tokenizer on.

1. `split_sentences` cuts documents into what SentencePiece's trainer takes.
2. `SentenceSample` keeps every sentence until its budget is full, then every second, every fourth,
   and so on: an even sample of a text of any size, the same on every run.
"""

from __future__ import annotations

from collections.abc import Iterator

SENTENCE_BYTES = 4192
"""SentencePiece leaves out training sentences that are longer."""

SAMPLE_BYTES = 32_000_000
"""Enough for the largest vocabularies in use; the trainer needs several times as much memory."""


def split_sentences(text: str) -> Iterator[str]:
    """Pieces of `text` that the trainer takes: its lines, cut at spaces where they are too long."""
    limit = SENTENCE_BYTES // 4  # characters, of at most four bytes
    for line in text.replace("\0", " ").splitlines():  # the trainer leaves out lines with NUL
        start = 0
        while len(line) - start > limit:
            space = line.rfind(" ", start + 1, start + limit)
            end = start + limit if space == -1 else space
            yield line[start:end].strip()
            start = end
        yield line[start:].strip()


class SentenceSample:
    """Sentences, evenly spaced over all that were added, of at most `budget_bytes` together."""

    def __init__(self, budget_bytes: int = SAMPLE_BYTES) -> None:
        assert budget_bytes >= SENTENCE_BYTES, budget_bytes
        self.sentences: list[str] = []
        self._budget_bytes = budget_bytes
        self._size_bytes = 0
        self._stride = 1
        self._seen = 0

    def add(self, document: str) -> None:
        """Offer the sentences of one document."""
        for sentence in split_sentences(document):
            if self._seen % self._stride == 0:
                self.sentences.append(sentence)
                self._size_bytes += len(sentence.encode())
                self._thin()
            self._seen += 1

    def _thin(self) -> None:
        while self._size_bytes > self._budget_bytes:
            del self.sentences[1::2]
            self._stride *= 2
            self._size_bytes = sum(len(sentence.encode()) for sentence in self.sentences)
