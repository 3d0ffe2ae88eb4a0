"""Documents to a data folder: tokenizer, shards, manifest.

1. The sources are hashed. A folder that already holds the same data is left as it is.
2. One pass over the documents counts them, finds what cannot be read before anything is written,
   and samples sentences.
3. A tokenizer is trained on that sample of the training documents, or the given one is copied.
4. A second pass encodes on all cores: the first documents are the validation set, then training.
5. The manifest is written last, so that its presence means a complete folder. It names no machine,
   time or number of workers: the same sources and settings give the same bytes.

No step holds more than a shard and a few megabytes of documents.
"""

from __future__ import annotations

import importlib.resources
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from golf.data.documents import PrepareError as PrepareError
from golf.data.documents import check_sources, read_documents
from golf.data.encode import encode_batches, make_batches
from golf.data.manifest import (
    Progress,
    describe_files,
    fill_folder,
    find_complete,
    sha256_file,
    silent,
    write_manifest,
)
from golf.data.manifest import check_manifest as check_manifest
from golf.data.sample import SAMPLE_BYTES, SentenceSample
from golf.data.shards import MAX_SHARD_TOKENS, ShardWriter
from golf.data.tokenizer import TRAINER_SETTINGS, TokenizerError, load_processor, train_tokenizer
from golf.records import DataPaths, replace_file

SPLITS = ("train", "val")
WORKER_BYTES = 2_000_000
"""Text that pays for starting one more process."""
SCAN_STEP = 1000
"""Documents between two reports of progress."""


def embedded_corpus() -> Path:
    """The corpus that ships with the package: the King James Bible, 1,189 chapters."""
    return Path(str(importlib.resources.files("golf.data") / "kjv.jsonl.zst"))


