"""Documents to tokens on several cores, in the order of the documents.

1. `make_batches` groups documents, about a megabyte together and never of both splits.
2. `encode_batches` encodes them in worker processes. A bounded number is in flight, and results
   come in the order of the input, so the tokens do not depend on the number of workers.

A document is BOS and its pieces, without EOS, as in the challenge.
"""

from __future__ import annotations

import functools
import itertools
import multiprocessing
import signal
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from golf.data.documents import PrepareError
from golf.data.shards import Tokens
from golf.data.tokenizer import load_processor

BATCH_BYTES = 1_000_000
IN_FLIGHT = 3
"""Batches submitted for each worker."""


@dataclass
class Batch:
    """Consecutive documents of one split."""

    split: str
    texts: list[str] = field(default_factory=list)
    text_bytes: int = 0
    """Their UTF-8 bytes."""


def make_batches(documents: Iterable[str], val_docs: int) -> Iterator[Batch]:
    """The first `val_docs` documents are the split `val`, the others `train`."""
    batch = Batch("val")
    for index, text in enumerate(documents):
        split = "val" if index < val_docs else "train"
        if batch.texts and (batch.split != split or batch.text_bytes >= BATCH_BYTES):
            yield batch
            batch = Batch(split)
        batch.split = split
        batch.texts.append(text)
        batch.text_bytes += len(text.encode())
    if batch.texts:
        yield batch


@functools.lru_cache(maxsize=1)
def _processor(tokenizer: Path, sha256: str) -> Any:
    """Loaded once a process; the hash tells a tokenizer from another at the same place."""
    return load_processor(tokenizer)


def encode_texts(tokenizer: Path, sha256: str, texts: list[str]) -> Tokens:
    """BOS and pieces of each text, one after another, uint16 `[num_tokens]`."""
    documents = _processor(tokenizer, sha256).encode(texts, add_bos=True, num_threads=1)
    return np.fromiter(itertools.chain.from_iterable(documents), dtype=np.uint16)


def encode_batches(
    batches: Iterable[Batch], tokenizer: Path, sha256: str, workers: int
) -> Iterator[tuple[Batch, Tokens]]:
    """Each batch with its tokens, in order; one worker encodes in this process.

    Raises:
        PrepareError: a worker process died.
    """
    if workers == 1:
        for batch in batches:
            yield batch, encode_texts(tokenizer, sha256, batch.texts)
        return
    pool = ProcessPoolExecutor(
        workers,
        mp_context=multiprocessing.get_context("spawn"),  # a fork would copy held locks
        initializer=signal.signal,
        initargs=(signal.SIGINT, signal.SIG_IGN),  # Ctrl-C is for the parent, which ends them
    )
    pending: deque[tuple[Batch, Future[Tokens]]] = deque()
    try:
        for batch in batches:
            pending.append((batch, pool.submit(encode_texts, tokenizer, sha256, batch.texts)))
            if len(pending) > IN_FLIGHT * workers:
                done, tokens = pending.popleft()
                yield done, tokens.result()
        for done, tokens in pending:
            yield done, tokens.result()
    except BrokenProcessPool as error:
        raise PrepareError(
            "a worker process died while encoding, perhaps for want of memory; use fewer workers"
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)
