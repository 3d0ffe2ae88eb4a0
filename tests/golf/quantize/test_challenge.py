import io
import lzma
import os
import pickle
import zipfile
import zlib
from pathlib import Path
from typing import Any

import pytest
import torch
import zstandard
from torch import Tensor

from golf.config import QuantizeConfig
from golf.quantize import challenge
from golf.quantize.challenge import ChallengeError, read_challenge_file
from golf.quantize.gptq_lite import dequantize, quantize_state


def saved(value: Any) -> bytes:
    stream = io.BytesIO()
    torch.save(value, stream)
    return stream.getvalue()


def zstd(content: bytes) -> bytes:
    return zstandard.ZstdCompressor(level=3).compress(content)


@pytest.fixture
def state() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(3)
    return {
        "tok_emb.weight": torch.randn(600, 128, generator=generator),
        "blocks.0.attn.c_q.weight": torch.randn(300, 256, generator=generator),
        "bigram.scale": torch.tensor(0.05),
    }


def packed(state: dict[str, Tensor]) -> dict[str, dict[str, Any]]:
    """`{"w", "m"}` as pull request 414 saves it."""
    weights: dict[str, Any] = {}
    methods: dict[str, Any] = {}
    for name, tensor in quantize_state(state, QuantizeConfig()).items():
        if tensor.steps is None:
            weights[name], methods[name] = tensor.values, "passthrough"
        else:
            weights |= {f"{name}.q": tensor.values, f"{name}.scale": tensor.steps}
            methods[name] = {"type": tensor.scheme}
    return {"w": weights, "m": methods}


def assert_same(got: dict[str, Tensor], wanted: dict[str, Tensor]) -> None:
    assert set(got) == set(wanted)
    for name, tensor in wanted.items():
        assert got[name].dtype == torch.float32
        assert torch.equal(got[name], tensor), name


@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "module._orig_mod."])
def test_state_dict_loads_as_float32_without_prefixes(
    tmp_path: Path, state: dict[str, Tensor], prefix: str
) -> None:
    path = tmp_path / "final_model.pt"
    path.write_bytes(saved({prefix + name: t.bfloat16() for name, t in state.items()}))
    assert_same(read_challenge_file(path), {n: t.bfloat16().float() for n, t in state.items()})


@pytest.mark.parametrize("compress", [zstd, zlib.compress, lzma.compress])
def test_quantized_file_gives_what_its_integers_stand_for(
    tmp_path: Path, state: dict[str, Tensor], compress: Any
) -> None:
    path = tmp_path / "final_model.int6.ptz"
    path.write_bytes(compress(saved(packed(state))))
    assert_same(read_challenge_file(path), dequantize(quantize_state(state, QuantizeConfig())))


def test_banks_become_the_matrices_of_blocks(tmp_path: Path) -> None:
    banks = {
        "qo_bank": torch.randn(6, 4, 4),
        "kv_bank": torch.randn(6, 2, 4),
        "mlp_up_bank": torch.randn(3, 12, 4),
        "mlp_down_bank": torch.randn(3, 4, 12),
        "smear.gate": torch.randn(4),
    }
    (tmp_path / "f.pt").write_bytes(saved(banks))
    state = read_challenge_file(tmp_path / "f.pt")
    assert len(state) == 6 * 3 + 1
    assert torch.equal(state["blocks.1.attn.c_q.weight"], banks["qo_bank"][1])
    assert torch.equal(state["blocks.1.attn.proj.weight"], banks["qo_bank"][4])
    assert torch.equal(state["blocks.2.attn.c_k.weight"], banks["kv_bank"][2])
    assert torch.equal(state["blocks.0.attn.c_v.weight"], banks["kv_bank"][3])
    assert torch.equal(state["blocks.2.mlp.fc.weight"], banks["mlp_up_bank"][2])
    assert torch.equal(state["blocks.0.mlp.proj.weight"], banks["mlp_down_bank"][0])


