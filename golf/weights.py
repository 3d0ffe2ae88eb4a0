"""Weights on disk: written whole with a checksum, read back from any format that holds them.

1. `save_tensors` writes a safetensors file of any dtypes, its SHA-256 in the header; `load_tensors`
   gives back only what still has that digest. Training checkpoints are such files.
2. `save_weights` is the same for a model's weights, always float32.
3. `load_weights` tells by content, not by name, what a file is: safetensors (ours or foreign), our
   artifact, or the challenge's `.pt` and `.ptz`. It always gives float32 on the CPU.
4. `check_weights` compares names and shapes with what a model expects and names the setting that is
   likely wrong.

No format here can run code: safetensors hold plain numbers, the challenge's pickles are read by
`torch.load(weights_only=True)`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from golf.config import ModelConfig
from golf.quantize.artifact import MAGIC, ArtifactError, read_artifact
from golf.quantize.challenge import ChallengeError, is_challenge_file, read_challenge_file
from golf.records import RunError, replace_file

METADATA_KEY = "golf"
"""The one safetensors metadata entry we write, as JSON: the library keeps several in random order,
and equal weights shall give equal files."""

HEAD_BYTES = 16
"""First bytes of a file, by which its format is told."""

MAX_NAMED = 5
"""Tensors named in one error text."""


class WeightsError(RunError):
    """Weights missing, damaged or of another model; the text names the file and the fix."""


class TensorFile(NamedTuple):
    """What `load_tensors` reads: tensors by name, and the strings that were saved with them."""

    tensors: dict[str, Tensor]
    metadata: dict[str, str]


def digest_tensors(tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> str:
    """SHA-256 over names, dtypes, shapes and bytes in the order of names, and over `metadata`."""
    digest = hashlib.sha256(json.dumps(metadata or {}, sort_keys=True).encode())
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(json.dumps([name, str(tensor.dtype), list(tensor.shape)]).encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def save_tensors(
    path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None
) -> None:
    """Write tensors of any dtype and `metadata` to a safetensors file, whole or not at all."""
    plain = _unshared(tensors)
    strings = dict(sorted((metadata or {}).items()))
    seal = json.dumps({"sha256": digest_tensors(plain, strings), "metadata": strings})
    with replace_file(path) as temporary:
        save_file(plain, temporary, metadata={METADATA_KEY: seal})


def load_tensors(path: Path) -> TensorFile:
    """Read what `save_tensors` wrote, after its digest is verified.

    Raises:
        WeightsError: no such file, or one that is truncated, changed or not ours.
    """
    file, sealed = _read_safetensors(path)
    if not sealed:
        raise WeightsError(
            f"{path} carries no checksum of ours; it is no checkpoint of this program"
        )
    return file


def save_weights(
    path: Path, state: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None
) -> None:
    """Write a model's weights as float32 safetensors, whole or not at all."""
    save_tensors(path, {name: tensor.detach().float() for name, tensor in state.items()}, metadata)


def load_weights(path: Path, model: ModelConfig | None = None) -> dict[str, Tensor]:
    """A model's weights from any supported file, float32 on the CPU, by the checkpoint's names.

    Args:
        model: the settings under which the weights are to be used, where the file should agree:
            some (`logit_softcap`, `rope_base`, `xsa_last_n`) no shape would betray.

    Raises:
        WeightsError: no such file, none of the formats, or a truncated or damaged one; an artifact
            of other settings.
    """
    try:
        with path.open("rb") as file:
            head = file.read(HEAD_BYTES)
        if head.startswith(MAGIC):
            artifact = read_artifact(path)
            _check_settings(path, artifact.model, model or artifact.model)
            return artifact.state
        if is_challenge_file(head):
            return read_challenge_file(path)
    except FileNotFoundError:
        raise WeightsError(f"{path}: no such file") from None
    except OSError as error:
        raise WeightsError(f"{path} cannot be read: {error.strerror}") from None
    except (ArtifactError, ChallengeError) as error:
        raise WeightsError(str(error)) from error
    tensors = _read_safetensors(path)[0].tensors
    return {name: tensor.float() for name, tensor in tensors.items()}


def _check_settings(path: Path, packed: ModelConfig, wanted: ModelConfig) -> None:
    has, wants = asdict(packed), asdict(wanted)
    different = [
        f"model.{key}={has[key]} (job: {wants[key]})" for key in has if has[key] != wants[key]
    ]
    if different:
        raise WeightsError(
            f"{path} was packed with other settings: {', '.join(different)}; use the job that it "
            "was made with"
        )


