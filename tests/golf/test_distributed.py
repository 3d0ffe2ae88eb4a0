"""What ranks agree on, and what is refused; real ranks train in `test_train.py`."""

from __future__ import annotations

import pytest
import torch

from golf.config import ConfigError
from golf.distributed import Ranks, join_ranks


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("WORLD_SIZE", "RANK", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)


def test_without_torchrun_there_is_one_rank_and_nobody_to_wait_for() -> None:
    with join_ranks("cpu") as ranks:
        assert (ranks.rank, ranks.world_size, ranks.is_main) == (0, 1, True)
        assert ranks.device == torch.device("cpu")
        tensor = torch.ones(2)
        ranks.sum(tensor)
        ranks.barrier()
        assert tensor.tolist() == [1, 1]
        assert ranks.agree(3.5, 0.0) == [3.5, 0.0]


def test_the_first_rank_alone_writes() -> None:
    assert [Ranks(r, 2, torch.device("cpu")).is_main for r in (0, 1)] == [True, False]


@pytest.mark.parametrize("world_size", [3, 5, 6, 7, 16])
def test_ranks_that_do_not_divide_a_step_are_refused(
    world_size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", str(world_size))
    with pytest.raises(ConfigError, match=f"{world_size} ranks do not divide .* use 1, 2, 4 or 8"):
        join_ranks("cpu").__enter__()


def test_devices_that_are_not_here_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError, match="torch sees no CUDA device here; use --device cpu"):
        join_ranks("cuda").__enter__()
    with pytest.raises(ConfigError, match="--device 'tpu' must be cpu or cuda"):
        join_ranks("tpu").__enter__()
    with join_ranks() as ranks:
        assert ranks.device.type == "cpu"
