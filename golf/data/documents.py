"""Reads documents from text files, one at a time and in order.

1. A file's bytes come in blocks, decompressed where its name says so.
2. Blocks become lines; no line and no document is larger than `MAX_DOCUMENT_BYTES`.
3. Lines become documents, by the file's suffix:
   - `.jsonl`, `.jsonl.gz`, `.jsonl.zst`: an object a line, its `text` a document.
   - `.txt`: blank lines separate documents, which keep the line ends within them.
   - `.parquet`: a row a document, from the column `text`.

What cannot be read is an error that names the file and the line or row: a document that is skipped
in silence would move the boundary between validation and training documents.
"""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path

import zstandard

from golf.records import RunError

SUFFIXES = (".jsonl", ".jsonl.gz", ".jsonl.zst", ".txt", ".parquet")
MAX_DOCUMENT_BYTES = 100_000_000
BLOCK_BYTES = 1 << 20
UTF8_BOM = b"\xef\xbb\xbf"
PARQUET_ROWS = 1024


class PrepareError(RunError):
    """Documents or settings that no data can be prepared from; the text names the fix."""


def check_sources(sources: Iterable[Path]) -> None:
    """Refuse files that are missing, twice there or of no kind that can be read.

    Raises:
        PrepareError: naming the file.
    """
    seen: set[Path] = set()
    for path in sources:
        if not path.name.endswith(SUFFIXES):
            raise PrepareError(
                f"{path}: documents are read from {', '.join(SUFFIXES)}; convert the file, or "
                "rename it if only its suffix is wrong"
            )
        if not path.is_file():
            raise PrepareError(f"{path}: no such file; check the path")
        if path.resolve() in seen:
            raise PrepareError(f"{path}: named twice; name every file once")
        seen.add(path.resolve())
    if not seen:
        raise PrepareError("no documents to prepare; name at least one file")


def read_documents(path: Path) -> Iterator[str]:
    """The documents of `path` in order, none of them empty.

    Raises:
        PrepareError: naming the line or row that cannot be read.
    """
    if path.name.endswith(".parquet"):
        documents = _parquet_documents(path)
    elif path.name.endswith(".txt"):
        documents = _text_documents(path)
    else:
        documents = _json_documents(path)
    for where, text in documents:
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise PrepareError(
                f"{where}: its text holds half a surrogate pair ({error}), which UTF-8 cannot "
                "write; mend or remove the document"
            ) from error
        if not text.strip():
            raise PrepareError(f"{where}: the document is empty; remove it")
        yield text


def _json_documents(path: Path) -> Iterator[tuple[str, str]]:
    for number, line in enumerate(_lines(path), 1):
        if not line.strip():
            continue
        where = f"{path} line {number}"
        try:
            value = json.loads(_decode(line, where))
        except json.JSONDecodeError as error:
            raise PrepareError(f"{where}: no valid JSON ({error}); mend the line") from error
        text = value.get("text") if isinstance(value, dict) else None
        if not isinstance(text, str):
            raise PrepareError(
                f'{where}: no `text` field with a string; every line is {{"text": "..."}}'
            )
        yield where, text


def _text_documents(path: Path) -> Iterator[tuple[str, str]]:
    paragraph: list[bytes] = []
    size_bytes = 0
    first = 1
    for number, line in enumerate(_lines(path), 1):
        if line.strip():
            if not paragraph:
                first = number
            paragraph.append(line.removesuffix(b"\r"))
            size_bytes += len(line) + 1
            _check_size(size_bytes, f"{path} line {number}", "separate documents by blank lines")
        elif paragraph:
            where = f"{path} line {first}"
            yield where, _decode(b"\n".join(paragraph), where)
            paragraph, size_bytes = [], 0
    if paragraph:
        where = f"{path} line {first}"
        yield where, _decode(b"\n".join(paragraph), where)


def _parquet_documents(path: Path) -> Iterator[tuple[str, str]]:
    import pyarrow  # slow to import, and only these files need it
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            if "text" not in file.schema_arrow.names:
                raise PrepareError(
                    f"{path}: no column `text` among {', '.join(file.schema_arrow.names)}; "
                    "rename the column that holds the documents"
                )
            number = 0
            for batch in file.iter_batches(batch_size=PARQUET_ROWS, columns=["text"]):
                for value in batch.column(0).to_pylist():
                    number += 1
                    where = f"{path} row {number}"
                    if not isinstance(value, str):
                        raise PrepareError(
                            f"{where}: `text` holds {type(value).__name__} where a string is "
                            "wanted; mend the column"
                        )
                    yield where, value
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
        raise PrepareError(f"{path}: cannot be read as parquet ({error}); write it anew") from error


def _decode(data: bytes, where: str) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise PrepareError(
            f"{where}: not UTF-8 (byte 0x{data[error.start]:02x} at {error.start}); convert the "
            "file to UTF-8"
        ) from error


def _check_size(size_bytes: int, where: str, fix: str) -> None:
    if size_bytes > MAX_DOCUMENT_BYTES:
        raise PrepareError(f"{where}: a document of over {MAX_DOCUMENT_BYTES:,} bytes; {fix}")


def _lines(path: Path) -> Iterator[bytes]:
    """Lines without their `\\n`; a byte order mark at the start of the file is dropped."""
    rest = b""
    number = 1
    for block in _blocks(path):
        if number == 1 and not rest:
            block = block.removeprefix(UTF8_BOM)
        *lines, rest = (rest + block).split(b"\n")
        yield from lines
        number += len(lines)
        _check_size(len(rest), f"{path} line {number}", "split it into several")
    if rest:
        yield rest


def _blocks(path: Path) -> Iterator[bytes]:
    """The decompressed bytes of `path`, in blocks of bounded size."""
    try:
        if path.name.endswith(".zst"):
            yield from _zstd_blocks(path)
            return
        with gzip.open(path) if path.name.endswith(".gz") else path.open("rb") as file:
            while block := file.read(BLOCK_BYTES):
                yield block
    except (OSError, EOFError, zlib.error, zstandard.ZstdError) as error:
        raise PrepareError(
            f"{path}: cannot be read ({error}); it may be damaged or cut off, fetch it again"
        ) from error


def _zstd_blocks(path: Path) -> Iterator[bytes]:
    """One frame or several; zstandard's own reader would take a cut-off frame for a whole one."""
    with path.open("rb") as file:
        frame = zstandard.ZstdDecompressor().decompressobj()
        inside = False
        while data := file.read(BLOCK_BYTES // 16):
            while data:
                inside = True
                yield frame.decompress(data)
                data = b""
                if frame.eof:
                    data = frame.unused_data
                    frame = zstandard.ZstdDecompressor().decompressobj()
                    inside = False
        if inside:
            raise EOFError("the last zstd frame is incomplete")
