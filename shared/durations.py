# SPDX-License-Identifier: GPL-3.0-or-later
"""Estimated durations in words."""

from __future__ import annotations

TIME_RANGES = ("under a minute", "about {about} min", "about {about} h", "{first} to {last} min", "{first} to {last} h")


def time_range_template(low: float, high: float) -> tuple[str, dict[str, int]]:
    """One of TIME_RANGES for an estimated duration in seconds, and the numbers for its placeholders."""
    if high < 60:
        return TIME_RANGES[0], {}
    size, is_long = (60, 0) if high < 7200 else (3600, 1)
    first, last = max(1, round(low / size)), max(1, round(high / size))
    if high <= 1.3 * low or first == last:
        return TIME_RANGES[1 + is_long], {"about": max(1, round((low + high) / 2 / size))}
    return TIME_RANGES[3 + is_long], {"first": first, "last": last}


def time_range_text(low: float, high: float) -> str:
    """An estimated duration in seconds as text: "about 4 min", "10 to 15 min", "under a minute"."""
    template, values = time_range_template(low, high)
    return template.format(**values)
