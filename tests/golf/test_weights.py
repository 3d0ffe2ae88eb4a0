import zlib
from pathlib import Path

import pytest
import torch
from safetensors.torch import save, save_file
from torch import Tensor

from golf.config import ModelConfig, QuantizeConfig
from golf.quantize.artifact import write_artifact
from golf.weights import (
    WeightsError,
    check_weights,
    load_tensors,
    load_weights,
    save_tensors,
    save_weights,
)


@pytest.fixture
def state() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return {
        "tok_emb.weight": torch.randn(8, 4, generator=generator),
        "bigram.scale": torch.tensor(0.05),
        "blocks.0.attn.q_gain": torch.ones(2),
        "blocks.0.mlp.fc.weight": torch.randn(12, 4, generator=generator),
    }


def assert_same(got: dict[str, Tensor], wanted: dict[str, Tensor]) -> None:
    assert set(got) == set(wanted)
    assert all(torch.equal(got[n], wanted[n]) and got[n].dtype == wanted[n].dtype for n in wanted)


def test_weights_come_back_as_float32(tmp_path: Path, state: dict[str, Tensor]) -> None:
    path = tmp_path / "new folder" / "model.safetensors"
    save_weights(path, {name: tensor.bfloat16() for name, tensor in state.items()}, {"step": "3"})
    assert_same(load_weights(path), {n: t.bfloat16().float() for n, t in state.items()})
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_equal_weights_give_equal_files(tmp_path: Path, state: dict[str, Tensor]) -> None:
    save_weights(tmp_path / "a", state, {"x": "1", "y": "2"})
    save_weights(tmp_path / "b", dict(reversed(state.items())), {"y": "2", "x": "1"})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_tensors_of_any_dtype_come_back_with_their_metadata(tmp_path: Path) -> None:
    bank = torch.arange(12.0).reshape(3, 4)
    tensors = {
        "random_state": torch.arange(7, dtype=torch.uint8),
        "position": torch.tensor(2**40),
        "flag": torch.tensor([True, False]),
        "half": torch.ones(2, 3, dtype=torch.bfloat16),
        "bank.0": bank[0],
        "bank.1": bank[1],
        "column": bank[:, 1],
        "none": torch.zeros(0, 5),
    }
    save_tensors(tmp_path / "c", tensors, {"step": "9"})
    read = load_tensors(tmp_path / "c")
    assert_same(read.tensors, tensors)
    assert read.metadata == {"step": "9"}


def test_foreign_safetensors_load_as_weights_but_not_as_checkpoint(
    tmp_path: Path, state: dict[str, Tensor]
) -> None:
    save_file(state, tmp_path / "f.safetensors", {"format": "pt"})
    assert_same(load_weights(tmp_path / "f.safetensors"), state)
    with pytest.raises(WeightsError, match="no checksum of ours"):
        load_tensors(tmp_path / "f.safetensors")


def test_every_changed_byte_and_every_cut_is_noticed(
    tmp_path: Path, state: dict[str, Tensor]
) -> None:
    path = tmp_path / "model.safetensors"
    save_weights(path, state)
    whole = path.read_bytes()
    for position in range(0, len(whole), 7):
        path.write_bytes(whole[:position] + bytes([whole[position] ^ 0x10]) + whole[position + 1 :])
        with pytest.raises(WeightsError, match=r"damaged|checksum"):
            load_tensors(path)
        path.write_bytes(whole[:position])
        with pytest.raises(WeightsError, match=r"damaged|checksum"):
            load_tensors(path)


def test_the_format_is_told_by_content_not_by_name(
    tmp_path: Path, state: dict[str, Tensor]
) -> None:
    path = tmp_path / "model.bin"
    write_artifact(path, state, ModelConfig(), QuantizeConfig(zstd_level=1))
    assert_same(load_weights(path), {n: t.half().float() for n, t in state.items()})
    torch.save(state, path)
    assert_same(load_weights(path), state)
    path.write_bytes(zlib.compress(path.read_bytes()))
    assert_same(load_weights(path), state)


def test_a_header_length_that_looks_like_zlib_is_no_zlib(
    tmp_path: Path, state: dict[str, Tensor]
) -> None:
    """A safetensors file may start with the bytes 78 01, the low bytes of its header's length."""
    for padding in range(8000):
        content = save(state, {"padding": " " * padding})
        if content[:2] == b"\x78\x01":
            break
    else:
        pytest.fail("no header of that length")
    (tmp_path / "f").write_bytes(content)
    assert_same(load_weights(tmp_path / "f"), state)


@pytest.mark.parametrize("content", [b"", b"GOLFPACK", b"PK\x03\x04", b"\x28\xb5\x2f\xfd", b"text"])
def test_other_files_are_refused_by_name(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "f").write_bytes(content)
    with pytest.raises(WeightsError, match="/f "):
        load_weights(tmp_path / "f")
    with pytest.raises(WeightsError, match="Is a directory"):
        load_weights(tmp_path)


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"gone\.safetensors: no such file"):
        load_weights(tmp_path / "gone.safetensors")


def test_fitting_weights_pass(state: dict[str, Tensor]) -> None:
    check_weights(state, {name: tensor.shape for name, tensor in state.items()})


@pytest.mark.parametrize(
    ("name", "shape", "hint"),
    [
        ("tok_emb.weight", (9, 4), "model.vocab_size with"),
        ("tok_emb.weight", (8, 6), "model.model_dim with"),
        ("blocks.0.attn.q_gain", (4,), "model.num_heads"),
        ("blocks.0.mlp.fc.weight", (16, 4), "model.mlp_mult"),
        ("bigram.scale", (1,), "model.model_dim"),
    ],
)
def test_a_wrong_shape_names_tensor_shapes_and_setting(
    state: dict[str, Tensor], name: str, shape: tuple[int, ...], hint: str
) -> None:
    expected = {n: tuple(t.shape) for n, t in state.items()} | {name: shape}
    with pytest.raises(WeightsError) as caught:
        check_weights(state, expected)
    assert f"{name} is {list(state[name].shape)}, wanted {list(shape)}" in str(caught.value)
    assert hint in str(caught.value)


def test_missing_and_unexpected_tensors_are_named(state: dict[str, Tensor]) -> None:
    expected = {n: t.shape for n, t in state.items() if n != "bigram.scale"}
    expected["blocks.1.attn.q_gain"] = torch.Size([2])
    with pytest.raises(WeightsError) as caught:
        check_weights(state, expected)
    assert "1 missing: blocks.1.attn.q_gain" in str(caught.value)
    assert "1 unexpected: bigram.scale" in str(caught.value)
    assert "model.num_layers" in str(caught.value)


def test_an_artifact_of_other_settings_is_refused_by_name(tmp_path: Path):
    from golf.config import ModelConfig, QuantizeConfig
    from golf.quantize.artifact import write_artifact

    path = tmp_path / "model.golf"
    write_artifact(
        path, {"smear.gate": torch.zeros(4)}, ModelConfig(), QuantizeConfig(zstd_level=1)
    )
    assert load_weights(path, ModelConfig()).keys() == {"smear.gate"}
    with pytest.raises(WeightsError, match=r"model\.logit_softcap=30\.0 \(job: 15\.0\)"):
        load_weights(path, ModelConfig(logit_softcap=15.0))
