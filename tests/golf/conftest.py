"""How the tests of the ML system use the machine."""

from __future__ import annotations

import pytest
import torch


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """Models this small lose by sharing a step between cores; and sums keep their order."""
    torch.set_num_threads(1)
