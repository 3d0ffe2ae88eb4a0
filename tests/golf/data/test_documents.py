import gzip
import json
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
import zstandard

from golf.data import documents
from golf.data.documents import PrepareError, check_sources, read_documents

TEXTS = ["In the beginning", "zwei\nZeilen – ü", "three 🙂"]
JSONL = "".join(json.dumps({"text": text, "id": 1}) + "\n" for text in TEXTS).encode()


def parquet_bytes(column: str, values: list[object]) -> bytes:
    sink = pyarrow.BufferOutputStream()
    table = pyarrow.table({column: values, "url": ["u"] * len(values)})
    pyarrow.parquet.write_table(table, sink, row_group_size=2)
    return bytes(sink.getvalue())


def two_zstd_frames(data: bytes) -> bytes:
    half = len(data) // 2
    return b"".join(zstandard.compress(part) for part in (data[:half], data[half:]))


CONTENTS = {
    "d.jsonl": JSONL,
    "crlf.jsonl": JSONL.replace(b"\n", b"\r\n") + b"\r\n",
    "bom.jsonl": b"\xef\xbb\xbf" + JSONL,
    "no_last_line_end.jsonl": JSONL.rstrip(),
    "d.jsonl.gz": gzip.compress(JSONL, mtime=0),
    "d.jsonl.zst": zstandard.compress(JSONL),
    "frames.jsonl.zst": two_zstd_frames(JSONL),
    "d.txt": "\n\n".join(TEXTS).encode(),
    "wide.txt": b"\xef\xbb\xbf\r\n" + "\r\n \r\n\r\n".join(TEXTS).encode() + b"\r\n\r\n",
    "d.parquet": parquet_bytes("text", list(TEXTS)),
}


@pytest.mark.parametrize("name", CONTENTS)
@pytest.mark.parametrize("block_bytes", [16, 1 << 20])
def test_every_format_gives_the_same_documents(tmp_path, monkeypatch, name, block_bytes) -> None:
    monkeypatch.setattr(documents, "BLOCK_BYTES", block_bytes)
    path = tmp_path / name
    path.write_bytes(CONTENTS[name])
    check_sources([path])
    assert list(read_documents(path)) == TEXTS


@pytest.mark.parametrize(
    ("name", "content", "complaint"),
    [
        ("a.jsonl", b'{"text": "a"}\n{"text"', "line 2: no valid JSON"),
        ("a.jsonl", b'{"text": "a"}\n\n{"body": "b"}\n', "line 3: no `text` field"),
        ("a.jsonl", b'{"text": 5}', "line 1: no `text` field"),
        ("a.jsonl", b'["a"]', "line 1: no `text` field"),
        ("a.jsonl", b'{"text": "a"}\n{"text": "\xff"}', "line 2: not UTF-8 .*0xff at 10"),
        ("a.jsonl", b'{"text": "\\ud800"}', "line 1: .*surrogate"),
        ("a.jsonl", b'{"text": "a"}\n{"text": " \\n"}', "line 2: the document is empty; remove"),
        ("a.txt", b"good\n\nb\nad \xe9", "line 3: not UTF-8"),
        ("a.jsonl.gz", b"no gzip", "cannot be read"),
        ("a.jsonl.gz", gzip.compress(JSONL, mtime=0)[:-9], "damaged or cut off"),
        ("a.jsonl.zst", b"no zstd", "cannot be read"),
        ("a.jsonl.zst", zstandard.compress(JSONL)[:-3], "damaged or cut off"),
        ("a.jsonl.zst", zstandard.compress(JSONL) * 2 + b"(\xb5/\xfd", "damaged or cut off"),
        ("a.parquet", b"no parquet", "cannot be read as parquet"),
        ("a.parquet", parquet_bytes("body", ["a"]), "no column `text` among body, url"),
        ("a.parquet", parquet_bytes("text", ["a", "b", None]), "row 3: .*NoneType"),
        ("a.parquet", parquet_bytes("text", [1, 2]), "row 1: .*int"),
        ("a.parquet", parquet_bytes("text", ["a", ""]), "row 2: the document is empty"),
    ],
)
def test_what_cannot_be_read_is_named_with_its_place(tmp_path, name, content, complaint) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(PrepareError, match=complaint) as refusal:
        list(read_documents(path))
    assert str(path) in str(refusal.value)


@pytest.mark.parametrize("name", ["a.jsonl", "a.txt"])
def test_a_document_without_bound_is_refused(tmp_path, monkeypatch, name) -> None:
    monkeypatch.setattr(documents, "MAX_DOCUMENT_BYTES", 100)
    monkeypatch.setattr(documents, "BLOCK_BYTES", 16)
    path = tmp_path / name
    path.write_bytes(b"word\n" * 30 if name == "a.txt" else b"x" * 200)
    with pytest.raises(PrepareError, match=r"line \d+: a document of over 100 bytes; "):
        list(read_documents(path))


@pytest.mark.parametrize(
    ("names", "complaint"),
    [
        ([], "no documents to prepare"),
        (["a.csv"], r"a\.csv: documents are read from \.jsonl, .*convert"),
        (["absent.txt"], r"absent\.txt: no such file"),
        (["a.txt", "a.txt"], r"a\.txt: named twice"),
    ],
)
def test_sources_are_checked_first(tmp_path: Path, names: list[str], complaint: str) -> None:
    (tmp_path / "a.txt").write_text("text")
    with pytest.raises(PrepareError, match=complaint):
        check_sources([tmp_path / name for name in names])
