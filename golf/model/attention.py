"""Causal grouped-query attention with partial rotary embeddings and exclusive self-attention.

1. `choose_backend` picks FlashAttention-3, FlashAttention-2 or torch's SDPA, once for a run.
2. `rope_tables` gives the rotation for a configured sequence length.
3. `Attention` projects, normalises, rotates, attends and (on late layers) removes from each head's
   output what lies along its own value vector (XSA).

Dimensions: B batch, T positions, S scored positions (the last S of T, or all), D width,
H query heads, K key/value heads, d head width, R rotated dimensions.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from golf.config import ConfigError, ModelConfig
from golf.model.linear import Linear

Rope = tuple[Tensor, Tensor]
"""Cosines and sines, float32 [T, R/2] each."""

ROPE_TRAINED_LEN = 1024
"""Beyond this length the rotary base is stretched (NTK-aware scaling, as the public code does)."""


@dataclass(frozen=True)
class AttentionBackend:
    """A causal attention kernel and the name under which a run records it."""

    name: str
    function: Callable[[Tensor, Tensor, Tensor], Tensor]
    """q [B, S, H, d], k and v [B, T, K, d] -> [B, S, H, d]; query i sees keys up to T - S + i."""


def choose_backend(
    device: torch.device, dtype: torch.dtype, name: str | None = None
) -> AttentionBackend:
    """The best attention that this device, dtype and installation can run, or the one named.

    Raises:
        ConfigError: the named backend is unknown, not installed, or not for this device and dtype.
    """
    loaders = {
        "flash-attention-3": _flash_attention_3,
        "flash-attention-2": _flash_attention_2,
        "sdpa": _sdpa_backend,
    }
    if name is not None and name not in loaders:
        raise ConfigError(f"attention {name!r} is unknown; choose one of {', '.join(loaders)}")
    for candidate, load in loaders.items():
        if name in (None, candidate):
            function = load(device, dtype)
            if function is not None:
                return AttentionBackend(candidate, function)
    raise ConfigError(
        f"attention {name!r} does not run here: it needs its package, a CUDA device that it "
        "supports, and bfloat16; leave the choice open to take the best that does"
    )


def _flash_attention_3(device: torch.device, dtype: torch.dtype) -> Callable[..., Tensor] | None:
    if not _half_on_cuda(device, dtype) or torch.cuda.get_device_capability(device)[0] != 9:
        return None  # FlashAttention-3 is written for Hopper
    try:
        from flash_attn_interface import flash_attn_func
    except ImportError:
        return None

    def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        result = flash_attn_func(q, k, v, causal=True)
        # Releases differ: some return the log-sum-exp beside the output.
        out: Tensor = result[0] if isinstance(result, tuple) else result
        return out

    return attend


def _flash_attention_2(device: torch.device, dtype: torch.dtype) -> Callable[..., Tensor] | None:
    if not _half_on_cuda(device, dtype) or torch.cuda.get_device_capability(device)[0] < 8:
        return None
    try:
        from flash_attn import flash_attn_func
    except ImportError:
        return None

    def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        out: Tensor = flash_attn_func(q, k, v, causal=True)
        return out

    return attend


def _half_on_cuda(device: torch.device, dtype: torch.dtype) -> bool:
    return device.type == "cuda" and dtype in (torch.bfloat16, torch.float16)


def _sdpa_backend(device: torch.device, dtype: torch.dtype) -> Callable[..., Tensor]:
    return sdpa


def sdpa(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """torch's scaled dot-product attention; same shapes as `AttentionBackend.function`."""
    S, T = q.size(1), k.size(1)
    mask = None
    if S != T:
        # `is_causal` would align the queries with the first keys; ours are the last positions.
        mask = torch.ones(S, T, dtype=torch.bool, device=q.device).tril(T - S)
    out = F.scaled_dot_product_attention(
        q.transpose(1, 2),
        k.transpose(1, 2),
        v.transpose(1, 2),
        attn_mask=mask,
        is_causal=mask is None,
        enable_gqa=q.size(2) != k.size(2),
    )
    return out.transpose(1, 2)


