from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from launcher import snapshot


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small repository that stands for ours, with a changed and a new file."""
    root = tmp_path / "source"
    for package in snapshot.PACKAGES:
        (root / package).mkdir(parents=True)
        (root / package / "__init__.py").write_text('"""A package."""\n')
    for words in (
        ("init", "-q"),
        ("add", "-A"),
        ("-c", "user.name=t", "-c", "user.email=t@t", "commit", "-qm", "first"),
    ):
        subprocess.run(["git", "-C", str(root), *words], check=True)
    monkeypatch.setattr(snapshot, "source_root", lambda: root)
    return root


def test_uncommitted_changes_and_new_files_are_a_diff_that_applies(
    source: Path, tmp_path: Path
) -> None:
    assert snapshot.uncommitted_diff() == ""
    (source / "golf/__init__.py").write_text('"""Changed."""\n')
    (source / "launcher/new.py").write_text("x = 1\n")
    diff = snapshot.uncommitted_diff()
    clone = tmp_path / "clone"
    subprocess.run(["git", "clone", "-q", str(source), str(clone)], check=True)
    subprocess.run(["git", "-C", str(clone), "apply"], input=diff, text=True, check=True)
    assert (clone / "golf/__init__.py").read_text() == '"""Changed."""\n'
    assert (clone / "launcher/new.py").read_text() == "x = 1\n"
    status = subprocess.run(
        ["git", "-C", str(source), "status", "--porcelain"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert status.stdout == " M golf/__init__.py\n?? launcher/new.py\n", "the index is untouched"
