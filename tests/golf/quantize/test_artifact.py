import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import torch
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from golf.config import ModelConfig, QuantizeConfig
from golf.quantize.artifact import ArtifactError, read_artifact, write_artifact
from golf.quantize.container import _DIGEST_BYTES, _PREFIX
from golf.quantize.gptq_lite import QuantizeError, dequantize, quantize_state

MODEL = ModelConfig(num_layers=2, xsa_last_n=1, ve_layers=(1,), mlp_mult=2.5)
QUICK = QuantizeConfig(zstd_level=3)
START = _PREFIX.size + _DIGEST_BYTES


def make_state(seed: int = 0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        "tok_emb.weight": torch.randn(520, 128, generator=generator),
        "skip_weights": torch.randn(2, 40_000, generator=generator),
        "blocks.0.attn.c_q.weight": torch.randn(260, 256, generator=generator) * 0.3,
        "blocks.0.mlp.fc.weight": torch.randn(300, 256, generator=generator) * 0.3,
        "blocks.0.attn_scale": torch.randn(256, generator=generator),
        "bigram.scale": torch.tensor(0.05),
    }


def assert_same(got: dict[str, Tensor], wanted: dict[str, Tensor]) -> None:
    assert set(got) == set(wanted)
    for name, tensor in wanted.items():
        assert got[name].shape == tensor.shape
        assert got[name].dtype == torch.float32
        assert torch.equal(got[name], tensor), name


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("artifact") / "a"
    write_artifact(path, make_state(), MODEL, QUICK)
    return path.read_bytes()


def test_an_artifact_alone_gives_weights_and_settings(tmp_path: Path) -> None:
    path = tmp_path / "model.golf"
    written = write_artifact(path, make_state(), MODEL, QUICK)
    artifact = read_artifact(path)
    assert_same(artifact.state, dequantize(quantize_state(make_state(), QUICK)))
    assert artifact.model == MODEL
    assert artifact.quantize == QUICK
    assert artifact.report == written
    assert written.model_bytes == path.stat().st_size


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    shapes=st.dictionaries(
        st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=20),
        st.lists(st.integers(1, 9), max_size=3),
        max_size=4,
    ),
    rows=st.integers(250, 300),
    matrix=st.sampled_from(["x.attn.y", "x.embed", "resid_mix"]),
    level=st.sampled_from([1, 5]),
)
def test_any_state_comes_back(
    tmp_path_factory: pytest.TempPathFactory,
    seed: int,
    shapes: dict[str, list[int]],
    rows: int,
    matrix: str,
    level: int,
) -> None:
    path = tmp_path_factory.mktemp("any") / "a"
    generator = torch.Generator().manual_seed(seed)
    state = {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}
    state[matrix] = torch.randn(rows, 263, generator=generator)
    config = QuantizeConfig(zstd_level=level)
    write_artifact(path, state, MODEL, config)
    assert_same(read_artifact(path).state, dequantize(quantize_state(state, config)))


def test_equal_weights_give_equal_bytes_in_any_order(tmp_path: Path) -> None:
    write_artifact(tmp_path / "a", make_state(), MODEL, QUICK)
    write_artifact(tmp_path / "b", dict(reversed(make_state().items())), MODEL, QUICK)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_the_settings_of_quantization_are_honoured(tmp_path: Path) -> None:
    coarse = dataclasses.replace(QUICK, scale_floor=4.0)
    fine = dataclasses.replace(QUICK, scale_floor=0.0, clip_percentiles=(0.9,))
    sizes, states = {}, {}
    for label, config in {"record": QUICK, "coarse": coarse, "fine": fine}.items():
        sizes[label] = write_artifact(tmp_path / label, make_state(), MODEL, config).model_bytes
        states[label] = read_artifact(tmp_path / label).state["blocks.0.attn.c_q.weight"]
    assert sizes["coarse"] < sizes["record"] < sizes["fine"]
    assert states["fine"].abs().max() < 0.9 * make_state()["blocks.0.attn.c_q.weight"].abs().max()


def test_a_failed_write_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(QuantizeError, match="skip_weights"):
        write_artifact(tmp_path / "a", {"skip_weights": torch.tensor(torch.nan)}, MODEL, QUICK)
    assert not list(tmp_path.iterdir())


def test_every_changed_byte_and_every_cut_is_noticed(tmp_path: Path, whole: bytes) -> None:
    path = tmp_path / "a"
    positions = [*range(START + 20), *range(START, len(whole), len(whole) // 60), len(whole) - 1]
    for position in positions:
        flipped = bytearray(whole)
        flipped[position] ^= 1 << position % 8
        for damaged in (flipped, whole[:position]):
            path.write_bytes(damaged)
            with pytest.raises(ArtifactError, match="a cannot be loaded: it"):
                read_artifact(path)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda data: b"", "no artifact of this program"),
        (lambda data: data[:20], "truncated: 20 bytes"),
        (lambda data: data[:-1], r"truncated: [\d,]+ bytes where it says [\d,]+"),
        (lambda data: data + b"x", "followed by foreign bytes"),
        (lambda data: b"PK" + data[2:], "no artifact of this program"),
        (lambda data: data[:8] + b"\x02" + data[9:], "version 2; this program reads 1"),
        (lambda data: data[:-1] + bytes([data[-1] ^ 1]), "damaged: its bytes do not have"),
    ],
)
def test_damage_is_told_in_words(tmp_path: Path, whole: bytes, change: Any, text: str) -> None:
    (tmp_path / "a").write_bytes(change(whole))
    with pytest.raises(ArtifactError, match=text):
        read_artifact(tmp_path / "a")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="gone cannot be read: No such file"):
        read_artifact(tmp_path / "gone")


