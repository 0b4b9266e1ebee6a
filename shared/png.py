# SPDX-License-Identifier: GPL-3.0-or-later
"""A PNG from outside, looked at before any decoder sees it: plain 8-bit RGB of a known size, whole, and not one byte more."""

from __future__ import annotations

import struct
import zlib

from .arrays import inflate
from .errors import ProtocolError

SIGNATURE = b"\x89PNG\r\n\x1a\n"
HEADER = ">IIBBBBB"  # width, height, bit depth, color type, compression, filter, interlace
TRUE_COLOR = (8, 2, 0, 0, 0)


def check_square_png(data: bytes, smallest: int, largest: int) -> int:
    """Pixels a side of a square 8-bit RGB PNG whose chunks, checksums and pixels are all there. Raises ProtocolError."""
    if not data.startswith(SIGNATURE):
        raise ProtocolError("the picture is no PNG")
    place, kinds, pixels, size = len(SIGNATURE), [], [], 0
    while place < len(data):
        if place + 12 > len(data):
            raise ProtocolError("the picture ends inside a chunk")
        (length,), kind = struct.unpack_from(">I", data, place), data[place + 4 : place + 8]
        if length > len(data) - place - 12:
            raise ProtocolError("the picture ends inside a chunk")
        body = data[place + 8 : place + 8 + length]
        if struct.unpack_from(">I", data, place + 8 + length)[0] != zlib.crc32(kind + body):
            raise ProtocolError("a chunk of the picture does not fit its checksum")
        if not kinds:
            size = _side(kind, body, smallest, largest)
        if kind == b"IDAT":
            pixels.append(body)
        kinds.append(kind)
        place += 12 + length
    wanted = [b"IHDR", *[b"IDAT"] * len(pixels), b"IEND"]
    if kinds != wanted or not pixels:
        raise ProtocolError("the picture must be of the chunks IHDR, IDAT and IEND, in this order")
    rows = size * (3 * size + 1)
    raw = inflate(b"".join(pixels), rows)
    if len(raw) != rows or max(raw[:: 3 * size + 1]) > 4:  # each row begins with its filter's number
        raise ProtocolError(f"the picture's pixels are not those of {size} x {size}")
    return size


def _side(kind: bytes, body: bytes, smallest: int, largest: int) -> int:
    if kind != b"IHDR" or len(body) != struct.calcsize(HEADER):
        raise ProtocolError("the picture does not begin with its size")
    width, height, *form = struct.unpack(HEADER, body)
    if width != height or not smallest <= width <= largest or tuple(form) != TRUE_COLOR:
        raise ProtocolError(
            f"the picture is {width} x {height} of form {form}; allowed are squares of {smallest} to {largest} pixels of 8-bit RGB"
        )
    return width