def _unshared(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Contiguous CPU tensors of which no two share memory, as the format demands."""
    seen: set[int] = set()
    plain = {}
    for name, tensor in tensors.items():
        own = tensor.detach().cpu().contiguous()
        if own.untyped_storage().data_ptr() in seen:
            own = own.clone()
        seen.add(own.untyped_storage().data_ptr())
        plain[name] = own
    return plain


def _read_safetensors(path: Path) -> tuple[TensorFile, bool]:
    """Tensors in memory of their own, and whether a checksum of ours was there (and held)."""
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
            strings = file.metadata() or {}
    except FileNotFoundError:
        raise WeightsError(f"{path}: no such file") from None
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"{path} is truncated or damaged ({error}); restore it") from error
    if METADATA_KEY not in strings:
        return TensorFile(tensors, dict(strings)), False
    digest, metadata = _open_seal(path, strings[METADATA_KEY])
    if digest_tensors(tensors, metadata) != digest:
        raise WeightsError(
            f"{path} is damaged: its content does not have the SHA-256 it was saved with"
        )
    return TensorFile(tensors, metadata), True


def _open_seal(path: Path, text: str) -> tuple[str, dict[str, str]]:
    try:
        seal: Any = json.loads(text)
        return str(seal["sha256"]), {str(k): str(v) for k, v in seal["metadata"].items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise WeightsError(f"{path} is damaged: unreadable checksum entry ({error!r})") from error


def check_weights(state: Mapping[str, Tensor], expected: Mapping[str, Sequence[int]]) -> None:
    """Compare names and shapes with those of a model.

    Raises:
        WeightsError: some differ; names them and the settings of `[model]` that likely do.
    """
    missing = [name for name in expected if name not in state]
    unexpected = [name for name in state if name not in expected]
    shaped = [n for n in expected if n in state and tuple(state[n].shape) != tuple(expected[n])]
    if not (missing or unexpected or shaped):
        return
    keys: dict[str, None] = {}
    for name in shaped:
        keys |= dict.fromkeys(_keys_of_shape(name, tuple(state[name].shape), tuple(expected[name])))
    for name in missing + unexpected:
        keys |= dict.fromkeys(_keys_of_presence(name))
    shapes = [f"{n} is {list(state[n].shape)}, wanted {list(expected[n])}" for n in shaped]
    parts = [
        f"{len(names)} {label}: {', '.join(names[:MAX_NAMED])}{', ...' * (len(names) > MAX_NAMED)}"
        for label, names in (
            ("missing", missing),
            ("unexpected", unexpected),
            ("misshaped", shapes),
        )
        if names
    ]
    hint = f"; compare {', '.join(f'model.{key}' for key in keys)} with the job" if keys else ""
    raise WeightsError(f"the weights do not fit the model: {'; '.join(parts)}{hint}")


_DIMENSIONS: dict[str, tuple[str, ...]] = {
    "tok_emb.weight": ("vocab_size", "model_dim"),
    "bigram.embed.weight": ("bigram_vocab_size", "bigram_dim"),
    "bigram.proj.weight": ("model_dim", "bigram_dim"),
    "skip_weights": ("num_layers", "model_dim"),
    "ve_shared.embed.weight": ("vocab_size", "ve_dim"),
    "ve_shared.proj.weight": ("num_kv_heads", "ve_dim"),
    "attn.q_gain": ("num_heads",),
    "attn.c_k.weight": ("num_kv_heads", "model_dim"),
    "attn.c_v.weight": ("num_kv_heads", "model_dim"),
    "mlp.fc.weight": ("mlp_mult", "model_dim"),
    "mlp.proj.weight": ("model_dim", "mlp_mult"),
}
"""The setting that decides each axis, by the end of a tensor's name; elsewhere it is the width."""


def _keys_of_shape(name: str, got: tuple[int, ...], wanted: tuple[int, ...]) -> list[str]:
    axes = next(
        (axes for end, axes in _DIMENSIONS.items() if name.endswith(end)), ("model_dim",) * 2
    )
    if len(got) != len(wanted):
        return list(dict.fromkeys(axes))
    sizes = zip(axes, got, wanted, strict=False)
    return [key for key, has, wants in sizes if has != wants]


def _keys_of_presence(name: str) -> list[str]:
    if name.startswith("blocks."):
        return ["num_layers"]
    return ["ve_layers"] if name.startswith("ve_") else []