def forge(whole: bytes, header: bytes | None = None, plain_bytes: int | None = None) -> bytes:
    """A file with another header, its sizes and its digest made to fit."""
    magic, version, packed_bytes, old_plain_bytes, _ = _PREFIX.unpack_from(whole)
    packed, frames = whole[START : START + packed_bytes], whole[START + packed_bytes :]
    if header is not None:
        packed, old_plain_bytes = zstandard.compress(header), len(header)
    plain_bytes = old_plain_bytes if plain_bytes is None else plain_bytes
    total = START + len(packed) + len(frames)
    prefix = _PREFIX.pack(magic, version, len(packed), plain_bytes, total)
    body = packed + frames
    return prefix + hashlib.sha256(prefix + body).digest() + body


def header_of(whole: bytes) -> dict[str, Any]:
    packed_bytes = _PREFIX.unpack_from(whole)[2]
    header = json.loads(zstandard.decompress(whole[START : START + packed_bytes]))
    assert isinstance(header, dict)
    return header


def lie(kind: str, header: dict[str, Any]) -> None:
    tensors, frames = header["tensors"], header["frames"]
    names = [name for name, _, _ in tensors]
    matrix = tensors[names.index("blocks.0.attn.c_q.weight")]
    match kind:
        case "huge":
            matrix[2] = [1 << 27, 1 << 27]
        case "huge axis":
            matrix[2] = [10**40, 1]
        case "larger":
            matrix[2][1] += 1
        case "negative":
            matrix[2] = [-260, -256]
        case "nan shape":
            matrix[2] = [float("nan"), 4]
        case "truth":
            matrix[2] = [True, 256]
        case "axes":
            matrix[2] = [1] * 9
        case "flat":
            matrix[2] = [260 * 256]
        case "scheme":
            matrix[1] = "pickle"
        case "dtype":
            matrix[1] = "float16"
        case "twice":
            tensors.insert(1, tensors[0])
        case "name":
            matrix[0] = "a\x00b"
        case "long name":
            matrix[0] = "a" * 1000
        case "overlap":
            frames[0] += 10
        case "hidden":
            frames[0] -= 1
        case "negative frame":
            frames[0], frames[1] = -5, frames[0] + frames[1] + 5
        case "frames":
            frames.append(1)
        case "shift":
            frames[0], frames[1] = frames[0] - 1, frames[1] + 1
        case "no model":
            del header["model"]
        case "foreign":
            header["code"] = "print()"
        case "model":
            header["model"]["num_layers"] = 0
        case "unknown key":
            header["model"]["depth"] = 3
        case "no tensors":
            del header["tensors"]


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("huge", "claims more than 268,435,456 weights"),
        ("huge axis", "impossible shape"),
        ("larger", "claims 66,560 bytes instead of 66,820"),
        ("negative", "impossible shape"),
        ("nan shape", "NaN is no number"),
        ("truth", "impossible shape"),
        ("axes", "impossible shape"),
        ("flat", "int6 but no matrix"),
        ("scheme", "unknown scheme 'pickle'"),
        ("dtype", "frames instead of"),
        ("twice", "names tensors twice or out of order"),
        ("name", "short printable text"),
        ("long name", "short printable text"),
        ("overlap", "frames claim"),
        ("hidden", "frames claim"),
        ("negative frame", "frame sizes must be positive"),
        ("frames", "frames instead of"),
        ("shift", "frame 0 does not decompress"),
        ("no model", "lacks the settings"),
        ("foreign", "foreign ones"),
        ("model", r"model\.num_layers must be at least 1"),
        ("unknown key", r"unknown key model\.depth"),
        ("no tensors", "malformed"),
    ],
)
def test_lying_headers_are_refused(tmp_path: Path, whole: bytes, kind: str, text: str) -> None:
    header = header_of(whole)
    lie(kind, header)
    (tmp_path / "a").write_bytes(forge(whole, json.dumps(header).encode()))
    with pytest.raises(ArtifactError, match=text):
        read_artifact(tmp_path / "a")


@pytest.mark.parametrize(
    ("header", "plain_bytes", "text"),
    [
        (b"[]", None, "malformed"),
        (b"\xff{", None, "malformed"),
        (b"[" * 100_000, None, "malformed"),
        (None, 1 << 31, "2,147,483,648 plain"),
        (None, 12, "bytes instead of 12"),
        (bytes(1 << 21), None, "2,097,152 plain"),
        (bytes(1 << 24), 100, "claims 16,777,216 bytes instead of 100"),
    ],
)
def test_hostile_header_bytes_are_refused(
    tmp_path: Path, whole: bytes, header: bytes | None, plain_bytes: int | None, text: str
) -> None:
    (tmp_path / "a").write_bytes(forge(whole, header, plain_bytes))
    with pytest.raises(ArtifactError, match=text):
        read_artifact(tmp_path / "a")


def test_numbers_that_are_none_are_refused(tmp_path: Path, whole: bytes) -> None:
    """NaN among the steps, with sizes and digest in order."""
    header = header_of(whole)
    start = START + _PREFIX.unpack_from(whole)[2]
    matrices = sum(header["frames"][:-2])
    halves = zstandard.decompress(whole[start + matrices :][: header["frames"][-2]])
    frame = zstandard.compress(b"\xff" * len(halves))
    body = whole[start:]
    after = matrices + header["frames"][-2]
    header["frames"][-2] = len(frame)
    forged = whole[:start] + body[:matrices] + frame + body[after:]
    (tmp_path / "a").write_bytes(forge(forged, json.dumps(header).encode()))
    with pytest.raises(ArtifactError, match="NaN or infinite"):
        read_artifact(tmp_path / "a")
