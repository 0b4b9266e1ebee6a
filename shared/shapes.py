# SPDX-License-Identifier: GPL-3.0-or-later
"""Checks for the fields of a message, declared beside each field: `steps: int = whole(1, 100)`.

A dataclass whose fields carry such checks goes to and from plain maps with `to_map` and `from_map`; unknown, missing
or out-of-range fields raise ProtocolError. Both sides check: a message that cannot be read was never sent.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any, Callable, Mapping, Sequence, TypeVar

from . import limits
from .faults import ProtocolError

Check = Callable[[str, Any], Any]  # (field's name, plain value) -> value; raises ProtocolError
_Record = TypeVar("_Record")
_CHECK = "check"


def _declare(check: Check, default: Any = dataclasses.MISSING) -> Any:
    return dataclasses.field(default=default, metadata={_CHECK: check})


def _refuse(name: str, value: Any, allowed: str) -> ProtocolError:
    given = repr(value)
    return ProtocolError(f"{name} is {given if len(given) < 80 else given[:77] + '...'}; allowed is {allowed}")


def text(limit: int, default: Any = dataclasses.MISSING) -> Any:
    """A string of at most `limit` characters without NUL."""

    def check(name: str, value: Any) -> str:
        if not isinstance(value, str) or len(value) > limit or "\0" in value:
            raise _refuse(name, value, f"text of at most {limit} characters")
        return value

    return _declare(check, default)


def one_of(*allowed: str, default: Any = dataclasses.MISSING) -> Any:
    """One of a few words."""

    def check(name: str, value: Any) -> str:
        if not isinstance(value, str) or value not in allowed:
            raise _refuse(name, value, f"one of {', '.join(allowed)}")
        return value

    return _declare(check, default)


def whole(low: int, high: int, default: Any = dataclasses.MISSING) -> Any:
    """An integer, bounds included."""

    def check(name: str, value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise _refuse(name, value, f"a whole number from {low} to {high}")
        return value

    return _declare(check, default)


def real(low: float, high: float, default: Any = dataclasses.MISSING) -> Any:
    """A finite number, bounds included."""

    def check(name: str, value: Any) -> float:
        is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if not is_number or not math.isfinite(value) or not low <= value <= high:
            raise _refuse(name, value, f"a number from {low:g} to {high:g}")
        return float(value)

    return _declare(check, default)


def flag(default: Any = dataclasses.MISSING) -> Any:
    """True or false."""

    def check(name: str, value: Any) -> bool:
        if not isinstance(value, bool):
            raise _refuse(name, value, "true or false")
        return value

    return _declare(check, default)


def raw(limit: int, default: Any = dataclasses.MISSING) -> Any:
    """Bytes, at most `limit`."""

    def check(name: str, value: Any) -> bytes:
        if not isinstance(value, bytes) or len(value) > limit:
            raise _refuse(name, type(value).__name__, f"at most {limit} bytes")
        return value

    return _declare(check, default)


def scalars(limit: int, default: Any = dataclasses.MISSING) -> Any:
    """A map from names to text, finite numbers or booleans, at most `limit` of them."""

    def check(name: str, value: Any) -> dict[str, Any]:
        if not isinstance(value, Mapping) or len(value) > limit:
            raise _refuse(name, value, f"a map of at most {limit} settings")
        for key, item in value.items():
            if not isinstance(key, str) or len(key) > limits.NAME_CHARACTERS:
                raise _refuse(f"a name in {name}", key, f"text of at most {limits.NAME_CHARACTERS} characters")
            fine = isinstance(item, (bool, int)) or (isinstance(item, float) and math.isfinite(item))
            if not fine and not (isinstance(item, str) and len(item) <= limits.VALUE_CHARACTERS):
                raise _refuse(f"{name}.{key}", item, "text, a finite number, true or false")
        return dict(value)

    return _declare(check, default)


def record(kind: type[Any], default: Any = dataclasses.MISSING) -> Any:
    """Another dataclass of checked fields."""
    return _declare(lambda name, value: value if isinstance(value, kind) else from_map(kind, value, name), default)


def several(kind: type[Any], limit: int, default: Any = dataclasses.MISSING) -> Any:
    """A tuple of at most `limit` records."""

    def check(name: str, value: Any) -> tuple[Any, ...]:
        if not isinstance(value, (list, tuple)) or len(value) > limit:
            raise _refuse(name, type(value).__name__, f"a list of at most {limit}")
        return tuple(
            item if isinstance(item, kind) else from_map(kind, item, f"{name}[{index}]") for index, item in enumerate(value)
        )

    return _declare(check, default)


def words(limit: int, default: Any = dataclasses.MISSING) -> Any:
    """A tuple of at most `limit` short texts."""

    def check(name: str, value: Any) -> tuple[str, ...]:
        if not isinstance(value, (list, tuple)) or len(value) > limit:
            raise _refuse(name, type(value).__name__, f"a list of at most {limit} texts")
        for item in value:
            if not isinstance(item, str) or len(item) > limits.VALUE_CHARACTERS:
                raise _refuse(name, item, f"texts of at most {limits.VALUE_CHARACTERS} characters")
        return tuple(value)

    return _declare(check, default)


def checked(value: _Record) -> _Record:
    """The record itself when every field passes its check. Raises ProtocolError."""
    for field in dataclasses.fields(value):  # type: ignore[arg-type]
        field.metadata[_CHECK](f"{type(value).__name__}.{field.name}", getattr(value, field.name))
    return value


def to_map(value: Any) -> dict[str, Any]:
    """A checked record as plain maps, lists, texts, numbers and bytes. Raises ProtocolError."""
    checked(value)
    return {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        return to_map(value)
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value


def from_map(kind: type[_Record], value: Any, name: str | None = None) -> _Record:
    """A record from a plain map. Raises ProtocolError for anything but exactly its fields."""
    name = name or kind.__name__
    if not isinstance(value, Mapping):
        raise _refuse(name, value, "a map")
    fields: Sequence[dataclasses.Field[Any]] = dataclasses.fields(kind)  # type: ignore[arg-type]
    unknown = [key for key in value if key not in {field.name for field in fields}]
    if unknown:
        raise _refuse(f"a field of {name}", unknown[0], f"one of {', '.join(field.name for field in fields) or 'none'}")
    made = {}
    for field in fields:
        if field.name in value:
            made[field.name] = field.metadata[_CHECK](f"{name}.{field.name}", value[field.name])
        elif field.default is dataclasses.MISSING:
            raise ProtocolError(f"{name} has no {field.name}; it must be given")
    return kind(**made)
