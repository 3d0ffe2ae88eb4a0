"""The challenge's published FineWeb shards and tokenizers, as a data folder.

1. The repository says which files make up the variant, with their sizes and hashes.
2. There must be room for those that are not there yet.
3. They are fetched a few at a time, checked, and moved to their place. After a break the same
   command goes on with the files that are missing.
4. Our own manifest is written last: the folder is then as `prepare` would leave it.

The validation split is always fetched whole, of the training split the first shards.
"""

from __future__ import annotations

import shutil
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

from golf.data.hub import DownloadError as DownloadError
from golf.data.hub import RemoteFile, Repository, explained, without_client_bars
from golf.data.manifest import (
    Progress,
    describe_files,
    fill_folder,
    find_complete,
    silent,
    write_manifest,
)
from golf.data.shards import open_shard
from golf.data.tokenizer import load_processor
from golf.records import DataPaths, RunError, replace_file

DEFAULT_REPO_ID = "willdepueoai/parameter-golf"
STAGING = ".download"
"""Folder of unfinished files within the data folder, and so on the same disk."""
PARALLEL_FILES = 4


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
    with fill_folder(paths), explained(repo_id), without_client_bars():
        repository = Repository(repo_id, revision, endpoint, out / STAGING)
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


def _fetch_all(
    repository: Repository, files: list[RemoteFile], paths: DataPaths, report: Progress
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


def _fetch(repository: Repository, file: RemoteFile, root: Path) -> None:
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
