from __future__ import annotations

from pathlib import Path

import pytest
import torch

from golf.checkpoints import Checkpoints
from golf.weights import TensorFile, WeightsError


@pytest.fixture
def checkpoints(tmp_path: Path) -> Checkpoints:
    return Checkpoints(tmp_path / "checkpoint", "step")


def save(checkpoints: Checkpoints, *steps: int) -> None:
    for step in steps:
        checkpoints.save(step, {"w": torch.full((3,), float(step))}, {"state": str(step)})


def newest(checkpoints: Checkpoints) -> TensorFile:
    found = checkpoints.load_newest()
    assert found is not None
    return found


def names(checkpoints: Checkpoints) -> list[str]:
    return sorted(path.name for path in checkpoints.folder.iterdir())


def test_there_may_be_none(checkpoints: Checkpoints) -> None:
    assert checkpoints.load_newest() is None


def test_the_newest_is_the_one_furthest_on_whatever_its_digits(checkpoints: Checkpoints) -> None:
    save(checkpoints, 9, 10, 100)
    found = newest(checkpoints)
    assert found.metadata == {"state": "100"}
    assert torch.equal(found.tensors["w"], torch.full((3,), 100.0))


def test_two_are_kept(checkpoints: Checkpoints) -> None:
    save(checkpoints, 1)
    assert names(checkpoints) == ["step-00000001.safetensors"]
    save(checkpoints, 2, 3, 4)
    assert names(checkpoints) == ["step-00000003.safetensors", "step-00000004.safetensors"]


def test_units_do_not_mix(checkpoints: Checkpoints) -> None:
    save(checkpoints, 5)
    chunks = Checkpoints(checkpoints.folder, "chunk")
    assert chunks.load_newest() is None
    save(chunks, 1, 2, 3)
    assert newest(checkpoints).metadata == {"state": "5"}


@pytest.mark.parametrize("damage", ["truncated", "empty", "one bit"])
def test_a_damaged_newest_is_named_and_the_one_before_can_be_gone_back_to(
    damage: str, checkpoints: Checkpoints
) -> None:
    save(checkpoints, 1, 2)
    path = checkpoints.folder / "step-00000002.safetensors"
    content = bytearray(path.read_bytes())
    if damage == "one bit":
        content[-1] ^= 1
    path.write_bytes({"truncated": content[:-5], "empty": b"", "one bit": content}[damage])
    with pytest.raises(WeightsError) as caught:
        checkpoints.load_newest()
    assert str(path) in str(caught.value)
    assert "damaged" in str(caught.value)
    assert "delete it to resume from the checkpoint before it" in str(caught.value)
    path.unlink()
    assert newest(checkpoints).metadata == {"state": "1"}


def test_a_save_that_was_cut_off_does_not_count(checkpoints: Checkpoints) -> None:
    save(checkpoints, 1)
    (checkpoints.folder / ".step-00000002.safetensors.77.tmp").write_bytes(b"half")
    assert newest(checkpoints).metadata == {"state": "1"}
