import json
import multiprocessing
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from golf.data import encode
from golf.data import prepare as prepare_module
from golf.data.prepare import PrepareError, check_manifest, embedded_corpus, prepare
from golf.data.shards import INCOMPLETE_MARKER, ShardError, open_shard, read_split
from golf.data.tokenizer import ByteTable, load_processor, train_tokenizer
from golf.records import DataPaths

NUM_DOCS = 40


def document(index: int) -> str:
    return f"Chapter {index}. In the beginning was the word number {index * 37}.\n" + (
        "And the word was with the people, and the people wrote it down. " * (1 + index % 3)
    )


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "docs.jsonl"
    path.write_text("".join(json.dumps({"text": document(i)}) + "\n" for i in range(NUM_DOCS)))
    return path


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "data"


def run(source: Path, out: Path, **changes: Any) -> dict[str, Any]:
    settings: dict[str, Any] = {"vocab_size": 320, "val_docs": 3, "workers": 1}
    return prepare([source], out, **(settings | changes))


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_documents_become_bos_and_pieces_in_their_order(source: Path, out: Path) -> None:
    manifest = run(source, out, shard_tokens=500)
    processor = load_processor(out / "tokenizer.model")
    expected = [[1, *processor.encode(document(i))] for i in range(NUM_DOCS)]
    paths = DataPaths(out)
    np.testing.assert_array_equal(read_split(paths, "val"), np.concatenate(expected[:3]))
    np.testing.assert_array_equal(read_split(paths, "train"), np.concatenate(expected[3:]))
    sizes = [len(open_shard(path)) for path in paths.shards("train")]
    assert len(sizes) > 2
    assert set(sizes[:-1]) == {500}
    assert paths.shards("train")[0].name == "fineweb_train_000000.bin"
    assert paths.shards("val")[0].name == "fineweb_val_000000.bin"
    assert manifest["splits"]["train"] == {
        "documents": NUM_DOCS - 3,
        "text_bytes": sum(len(document(i)) for i in range(3, NUM_DOCS)),
        "tokens": sum(map(len, expected[3:])),
        "shards": len(sizes),
    }


def test_the_scored_bytes_of_the_validation_set_are_those_of_its_text(source, out) -> None:
    run(source, out)
    tokens = read_split(DataPaths(out), "val")
    table = ByteTable.load(out / "tokenizer.model", 320)
    scored = table.count(tokens[:-1], tokens[1:]).sum()
    assert scored == sum(len(document(i).strip()) for i in range(3))


def test_any_number_of_workers_writes_the_same_bytes(source, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(encode, "BATCH_BYTES", 500)  # many batches, more than are in flight
    run(source, tmp_path / "one")
    run(source, tmp_path / "two", workers=2)
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


def test_a_worker_that_dies_is_an_error(source, out, monkeypatch) -> None:
    def kill(stage: str, done: int, total: int | None) -> None:
        if stage == "encoding documents":
            for child in multiprocessing.active_children():
                child.kill()

    monkeypatch.setattr(encode, "BATCH_BYTES", 1)
    with pytest.raises(PrepareError, match=r"a worker process died .*; use fewer workers"):
        run(source, out, workers=2, progress=kill)
    assert not (out / "manifest.json").exists()


def test_preparing_needs_no_torch() -> None:
    """Every worker process imports this package anew."""
    probe = "import sys, golf.data.prepare, golf.data.encode; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", probe], check=False).returncode == 0


def test_a_given_tokenizer_is_copied(source: Path, tmp_path: Path, out: Path) -> None:
    model = tmp_path / "own.model"
    train_tokenizer([document(i) for i in range(20)], 300, model)
    manifest = run(source, out, tokenizer=model)
    assert (out / "tokenizer.model").read_bytes() == model.read_bytes()
    assert manifest["settings"]["vocab_size"] == 320  # ids beyond the tokenizer stay unused
    with pytest.raises(PrepareError, match=r"300 pieces do not fit a vocabulary of 280; .*300"):
        run(source, tmp_path / "other", tokenizer=model, vocab_size=280)
    with pytest.raises(PrepareError, match="no SentencePiece model"):
        run(source, tmp_path / "other", tokenizer=source)
    with pytest.raises(PrepareError, match="cannot be read"):
        run(source, tmp_path / "other", tokenizer=tmp_path / "absent.model")


def test_the_tokenizer_never_sees_validation_documents(source: Path, tmp_path: Path) -> None:
    changed = tmp_path / "changed" / source.name
    changed.parent.mkdir()
    lines = source.read_text().splitlines()
    changed.write_text("\n".join([json.dumps({"text": "zzz qqq " * 50})] * 3 + lines[3:]))
    run(source, tmp_path / "a")
    run(changed, tmp_path / "b")
    models = [(tmp_path / name / "tokenizer.model").read_bytes() for name in ("a", "b")]
    assert models[0] == models[1]


