"""Tables of TOML read strictly into dataclasses: unknown names, wrong types and values are errors.

Every error names the file, the key and what would be right.
"""

from __future__ import annotations

import difflib
import tomllib
import types
import typing
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar

T = TypeVar("T")


class ConfigError(ValueError):
    """A job file, override or mixture of settings that cannot be run; the text names the fix."""


def read_sections(path: Path, what: str) -> dict[str, Any]:
    """The tables of a TOML file; `what` names it in errors.

    Raises:
        ConfigError: the file is missing, unreadable or no TOML.
    """
    try:
        with path.open("rb") as file:
            return tomllib.load(file)
    except FileNotFoundError:
        raise ConfigError(f"{what} {path} does not exist") from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path} is no valid TOML: {error}") from error
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{what} {path} cannot be read: {error}") from error


def build_sections(cls: type[T], sections: Mapping[str, Any], where: str) -> T:
    """Build a dataclass of section dataclasses from tables; strict in names, types and values.

    Raises:
        ConfigError: it names the nearest right section or key.
    """
    known = typing.get_type_hints(cls)
    built = {}
    for name, value in sections.items():
        table = as_table(name, value, where)
        if name not in known:
            raise ConfigError(f"{where}: unknown section [{name}]{_nearest(name, known)}")
        built[name] = _build(known[name], name, table, where)
    return cls(**built)


def parse_override(text: str) -> tuple[str, str, Any]:
    """Split `section.key=value`; the value is read as TOML and else taken as a string.

    Raises:
        ConfigError: the text has another form.
    """
    target, equals, raw = text.partition("=")
    section, dot, key = target.strip().partition(".")
    if not (equals and dot and section and key):
        raise ConfigError(f"--set {text!r} must look like section.key=value, as in ttt.lr=0.001")
    try:
        value = tomllib.loads(f"value = {raw.strip()}")["value"]
    except tomllib.TOMLDecodeError:
        value = raw.strip()
    return section, key, value


def as_table(name: str, table: Any, where: str) -> dict[str, Any]:
    """`table` as a section, which a plain value outside all sections is not."""
    if not isinstance(table, Mapping):
        raise ConfigError(f"{where}: {name} stands outside a section; write [section] first")
    return dict(table)


def _nearest(name: str, known: Iterable[str]) -> str:
    known = list(known)
    match = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"; did you mean {match[0]}?" if match else f"; known: {', '.join(known)}"


def _build(cls: Any, section: str, table: Mapping[str, Any], where: str) -> Any:
    hints = typing.get_type_hints(cls)
    values = {}
    for key, value in table.items():
        if key not in hints:
            raise ConfigError(f"{where}: unknown key {section}.{key}{_nearest(key, hints)}")
        values[key] = _coerce(value, hints[key], f"{where}: {section}.{key}")
    try:
        return cls(**values)
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from None


def _coerce(value: Any, wanted: Any, where: str) -> Any:
    """`value` as the annotated type `wanted`; an int is a fine float, nothing else converts."""
    origin = typing.get_origin(wanted)
    if origin is Literal:
        choices = typing.get_args(wanted)
        if value not in choices:
            raise ConfigError(f"{where}={value!r} must be one of {', '.join(map(repr, choices))}")
        return value
    if origin is tuple:
        item = typing.get_args(wanted)[0]
        if not isinstance(value, (list, tuple)):
            raise ConfigError(f"{where}={value!r} must be a list")
        return tuple(_coerce(v, item, where) for v in value)
    if origin is dict:
        if not isinstance(value, Mapping):
            raise ConfigError(f"{where}={value!r} must be a table of strings")
        return {k: _coerce(v, str, f"{where}.{k}") for k, v in value.items()}
    assert not isinstance(wanted, types.UnionType), wanted
    if wanted is float and type(value) is int:
        value = float(value)
    if type(value) is not wanted or (wanted is float and not abs(value) < float("inf")):
        names = {
            int: "a whole number",
            float: "a finite number",
            str: "a string",
            bool: "a boolean",
        }
        raise ConfigError(f"{where}={value!r} must be {names[wanted]}")
    return value
