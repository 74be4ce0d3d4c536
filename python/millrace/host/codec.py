"""Frozen dataclasses to JSON and back, where the JSON may come from anybody.

What is 0, false, empty or None is left out and read back as such; a `Reading` that is missing is
`NotAvailable`, an optional value None. Reading checks every value against the type of its field,
bounds size and depth, and takes control characters out of texts, which would otherwise reach
somebody's terminal.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import re
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from millrace.host.unavailable import NotAvailable

T = TypeVar("T")

MAX_FILE_BYTES = 64 << 20
_MAX_NUMBER = 1 << 64
_MAX_TEXT = 1 << 16
_MARK = "not_available"

# C0 and C1 controls, and what turns the direction of writing (Unicode TR 36).
_UNPRINTABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")


class BadData(ValueError):
    """A file does not hold what it should; the message says where and what."""


def to_json(value: Any) -> Any:
    """What `json` can write, for a dataclass and all it holds."""
    if isinstance(value, NotAvailable):
        return {_MARK: value.why, "needs": value.needs} if value.needs else {_MARK: value.why}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        written = {}
        for name, kind in _fields(type(value)).items():
            item = getattr(value, name)
            if not _is_left_out(kind, item):
                written[name] = to_json(item)
        return written
    if isinstance(value, Mapping):
        return {str(key): to_json(item) for key, item in value.items()}
    if isinstance(value, tuple):
        return [to_json(item) for item in value]
    return value


def from_json(kind: type[T], value: Any) -> T:
    """The dataclass `kind` from what `json` read. Raises `BadData`."""
    result: T = _decode(kind, value, kind.__name__)
    return result


def load(path: str | Path, limit: int = MAX_FILE_BYTES) -> Any:
    """What is in a JSON file. Raises `BadData` for one that is too large, cut or no JSON."""
    with open(path, "rb") as file:
        data = file.read(limit + 1)
    if len(data) > limit:
        raise BadData(f"{path} is larger than {limit >> 20} MiB")
    return parse(data, str(path))


def parse(data: bytes | str, name: str) -> Any:
    """What a JSON text holds; `name` is for the message of `BadData`."""
    try:
        return json.loads(data, parse_constant=_refuse)
    except RecursionError:
        raise BadData(f"{name} is nested too deeply") from None
    except ValueError as error:  # also of UnicodeDecodeError and of a number with too many digits
        raise BadData(f"{name} is no whole JSON file: {error}") from None


def clean(text: str) -> str:
    """A text without characters that steer a terminal."""
    return _UNPRINTABLE.sub("\N{REPLACEMENT CHARACTER}", text)


def _refuse(name: str) -> float:
    raise ValueError(f"{name} is no number here")


@functools.cache
def _fields(kind: type) -> dict[str, Any]:
    hints = typing.get_type_hints(kind)
    return {field.name: hints[field.name] for field in dataclasses.fields(kind)}


def _is_left_out(kind: Any, item: Any) -> bool:
    if _is_reading(kind):
        return False
    if types.NoneType in typing.get_args(kind):
        return item is None
    return item in (0, "", ()) or item == {}


@functools.cache
def _is_reading(kind: Any) -> bool:
    return NotAvailable in typing.get_args(kind)


def _decode(kind: Any, value: Any, where: str) -> Any:
    scalar = _SCALARS.get(kind)
    if scalar is not None:
        return scalar(value, where)
    if dataclasses.is_dataclass(kind):
        return _decode_dataclass(typing.cast(type, kind), value, where)
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        return _decode_union(arguments, value, where)
    if origin is tuple:
        if not isinstance(value, list):
            raise BadData(f"{where} is no list")
        if arguments[-1] is Ellipsis:
            return tuple(_decode(arguments[0], item, where) for item in value)
        if len(value) != len(arguments):
            raise BadData(f"{where} has {len(value)} items, not {len(arguments)}")
        return tuple(map(_decode, arguments, value, [where] * len(value)))
    if origin is not None and issubclass(origin, Mapping):
        if not isinstance(value, dict):
            raise BadData(f"{where} is no object")
        return {
            _key(arguments[0], name, where): _decode(arguments[1], item, where)
            for name, item in value.items()
        }
    raise TypeError(f"{where} has type {kind}, which is not one that a file can hold")


def _decode_dataclass(kind: type, value: Any, where: str) -> Any:
    if not isinstance(value, dict):
        raise BadData(f"{where} is no object")
    arguments = {}
    for name, hint in _fields(kind).items():
        if name in value:
            arguments[name] = _decode(hint, value[name], f"{where}.{name}")
        else:
            arguments[name] = _missing(hint, f"{where}.{name}")
    return kind(**arguments)


def _decode_union(kinds: tuple[Any, ...], value: Any, where: str) -> Any:
    if NotAvailable in kinds and isinstance(value, dict) and _MARK in value:
        why, needs = value[_MARK], value.get("needs", "")
        return NotAvailable(_text(why, where), _text(needs, where))
    if value is None and types.NoneType in kinds:
        return None
    inner = [kind for kind in kinds if kind not in (NotAvailable, types.NoneType)]
    if len(inner) == 1:
        return _decode(inner[0], value, where)
    for kind in inner:
        try:
            return _decode(kind, value, where)
        except BadData:
            continue
    raise BadData(f"{where} has a value of a type that it cannot have")


def _missing(kind: Any, where: str) -> Any:
    if _is_reading(kind):
        return NotAvailable("not in this file")
    if types.NoneType in typing.get_args(kind):
        return None
    empty = {int: 0, float: 0.0, bool: False, str: ""}.get(kind)
    if empty is not None:
        return empty
    origin = typing.get_origin(kind)
    if origin is tuple:
        return ()
    if origin is not None and issubclass(origin, Mapping):
        return {}
    raise BadData(f"{where} is missing")


def _key(kind: Any, name: str, where: str) -> Any:
    if kind is not int:
        return _text(name, where)
    if not re.fullmatch(r"-?\d{1,19}", name):
        raise BadData(f"{where} has {name[:40]!r} where a number should be")
    return int(name)


def _text(value: Any, where: str) -> str:
    if not isinstance(value, str):
        raise BadData(f"{where} is no text")
    if len(value) > _MAX_TEXT:
        raise BadData(f"{where} is a text of {len(value)} characters")
    return clean(value)


def _int(value: Any, where: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or abs(value) >= _MAX_NUMBER:
        raise BadData(f"{where} is no whole number below 2^64")
    return value


def _float(value: Any, where: str) -> float:
    if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < _MAX_NUMBER:
        return float(value)
    raise BadData(f"{where} is no number below 2^64")


def _bool(value: Any, where: str) -> bool:
    if not isinstance(value, bool):
        raise BadData(f"{where} is neither true nor false")
    return value


_SCALARS: dict[Any, Any] = {str: _text, int: _int, float: _float, bool: _bool}
