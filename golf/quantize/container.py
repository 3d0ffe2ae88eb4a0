"""The artifact's bytes: a checked prefix, a header of names and shapes, and compressed frames.

1. Prefix, 60 bytes: magic, version, sizes of the packed and the plain header, size of the whole
   file, SHA-256 of everything else in the file.
2. Header, one zstd frame of JSON: settings of the model and of its quantization, name, scheme and
   shape of each tensor in the order of names, and the compressed size of each frame.
3. Frames, each zstd: one for the integers of each matrix, then one for all steps and float16
   tensors, then one for the float32 tensors. Frames follow each other without gaps, so a header
   cannot make them overlap; their plain sizes follow from the shapes.

Reading trusts nothing: every declared size is checked against the file and against `MAX_ELEMENTS`
before memory of that size is taken, and nothing in the file can be executed.

Layout, in compressed bytes at level 22 for a model of the record's shape with 4.68 bits of entropy
per int6 weight (random heavy-tailed matrices, own scales for rows, columns and layers):

    int6, one frame of all matrices       15,108,496   43 s on one core
    int6, one frame a matrix              15,120,171   13 s, shared by all cores
    int6, the same transposed             15,120,210
    int6, the same at level 1             15,101,364   0.1 s
    int8 in one frame / a frame each      789,366 / 789,620
    floats and steps as they are          241,545
    floats and steps, low bytes first     224,005

and for the matrices of two layers with strong scales of rows and columns (Student t, 4, 8 and 30
degrees of freedom; 3.4 to 3.7 bits a weight), where one frame cannot follow the changes:

    one frame, level 22                   2,202,753   2,022,260   2,062,060
    a frame a matrix, level 22            2,145,310   2,030,779   1,885,802
    the same transposed                   2,172,623   2,045,931   1,896,562
    the same at level 1                   2,184,481   2,088,778   1,979,623

So: a frame a matrix by rows, at the configured level or at level 1, whichever is smaller, and
16-bit numbers split in low and high bytes.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
import zstandard
from torch import Tensor

from golf.quantize.gptq_lite import INTEGERS, StoredTensor
from golf.quantize.header import MAX_HEADER_BYTES, ArtifactError, Entry, Header, parse_header

MAGIC = b"GOLFPACK"
VERSION = 1
_PREFIX = struct.Struct("<8sIIIQ")
_DIGEST_BYTES = 32


def encode(
    stored: Mapping[str, StoredTensor], settings: dict[str, Any], level: int
) -> tuple[bytes, Header]:
    """The whole file's bytes, equal for equal input whatever the order and number of cores."""
    names = sorted(stored)
    frames = _compress_all(_plain_frames([stored[name] for name in names]), level)
    header = Header(
        settings,
        tuple(Entry(n, stored[n].scheme, tuple(stored[n].values.shape)) for n in names),
        tuple(len(frame) for frame in frames),
    )
    plain = header.to_json()
    packed = _compress(plain, level)
    body = b"".join([packed, *frames])
    total = _PREFIX.size + _DIGEST_BYTES + len(body)
    prefix = _PREFIX.pack(MAGIC, VERSION, len(packed), len(plain), total)
    return prefix + hashlib.sha256(prefix + body).digest() + body, header


def decode(data: bytes) -> tuple[dict[str, StoredTensor], Header]:
    """The tensors and header of a file's bytes.

    Raises:
        ArtifactError: anything about them is not as `encode` would have written it.
    """
    packed_bytes, plain_bytes = _check_prefix(data)
    start = _PREFIX.size + _DIGEST_BYTES
    header = parse_header(_decompress(data[start : start + packed_bytes], plain_bytes, "header"))
    frames = _cut_frames(data[start + packed_bytes :], header)
    plain = [
        _decompress(frame, size, f"frame {index}")
        for index, (frame, size) in enumerate(zip(frames, header.plain_bytes(), strict=True))
    ]
    return _restore(plain, header.entries), header


def _plain_frames(tensors: Sequence[StoredTensor]) -> list[bytes]:
    halves, floats = b"", b""
    matrices = []
    for tensor in tensors:
        content = tensor.values.contiguous().numpy().tobytes()
        if tensor.steps is not None:
            matrices.append(content)
            halves += tensor.steps.contiguous().numpy().tobytes()
        elif tensor.scheme == "float16":
            halves += content
        else:
            floats += content
    return [*matrices, _split_planes(halves, 2), _split_planes(floats, 4)]


def _split_planes(content: bytes, itemsize: int) -> bytes:
    """All lowest bytes of the numbers first, then the next ones."""
    return np.frombuffer(content, np.uint8).reshape(-1, itemsize).T.tobytes()


