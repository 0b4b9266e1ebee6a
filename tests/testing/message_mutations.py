# SPDX-License-Identifier: GPL-3.0-or-later
"""Generator of malformed and valid messages, reproducible by a seed."""

from __future__ import annotations

import math
import random
import struct
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import msgpack
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from dreamwright.shared import limits
from dreamwright.shared.codec import pack
from dreamwright.shared.messages import MESSAGES
from tests.testing.message_strategies import PATHS, REQUESTS, TEXTS, valid

HEADS = (
    b"\xdd\xff\xff\xff\xff",
    b"\xdf\xff\xff\xff\xff",
    b"\xc6\xff\xff\xff\xff",
    b"\xdb\xff\xff\xff\xff",
    b"\xc9\xff\xff\xff\xff\x01",
    b"\xdc\xff\xff",
    b"\xde\xff\xff",
    b"\xd9\xff",
    b"\xc1",
    b"\xd6\xff\0\0\0\0",
    b"\xc7\x0c\xff" + bytes(12),
)
BAD_TEXT = (
    b"\xa3\xff\xfe\xfd",
    b"\xa3\xed\xa0\x80",
    b"\xa2\xc0\x80",
    b"\xa4\xf8\x88\x80\x80",
)  # not UTF-8, a surrogate, overlong, five bytes
NASTY: tuple[Any, ...] = (
    None,
    True,
    False,
    0,
    -1,
    1,
    2**31,
    2**53,
    2**53 + 1,
    2**63 - 1,
    -(2**63),
    2**64 - 1,
    0.5,
    math.nan,
    math.inf,
    -math.inf,
    1e308,
    5e-324,
    "",
    "\0",
    "x" * 41,
    "x" * 1001,
    "x" * 30_000,
    b"",
    b"\xff" * 200,
    b"\0" * 30_000,
    [],
    {},
    [1] * 5000,
    {str(n): n for n in range(300)},
    msgpack.ExtType(5, b"x"),
    msgpack.Timestamp(1, 1),
    *[t for w, t in TEXTS.items() if w != "lone surrogate"],
    *PATHS,
)


def nested(depth: int, in_maps: bool = False) -> bytes:
    """msgpack of nested lists or maps."""
    return b"\x81\xa1a" * depth + b"\xc0" if in_maps else b"\x91" * depth + b"\xc0"


class Raw(bytes):
    """Raw msgpack bytes inside a structure."""


def packed(value: Any) -> bytes:
    """msgpack of a structure that may hold `Raw` parts, lists of (key, value) pairs as maps with doubles, and any
    key.
    """
    if isinstance(value, Raw):
        return bytes(value)
    if isinstance(value, Pairs):
        return struct.pack(">BI", 0xDF, len(value)) + b"".join(packed(key) + packed(item) for key, item in value)
    if isinstance(value, dict):
        return packed(Pairs(value.items()))
    if isinstance(value, list):
        return struct.pack(">BI", 0xDD, len(value)) + b"".join(map(packed, value))
    return msgpack.packb(value, use_bin_type=True, strict_types=False)


class Pairs(list):
    """A map as pairs, so that a key may be repeated."""


