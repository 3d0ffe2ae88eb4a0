"""The challenge's published FineWeb shards and tokenizers, from the Hugging Face hub.

1. The repository's commit is looked up once, so that all files belong together.
2. Its `manifest.json` names the variants, their tokenizers and the number of their shards.
3. Sizes and hashes of the wanted files are looked up; there must be room for what is not there yet.
4. Files are fetched a few at a time, checked, and moved to their place. After a break the same
   command goes on with the files that are missing.
5. Our own manifest is written last: the folder is then as `prepare` would leave it.

Layout of the repository, as the challenge's `data/cached_challenge_fineweb.py` reads it:
`datasets/manifest.json`, `datasets/datasets/fineweb10B_<variant>/fineweb_{train,val}_*.bin`,
`datasets/tokenizers/*.model`. The validation split is always fetched whole, of the training split
the first shards.
"""

from __future__ import annotations

import contextlib
import errno
import json
import re
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi, hf_hub_download
from huggingface_hub.errors import (
    EntryNotFoundError,
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils.tqdm import (
    are_progress_bars_disabled,
    disable_progress_bars,
    enable_progress_bars,
)

from golf.data.manifest import (
    Progress,
    describe_files,
    fill_folder,
    find_complete,
    sha256_file,
    silent,
    write_manifest,
)
from golf.data.shards import open_shard
from golf.data.tokenizer import load_processor
from golf.records import DataPaths, RunError, replace_file

DEFAULT_REPO_ID = "willdepueoai/parameter-golf"
REMOTE_ROOT = "datasets"
STAGING = ".download"
"""Folder of unfinished files within the data folder, and so on the same disk."""
PARALLEL_FILES = 4
DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS)
"""These are no failures of the network."""


class DownloadError(RunError):
    """Published data that cannot be fetched as asked; the text names the fix."""


@dataclass(frozen=True)
class RemoteFile:
    """A file of the repository and its place in the data folder."""

    remote: str
    name: str
    size_bytes: int
    sha256: str | None
    """None for small files, which the hub keeps without one."""

    def matches(self, path: Path) -> bool:
        """Whether `path` holds this file."""
        return (
            path.is_file()
            and path.stat().st_size == self.size_bytes
            and (self.sha256 is None or sha256_file(path) == self.sha256)
        )


