"""What an artifact says of itself: settings, and name, scheme and shape of each tensor.

`parse_header` takes nothing on trust: names are short, unique and in order, schemes known, shapes
possible and together within `MAX_ELEMENTS`, so that whoever allocates by them is safe.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from math import prod
from typing import Any

from golf.quantize.gptq_lite import INTEGERS, SCHEMES, Scheme
from golf.records import RunError

MAX_HEADER_BYTES = 1 << 20
MAX_ELEMENTS = 1 << 28
"""Weights in one artifact, ten times the record model's; bounds what reading may allocate."""
MAX_AXES = 8
MAX_NAME = 256


class ArtifactError(RunError):
    """A file that is no artifact, or a truncated, damaged or lying one."""


@dataclass(frozen=True)
class Entry:
    """One tensor in the header."""

    name: str
    scheme: Scheme
    shape: tuple[int, ...]

    @property
    def numel(self) -> int:
        return prod(self.shape)

    @property
    def half_numel(self) -> int:
        """Numbers in the float16 frame: a matrix' steps, or all of a float16 tensor."""
        if self.scheme in INTEGERS:
            return self.shape[0]
        return self.numel if self.scheme == "float16" else 0


@dataclass(frozen=True)
class Header:
    """What an artifact says of itself."""

    settings: dict[str, Any]
    """`model` and `quantize`, sections of a job file."""
    entries: tuple[Entry, ...]
    frame_bytes: tuple[int, ...]
    """Compressed size of each frame, in order."""

    def to_json(self) -> bytes:
        """The bytes that `parse_header` reads."""
        content = {
            **self.settings,
            "tensors": [[entry.name, entry.scheme, entry.shape] for entry in self.entries],
            "frames": self.frame_bytes,
        }
        text = json.dumps(content, separators=(",", ":"), sort_keys=True, allow_nan=False)
        return text.encode()

    def plain_bytes(self) -> list[int]:
        """Size of each frame when decompressed, which the shapes decide."""
        matrices = [entry.numel for entry in self.entries if entry.scheme in INTEGERS]
        halves = sum(entry.half_numel for entry in self.entries)
        floats = sum(entry.numel for entry in self.entries if entry.scheme == "float32")
        return [*matrices, 2 * halves, 4 * floats]

    def tensor_bytes(self) -> dict[str, int]:
        """Compressed bytes by tensor; tensors in a shared frame take part by their plain size."""
        *matrices, halves, floats = self.frame_bytes
        *_, plain_halves, plain_floats = self.plain_bytes()
        sizes = iter(matrices)
        shares = {}
        for entry in self.entries:
            share = 2 * entry.half_numel * halves / max(plain_halves, 1)
            if entry.scheme in INTEGERS:
                share += next(sizes)
            elif entry.scheme == "float32":
                share += 4 * entry.numel * floats / plain_floats
            shares[entry.name] = round(share)
        return shares


def parse_header(plain: bytes) -> Header:
    """Read and check the header's JSON.

    Raises:
        ArtifactError: it is malformed or claims what no artifact can hold.
    """
    try:
        content = json.loads(plain, parse_constant=_refuse_constant)
        tensors, frames = content.pop("tensors"), content.pop("frames")
        entries = tuple(_parse_entry(item) for item in tensors)
        if not all(type(size) is int and size > 0 for size in frames):
            raise ValueError("frame sizes must be positive whole numbers")
        header = Header(content, entries, tuple(frames))
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise ArtifactError(f"its header is malformed ({error})") from error
    names = [entry.name for entry in entries]
    if names != sorted(set(names)):
        raise ArtifactError("its header names tensors twice or out of order")
    if sum(entry.numel for entry in entries) > MAX_ELEMENTS:
        raise ArtifactError(f"its header claims more than {MAX_ELEMENTS:,} weights")
    return header


def _refuse_constant(text: str) -> None:
    raise ValueError(f"{text} is no number")


def _parse_entry(item: Any) -> Entry:
    name, scheme, shape = item
    if not (isinstance(name, str) and 0 < len(name) <= MAX_NAME and name.isprintable()):
        raise ValueError("a tensor's name must be a short printable text")
    if scheme not in SCHEMES:
        raise ValueError(f"{name} has the unknown scheme {scheme!r}")
    sizes_fit = all(type(size) is int and 1 <= size <= MAX_ELEMENTS for size in shape)
    if not (isinstance(shape, list) and len(shape) <= MAX_AXES and sizes_fit):
        raise ValueError(f"{name} has an impossible shape")
    if scheme in INTEGERS and len(shape) != 2:
        raise ValueError(f"{name} is {scheme} but no matrix")
    return Entry(name, scheme, tuple(shape))