def test_preparing_again_changes_nothing_and_says_so(source: Path, out: Path) -> None:
    first = run(source, out)
    times = {path: path.stat().st_mtime_ns for path in out.iterdir()}
    said: list[str] = []
    again = run(source, out, workers=2, progress=lambda stage, done, total: said.append(stage))
    assert again == first
    assert said[-1] == "already prepared"
    assert {path: path.stat().st_mtime_ns for path in out.iterdir()} == times


def test_a_folder_with_other_data_is_refused(source: Path, out: Path) -> None:
    run(source, out)
    before = contents(out)
    with pytest.raises(PrepareError, match=r"other settings \(val_docs = 3, now 4\); choose anoth"):
        run(source, out, val_docs=4)
    source.write_text(source.read_text() + json.dumps({"text": "one more"}))
    with pytest.raises(PrepareError, match=r"other sources \(docs\.jsonl \[\w+\], now docs"):
        run(source, out)
    assert contents(out) == before


@pytest.mark.parametrize("name", ["fineweb_val_000000.bin", "tokenizer.model", "manifest.json"])
def test_files_of_others_are_not_overwritten(source: Path, out: Path, name: str) -> None:
    out.mkdir()
    (out / name).write_text('{"datasets": []}')
    with pytest.raises(PrepareError, match=f"holds {name}, which was not made here"):
        run(source, out)
    assert contents(out) == {name: b'{"datasets": []}'}


def test_a_broken_off_preparation_does_not_count_and_can_be_repeated(
    source: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(prepare_module, "write_manifest", stop)
        with pytest.raises(KeyboardInterrupt):
            run(source, out, shard_tokens=100)
    assert len(DataPaths(out).shards("train")) > 1
    with pytest.raises(ShardError, match="has not finished"):
        read_split(DataPaths(out), "val")
    manifest = run(source, out)
    assert check_manifest(DataPaths(out), hashes=True) == manifest
    assert len(DataPaths(out).shards("train")) == 1  # the leftovers are gone
    assert not (out / INCOMPLETE_MARKER).exists()


def test_two_preparations_do_not_share_a_folder(source: Path, out: Path) -> None:
    def second(stage: str, done: int, total: int | None) -> None:
        if stage == "encoding documents":
            with pytest.raises(PrepareError, match="another process is filling this folder"):
                run(source, out)
            tried.append(stage)

    tried: list[str] = []
    run(source, out, progress=second)
    assert tried


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"vocab_size": 60_000}, r"no vocabulary of 60000 pieces; choose .* at most \d+"),
        ({"vocab_size": 100}, r"a vocabulary of at least \d+"),
        ({"vocab_size": 70_000}, "does not fit uint16"),
        ({"val_docs": NUM_DOCS}, "with 40 for validation none is left to train on"),
        ({"val_docs": 0}, "choose at least 1"),
        ({"shard_tokens": 0}, "0 tokens a shard"),
        ({"workers": 0}, "0 workers"),
    ],
)
def test_settings_that_cannot_work_are_refused(source, out, changes, complaint) -> None:
    with pytest.raises(PrepareError, match=complaint):
        run(source, out, **changes)


def test_bad_documents_are_found_before_anything_is_written(source: Path, out: Path) -> None:
    source.write_text(source.read_text() + '{"text": ""}\n')
    with pytest.raises(PrepareError, match=r"docs\.jsonl line 41: the document is empty"):
        run(source, out)
    assert not out.exists()


def test_a_folder_that_cannot_be_written_is_named(source: Path, tmp_path: Path) -> None:
    with pytest.raises(PrepareError, match=r"docs\.jsonl/data: cannot be written"):
        run(source, source / "data")


def test_damage_is_found_against_the_manifest(source: Path, out: Path) -> None:
    paths = DataPaths(out)
    manifest = run(source, out)
    assert check_manifest(paths) == manifest
    shard = paths.shards("train")[0]
    whole = shard.read_bytes()
    shard.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    check_manifest(paths)
    with pytest.raises(PrepareError, match=r"fineweb_train_000000\.bin: its SHA-256"):
        check_manifest(paths, hashes=True)
    shard.write_bytes(whole[:-2])
    with pytest.raises(PrepareError, match=r"bytes where manifest\.json says"):
        check_manifest(paths)
    shard.unlink()
    with pytest.raises(PrepareError, match=r"missing, though manifest\.json lists it"):
        check_manifest(paths)


def test_a_folder_of_the_challenges_tools_needs_no_manifest(tmp_path: Path) -> None:
    assert check_manifest(DataPaths(tmp_path)) == {}
    (tmp_path / "manifest.json").write_text('{"datasets": [], "tokenizers": []}')
    assert check_manifest(DataPaths(tmp_path)) == {}


def test_the_embedded_corpus_prepares(out: Path) -> None:
    manifest = prepare([embedded_corpus()], out, vocab_size=512, workers=1)
    assert manifest["splits"]["val"]["documents"] == 50
    assert manifest["splits"]["train"]["documents"] == 1139
    assert read_split(DataPaths(out), "train", vocab_size=512).max() < 512
