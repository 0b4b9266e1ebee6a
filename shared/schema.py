# SPDX-License-Identifier: GPL-3.0-or-later
"""Field validation for messages, declared beside each field: `steps: int = integer(1, 100)`.

Dataclasses of such fields are converted to and from plain maps with `to_map` and `from_map`. Unknown, missing and
out-of-range fields raise ProtocolError. Both sides validate, so an invalid message is never sent.
"""

from __future__ import annotations

import dataclasses
import math
import reprlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from . import limits
from .errors import ProtocolError
from .numbers import number_text

Check = Callable[[str, Any], Any]  # (field's name, plain value) -> value; raises ProtocolError
_Record = TypeVar("_Record")
_CHECK, _RULE = "check", "rule"


@dataclasses.dataclass(frozen=True)
class FieldRule:
    """The constraint of a field as data, for tests that cover all fields, and for reporting the bounds."""

    kind: str  # name of the function below that declared it
    low: float = 0
    high: float = 0  # of a number; or most characters, bytes or items
    allowed: tuple[str, ...] = ()  # of `enum`
    of: type[Any] | None = None  # of `record` and `list_of`


def rule_of(field: dataclasses.Field[Any]) -> FieldRule:
    """The constraint that a field was declared with."""
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
    """repr() of an untrusted value, in at most 80 characters, for any length and depth."""
    short = reprlib.Repr()
    # repr() of a thousand nested lists raises RecursionError.
    short.maxlevel, short.maxstring, short.maxother = 2, 78, 78
    given = short.repr(value)
    return given if len(given) < 80 else given[:77] + "..."


def _field_error(name: str, value: Any, allowed: str) -> ProtocolError:
    return ProtocolError(f"{name} is {short_repr(value)}; allowed is {allowed}")


def _is_text(value: Any, limit: int) -> bool:
    """Whether files, databases and Blender can store the text: short enough, no NUL, no lone surrogate."""
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
            raise _field_error(name, value, f"text of at most {limit} characters, valid Unicode without NUL")
        return value

    return _declare(check, default, "text", 0, limit)


def enum(*allowed: str, default: Any = dataclasses.MISSING) -> Any:
    """One of the given strings."""

    def check(name: str, value: Any) -> str:
        if not isinstance(value, str) or value not in allowed:
            raise _field_error(name, value, f"one of {', '.join(allowed)}")
        return value

    return _declare(check, default, "enum", allowed=allowed)


def integer(low: int, high: int, default: Any = dataclasses.MISSING) -> Any:
    """An integer, bounds included."""

    def check(name: str, value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise _field_error(name, value, f"a whole number from {low} to {high}")
        return value

    return _declare(check, default, "integer", low, high)


def number(low: float, high: float, default: Any = dataclasses.MISSING) -> Any:
    """A finite number, bounds included."""

    def check(name: str, value: Any) -> float:
        is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if not is_number or not low <= value <= high:  # also false for NaN
            raise _field_error(name, value, f"a number from {number_text(low)} to {number_text(high)}")
        return float(value)

    return _declare(check, default, "number", low, high)


def boolean(default: Any = dataclasses.MISSING) -> Any:
    """True or false."""

    def check(name: str, value: Any) -> bool:
        if not isinstance(value, bool):
            raise _field_error(name, value, "true or false")
        return value

    return _declare(check, default, "boolean")


def binary(limit: int, default: Any = dataclasses.MISSING) -> Any:
    """Bytes, at most `limit`."""

    def check(name: str, value: Any) -> bytes:
        if not isinstance(value, bytes) or len(value) > limit:
            raise _field_error(name, type(value).__name__, f"at most {limit} bytes")
        return value

    return _declare(check, default, "binary", 0, limit)


def scalar_map(limit: int, default: Any = dataclasses.MISSING) -> Any:
    """A map from names to text, finite numbers or booleans, at most `limit` of them."""

    def check(name: str, value: Any) -> dict[str, Any]:
        if not isinstance(value, Mapping) or len(value) > limit:
            raise _field_error(name, value, f"a map of at most {limit} settings")
        for key, item in value.items():
            if not _is_text(key, limits.NAME_CHARACTERS):
                raise _field_error(f"a name in {name}", key, f"text of at most {limits.NAME_CHARACTERS} characters")
            # Integers beyond LARGEST are not exact as doubles.
            fine = (
                -limits.LARGEST <= item <= limits.LARGEST
                if isinstance(item, int)
                else isinstance(item, float) and math.isfinite(item)
            )
            if not fine and not _is_text(item, limits.VALUE_CHARACTERS):
                allowed = (
                    f"text of at most {limits.VALUE_CHARACTERS} characters, a finite number (whole numbers up to "
                    f"{limits.LARGEST}), true or false"
                )
                raise _field_error(f"{name}.{key}", item, allowed)
        return dict(value)

    return _declare(check, default, "scalar_map", 0, limit)


def record(kind: type[Any], default: Any = dataclasses.MISSING) -> Any:
    """A nested dataclass of validated fields."""
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
            raise _field_error(name, type(value).__name__, f"a list of at most {limit}")
        return tuple(
            item if isinstance(item, kind) else from_map(kind, item, f"{name}[{index}]")
            for index, item in enumerate(value)
        )

    return _declare(check, default, "list_of", 0, limit, of=kind)


def text_list(limit: int, default: Any = dataclasses.MISSING) -> Any:
    """A tuple of at most `limit` texts of at most VALUE_CHARACTERS each."""

    def check(name: str, value: Any) -> tuple[str, ...]:
        if not isinstance(value, (list, tuple)) or len(value) > limit:
            raise _field_error(name, type(value).__name__, f"a list of at most {limit} texts")
        for item in value:
            if not _is_text(item, limits.VALUE_CHARACTERS):
                raise _field_error(name, item, f"texts of at most {limits.VALUE_CHARACTERS} characters")
        return tuple(value)

    return _declare(check, default, "text_list", 0, limit)


def validate(value: _Record) -> _Record:
    """Return the record when all fields are valid. Raises ProtocolError."""
    for field in dataclasses.fields(value):  # type: ignore[arg-type]
        field.metadata[_CHECK](f"{type(value).__name__}.{field.name}", getattr(value, field.name))
    return value


def to_map(value: Any) -> dict[str, Any]:
    """Convert a record to plain maps, lists, texts, numbers and bytes, after validation. Raises ProtocolError."""
    validate(value)
    return {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        return to_map(value)
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value


def from_map(kind: type[_Record], value: Any, name: str | None = None) -> _Record:
    """Convert a plain map to a record. Raises ProtocolError unless it has exactly the record's fields, all valid."""
    name = name or kind.__name__
    if not isinstance(value, Mapping):
        raise _field_error(name, value, "a map")
    fields: Sequence[dataclasses.Field[Any]] = dataclasses.fields(kind)  # type: ignore[arg-type]
    unknown = [key for key in value if key not in {field.name for field in fields}]
    if unknown:
        raise _field_error(
            f"a field of {name}", unknown[0], f"one of {', '.join(field.name for field in fields) or 'none'}"
        )
    made = {}
    for field in fields:
        if field.name in value:
            made[field.name] = field.metadata[_CHECK](f"{name}.{field.name}", value[field.name])
        elif field.default is dataclasses.MISSING:
            raise ProtocolError(f"{name} has no {field.name}; it is required")
    return kind(**made)
