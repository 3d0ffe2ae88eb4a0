from __future__ import annotations

from pathlib import Path

import pytest
import torch

from golf.checkpoints import Checkpoints, CheckpointWriter
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


# ---- written beside the work ----


def test_what_is_saved_is_what_the_tensors_were_then(checkpoints: Checkpoints) -> None:
    writer, weights = CheckpointWriter(checkpoints), torch.zeros(1000)
    for step in (1, 2):
        weights.fill_(step)
        writer.save(step, {"w": weights}, {})
        weights.fill_(-1.0)  # the work goes on at once
    writer.settle()
    for step in (1, 2):
        found = checkpoints.load_before(step)
        assert found is not None
        assert torch.equal(found.tensors["w"], torch.full((1000,), float(step)))


def test_a_failure_to_write_is_told_at_the_latest_when_all_must_be_on_disk(
    checkpoints: Checkpoints,
) -> None:
    checkpoints.folder.write_text("a file is in the way")
    writer = CheckpointWriter(checkpoints)
    writer.save(1, {"w": torch.zeros(3)}, {})
    with pytest.raises(OSError, match=r"[Ee]xists|[Dd]irectory"):
        writer.settle()


def test_the_last_before_what_is_needed_stays_however_many_follow(checkpoints: Checkpoints) -> None:
    for step in range(1, 7):
        checkpoints.save(step, {"w": torch.zeros(3)}, {}, needed=3)
    kept = [int(path.stem.rpartition("-")[2]) for path in checkpoints.all()]
    assert kept == [3, 4, 5, 6]
    checkpoints.save(7, {"w": torch.zeros(3)}, {}, needed=6)
    assert [int(path.stem.rpartition("-")[2]) for path in checkpoints.all()] == [6, 7]


def test_nothing_is_dropped_while_the_start_may_be_needed(checkpoints: Checkpoints) -> None:
    for step in range(1, 5):
        checkpoints.save(step, {"w": torch.zeros(3)}, {}, needed=0)
    assert len(checkpoints.all()) == 4