class Malicious:
    """A pickle that would create a file when loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("compress", [bytes, zstd])
def test_pickles_are_never_executed(tmp_path: Path, compress: Any) -> None:
    target, path = tmp_path / "executed", tmp_path / "final_model.pt"
    path.write_bytes(compress(saved({"tok_emb.weight": Malicious(target)})))
    with pytest.raises(ChallengeError, match="nothing else is ever loaded"):
        read_challenge_file(path)
    assert not target.exists()


def test_bare_pickles_are_refused(tmp_path: Path) -> None:
    (tmp_path / "f.pt").write_bytes(zstd(pickle.dumps({"a": 1})))
    with pytest.raises(ChallengeError, match=r"no torch\.save archive"):
        read_challenge_file(tmp_path / "f.pt")


def test_cut_and_changed_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "final_model.pt"
    whole = saved({"bigram.scale": torch.randn(50)})
    for content in (whole, zlib.compress(whole), zstd(whole), lzma.compress(whole)):
        for length in range(6, len(content) - 1, max(1, len(content) // 40)):
            path.write_bytes(content[:length])
            with pytest.raises(ChallengeError):
                read_challenge_file(path)
    at = whole.index(torch.load(io.BytesIO(whole))["bigram.scale"].numpy().tobytes())
    path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
    with pytest.raises(ChallengeError, match="damaged"):
        read_challenge_file(path)


@pytest.mark.parametrize("compress", [zstd, zlib.compress, lzma.compress])
def test_bombs_stop_at_the_bound(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, compress: Any
) -> None:
    monkeypatch.setattr(challenge, "MAX_BYTES", 1 << 22)
    (tmp_path / "f.ptz").write_bytes(compress(bytes(20 << 20)))
    with pytest.raises(ChallengeError, match=r"(more than 4,194,304 bytes|does not decompress)"):
        read_challenge_file(tmp_path / "f.ptz")


def test_compressed_records_are_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "f.pt", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", bytes(1 << 20))
    with pytest.raises(ChallengeError, match="archive is compressed"):
        read_challenge_file(tmp_path / "f.pt")


def broken(kind: str, state: dict[str, Tensor]) -> Any:
    pack = packed(state)
    match kind:
        case "list":
            return [1, 2]
        case "number":
            return {"step": 3}
        case "expanded":
            return {"a": torch.zeros(1).expand(1 << 29)}
        case "twice":
            return {"module.a": torch.zeros(1), "a": torch.ones(1)}
        case "banks":
            return {"qo_bank": torch.zeros(4, 1, 1), "mlp_up_bank": torch.zeros(3, 1, 1)}
        case "flat bank":
            return {"qo_bank": torch.zeros(4)}
        case "missing":
            del pack["w"]["tok_emb.weight.scale"]
        case "scale":
            pack["w"]["tok_emb.weight.scale"] = torch.ones(3)
        case "method":
            pack["m"]["tok_emb.weight"] = {"type": "int4"}
    return pack


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("list", "no dictionary of tensors"),
        ("number", "'step' is no named tensor"),
        ("expanded", "claims more than 268,435,456 weights"),
        ("twice", "holds a twice"),
        ("banks", r"different numbers of layers: \[2\.0, 3\.0\]"),
        ("flat bank", "qo_bank is no bank"),
        ("missing", r"lacks tok_emb\.weight\.scale"),
        ("scale", r"tok_emb\.weight has scales of a wrong shape: \[3\] for \[600, 128\]"),
        ("method", "'int4'}, which this program does not know"),
    ],
)
def test_other_contents_are_refused_by_name(
    tmp_path: Path, state: dict[str, Tensor], kind: str, text: str
) -> None:
    (tmp_path / "f.ptz").write_bytes(zstd(saved(broken(kind, state))))
    with pytest.raises(ChallengeError, match=rf"f\.ptz cannot be loaded: .*{text}"):
        read_challenge_file(tmp_path / "f.ptz")