def _join_planes(planes: bytes, dtype: type[np.floating[Any]]) -> Tensor:
    itemsize = np.dtype(dtype).itemsize
    content = np.frombuffer(planes, np.uint8).reshape(itemsize, -1).T.copy()
    return torch.from_numpy(content.view(dtype).reshape(-1))


def _compress(plain: bytes, level: int) -> bytes:
    """The smaller of the configured level and level 1, which is often better on noise."""
    candidates = [
        zstandard.ZstdCompressor(level=tried).compress(plain) for tried in dict.fromkeys((level, 1))
    ]
    return min(candidates, key=len)


def _compress_all(plain: Sequence[bytes], level: int) -> list[bytes]:
    # zstandard gives up the interpreter lock while it compresses.
    with ThreadPoolExecutor() as pool:
        return list(pool.map(lambda frame: _compress(frame, level), plain))


def _check_prefix(data: bytes) -> tuple[int, int]:
    """Sizes of the packed and the plain header, once the file is whole and unchanged."""
    if not data.startswith(MAGIC):
        raise ArtifactError("it is no artifact of this program (other first bytes)")
    start = _PREFIX.size + _DIGEST_BYTES
    if len(data) < start:
        raise ArtifactError(f"it is truncated: {len(data)} bytes, not even a whole prefix")
    _, version, packed_bytes, plain_bytes, total = _PREFIX.unpack_from(data)
    if version != VERSION:
        raise ArtifactError(f"its format is version {version}; this program reads {VERSION}")
    if len(data) != total:
        kind = "truncated" if len(data) < total else "followed by foreign bytes"
        raise ArtifactError(f"it is {kind}: {len(data):,} bytes where it says {total:,}")
    digest = hashlib.sha256(data[: _PREFIX.size])
    digest.update(memoryview(data)[start:])
    if digest.digest() != data[_PREFIX.size : start]:
        raise ArtifactError("it is damaged: its bytes do not have the SHA-256 it states")
    if packed_bytes > len(data) - start or plain_bytes > MAX_HEADER_BYTES:
        raise ArtifactError(
            f"its header claims {packed_bytes:,} bytes packed and {plain_bytes:,} plain; "
            f"{len(data) - start:,} are there and {MAX_HEADER_BYTES:,} allowed"
        )
    return packed_bytes, plain_bytes


def _decompress(frame: bytes, plain_bytes: int, what: str) -> bytes:
    """Exactly `plain_bytes` bytes; the frame's own claim is compared before they are allocated."""
    try:
        claimed = zstandard.frame_content_size(frame)
        if claimed != plain_bytes:
            raise ArtifactError(f"its {what} claims {claimed:,} bytes instead of {plain_bytes:,}")
        return zstandard.ZstdDecompressor().decompress(frame, allow_extra_data=False)
    except zstandard.ZstdError as error:
        raise ArtifactError(f"its {what} does not decompress ({error})") from error


def _cut_frames(body: bytes, header: Header) -> list[bytes]:
    wanted = len(header.plain_bytes())
    if len(header.frame_bytes) != wanted:
        raise ArtifactError(
            f"its header lists {len(header.frame_bytes)} frames instead of {wanted}"
        )
    if sum(header.frame_bytes) != len(body):
        claimed = sum(header.frame_bytes)
        raise ArtifactError(f"its frames claim {claimed:,} bytes, {len(body):,} are there")
    frames, start = [], 0
    for size in header.frame_bytes:
        frames.append(body[start : start + size])
        start += size
    return frames


def _restore(plain: list[bytes], entries: Sequence[Entry]) -> dict[str, StoredTensor]:
    *matrices, halves_plain, floats_plain = plain
    halves = _join_planes(halves_plain, np.float16)
    floats = _join_planes(floats_plain, np.float32)
    if not (torch.isfinite(halves).all() and torch.isfinite(floats).all()):
        raise ArtifactError("it holds NaN or infinite numbers")
    sizes = [entry.half_numel for entry in entries]
    parts = iter(torch.split(halves, sizes))
    integers = iter(matrices)
    stored, at = {}, 0
    for entry in entries:
        part = next(parts)
        if entry.scheme in INTEGERS:
            values = torch.from_numpy(np.frombuffer(next(integers), np.int8).copy())
            stored[entry.name] = StoredTensor(entry.scheme, values.view(entry.shape), part)
        elif entry.scheme == "float16":
            stored[entry.name] = StoredTensor(entry.scheme, part.view(entry.shape))
        else:
            values = floats[at : at + entry.numel]
            at += entry.numel
            stored[entry.name] = StoredTensor(entry.scheme, values.view(entry.shape))
    return stored
