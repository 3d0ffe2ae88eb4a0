"""Downloads through the real huggingface_hub client.

The stand-in is at the process boundary: an HTTP server on 127.0.0.1 that speaks what the client
needs of the hub's API (a repository's commit and files, sizes and hashes of paths, the files
themselves), in place of the hub.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import threading
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote

import numpy as np
import pytest

from golf.data import download as download_module
from golf.data.download import DownloadError, download
from golf.data.loader import StepLoader
from golf.data.manifest import check_manifest
from golf.data.prepare import PrepareError
from golf.data.shards import INCOMPLETE_MARKER, ShardError, read_split, write_shard
from golf.data.tokenizer import ByteTable, train_tokenizer
from golf.records import DataPaths

REPO = "someone/golf-data"
COMMIT = "0123456789abcdef0123456789abcdef01234567"
FOLDER = "datasets/datasets/fineweb10B_sp300"
TRAIN_SHARDS = 3


class Hub(ThreadingHTTPServer):
    """Serves `files`; a path in `broken` is answered with 403, one in `damaged` wrongly."""

    daemon_threads = True

    def __init__(self, files: dict[str, bytes]) -> None:
        super().__init__(("127.0.0.1", 0), HubHandler)
        self.files = files
        self.broken: set[str] = set()
        self.damaged: set[str] = set()
        self.fetched: Counter[str] = Counter()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class HubHandler(BaseHTTPRequestHandler):
    server: Hub

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = unquote(self.path.partition("?")[0])
        if path in (f"/api/datasets/{REPO}", f"/api/datasets/{REPO}/revision/main"):
            siblings = [{"rfilename": name} for name in self.server.files]
            self.answer_json({"id": REPO, "sha": COMMIT, "siblings": siblings})
        elif path.startswith(f"/api/datasets/{REPO}/revision/"):
            self.answer(404, b"", {"X-Error-Code": "RevisionNotFound"})
        elif path.startswith(f"/datasets/{REPO}/resolve/{COMMIT}/"):
            self.answer_file(path.partition(f"{COMMIT}/")[2])
        else:
            self.answer(404, b"", {"X-Error-Code": "RepoNotFound"})

    def do_POST(self) -> None:
        assert self.path == f"/api/datasets/{REPO}/paths-info/{COMMIT}"
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        paths = [path for path in parse_qs(body)["paths"] if path in self.server.files]
        self.answer_json([self.path_info(path) for path in paths])

    def path_info(self, path: str) -> dict[str, Any]:
        data = self.server.files[path]
        info: dict[str, Any] = {"type": "file", "path": path, "size": len(data), "oid": "0" * 40}
        if path.endswith(".bin"):
            sha256 = hashlib.sha256(data).hexdigest()
            info["lfs"] = {"size": len(data), "oid": sha256, "pointerSize": 130}
        return info

    def answer_file(self, path: str) -> None:
        if path in self.server.broken:
            return self.answer(403, b"", {})
        if path not in self.server.files:
            return self.answer(404, b"", {"X-Error-Code": "EntryNotFound"})
        data = self.server.files[path]
        etag = hashlib.sha256(data).hexdigest()
        if self.command == "GET":
            self.server.fetched[path] += 1
        if path in self.server.damaged:
            data = data[:-1] + bytes([data[-1] ^ 1])
        return self.answer(200, data, {"ETag": f'"{etag}"', "X-Repo-Commit": COMMIT})

    def answer_json(self, value: Any) -> None:
        self.answer(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def answer(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


def published_manifest() -> dict[str, Any]:
    """The form of the challenge's own manifest."""
    return {
        "datasets": [
            {
                "name": "fineweb10B_sp300",
                "tokenizer_name": "sp_bpe_300",
                "path": "datasets/fineweb10B_sp300",
                "stats": {"files_train": TRAIN_SHARDS, "files_val": 1},
            },
            {
                "name": "fineweb10B_byte260",
                "tokenizer_name": "pure_byte_260",
                "stats": {"files_train": TRAIN_SHARDS, "files_val": 1},
            },
        ],
        "tokenizers": [
            {"name": "sp_bpe_300", "model_path": "tokenizers/fineweb_300_bpe.model"},
            {"name": "pure_byte_260", "path": "tokenizers/fineweb_pure_byte_260.json"},
        ],
    }


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The files of a small repository."""
    root = tmp_path_factory.mktemp("published")
    train_tokenizer(["the words of a small text that repeats itself"] * 9, 300, root / "model")
    files = {
        "datasets/manifest.json": json.dumps(published_manifest()).encode(),
        "datasets/tokenizers/fineweb_300_bpe.model": (root / "model").read_bytes(),
        "README.md": b"about",
    }
    for folder in (FOLDER, FOLDER.replace("sp300", "byte260")):
        for name in ("val_000000", *(f"train_{index:06d}" for index in range(TRAIN_SHARDS))):
            tokens = np.random.default_rng(len(files)).integers(0, 300, 1000)
            write_shard(root / "shard", tokens)
            files[f"{folder}/fineweb_{name}.bin"] = (root / "shard").read_bytes()
    return files


@pytest.fixture
def hub(published: dict[str, bytes]) -> Iterator[Hub]:
    server = Hub(dict(published))
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "data"


def fetch(hub: Hub, out: Path, variant: str = "sp300", **changes: Any) -> dict[str, Any]:
    settings: dict[str, Any] = {"train_shards": 2, "repo_id": REPO, "endpoint": hub.url}
    return download(variant, out, **(settings | changes))


def test_a_download_is_a_data_folder(hub, out, capfd: pytest.CaptureFixture[str]) -> None:
    said: list[tuple[str, int, int | None]] = []
    manifest = fetch(hub, out, progress=lambda *args: said.append(args))
    paths = DataPaths(out)
    assert sorted(path.name for path in out.iterdir()) == [
        "fineweb_train_000000.bin",
        "fineweb_train_000001.bin",
        "fineweb_val_000000.bin",
        "manifest.json",
        "tokenizer.model",
    ]
    assert (out / "fineweb_val_000000.bin").read_bytes() == (
        hub.files[f"{FOLDER}/fineweb_val_000000.bin"]
    )
    assert len(read_split(paths, "val", vocab_size=300)) == 1000
    assert StepLoader(paths, 256, 32).num_tokens == 2000
    assert ByteTable.load(paths.tokenizer, 300).boundary[:4].all()
    assert check_manifest(paths, hashes=True) == manifest
    assert manifest["splits"]["train"] == {"tokens": 2000, "shards": 2}
    assert manifest["sources"] == [{"repo_id": REPO, "commit": COMMIT}]
    assert (
        said[-1][1]
        == said[-1][2]
        == sum(path.stat().st_size for path in out.iterdir() if path.name != "manifest.json")
    )
    assert capfd.readouterr() == ("", "")


def test_a_complete_folder_needs_no_network(hub: Hub, out: Path) -> None:
    first = fetch(hub, out)
    assert fetch(hub, out) == first
    assert set(hub.fetched.values()) == {1}
    with pytest.raises(PrepareError, match=r"other settings \(train_shards = 2, now 3\)"):
        fetch(hub, out, train_shards=3)


def test_a_broken_off_download_goes_on_with_what_is_missing(hub: Hub, out: Path) -> None:
    hub.broken.add(f"{FOLDER}/fineweb_train_000001.bin")
    with pytest.raises(DownloadError, match=r"run the same command again"):
        fetch(hub, out)
    assert (out / INCOMPLETE_MARKER).exists()
    assert (out / "fineweb_val_000000.bin").exists()
    with pytest.raises(ShardError, match="has not finished"):
        read_split(DataPaths(out), "val")
    hub.broken.clear()
    fetch(hub, out)
    assert {hub.fetched[name] for name in hub.files if "sp300" in name} <= {0, 1}
    assert not (out / INCOMPLETE_MARKER).exists()


def test_a_damaged_shard_is_fetched_anew(hub: Hub, out: Path) -> None:
    name = f"{FOLDER}/fineweb_train_000000.bin"
    hub.damaged.add(name)
    with pytest.raises(DownloadError, match=r"train_000000\.bin: what arrived is damaged .*SHA"):
        fetch(hub, out)
    hub.damaged.clear()
    fetch(hub, out)
    assert (out / Path(name).name).read_bytes() == hub.files[name]


def test_shards_are_counted_where_the_manifest_does_not(hub: Hub, out: Path) -> None:
    manifest = published_manifest()
    for entry in manifest["datasets"]:
        del entry["stats"]
    hub.files["datasets/manifest.json"] = json.dumps(manifest).encode()
    assert fetch(hub, out, train_shards=3)["splits"]["train"]["shards"] == 3


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"variant": "sp999"}, "no variant sp999; choose one of byte260, sp300"),
        ({"variant": "byte260"}, "no SentencePiece tokenizer, .* starts with sp"),
        ({"train_shards": 4}, "3 training shards, 4 were asked for; choose at most 3"),
        ({"train_shards": -1}, "choose 0 or more"),
        ({"repo_id": "someone/else"}, "no such data set, or it asks for a login"),
        ({"repo_id": "not a name"}, "name it as owner/name"),
        ({"revision": "v9"}, "no such revision"),
        ({"endpoint": "http://127.0.0.1:9"}, "cannot be reached; check the network"),
    ],
)
def test_what_cannot_be_fetched_says_why(hub, out, changes, complaint) -> None:
    with pytest.raises(DownloadError, match=complaint):
        fetch(hub, out, **changes)


@pytest.mark.parametrize(
    ("name", "content", "complaint"),
    [
        ("datasets/manifest.json", None, "not laid out as the challenge's"),
        ("datasets/manifest.json", b"<html>", r"manifest\.json is not of the challenge's form"),
        ("datasets/manifest.json", b'{"datasets": [{}]}', "not of the challenge's form"),
        ("datasets/tokenizers/fineweb_300_bpe.model", None, r"300_bpe\.model is missing"),
        ("datasets/tokenizers/fineweb_300_bpe.model", b"junk", "damaged .*no SentencePiece"),
        (f"{FOLDER}/fineweb_val_000000.bin", None, "lacks val shards, 0 of 1"),
        (f"{FOLDER}/fineweb_train_000002.bin", None, "lacks train shards, 2 of 3"),
        (f"{FOLDER}/fineweb_val_000000.bin", b"junk", "damaged .*truncated"),
    ],
)
def test_a_repository_of_another_form_says_so(hub, out, name, content, complaint) -> None:
    if content is None:
        del hub.files[name]
    else:
        hub.files[name] = content
    with pytest.raises(DownloadError, match=complaint):
        fetch(hub, out)


def test_a_full_disk_is_noticed_first(hub, out, monkeypatch: pytest.MonkeyPatch) -> None:
    real = shutil.disk_usage(out.parent)
    monkeypatch.setattr(download_module.shutil, "disk_usage", lambda path: real._replace(free=5000))
    with pytest.raises(DownloadError, match=r"bytes are to be fetched and 5,000 are free; free sp"):
        fetch(hub, out)
    assert not list(out.glob("*.bin"))
