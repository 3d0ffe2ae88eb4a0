from __future__ import annotations

import math
import sys
import types
from dataclasses import replace

import pytest
import torch
from small_gpt import CPU, SMALL
from torch import Tensor

from golf.config import ConfigError
from golf.model.attention import (
    Attention,
    choose_backend,
    remove_own_value,
    rope_tables,
    rotate,
    sdpa,
)

CUDA = torch.device("cuda")
NAMES = ("flash-attention-3", "flash-attention-2", "sdpa")


def naive(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Causal grouped-query attention, one query at a time; q [B, S, H, d], k and v [B, T, K, d]."""
    (_, S, H, d), (_, T, K, _) = q.shape, k.shape
    out = torch.zeros_like(q)
    for i in range(S):
        for h in range(H):
            seen, kv = T - S + i + 1, h // (H // K)
            scores = (k[:, :seen, kv] @ q[:, i, h, :, None]).squeeze(-1) / math.sqrt(d)
            out[:, i, h] = (scores.softmax(-1)[:, :, None] * v[:, :seen, kv]).sum(1)
    return out


def random_qkv(S: int, T: int, H: int = 4, K: int = 2, d: int = 8) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(S * 100 + T)
    shapes = ((2, S, H, d), (2, T, K, d), (2, T, K, d))
    return tuple(torch.randn(shape, generator=generator) for shape in shapes)


# ---- SDPA ----


@pytest.mark.parametrize(("S", "T"), [(1, 1), (9, 9), (1, 9), (4, 9), (8, 9)])
@pytest.mark.parametrize("K", [1, 2, 4])
def test_sdpa_is_causal_grouped_attention_of_the_last_queries(S: int, T: int, K: int) -> None:
    q, k, v = random_qkv(S, T, K=K)
    torch.testing.assert_close(sdpa(q, k, v), naive(q, k, v), rtol=1e-5, atol=1e-5)


def test_query_heads_read_neighbouring_key_heads_together() -> None:
    """Heads 0 and 1 read key/value head 0, heads 2 and 3 head 1: h // (H/K), not h mod K."""
    q, k, _ = random_qkv(5, 5)
    v = torch.zeros(2, 5, 2, 8)
    v[:, :, 1] = 1.0
    assert sdpa(q, k, v)[:, :, :2].abs().max() == 0
    torch.testing.assert_close(sdpa(q, k, v)[:, :, 2:], torch.ones(2, 5, 2, 8))


# ---- the choice of a backend ----


class Flash:
    """Stand-in for a FlashAttention package and a GPU of some capability.

    Neither can be had on a CPU, so the package is put in `sys.modules` and the capability that
    torch reports is replaced: the border of this process. Its attention is the slow, exact one.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._monkeypatch = monkeypatch
        self.calls: list[str] = []
        for module in ("flash_attn_interface", "flash_attn"):
            monkeypatch.setitem(sys.modules, module, None)  # as if not installed

    def install(self, module: str, with_lse: bool = False) -> None:
        package = types.ModuleType(module)

        def flash_attn_func(q: Tensor, k: Tensor, v: Tensor, *, causal: bool) -> object:
            assert causal
            self.calls.append(module)
            out = naive(q, k, v)
            return (out, "log-sum-exp") if with_lse else out

        package.flash_attn_func = flash_attn_func  # type: ignore[attr-defined]
        self._monkeypatch.setitem(sys.modules, module, package)

    def on_gpu(self, major: int) -> None:
        self._monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (major, 0))


@pytest.fixture
def flash(monkeypatch: pytest.MonkeyPatch) -> Flash:
    return Flash(monkeypatch)


@pytest.mark.parametrize(
    ("packages", "major", "chosen"),
    [
        (["flash_attn_interface", "flash_attn"], 9, "flash-attention-3"),
        (["flash_attn_interface"], 9, "flash-attention-3"),
        (["flash_attn"], 9, "flash-attention-2"),
        ([], 9, "sdpa"),
        (["flash_attn_interface", "flash_attn"], 8, "flash-attention-2"),
        (["flash_attn_interface"], 8, "sdpa"),
        (["flash_attn_interface", "flash_attn"], 10, "flash-attention-2"),
        (["flash_attn_interface", "flash_attn"], 7, "sdpa"),
    ],
)
def test_the_best_installed_attention_that_the_gpu_can_run_is_chosen(
    packages: list[str], major: int, chosen: str, flash: Flash
) -> None:
    flash.on_gpu(major)
    for package in packages:
        flash.install(package)
    assert choose_backend(CUDA, torch.bfloat16).name == chosen


def test_float32_and_the_cpu_take_sdpa_whatever_is_installed(flash: Flash) -> None:
    flash.on_gpu(9)
    flash.install("flash_attn_interface")
    flash.install("flash_attn")
    assert choose_backend(CUDA, torch.float32).name == "sdpa"
    assert choose_backend(CPU, torch.bfloat16).name == "sdpa"


@pytest.mark.parametrize("name", NAMES)
def test_a_named_attention_is_taken_where_it_runs(name: str, flash: Flash) -> None:
    flash.on_gpu(9)
    flash.install("flash_attn_interface")
    flash.install("flash_attn")
    assert choose_backend(CUDA, torch.bfloat16, name).name == name


@pytest.mark.parametrize("name", NAMES[:2])
def test_a_named_attention_is_never_replaced_by_another(name: str, flash: Flash) -> None:
    flash.on_gpu(9)
    with pytest.raises(ConfigError, match=f"attention '{name}' does not run here: it needs its"):
        choose_backend(CUDA, torch.bfloat16, name)
    flash.install("flash_attn_interface")
    flash.install("flash_attn")
    with pytest.raises(ConfigError, match=f"attention '{name}' does not run here"):
        choose_backend(CPU, torch.float32, name)


def test_an_unknown_attention_is_answered_with_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=f"'flash' is unknown; choose one of {', '.join(NAMES)}"):
        choose_backend(CPU, torch.float32, "flash")


@pytest.mark.parametrize(
    ("module", "with_lse"),
    [("flash_attn_interface", False), ("flash_attn_interface", True), ("flash_attn", False)],
)
def test_a_flash_attention_gets_the_layout_that_sdpa_gets(
    module: str, with_lse: bool, flash: Flash
) -> None:
    flash.on_gpu(9)
    flash.install(module, with_lse)
    backend = choose_backend(CUDA, torch.bfloat16)
    q, k, v = random_qkv(4, 9)
    torch.testing.assert_close(backend.function(q, k, v), sdpa(q, k, v), rtol=1e-5, atol=1e-5)
    assert flash.calls == [module]


# ---- rotation ----


@pytest.mark.parametrize(
    ("seq_len", "stretch"), [(512, 1.0), (1024, 1.0), (2048, 2.0), (4096, 4.0)]
)
def test_beyond_1024_positions_the_base_is_stretched(seq_len: int, stretch: float) -> None:
    config = replace(SMALL, model_dim=64, rope_dims=16)
    base = 10000.0 * stretch ** (16 / 14)
    cos, sin = rope_tables(config, seq_len)
    assert cos.shape == sin.shape == (seq_len, 8)
    angle = torch.tensor(300.0) * torch.tensor([base ** (-2 * j / 16) for j in range(8)])
    torch.testing.assert_close(cos[300], angle.cos(), rtol=0, atol=2e-5)
    torch.testing.assert_close(sin[300], angle.sin(), rtol=0, atol=2e-5)


def test_a_rotation_turns_the_leading_dimensions_and_no_other() -> None:
    x = torch.randn(2, 9, 4, 8, generator=torch.Generator().manual_seed(0))
    rope = rope_tables(SMALL, 9)
    y = rotate(x, rope)
    assert torch.equal(y[..., 4:], x[..., 4:])
    torch.testing.assert_close(y[..., :4].norm(dim=-1), x[..., :4].norm(dim=-1))
    assert torch.equal(y[:, 0], x[:, 0])
    cos, sin = rope[0][5, 1], rope[1][5, 1]
    a, b = x[0, 5, 2, 1], x[0, 5, 2, 3]  # the second pair: of the first and the second half
    torch.testing.assert_close(y[0, 5, 2, 1], a * cos + b * sin)
    torch.testing.assert_close(y[0, 5, 2, 3], -a * sin + b * cos)


def test_rotated_products_depend_on_the_distance_alone() -> None:
    q, k = torch.randn(2, 1, 1, 1, 8, generator=torch.Generator().manual_seed(0))
    cos, sin = rope_tables(SMALL, 32)

    def at(x: Tensor, position: int) -> Tensor:
        return rotate(x, (cos[position : position + 1], sin[position : position + 1])).flatten()

    torch.testing.assert_close(at(q, 20) @ at(k, 15), at(q, 9) @ at(k, 4))
    assert not torch.isclose(at(q, 20) @ at(k, 15), at(q, 20) @ at(k, 3))


# ---- exclusive self-attention ----


def test_what_is_left_is_orthogonal_to_the_position_s_own_value() -> None:
    y, _, v = random_qkv(6, 6)
    left = remove_own_value(y, v)
    for head in range(4):
        own = v[:, :, head // 2]
        assert (left[:, :, head] * own).sum(-1).abs().max() < 1e-5
        removed = y[:, :, head] - left[:, :, head]  # only along the value
        cosine = torch.cosine_similarity(removed, own, dim=-1).abs()
        torch.testing.assert_close(cosine, torch.ones_like(cosine))


def test_a_value_of_zero_removes_nothing() -> None:
    y, _, v = random_qkv(3, 3)
    assert torch.equal(remove_own_value(y, torch.zeros_like(v)), y)


def test_the_value_embedding_counts_as_part_of_the_value() -> None:
    """A lone position attends to itself alone: XSA then leaves nothing, whatever was added."""
    torch.manual_seed(0)
    layer = Attention(SMALL, choose_backend(CPU, torch.float32), exclusive=True)
    open_layer = Attention(SMALL, choose_backend(CPU, torch.float32), exclusive=False)
    open_layer.load_state_dict(layer.state_dict())
    x, ve = torch.randn(1, 1, 32), torch.randn(1, 1, 16)
    assert layer(x, rope_tables(SMALL, 1), ve, 1).abs().max() < 1e-6
    assert open_layer(x, rope_tables(SMALL, 1), ve, 1).abs().max() > 1e-2
