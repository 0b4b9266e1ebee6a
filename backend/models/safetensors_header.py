# SPDX-License-Identifier: GPL-3.0-or-later
"""A safetensors file's header, read and checked without its tensors and without torch.

The file is 8 bytes of length (little-endian), a JSON header of that length that gives each tensor's dtype, shape and
byte range, then the ranges, gapless (https://github.com/huggingface/safetensors#format).
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

LONGEST_HEADER = 100 * 2**20  # bytes; the format's own limit
BITS = {"BOOL": 8, "U8": 8, "I8": 8, "F8_E4M3": 8, "F8_E5M2": 8, "I16": 16, "U16": 16, "F16": 16, "BF16": 16} | {
    name: int(name[1:]) for name in ("I32", "U32", "F32", "I64", "U64", "F64")
}


def read_header(path: Path) -> dict[str, Any]:
    """The header's entries by tensor name, without `__metadata__`. Raises ValueError that says what is wrong."""
    return {name: entry for name, entry in _content(path).items() if name != "__metadata__"}


def read_metadata(path: Path) -> dict[str, str]:
    """The texts that the file states about itself, such as "modelspec.prediction_type"; {} for none.

    Raises ValueError as `read_header`.
    """
    stated = _content(path).get("__metadata__")
    return {str(name): str(text) for name, text in stated.items()} if isinstance(stated, dict) else {}


def _content(path: Path) -> dict[str, Any]:
    try:
        with open(path, "rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            if not 2 <= length <= LONGEST_HEADER:
                raise ValueError("is no safetensors file")
            content = stream.read(length)
        header = json.loads(content)
    except OSError as error:
        raise ValueError(f"cannot be read ({error.strerror})") from error
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise ValueError("has a damaged safetensors header") from error
    if not isinstance(header, dict):
        raise ValueError("has a damaged safetensors header")
    return header


def header_error(path: Path) -> str:
    """What is wrong with a safetensors file as far as header and size tell, "" for nothing."""
    try:
        entries = read_header(path)
    except ValueError as error:
        return str(error)
    try:
        with open(path, "rb") as stream:
            begin = 8 + int.from_bytes(stream.read(8), "little")
        there = path.stat().st_size - begin
        ranges = []
        for entry in entries.values():
            (first, last), shape = entry["data_offsets"], entry["shape"]
            if not isinstance(shape, list) or not all(type(n) is int and n >= 0 for n in (first, last, *shape)):
                return "has a damaged safetensors header"
            bits = BITS.get(entry["dtype"])
            if last < first or (bits is not None and (last - first) * 8 != bits * math.prod(shape)):
                return "has a safetensors header that contradicts itself"
            ranges.append((first, last))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return "has a damaged safetensors header"
    end = 0
    for first, last in sorted(ranges):
        if first != end:
            return "has a safetensors header that contradicts itself"
        end = last
    if there < end:
        return f"is cut off: {there + begin} of {end + begin} bytes"
    return f"has {there - end} bytes too many" if there > end else ""
