# SPDX-License-Identifier: GPL-3.0-or-later
"""Values for message fields, generated from the declared rules, so that new fields are covered."""

from __future__ import annotations

import dataclasses
import math
import random
from collections.abc import Iterator
from typing import Any

from dreamwright.shared.messages import MESSAGES
from dreamwright.shared.schema import FieldRule, rule_of

REQUESTS = tuple(MESSAGES)[: tuple(MESSAGES).index("Welcome")]  # the table has them first
TEXTS = {
    "NUL": "a\0b",
    "lone surrogate": "a\ud800b",
    "right to left": "\u202eمصباح أحمر\u202c שולחן",
    "emoji": "🍄👩🏽‍🎨" * 3,
    "control": "a\x1b[31m\r\n\x7f",
}
PATHS = (
    "../../etc/passwd",
    "..",
    "/etc/passwd",
    "/",
    "/dev/zero",
    "/dev/stdin",
    "/proc/self/mem",
    "~",
    "~root/x",
    "~nobody-of-this-name/x",
    "C:\\Windows",
    "\\\\host\\share",
    "file:///etc/passwd",
    "a/../../b",
    ".",
    "con",
    "x" * 200,
)


def valid(kind: type[Any], rng: random.Random) -> Any:
    """A record with a valid value in each field."""
    return kind(**{field.name: valid_value(rule_of(field), rng) for field in dataclasses.fields(kind)})


def valid_value(rule: FieldRule, rng: random.Random) -> Any:
    """A valid value of a rule; short where the length is free."""
    if rule.kind == "text":
        return "".join(rng.choices("abc é漢🍄", k=rng.randint(0, min(12, int(rule.high)))))
    if rule.kind == "enum":
        return rng.choice(rule.allowed)
    if rule.kind == "integer":
        return rng.choice([int(rule.low), int(rule.high), rng.randint(int(rule.low), int(rule.high))])
    if rule.kind == "number":
        return rng.choice([float(rule.low), float(rule.high), rng.uniform(rule.low, rule.high)])
    if rule.kind == "boolean":
        return rng.random() < 0.5
    if rule.kind == "binary":
        return rng.randbytes(rng.randint(0, 40))
    if rule.kind == "scalar_map":
        return {f"a.{n}": rng.choice([1, 2.5, True, "x", -(2**53)]) for n in range(rng.randint(0, 3))}
    if rule.kind == "text_list":
        return tuple("w" * n for n in range(rng.randint(0, 3)))
    made = [valid(rule.of, rng) for _ in range(1 if rule.kind == "record" else rng.randint(0, 2))]
    return made[0] if rule.kind == "record" else tuple(made)


def probes(rule: FieldRule) -> Iterator[tuple[str, Any, bool]]:
    """(label, value, is allowed) at and beyond each bound of a rule, and of wrong types."""
    for words, value in (
        ("NaN", math.nan),
        ("inf", math.inf),
        ("-inf", -math.inf),
        ("1e308", 1e308),
        ("2**63", 2**63),
        ("none", None),
        ("a list", [1]),
        ("a map", {1: 2}),
        ("bytes", b"1"),
        ("2**70", 2**70),
    ):
        fine = rule.kind == "binary" and words == "bytes"
        is_list = rule.kind in ("list_of", "text_list") and words == "a list"
        yield words, [math.nan] if is_list else value, fine
    if rule.kind in ("integer", "number"):
        low, high, step = (
            rule.low,
            rule.high,
            1 if rule.kind == "integer" else max(abs(rule.high), abs(rule.low), 1.0) * 1e-9,
        )
        for words, value in (
            ("0", 0),
            ("-1", -1),
            ("min", low),
            ("min-1", low - step),
            ("max", high),
            ("max+1", high + step),
        ):
            yield words, value, low <= value <= high
        yield "a flag for a number", True, False
        yield "text for a number", str(low), False
        if rule.kind == "integer":
            yield "a fraction", low + 0.5, False
            yield "a whole number as a fraction", float(low), False
    elif rule.kind == "boolean":
        yield from (
            ("0", 0, False),
            ("1", 1, False),
            ("true as text", "true", False),
            ("true", True, True),
            ("false", False, True),
        )
    elif rule.kind == "text":
        limit = int(rule.high)
        for words, value in (
            ("no characters", ""),
            ("max", "x" * limit),
            ("max+1", "x" * (limit + 1)),
            ("max of 4 bytes each", "🍄" * limit),
        ):
            yield words, value, len(value) <= limit
        yield from (
            ("10 thousand characters", "x" * 10_000, limit >= 10_000),
            ("10 million characters", "x" * 10_000_000, False),
        )
        for words, value in TEXTS.items():
            yield words, value[:limit], words not in ("NUL", "lone surrogate")
        yield "a number for text", 7, False
    elif rule.kind == "enum":
        yield from ((f"{word!r}", word, True) for word in rule.allowed)
        last = rule.allowed[-1]  # the first may be "", which means unset
        wrong = ("", "x", last.upper(), last + "\0", 0, "../" + last)
        yield from ((f"{word!r}", word, False) for word in wrong if word not in rule.allowed)
    elif rule.kind == "binary":
        yield from (
            ("no bytes", b"", True),
            ("max", bytes(int(rule.high)), True),
            ("max+1", bytes(int(rule.high) + 1), False),
            ("text for bytes", "x", False),
        )
    elif rule.kind == "scalar_map":
        limit = int(rule.high)
        yield from (
            ("max", {str(n): n for n in range(limit)}, True),
            ("max+1", {str(n): n for n in range(limit + 1)}, False),
        )
        for words, value, fine in (
            ("NaN inside", math.nan, False),
            ("inf inside", math.inf, False),
            ("1e308 inside", 1e308, True),
            ("2**53 inside", 2**53, True),
            ("2**53+1 inside", 2**53 + 1, False),
            ("-2**53-1 inside", -(2**53) - 1, False),
            ("list inside", [1], False),
            ("none inside", None, False),
            ("map inside", {}, False),
            ("1001 characters inside", "x" * 1001, False),
            ("NUL inside", "\0", False),
            ("lone surrogate inside", "\ud800", False),
            ("flag inside", True, True),
        ):
            yield words, {"run.steps": value}, fine
        yield from (
            ("number as name", {5: 1}, False),
            ("name of 201", {"x" * 201: 1}, False),
            ("NUL in a name", {"\0": 1}, False),
        )
    elif rule.kind == "text_list":
        yield from (
            ("max", ["x"] * int(rule.high), True),
            ("max+1", ["x"] * (int(rule.high) + 1), False),
            ("a number in it", [1], False),
            ("long", ["x" * 1001], False),
        )
    elif rule.kind == "list_of":
        one = valid(rule.of, random.Random(1))
        yield from (
            ("max", [one] * int(rule.high), True),
            ("max+1", [one] * (int(rule.high) + 1), False),
            ("text in it", ["x"], False),
        )
    elif rule.kind == "record":
        yield from (("itself", valid(rule.of, random.Random(1)), True), ("empty", {}, False))
