# SPDX-License-Identifier: GPL-3.0-or-later
"""Estimated durations in words."""

from __future__ import annotations


def time_range_text(low: float, high: float) -> str:
    """An estimated duration in seconds as text: "about 4 min", "10 to 15 min", "under a minute"."""
    if high < 60:
        return "under a minute"
    size, unit = (60, "min") if high < 7200 else (3600, "h")
    first, last = max(1, round(low / size)), max(1, round(high / size))
    if high <= 1.3 * low or first == last:
        return f"about {max(1, round((low + high) / 2 / size))} {unit}"
    return f"{first} to {last} {unit}"
