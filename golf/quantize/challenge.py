"""Import of the challenge's own model files, as its training scripts leave them.

1. `final_model.pt`: a state dict by `torch.save`, float32 or bfloat16.
2. `final_model.int6.ptz`: zstd, zlib or lzma around a `torch.save` of `{"w": ..., "m": ...}`: `m`
   says by name how `w` stores a tensor, as `NAME` itself or as `NAME.q` and `NAME.scale`.
3. Prefixes that wrappers add to names are stripped, and the banked matrices of later records (pull
   request 549) are cut into those of single blocks.

Both are pickles: they are read by `torch.load(weights_only=True)`, which refuses everything but
tensors and plain containers, and only after the archive around them is checked: uncompressed
records that the file really holds, with matching checksums, within `MAX_BYTES`.

Formats: `mixed_quantize_int6` of pull request 414 and `_unbank_state_dict` of pull request 549 of
the parameter-golf challenge.
"""

from __future__ import annotations

import io
import lzma
import struct
import zipfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
import zstandard
from torch import Tensor

from golf.quantize.header import MAX_ELEMENTS
from golf.records import RunError

ZIP_MAGIC = b"PK\x03\x04"
ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
LZMA_MAGIC = b"\xfd7zXZ\x00"
ZLIB_MAGICS = (b"\x78\x01", b"\x78\x5e", b"\x78\x9c", b"\x78\xda")

MAX_BYTES = 1 << 30
"""Of a decompressed file; the record model's own is 27 MB quantized and 107 MB in float32."""

PREFIXES = ("module.", "_orig_mod.")
"""What DistributedDataParallel and torch.compile put before names."""

PASSTHROUGH = ("passthrough", "passthrough_ctrl", "passthrough_fp16")

DAMAGE = (zipfile.BadZipFile, zlib.error, struct.error, EOFError, OSError, ValueError)
"""What zipfile raises on archives that are cut or overwritten."""

_CHUNK_BYTES = 1 << 20


class ChallengeError(RunError):
    """A file of the challenge that is damaged, hostile or of another form."""


def is_challenge_file(head: bytes) -> bool:
    """Whether a file that starts with these bytes (at least 9) may be a `.pt` or `.ptz`."""
    # A safetensors file starts with the length of its header, whose bytes can look like zlib's.
    if head[8:9] == b"{" and head[4:8] == bytes(4):
        return False
    return head.startswith((ZIP_MAGIC, ZSTD_MAGIC, LZMA_MAGIC, *ZLIB_MAGICS))


def read_challenge_file(path: Path) -> dict[str, Tensor]:
    """Weights of a `.pt` or `.ptz`, told apart by content: float32, by the checkpoint's names.

    Raises:
        ChallengeError: no such file, a damaged one, one that holds more than plain tensors, or one
            that would take more than `MAX_BYTES`.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ChallengeError(f"{path} cannot be read: {error.strerror}") from None
    try:
        loaded = _load_plain(content if content.startswith(ZIP_MAGIC) else _decompress(content))
        packed = isinstance(loaded, dict) and loaded.keys() == {"w", "m"}
        state = dequantize_challenge(loaded["w"], loaded["m"]) if packed else _check_state(loaded)
        return unbank(strip_prefixes(state))
    except ChallengeError as error:
        raise ChallengeError(f"{path} cannot be loaded: {error}") from error


def dequantize_challenge(weights: Any, methods: Any) -> dict[str, Tensor]:
    """float32 tensors of the `w` and `m` of a `.ptz`.

    Raises:
        ChallengeError: a tensor is missing, or stored in a way that pull request 414 does not know.
    """
    tensors = _check_state(weights)
    if not isinstance(methods, dict):
        raise ChallengeError('its "m" is no dictionary')
    return {name: _dequantize(tensors, name, method) for name, method in methods.items()}


def strip_prefixes(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state with names freed of `PREFIXES`, however many stand in a row.

    Raises:
        ChallengeError: two names become one.
    """
    stripped: dict[str, Tensor] = {}
    for full_name, tensor in state.items():
        name = full_name
        while name.startswith(PREFIXES):
            name = name.partition(".")[2]
        if name in stripped:
            raise ChallengeError(f"it holds {name} twice, under different prefixes")
        stripped[name] = tensor
    return stripped