def prepare(
    docs: Sequence[Path],
    out: Path,
    *,
    vocab_size: int,
    tokenizer: Path | None = None,
    val_docs: int = 50,
    shard_tokens: int = 100_000_000,
    workers: int | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Prepare the documents of the files `docs`, in that order, into the folder `out`.

    Args:
        tokenizer: a SentencePiece model to use; None trains one.
        val_docs: leading documents that become the validation set.
        workers: processes that encode; None takes all cores that this process may use.

    Returns:
        The manifest; that of the folder as it is where it already holds just this data.

    Raises:
        PrepareError: documents, settings or the folder do not allow it; the text names the fix.
    """
    report = progress or silent
    paths = DataPaths(out)
    _check_settings(vocab_size, val_docs, shard_tokens, workers)
    check_sources(docs)
    wanted = {
        "settings": _settings(vocab_size, tokenizer, val_docs, shard_tokens),
        "sources": _sources(docs, report),
    }
    if (complete := find_complete(paths, wanted)) is not None:
        report("already prepared", 1, 1)
        return complete
    sample = SentenceSample()
    num_docs, text_bytes = _scan(docs, val_docs, None if tokenizer else sample, report)
    with fill_folder(paths, tokenizer):
        if (complete := find_complete(paths, wanted)) is not None:
            return complete
        for stale in (*paths.shards("train"), *paths.shards("val")):
            stale.unlink()
        _place_tokenizer(paths, tokenizer, sample, vocab_size, report)
        splits, shards = _write_shards(
            docs,
            paths,
            val_docs,
            shard_tokens,
            workers or _num_workers(text_bytes),
            num_docs,
            report,
        )
        files = describe_files([paths.tokenizer, *shards])
        return write_manifest(paths, {**wanted, "splits": splits, "files": files})


def _check_settings(vocab_size: int, val_docs: int, shard_tokens: int, workers: int | None) -> None:
    if not 1 <= vocab_size <= 65_536:
        raise PrepareError(
            f"a vocabulary of {vocab_size} does not fit uint16 shards; choose 1 to 65536"
        )
    if val_docs < 1:
        raise PrepareError(f"{val_docs} validation documents; choose at least 1")
    if not 1 <= shard_tokens <= MAX_SHARD_TOKENS:
        raise PrepareError(f"{shard_tokens} tokens a shard; choose 1 to {MAX_SHARD_TOKENS}")
    if workers is not None and workers < 1:
        raise PrepareError(f"{workers} workers; choose at least 1, or none for all cores")


def _settings(
    vocab_size: int, tokenizer: Path | None, val_docs: int, shard_tokens: int
) -> dict[str, Any]:
    """All that the prepared bytes depend on beside the sources."""
    settings: dict[str, Any] = {
        "vocab_size": vocab_size,
        "val_docs": val_docs,
        "shard_tokens": shard_tokens,
    }
    if tokenizer is None:
        return settings | {"tokenizer": {**TRAINER_SETTINGS, "sample_bytes": SAMPLE_BYTES}}
    try:
        processor = load_processor(tokenizer)
    except TokenizerError as error:
        raise PrepareError(str(error)) from error
    if processor.vocab_size() > vocab_size:
        raise PrepareError(
            f"{tokenizer}: {processor.vocab_size()} pieces do not fit a vocabulary of "
            f"{vocab_size}; choose a vocabulary of {processor.vocab_size()} or more"
        )
    if processor.bos_id() < 0:
        raise PrepareError(f"{tokenizer}: has no BOS piece, with which every document starts")
    return settings | {"tokenizer": {"sha256": sha256_file(tokenizer)}}


def _sources(docs: Sequence[Path], report: Progress) -> list[dict[str, Any]]:
    total = sum(path.stat().st_size for path in docs)
    sources: list[dict[str, Any]] = []
    done = 0
    for path in docs:
        report("hashing sources (bytes)", done, total)
        size_bytes = path.stat().st_size
        sources.append({"name": path.name, "size_bytes": size_bytes, "sha256": sha256_file(path)})
        done += size_bytes
    report("hashing sources (bytes)", done, total)
    return sources


def _documents(docs: Sequence[Path]) -> Iterator[str]:
    for path in docs:
        yield from read_documents(path)


def _scan(
    docs: Sequence[Path], val_docs: int, sample: SentenceSample | None, report: Progress
) -> tuple[int, int]:
    """Documents and their UTF-8 bytes; training documents go into `sample`."""
    num_docs = text_bytes = 0
    for num_docs, text in enumerate(_documents(docs), 1):
        text_bytes += len(text.encode())
        if sample is not None and num_docs > val_docs:
            sample.add(text)
        if num_docs % SCAN_STEP == 0:
            report("reading documents", num_docs, None)
    report("reading documents", num_docs, num_docs)
    if num_docs <= val_docs:
        raise PrepareError(
            f"{num_docs} documents in {', '.join(map(str, docs))}: with {val_docs} for validation "
            "none is left to train on; hold out fewer or prepare more"
        )
    return num_docs, text_bytes


def _num_workers(text_bytes: int) -> int:
    """All cores that this process may use, fewer for a small text."""
    return min(len(os.sched_getaffinity(0)), 1 + text_bytes // WORKER_BYTES)


def _place_tokenizer(
    paths: DataPaths,
    tokenizer: Path | None,
    sample: SentenceSample,
    vocab_size: int,
    report: Progress,
) -> None:
    if tokenizer is not None:
        with replace_file(paths.tokenizer) as temporary:
            shutil.copyfile(tokenizer, temporary)
        return
    report("training the tokenizer", 0, 1)
    try:
        train_tokenizer(sample.sentences, vocab_size, paths.tokenizer)
    except TokenizerError as error:
        raise PrepareError(str(error)) from error
    report("training the tokenizer", 1, 1)


def _write_shards(
    docs: Sequence[Path],
    paths: DataPaths,
    val_docs: int,
    shard_tokens: int,
    workers: int,
    num_docs: int,
    report: Progress,
) -> tuple[dict[str, dict[str, int]], list[Path]]:
    """Encode all documents; returns the counts of each split, and the shards."""
    writers = {split: ShardWriter(paths.root, split, shard_tokens) for split in SPLITS}
    counts = {split: {"documents": 0, "text_bytes": 0} for split in SPLITS}
    batches = make_batches(_documents(docs), val_docs)
    done = 0
    sha256 = sha256_file(paths.tokenizer)
    for batch, tokens in encode_batches(batches, paths.tokenizer, sha256, workers):
        writers[batch.split].add(tokens)
        counts[batch.split]["documents"] += len(batch.texts)
        counts[batch.split]["text_bytes"] += batch.text_bytes
        done += len(batch.texts)
        report("encoding documents", done, num_docs)
    for split, writer in writers.items():
        writer.close()
        counts[split] |= {"tokens": writer.num_tokens, "shards": len(writer.files)}
    return counts, [path for split in SPLITS for path in writers[split].files]
