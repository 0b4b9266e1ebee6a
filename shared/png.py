# SPDX-License-Identifier: GPL-3.0-or-later
"""Validation of untrusted PNG data before a decoder reads it: complete 8-bit RGB of a known size, nothing else."""

from __future__ import annotations

import struct
import zlib

from .arrays import inflate
from .errors import ProtocolError

SIGNATURE = b"\x89PNG\r\n\x1a\n"
HEADER = ">IIBBBBB"  # width, height, bit depth, color type, compression, filter, interlace
TRUE_COLOR = (8, 2, 0, 0, 0)


def check_square_png(data: bytes, smallest: int, largest: int) -> int:
    """Check chunks, checksums and pixel data of a square 8-bit RGB PNG; its side in pixels. Raises ProtocolError."""
    if not data.startswith(SIGNATURE):
        raise ProtocolError("the texture is not a PNG")
    kinds: list[bytes] = []
    pixels: list[bytes] = []
    place, size = len(SIGNATURE), 0
    while place < len(data):
        if place + 12 > len(data):
            raise ProtocolError("the PNG ends inside a chunk")
        (length,), kind = struct.unpack_from(">I", data, place), data[place + 4 : place + 8]
        if length > len(data) - place - 12:
            raise ProtocolError("the PNG ends inside a chunk")
        body = data[place + 8 : place + 8 + length]
        if struct.unpack_from(">I", data, place + 8 + length)[0] != zlib.crc32(kind + body):
            raise ProtocolError("a chunk of the PNG has a wrong checksum")
        if not kinds:
            size = _side(kind, body, smallest, largest)
        if kind == b"IDAT":
            pixels.append(body)
        kinds.append(kind)
        place += 12 + length
    wanted = [b"IHDR", *[b"IDAT"] * len(pixels), b"IEND"]
    if kinds != wanted or not pixels:
        raise ProtocolError("a PNG must consist of the chunks IHDR, IDAT and IEND, in this order")
    rows = size * (3 * size + 1)
    raw = inflate(b"".join(pixels), rows)
    if len(raw) != rows or max(raw[:: 3 * size + 1]) > 4:  # each row starts with its filter type, 0 to 4
        raise ProtocolError(f"the PNG does not hold the pixels of {size} x {size}")
    return size


def _side(kind: bytes, body: bytes, smallest: int, largest: int) -> int:
    if kind != b"IHDR" or len(body) != struct.calcsize(HEADER):
        raise ProtocolError("the PNG does not start with an IHDR chunk")
    width, height, *form = struct.unpack(HEADER, body)
    if width != height or not smallest <= width <= largest or tuple(form) != TRUE_COLOR:
        raise ProtocolError(
            f"the PNG is {width} x {height} with format {form}; allowed are squares of {smallest} to {largest} pixels "
            f"with format {list(TRUE_COLOR)} (8-bit RGB, not interlaced)"
        )
    return width
