"""The challenge's repository of published data on the Hugging Face hub.

1. `Repository` looks a commit up once, so that all files belong together.
2. The repository's `manifest.json` names its variants, their tokenizers and numbers of shards;
   `select` turns a variant into files with sizes and hashes.
3. `fetch` gets one of them. What goes wrong is told in our words by `explained`.

Layout, as the challenge's `data/cached_challenge_fineweb.py` reads it: `datasets/manifest.json`,
`datasets/datasets/fineweb10B_<variant>/fineweb_{train,val}_*.bin`, `datasets/tokenizers/*.model`.
"""

from __future__ import annotations

import contextlib
import errno
import json
import re
from collections.abc import Iterator
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

from golf.data.manifest import sha256_file
from golf.records import RunError

REMOTE_ROOT = "datasets"
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


class Repository:
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


@contextlib.contextmanager
def explained(repo_id: str) -> Iterator[None]:
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
def without_client_bars() -> Iterator[None]:
    """Progress goes through our own callback; the client's bars would write across it."""
    if are_progress_bars_disabled():
        yield
        return
    disable_progress_bars()
    try:
        yield
    finally:
        enable_progress_bars()