def download(
    variant: str,
    out: Path,
    *,
    train_shards: int,
    repo_id: str = DEFAULT_REPO_ID,
    revision: str = "main",
    endpoint: str | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Fetch the validation set, the first `train_shards` training shards and the tokenizer.

    Args:
        variant: what follows `fineweb10B_` in a data set's name, such as `sp1024`.
        endpoint: another hub than the client's own default.

    Returns:
        The manifest. A folder that is complete already is left as it is, without the network.

    Raises:
        DownloadError: the hub, the variant, the number of shards or the disk do not allow it.
        PrepareError: the folder holds other data.
    """
    report = progress or silent
    if train_shards < 0:
        raise DownloadError(f"{train_shards} training shards; choose 0 or more")
    paths = DataPaths(out)
    settings = {
        "repo_id": repo_id,
        "revision": revision,
        "variant": variant,
        "train_shards": train_shards,
    }
    if (complete := find_complete(paths, {"settings": settings})) is not None:
        report("already downloaded", 1, 1)
        return complete
    with fill_folder(paths), _explained(repo_id), _without_client_bars():
        repository = _Repository(repo_id, revision, endpoint, out / STAGING)
        files = repository.select(variant, train_shards)
        _fetch_all(repository, files, paths, report)
        shutil.rmtree(out / STAGING, ignore_errors=True)
        return _finish(paths, settings, repository.commit)


def _finish(paths: DataPaths, settings: dict[str, Any], commit: str) -> dict[str, Any]:
    splits = {
        split: {
            "tokens": sum(len(open_shard(path)) for path in paths.shards(split)),
            "shards": len(paths.shards(split)),
        }
        for split in ("train", "val")
    }
    files = describe_files([paths.tokenizer, *paths.shards("train"), *paths.shards("val")])
    sources = [{"repo_id": settings["repo_id"], "commit": commit}]
    return write_manifest(
        paths, {"settings": settings, "sources": sources, "splits": splits, "files": files}
    )


class _Repository:
    """The hub's repository at one commit."""

    def __init__(self, repo_id: str, revision: str, endpoint: str | None, staging: Path) -> None:
        self._api = HfApi(endpoint=endpoint)
        self._repo_id = repo_id
        self._endpoint = endpoint
        self._staging = staging
        info = self._api.dataset_info(repo_id, revision=revision)
        if info.sha is None:
            raise DownloadError(f"{repo_id}: the hub names no commit for {revision}")
        self.commit: str = info.sha
        self._names = sorted(sibling.rfilename for sibling in info.siblings or [])

    def fetch(self, remote: str) -> Path:
        """Download one file into the staging folder."""
        return Path(
            hf_hub_download(
                self._repo_id,
                remote,
                repo_type="dataset",
                revision=self.commit,
                local_dir=self._staging,
                endpoint=self._endpoint,
            )
        )

    def select(self, variant: str, train_shards: int) -> list[RemoteFile]:
        """The files of a variant, the tokenizer and validation shards first."""
        manifest = json.loads(self.fetch(f"{REMOTE_ROOT}/manifest.json").read_bytes())
        datasets = {entry["name"].partition("_")[2]: entry for entry in manifest["datasets"]}
        if variant not in datasets:
            raise DownloadError(
                f"{self._repo_id}: no variant {variant}; choose one of "
                f"{', '.join(sorted(datasets))}, or name a repository that holds it"
            )
        entry = datasets[variant]
        train = self._shards(entry, "train")
        if train_shards > len(train):
            raise DownloadError(
                f"{self._repo_id}: {variant} has {len(train)} training shards, {train_shards} were "
                f"asked for; choose at most {len(train)}"
            )
        tokenizer = self._tokenizer(manifest, entry)
        shards = [*self._shards(entry, "val"), *train[:train_shards]]
        return self._describe({tokenizer: "tokenizer.model", **{s: Path(s).name for s in shards}})

    def _shards(self, entry: dict[str, Any], split: str) -> list[str]:
        """The shards that are there, as many as the repository's manifest counts if it does."""
        folder = entry.get("path") or f"datasets/{entry['name']}"
        pattern = re.compile(re.escape(f"{REMOTE_ROOT}/{folder}/") + rf"fineweb_{split}_\d+\.bin")
        found = [name for name in self._names if pattern.fullmatch(name)]
        count = (entry.get("stats") or {}).get(f"files_{split}", len(found))
        if len(found) < max(count, 1):
            raise DownloadError(
                f"{self._repo_id}: {entry['name']} lacks {split} shards, {len(found)} of {count} "
                "are there; name another variant, revision or repository"
            )
        return found[:count]

    def _tokenizer(self, manifest: dict[str, Any], entry: dict[str, Any]) -> str:
        by_name = {tokenizer["name"]: tokenizer for tokenizer in manifest["tokenizers"]}
        model = by_name.get(entry.get("tokenizer_name"), {}).get("model_path")
        if not model:
            raise DownloadError(
                f"{self._repo_id}: {entry['name']} has no SentencePiece tokenizer, the only kind "
                "that is read here; choose a variant whose name starts with sp"
            )
        return f"{REMOTE_ROOT}/{model}"

    def _describe(self, names: dict[str, str]) -> list[RemoteFile]:
        """Sizes and hashes of remote paths, given with their local names."""
        infos = self._api.get_paths_info(
            self._repo_id, list(names), repo_type="dataset", revision=self.commit
        )
        found: dict[str, Any] = {info.path: info for info in infos}
        if missing := [remote for remote in names if remote not in found]:
            raise DownloadError(
                f"{self._repo_id}: {missing[0]} is missing; name another revision or repository"
            )
        return [
            RemoteFile(
                remote,
                name,
                found[remote].size,
                found[remote].lfs.sha256 if found[remote].lfs else None,
            )
            for remote, name in names.items()
        ]


def _fetch_all(
    repository: _Repository, files: list[RemoteFile], paths: DataPaths, report: Progress
) -> None:
    """Bring every file to its place; files that are there and right are kept."""
    wanted = {file.name for file in files}
    for stale in (*paths.shards("train"), *paths.shards("val")):
        if stale.name not in wanted:
            stale.unlink()
    missing = [file for file in files if not file.matches(paths.root / file.name)]
    total = sum(file.size_bytes for file in files)
    to_fetch = sum(file.size_bytes for file in missing)
    free = shutil.disk_usage(paths.root).free
    if free < to_fetch:
        raise DownloadError(
            f"{paths.root}: {to_fetch:,} bytes are to be fetched and {free:,} are free; free "
            "space, choose another folder or fewer training shards"
        )
    done = total - to_fetch
    report("downloading (bytes)", done, total)
    with ThreadPoolExecutor(PARALLEL_FILES) as pool:
        futures = {pool.submit(_fetch, repository, file, paths.root): file for file in missing}
        try:
            for future in as_completed(futures):
                future.result()
                done += futures[future].size_bytes
                report("downloading (bytes)", done, total)
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _fetch(repository: _Repository, file: RemoteFile, root: Path) -> None:
    """Fetch and check one file, then move it to its place."""
    staged = repository.fetch(file.remote)
    try:
        if not file.matches(staged):
            raise DownloadError("its size or SHA-256 is not the one that the hub names")
        if file.name.endswith(".bin"):
            open_shard(staged)
        else:
            load_processor(staged)
    except RunError as error:
        staged.unlink()
        raise DownloadError(
            f"{file.remote}: what arrived is damaged ({error}); run the same command again"
        ) from error
    with replace_file(root / file.name) as temporary:
        staged.replace(temporary)


@contextlib.contextmanager
def _explained(repo_id: str) -> Iterator[None]:
    """Turn the client's errors into ours, with what to do."""
    again = "then run the same command again, files that are complete are kept"
    try:
        yield
    except RunError:
        raise
    except Exception as error:  # which classes a lost connection raises varies with the client
        if isinstance(error, OSError) and error.errno in DISK_ERRORS:
            raise
        if isinstance(error, LocalEntryNotFoundError):
            fix = f"the hub cannot be reached; check the network and HF_ENDPOINT, {again}"
        elif isinstance(error, HFValidationError):
            fix = "no name of a data set; name it as owner/name"
        elif isinstance(error, RepositoryNotFoundError):
            fix = "no such data set, or it asks for a login; check its name, or `hf auth login`"
        elif isinstance(error, RevisionNotFoundError):
            fix = "no such revision; name a branch, tag or commit of the data set"
        elif isinstance(error, EntryNotFoundError):
            fix = "not laid out as the challenge's data set; name another one"
        elif isinstance(error, (KeyError, TypeError, AttributeError, ValueError)):
            fix = "its manifest.json is not of the challenge's form; name another data set"
        else:
            fix = f"the hub cannot be reached; check the network, proxy and HF_ENDPOINT, {again}"
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise DownloadError(f"{repo_id}: {fix} ({reason})") from error


@contextlib.contextmanager
def _without_client_bars() -> Iterator[None]:
    """Progress goes through our own callback; the client's bars would write across it."""
    if are_progress_bars_disabled():
        yield
        return
    disable_progress_bars()
    try:
        yield
    finally:
        enable_progress_bars()
