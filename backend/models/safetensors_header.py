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
    try:
        with open(path, "rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            if not 2 <= length <= LONGEST_HEADER:
                raise ValueError("is no safetensors file")
            content = stream.read(length)
        header = json.loads(content)
    except OSError as error:
        raise ValueError(f"cannot be read ({error.strerror})") from error
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ValueError("has a damaged safetensors header") from error
    if not isinstance(header, dict):
        raise ValueError("has a damaged safetensors header")
    return {name: entry for name, entry in header.items() if name != "__metadata__"}


def header_error(path: Path) -> str:
    """What is wrong with a safetensors file as far as header and size tell, "" for nothing."""
    try:
        entries = read_header(path)
        with open(path, "rb") as stream:
            begin = 8 + int.from_bytes(stream.read(8), "little")
        end = 0
        for first, last, entry in sorted(
            (*entry["data_offsets"], entry) for entry in entries.values() if entry["shape"] is not None
        ):
            bits = BITS.get(entry["dtype"])
            if (
                first != end
                or last < first
                or (bits is not None and (last - first) * 8 != bits * math.prod(entry["shape"]))
            ):
                return "has a safetensors header that contradicts itself"
            end = last
        there = path.stat().st_size - begin
    except ValueError as error:
        return str(error)
    except (OSError, KeyError, TypeError, AttributeError):
        return "has a damaged safetensors header"
    if there < end:
        return f"is cut off: {there + begin} of {end + begin} bytes"
    return f"has {there - end} bytes too many" if there > end else ""
