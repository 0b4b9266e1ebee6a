# SPDX-License-Identifier: GPL-3.0-or-later
"""Checks for the fields of a message, declared beside each field: `steps: int = whole(1, 100)`.

A dataclass whose fields carry such checks goes to and from plain maps with `to_map` and `from_map`; unknown, missing
or out-of-range fields raise ProtocolError. Both sides check: a message that cannot be read was never sent.
"""

from __future__ import annotations

import dataclasses
import math
import reprlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from . import limits
from .errors import ProtocolError

Check = Callable[[str, Any], Any]  # (field's name, plain value) -> value; raises ProtocolError
_Record = TypeVar("_Record")
_CHECK, _RULE = "check", "rule"


@dataclasses.dataclass(frozen=True)
class FieldRule:
    """What a field may hold, as data: for tests that must not forget one, and whoever wants to tell the bounds."""

    kind: str  # the name of the function below that declared it
    low: float = 0
    high: float = 0  # of a number, or the most characters, bytes or items
    allowed: tuple[str, ...] = ()  # of `one_of`
    of: type[Any] | None = None  # of `record` and `several`


def rule_of(field: dataclasses.Field[Any]) -> FieldRule:
    """The rule that a field was declared with."""
    return field.metadata[_RULE]


def _declare(
    check: Check,
    default: Any,
    kind: str,
    low: float = 0,
    high: float = 0,
    allowed: tuple[str, ...] = (),
    of: Any = None,
) -> Any:
    return dataclasses.field(default=default, metadata={_CHECK: check, _RULE: FieldRule(kind, low, high, allowed, of)})


def short_repr(value: Any) -> str:
    """A value from outside in at most 80 printable characters, however long or deep it is."""
    short = reprlib.Repr()
    short.maxlevel, short.maxstring, short.maxother = (
        2,
        78,
        78,
    )  # Python's own repr of a thousand nested lists raises RecursionError
    given = short.repr(value)
    return given if len(given) < 80 else given[:77] + "..."


def _refuse(name: str, value: Any, allowed: str) -> ProtocolError:
    return ProtocolError(f"{name} is {short_repr(value)}; allowed is {allowed}")


def _is_text(value: Any, limit: int) -> bool:
    """Text that disks, databases and Blender can hold: short enough, no NUL, no half of a surrogate pair."""
    if not isinstance(value, str) or len(value) > limit or "\0" in value:
        return False
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def text(limit: int, default: Any = dataclasses.MISSING) -> Any:
    """A string of at most `limit` characters of Unicode without NUL."""

    def check(name: str, value: Any) -> str:
        if not _is_text(value, limit):
            raise _refuse(name, value, f"text of at most {limit} characters, valid Unicode without NUL")
        return value

    return _declare(check, default, "text", 0, limit)


def enum(*allowed: str, default: Any = dataclasses.MISSING) -> Any:
    """One of a few words."""

    def check(name: str, value: Any) -> str:
        if not isinstance(value, str) or value not in allowed:
            raise _refuse(name, value, f"one of {', '.join(allowed)}")
        return value

    return _declare(check, default, "enum", allowed=allowed)


def integer(low: int, high: int, default: Any = dataclasses.MISSING) -> Any:
    """An integer, bounds included."""

    def check(name: str, value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise _refuse(name, value, f"a whole number from {low} to {high}")
        return value

    return _declare(check, default, "integer", low, high)


def number(low: float, high: float, default: Any = dataclasses.MISSING) -> Any:
    """A finite number, bounds included."""

    def check(name: str, value: Any) -> float:
        is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if not is_number or not low <= value <= high:  # which a NaN is not either
            raise _refuse(name, value, f"a number from {low:g} to {high:g}")
        return float(value)

    return _declare(check, default, "number", low, high)


def boolean(default: Any = dataclasses.MISSING) -> Any:
    """True or false."""

    def check(name: str, value: Any) -> bool:
        if not isinstance(value, bool):
            raise _refuse(name, value, "true or false")
        return value

    return _declare(check, default, "boolean")


def binary(limit: int, default: Any = dataclasses.MISSING) -> Any:
    """Bytes, at most `limit`."""

    def check(name: str, value: Any) -> bytes:
        if not isinstance(value, bytes) or len(value) > limit:
            raise _refuse(name, type(value).__name__, f"at most {limit} bytes")
        return value

    return _declare(check, default, "binary", 0, limit)


def scalar_map(limit: int, default: Any = dataclasses.MISSING) -> Any:
    """A map from names to text, finite numbers or booleans, at most `limit` of them."""

    def check(name: str, value: Any) -> dict[str, Any]:
        if not isinstance(value, Mapping) or len(value) > limit:
            raise _refuse(name, value, f"a map of at most {limit} settings")
        for key, item in value.items():
            if not _is_text(key, limits.NAME_CHARACTERS):
                raise _refuse(f"a name in {name}", key, f"text of at most {limits.NAME_CHARACTERS} characters")
            # A whole number beyond LARGEST would arrive as another one where numbers are doubles.
            fine = (
                -limits.LARGEST <= item <= limits.LARGEST
                if isinstance(item, int)
                else isinstance(item, float) and math.isfinite(item)
            )
            if not fine and not _is_text(item, limits.VALUE_CHARACTERS):
                allowed = f"text of at most {limits.VALUE_CHARACTERS} characters, a finite number (whole ones to {limits.LARGEST}), true or false"
                raise _refuse(f"{name}.{key}", item, allowed)
        return dict(value)

    return _declare(check, default, "scalar_map", 0, limit)


def record(kind: type[Any], default: Any = dataclasses.MISSING) -> Any:
    """Another dataclass of checked fields."""
    return _declare(
        lambda name, value: value if isinstance(value, kind) else from_map(kind, value, name),
        default,
        "record",
        of=kind,
    )


def list_of(kind: type[Any], limit: int, default: Any = dataclasses.MISSING) -> Any:
    """A tuple of at most `limit` records."""

    def check(name: str, value: Any) -> tuple[Any, ...]:
        if not isinstance(value, (list, tuple)) or len(value) > limit:
            raise _refuse(name, type(value).__name__, f"a list of at most {limit}")
        return tuple(
            item if isinstance(item, kind) else from_map(kind, item, f"{name}[{index}]")
            for index, item in enumerate(value)
        )

    return _declare(check, default, "list_of", 0, limit, of=kind)


def text_list(limit: int, default: Any = dataclasses.MISSING) -> Any:
    """A tuple of at most `limit` short texts."""

    def check(name: str, value: Any) -> tuple[str, ...]:
        if not isinstance(value, (list, tuple)) or len(value) > limit:
            raise _refuse(name, type(value).__name__, f"a list of at most {limit} texts")
        for item in value:
            if not _is_text(item, limits.VALUE_CHARACTERS):
                raise _refuse(name, item, f"texts of at most {limits.VALUE_CHARACTERS} characters")
        return tuple(value)

    return _declare(check, default, "text_list", 0, limit)


def validate(value: _Record) -> _Record:
    """The record itself when every field passes its check. Raises ProtocolError."""
    for field in dataclasses.fields(value):  # type: ignore[arg-type]
        field.metadata[_CHECK](f"{type(value).__name__}.{field.name}", getattr(value, field.name))
    return value


def to_map(value: Any) -> dict[str, Any]:
    """A checked record as plain maps, lists, texts, numbers and bytes. Raises ProtocolError."""
    validate(value)
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