def rope_tables(config: ModelConfig, seq_len: int, device: torch.device | str = "cpu") -> Rope:
    """Rotation tables for sequences of up to `seq_len` positions.

    The base depends on the configured length, not on the sequence at hand, so that a shorter last
    window is rotated like every other. The tables never belong to an inference-mode graph, whoever
    asks for them first, because training must be able to save them for backward.
    """
    R = config.rope_dims
    base = config.rope_base
    if seq_len > ROPE_TRAINED_LEN:
        base *= (seq_len / ROPE_TRAINED_LEN) ** (R / (R - 2))
    with torch.inference_mode(False), torch.no_grad():
        frequencies = 1.0 / base ** (torch.arange(0, R, 2, dtype=torch.float32) / R)
        angles = torch.outer(torch.arange(seq_len, dtype=torch.float32), frequencies)
        return angles.cos().to(device), angles.sin().to(device)


def rotate(x: Tensor, rope: Rope) -> Tensor:
    """Rotate the first R dimensions of each head; x [B, S, H, d], rope [S, R/2] each."""
    cos, sin = (table.to(x.dtype)[None, :, None, :] for table in rope)
    half = cos.size(-1)
    a, b, rest = x[..., :half], x[..., half : 2 * half], x[..., 2 * half :]
    return torch.cat((a * cos + b * sin, b * cos - a * sin, rest), dim=-1)


def remove_own_value(y: Tensor, v: Tensor) -> Tensor:
    """XSA: subtract from each head's output its projection on its own position's value direction.

    y [B, S, H, d], v [B, S, K, d] -> [B, S, H, d].
    """
    B, S, H, d = y.shape
    K = v.size(2)
    grouped = y.reshape(B, S, K, H // K, d)
    direction = F.normalize(v, dim=-1).unsqueeze(3)
    along = (grouped * direction).sum(dim=-1, keepdim=True)
    return (grouped - along * direction).reshape(B, S, H, d)


class Attention(nn.Module):
    """One attention layer, without its residual connection."""

    def __init__(self, config: ModelConfig, backend: AttentionBackend, exclusive: bool) -> None:
        super().__init__()
        D, d = config.model_dim, config.head_dim
        self.num_heads, self.num_kv_heads, self.head_dim = config.num_heads, config.num_kv_heads, d
        self.attend = backend.function
        self.exclusive = exclusive
        self.c_q = Linear(D, D)
        self.c_k = Linear(D, config.num_kv_heads * d)
        self.c_v = Linear(D, config.num_kv_heads * d)
        self.proj = Linear(D, D)
        self.q_gain = nn.Parameter(torch.full((config.num_heads,), config.qk_gain_init))

    def forward(self, x: Tensor, rope: Rope, ve: Tensor | None, S: int) -> Tensor:
        """x [B, T, D], ve [B, T, K*d] or None -> [B, S, D], for the last S positions."""
        B, T, D = x.shape
        q = self.c_q(x[:, T - S :]).view(B, S, self.num_heads, self.head_dim)
        k = self.c_k(x).view(B, T, self.num_kv_heads, self.head_dim)
        v = self.c_v(x)
        if ve is not None:
            v = v + ve.to(v.dtype)
        v = v.view(B, T, self.num_kv_heads, self.head_dim)
        cos, sin = rope
        q = rotate(F.rms_norm(q, (self.head_dim,)), (cos[T - S : T], sin[T - S : T]))
        k = rotate(F.rms_norm(k, (self.head_dim,)), (cos[:T], sin[:T]))
        q = q * self.q_gain.to(q.dtype)[:, None]
        # Autocast may have normalised in float32; the kernels want one dtype.
        y = self.attend(q.to(v.dtype), k.to(v.dtype), v)
        if self.exclusive:
            y = remove_own_value(y, v[:, T - S :])
        out: Tensor = self.proj(y.reshape(B, S, D))
        return out
