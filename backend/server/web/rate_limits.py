# SPDX-License-Identifier: GPL-3.0-or-later
"""Rate limits by client address: a token bucket each, for a bounded number of addresses."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

MOST_ADDRESSES = 4096  # remembered; a forgotten one starts with a full bucket, as after a pause


@dataclass(frozen=True)
class Rate:
    """So many requests at once, and so many a second after that."""

    burst: float
    per_s: float


REQUESTS = Rate(300.0, 60.0)  # a page that opens asks for its files and up to some tens of thumbnails
SIGN_INS = Rate(10.0, 0.1)  # links cannot be guessed; this only keeps them from being tried


class RateLimiter:
    """One rate for each address."""

    def __init__(self, rate: Rate, clock: Callable[[], float]) -> None:
        self._rate, self._clock = rate, clock
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()  # (requests left, time) by address

    def allows(self, address: str) -> bool:
        """Count a request; False when it is one too many."""
        now = self._clock()
        left, since = self._buckets.pop(address, (self._rate.burst, now))
        left = min(self._rate.burst, left + max(0.0, now - since) * self._rate.per_s)
        allowed = left >= 1.0
        self._buckets[address] = (left - 1.0 if allowed else left), now
        if len(self._buckets) > MOST_ADDRESSES:
            self._buckets.popitem(last=False)
        return allowed
