"""Folders of golden numbers and of shared data, which a checkout may lack."""

from __future__ import annotations

from pathlib import Path

import pytest

SHARED = Path(__file__).resolve().parents[1].parent / "shared"


def _folder(name: str) -> Path:
    folder = SHARED / name
    if not folder.is_dir():
        pytest.skip(f"no {folder} beside this checkout")
    return folder


@pytest.fixture(scope="session")
def golden_dir() -> Path:
    """Numbers computed with the challenge's public implementation."""
    return _folder("golden")


@pytest.fixture(scope="session")
def shared_data_dir() -> Path:
    """The challenge's published tokenizer and logs."""
    return _folder("data")