def unbank(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state with banks [layers (or twice as many), out, in] cut into blocks' matrices.

    Raises:
        ChallengeError: a bank is not 3-D, or they disagree on the number of layers.
    """
    banks: dict[str, tuple[str, ...]] = {
        "qo_bank": ("attn.c_q", "attn.proj"),
        "kv_bank": ("attn.c_k", "attn.c_v"),
        "mlp_up_bank": ("mlp.fc",),
        "mlp_down_bank": ("mlp.proj",),
    }
    flat = [bank for bank in banks if bank in state and state[bank].ndim != 3]
    if flat:
        raise ChallengeError(f"its {flat[0]} is no bank [layers, out, in]")
    layers = {len(state[bank]) / len(parts) for bank, parts in banks.items() if bank in state}
    if len(layers) > 1 or any(count % 1 for count in layers):
        raise ChallengeError(f"its banks are for different numbers of layers: {sorted(layers)}")
    single = {}
    for name, tensor in state.items():
        parts = banks.get(name)
        if parts is None:
            single[name] = tensor
            continue
        for part, half in zip(parts, tensor.chunk(len(parts)), strict=True):
            single |= {f"blocks.{i}.{part}.weight": matrix for i, matrix in enumerate(half)}
    return single


def _dequantize(tensors: Mapping[str, Tensor], name: str, method: Any) -> Tensor:
    if method in PASSTHROUGH:
        return _get(tensors, name).float()
    if method not in ({"type": "int6"}, {"type": "int8"}):
        raise ChallengeError(f"{name} is stored as {method!r}, which this program does not know")
    values, scale = _get(tensors, f"{name}.q"), _get(tensors, f"{name}.scale").float()
    if scale.ndim > 1 or (scale.ndim == 1 and scale.shape != values.shape[:1]):
        shapes = f"{list(scale.shape)} for {list(values.shape)}"
        raise ChallengeError(f"{name} has scales of a wrong shape: {shapes}")
    if scale.ndim:
        scale = scale.reshape(-1, *[1] * (values.ndim - 1))
    return values.float() * scale


def _get(tensors: Mapping[str, Tensor], name: str) -> Tensor:
    if name not in tensors:
        raise ChallengeError(f"it lacks {name}")
    return tensors[name]


def _check_state(loaded: Any) -> dict[str, Tensor]:
    """`loaded`, if it is tensors by name and of a size that may be turned into float32."""
    if not isinstance(loaded, dict) or not loaded:
        raise ChallengeError("it holds no dictionary of tensors")
    for name, tensor in loaded.items():
        if not isinstance(name, str) or not isinstance(tensor, Tensor):
            raise ChallengeError(f"its entry {name!r} is no named tensor")
    # A stored tensor may be an expanded view that is far larger than its bytes.
    if sum(tensor.numel() for tensor in loaded.values()) > MAX_ELEMENTS:
        raise ChallengeError(f"it claims more than {MAX_ELEMENTS:,} weights")
    return {
        name: tensor.float() if tensor.is_floating_point() else tensor
        for name, tensor in loaded.items()
    }


def _load_plain(content: bytes) -> Any:
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            _check_archive(archive, len(content))
    except ChallengeError:
        raise
    except (*DAMAGE, RuntimeError) as error:
        raise ChallengeError(f"it is truncated or damaged ({error})") from error
    try:
        return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load documents no set of errors; a hostile file picks one
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise ChallengeError(
            f"it holds no plain tensors, and nothing else is ever loaded ({reason[0]})"
        ) from error


def _check_archive(archive: zipfile.ZipFile, size_bytes: int) -> None:
    records = archive.infolist()
    if any(record.compress_type != zipfile.ZIP_STORED for record in records):
        raise ChallengeError("its archive is compressed, which torch.save never does")
    if sum(record.file_size for record in records) > size_bytes:
        raise ChallengeError("its archive claims more bytes than it has")
    damaged = archive.testzip()
    if damaged is not None:
        raise ChallengeError(f"it is damaged: {damaged} does not have its checksum")


def _decompress(content: bytes) -> bytes:
    """The plain bytes of a zstd, lzma or zlib file, at most `MAX_BYTES` of them."""
    try:
        if content.startswith(ZSTD_MAGIC):
            plain = _read_bounded(zstandard.ZstdDecompressor().stream_reader(content).read)
            complete = zstandard.frame_content_size(content) in (-1, len(plain))
        else:
            stream = (
                lzma.LZMADecompressor(memlimit=MAX_BYTES)
                if content.startswith(LZMA_MAGIC)
                else zlib.decompressobj()
            )
            plain = stream.decompress(content, MAX_BYTES + 1)
            complete = stream.eof
    except (zstandard.ZstdError, lzma.LZMAError, zlib.error) as error:
        raise ChallengeError(f"it does not decompress ({error})") from error
    if len(plain) > MAX_BYTES:
        raise ChallengeError(f"it decompresses to more than {MAX_BYTES:,} bytes")
    if not complete:
        raise ChallengeError("it is truncated")
    if not plain.startswith(ZIP_MAGIC):
        raise ChallengeError("it holds no torch.save archive")
    return plain


def _read_bounded(read: Callable[[int], bytes]) -> bytes:
    chunks, size_bytes = [], 0
    while size_bytes <= MAX_BYTES and (chunk := read(_CHUNK_BYTES)):
        chunks.append(chunk)
        size_bytes += len(chunk)
    return b"".join(chunks)
