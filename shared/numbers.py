# SPDX-License-Identifier: GPL-3.0-or-later
"""Numbers in messages."""

from __future__ import annotations

from typing import SupportsIndex


def number_text(value: float | SupportsIndex) -> str:
    """A number as text: whole numbers in full (2147483647, 1000000), others with at most 12 significant digits.

    `:g` keeps six digits, so it turns the largest seed into 2.14748e+09. NaN and infinities are "nan" and "inf".
    """
    if isinstance(value, SupportsIndex):  # Python's integers and numpy's
        return str(value.__index__())
    number = float(value)
    return str(int(number)) if number.is_integer() and abs(number) <= 1e15 else f"{number:.12g}"