class MessageMutations:
    """An endless source of requests. `names` are existing jobs, so that some requests are valid."""

    def __init__(
        self,
        rng: random.Random,
        kinds: Sequence[str] = REQUESTS,
        limit: int = limits.REQUEST_BYTES,
        prompts: Sequence[str] = ("a red mushroom", "a blue chair"),
    ) -> None:
        self._rng, self._kinds, self._limit, self._prompts = rng, kinds, limit, prompts
        self.names: list[str] = ["f" * 16]
        self._ways: tuple[tuple[str, Callable[[], bytes]], ...] = (
            ("valid", self.right),
            ("bits", self._bits),
            ("cut", self._cut),
            ("trailing", self._trailing),
            ("splice", self._splice),
            ("length", self._length),
            ("shuffled", self._shuffled),
            ("nasty value", self._nasty),
            ("keys", self._keys),
            ("envelope", self._envelope),
            ("deep", self._deep),
            ("text", self._bad_text),
            ("noise", self._noise),
        )
        self._weights = (3, 14, 6, 4, 6, 10, 4, 20, 8, 8, 4, 4, 9)

    def draw(self) -> tuple[str, bytes]:
        """(kind of mutation, bytes)."""
        way, make = self._rng.choices(self._ways, self._weights)[0]
        return way, make()[: self._limit]

    def right(self, kind: str = "") -> bytes:
        """A valid message of a uniformly drawn type, mostly with existing job ids."""
        return packed(self._plain(kind))

    def _plain(self, kind: str = "") -> dict[str, Any]:
        kind = kind or self._rng.choice(self._kinds)
        envelope = msgpack.unpackb(
            pack(valid(MESSAGES[kind], self._rng), self._rng.randint(1, 10**6)), strict_map_key=False
        )
        body = envelope["body"]
        if isinstance(body.get("job"), str) and self._rng.random() < 0.8:
            body["job"] = self._rng.choice(self.names)
        if kind == "SubmitJob":  # few tickets, so that few of them are new jobs
            chosen = {
                "ticket": f"t{self._rng.randint(0, 39)}",
                "prompt": self._rng.choice(self._prompts),
                "negative": "",
                "model": "starter",
                "preset": "draft",
                "settings": {},
                "parent_job": "",
                "mesh": "",
                "priority": -self._rng.randint(0, 3),
            }
            body.update({name: value for name, value in chosen.items() if self._rng.random() < 0.97})
        if kind == "DeleteJob" and self._rng.random() < 0.7:
            body["job"] = "f" * 16  # or no jobs would be left
        return envelope

    def _bits(self) -> bytes:
        data = bytearray(self.right())
        for _ in range(self._rng.randint(1, 8)):
            data[self._rng.randrange(len(data))] ^= 1 << self._rng.randrange(8)
        return bytes(data)

    def _cut(self) -> bytes:
        data = self.right()
        return data[: self._rng.randrange(len(data))]

    def _trailing(self) -> bytes:
        return self.right() + self._rng.choice([b"\0", b"\xc0", self._rng.randbytes(30), self.right(), b"x" * 40_000])

    def _splice(self) -> bytes:
        one, other = self.right(), self.right()
        return one[: self._rng.randrange(len(one))] + other[self._rng.randrange(len(other)) :]

    def _length(self) -> bytes:
        data = self.right()
        at = self._rng.randrange(len(data))
        return data[:at] + self._rng.choice(HEADS) + data[at + self._rng.randint(0, 5) :]

    def _shuffled(self) -> bytes:
        data = self.right()
        cuts = sorted(self._rng.randrange(len(data) + 1) for _ in range(3))
        parts = [data[a:b] for a, b in zip([0, *cuts], [*cuts, len(data)], strict=False)]
        self._rng.shuffle(parts)
        return b"".join(parts) * self._rng.choice([1, 1, 1, 2, 50])

    def _nasty(self) -> bytes:
        envelope = self._plain()
        places = [(envelope, key) for key in envelope] + _places(envelope["body"]) * 4
        holder, key = self._rng.choice(places)
        holder[key] = self._rng.choice(NASTY)
        return packed(envelope)

    def _keys(self) -> bytes:
        envelope = self._plain()
        pairs = Pairs(envelope["body"].items())
        odd = self._rng.choice(
            ["extra", 5, None, True, b"job", 1.5, Raw(b"\x91\x01"), "", "job", "__class__", "x" * 5000, Raw(HEADS[0])]
        )
        choice = self._rng.randrange(4)
        if choice == 0 or not pairs:
            pairs.append((odd, self._rng.choice(NASTY)))
        elif choice == 1:
            pairs.pop(self._rng.randrange(len(pairs)))
        elif choice == 2:
            pairs += self._rng.choices(pairs, k=self._rng.choice([1, 2, 400]))
        else:
            at = self._rng.randrange(len(pairs))
            pairs[at] = (odd, pairs[at][1])
        outer = Pairs({**envelope, "body": pairs}.items())
        if self._rng.random() < 0.3:
            outer.append(self._rng.choice(outer))
        return packed(outer)

    def _envelope(self) -> bytes:
        envelope = self._plain()
        key = self._rng.choice([*envelope])
        values = {
            "version": (0, 1, 3, "\0", "new", [[]] * 9, 2.0, True, 2**64 - 1),
            "id": (-1, 2**53 + 1, True, 1.0, "7", None),
            "type": ("", "Explode", "Welcome", "JobChanged", "submit", 5, [], "\0", "x" * 9000),
            "body": (None, [], 5, "x"),
        }
        envelope[key] = self._rng.choice([*values[key], *NASTY])
        if self._rng.random() < 0.1:
            del envelope[key]
        return packed(envelope)

    def _deep(self) -> bytes:
        depth, in_maps = (
            self._rng.choice([10, 400, 900, 990, 1010, 1020, 1023, 1024, 2000, 20_000, 100_000]),
            self._rng.random() < 0.4,
        )
        deep = Raw(nested(depth, in_maps))
        if self._rng.random() < 0.3:
            return deep
        envelope = self._plain()
        holder, key = self._rng.choice([(envelope, key) for key in envelope] + _places(envelope["body"]) * 3)
        holder[key] = deep
        return packed(envelope)

    def _bad_text(self) -> bytes:
        envelope = self._plain()
        holder, key = self._rng.choice([(envelope, key) for key in envelope] + _places(envelope["body"]) * 3)
        holder[key] = Raw(self._rng.choice(BAD_TEXT))
        return packed(envelope)

    def _noise(self) -> bytes:
        return self._rng.randbytes(self._rng.choice([0, 1, 2, 5, 30, 300, 5000]))


def _places(value: Any) -> list[tuple[Any, Any]]:
    """(holder, key) of everything inside a structure."""
    keys: Iterator[Any] = iter(
        value.keys() if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    )
    found = []
    for key in keys:
        found.append((value, key))
        found += _places(value[key])
    return found


PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | st.text(max_size=20)
    | st.binary(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8) | st.binary(max_size=4), inner, max_size=4)
    ),
    max_leaves=12,
)


def structures(kinds: Sequence[str]) -> st.SearchStrategy[bytes]:
    """msgpack of envelopes whose body has the right fields, each holding anything."""

    def of(kind: str) -> st.SearchStrategy[Any]:
        fields = list(MESSAGES[kind].__dataclass_fields__)
        body = (
            PLAIN
            | st.fixed_dictionaries(dict.fromkeys(fields, PLAIN))
            | st.dictionaries(st.sampled_from([*fields, "x"]), PLAIN)
        )
        return st.fixed_dictionaries(
            {
                "version": st.just(limits.PROTOCOL_VERSION) | PLAIN,
                "id": st.integers(0, 99) | PLAIN,
                "type": st.just(kind),
                "body": body,
            }
        )

    return st.sampled_from(list(kinds)).flatmap(of).map(msgpack.packb)


def drawn(count: int, number: int, kinds: Sequence[str] = REQUESTS) -> list[bytes]:
    """A number of hypothesis examples of `structures`, by a seed."""
    found: list[bytes] = []

    @seed(number)
    @settings(
        max_examples=count,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
        derandomize=False,
    )
    @given(structures(kinds))
    def collect(data: bytes) -> None:
        found.append(data)

    collect()
    return found
