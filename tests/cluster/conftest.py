"""Two test clusters, brought up when first asked for, and experiments on them.

They need root on Debian or Ubuntu and Slurm's packages, and are skipped with the reason where that
lacks; with GOLF_CLUSTER_TESTS=required in the environment that is a failure instead.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from cluster_lab import ClusterLab
from container_image import cpu_image
from slurm_site import SlurmSite, missing


def _site(*, accounting: bool) -> Iterator[SlurmSite]:
    reason = missing(accounting=accounting)
    if reason and os.environ.get("GOLF_CLUSTER_TESTS") == "required":
        pytest.fail(reason)
    if reason:
        pytest.skip(reason)
    # The path of munge's socket must be short.
    site = SlurmSite(Path(tempfile.mkdtemp(prefix="gs-", dir="/tmp")), accounting=accounting)
    try:
        site.start()
        yield site
    finally:
        site.stop()
        shutil.rmtree(site.root, ignore_errors=True)


@pytest.fixture(scope="session")
def golf_image() -> Path:
    """A folder with the image of `containers/Dockerfile.cpu`."""
    image = cpu_image()
    if isinstance(image, Path):
        return image
    if os.environ.get("GOLF_CLUSTER_TESTS") == "required":
        pytest.fail(image)
    pytest.skip(image)


@pytest.fixture(scope="session")
def plain_site() -> Iterator[SlurmSite]:
    yield from _site(accounting=False)


@pytest.fixture(scope="session")
def accounted_site() -> Iterator[SlurmSite]:
    yield from _site(accounting=True)


def _use(site: SlurmSite, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ClusterLab]:
    for name, value in site.env.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(folder / "config"))
    yield ClusterLab(site, folder / "runs")
    site.clear()


@pytest.fixture
def lab(
    plain_site: SlurmSite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[ClusterLab]:
    """A site that keeps no accounts."""
    yield from _use(plain_site, tmp_path, monkeypatch)


@pytest.fixture
def accounted_lab(
    accounted_site: SlurmSite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[ClusterLab]:
    """A site whose sacct works and whose queue forgets at once."""
    yield from _use(accounted_site, tmp_path, monkeypatch)
