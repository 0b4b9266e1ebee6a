# SPDX-License-Identifier: GPL-3.0-or-later
"""Arrays on the wire: dense, C order, little-endian, of a few dtypes. Every header field is checked before use."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from .errors import ProtocolError
from .schema import short_repr

DTYPES = ("|u1", "<i4", "<u4", "<f4")
MAX_DIMENSIONS = 4


def encode_array(array: np.ndarray, compress: bool = False) -> dict[str, Any]:
    """Encode an array as a map of dtype, shape, data and packed. Raises ProtocolError for another dtype or shape."""
    array = np.asarray(array, order="C")  # unlike ascontiguousarray, keeps a 0-dimensional array
    dtype = array.dtype.newbyteorder("<").str
    if dtype not in DTYPES or array.ndim > MAX_DIMENSIONS:
        raise ProtocolError(
            f"array of dtype {dtype} with {array.ndim} dimensions; allowed are {', '.join(DTYPES)} and {MAX_DIMENSIONS}"
        )
    data = array.astype(dtype, copy=False).tobytes()
    return {
        "dtype": dtype,
        "shape": list(array.shape),
        "data": zlib.compress(data, 1) if compress else data,
        "packed": compress,
    }


def decode_array(value: Any, max_bytes: int) -> np.ndarray:
    """Decode the map of `encode_array`, of at most `max_bytes` unpacked. Raises ProtocolError for a false header."""
    if not isinstance(value, Mapping) or set(value) != {"dtype", "shape", "data", "packed"}:
        raise ProtocolError("an array is a map of dtype, shape, data and packed")
    dtype, shape, data, packed = value["dtype"], value["shape"], value["data"], value["packed"]
    if dtype not in DTYPES:
        raise ProtocolError(f"array dtype is {short_repr(dtype)}; allowed are {', '.join(DTYPES)}")
    if not isinstance(shape, (list, tuple)) or len(shape) > MAX_DIMENSIONS:
        raise ProtocolError(f"array shape is {short_repr(shape)}; allowed are up to {MAX_DIMENSIONS} sizes")
    size = np.dtype(dtype).itemsize
    for length in shape:
        if isinstance(length, bool) or not isinstance(length, int) or not 0 <= length <= max_bytes:
            raise ProtocolError(f"array shape is {short_repr(shape)}; allowed are whole numbers from 0 to {max_bytes}")
        size *= length
    if size > max_bytes:
        raise ProtocolError(f"array of {size} bytes; allowed are {max_bytes}")
    if not isinstance(data, bytes) or not isinstance(packed, bool):
        raise ProtocolError("array data must be bytes, and packed true or false")
    if packed:
        data = inflate(data, size)
    if len(data) != size:
        raise ProtocolError(f"array of shape {list(shape)} and dtype {dtype} has {len(data)} bytes; it needs {size}")
    return np.frombuffer(data, dtype).reshape(shape)


def inflate(data: bytes, size: int) -> bytes:
    """Decompress at most `size` + 1 bytes: enough to detect excess data, never a decompression bomb."""
    try:
        return zlib.decompressobj().decompress(data, size + 1)
    except zlib.error as error:
        raise ProtocolError(f"the data cannot be decompressed: {error}") from error
