# SPDX-License-Identifier: GPL-3.0-or-later
"""Arrays, meshes and images with a false size are refused before memory is allocated for it."""

from __future__ import annotations

import functools
import math
import tracemalloc
import zlib
from collections.abc import Callable
from typing import Any

import msgpack
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dreamwright.shared.arrays import DTYPES, MAX_DIMENSIONS, decode_array, encode_array, inflate
from dreamwright.shared.codec import unpack
from dreamwright.shared.errors import ProtocolError
from dreamwright.shared.mesh_file import FORMAT, decode_mesh, encode_mesh
from dreamwright.shared.messages import PreviewFrame
from tests.testing.addon_modules import load
from tests.testing.fake_props import ball

MIB = 2**20


def peak_mb(action: Callable[[], Any]) -> float:
    """The most memory that Python and numpy took meanwhile, MiB; zlib's own window of 32 KiB is not seen."""
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        action()
        return (tracemalloc.get_traced_memory()[1] - before) / MIB
    finally:
        tracemalloc.stop()


@functools.cache
def zeros(count: int) -> bytes:
    """So many zero bytes, packed a megabyte at a time."""
    packer = zlib.compressobj(6)
    return b"".join(
        [
            *(packer.compress(bytes(MIB)) for _ in range(count // MIB)),
            packer.compress(bytes(count % MIB)),
            packer.flush(),
        ]
    )


def refused(value: Any, allowed: int) -> None:
    with pytest.raises(ProtocolError):
        decode_array(value, allowed)


@pytest.mark.parametrize(
    ("dtype", "shape"),
    [
        ("<f4", [2**32, 2**32]),
        ("<f4", [2**62, 4]),
        ("<f4", [2**63 - 1]),
        ("|u1", [2**64 - 1]),
        ("<f4", [0, 2**62]),
        ("<f4", [-1]),
        ("<f4", [-1, -1, 6]),
        ("<f4", [3, -2, -1]),
        ("<i4", [10**9]),
        ("<f4", [1] * 5),
        ("O", [6]),
        ("|O", [6]),
        (">f4", [6]),
        ("=f4", [6]),
        ("f4", [6]),
        ("<f8", [3]),
        ("<c8", [3]),
        ("|V24", [1]),
        ("<U6", [1]),
        ("|S24", [1]),
        ("<M8[s]", [3]),
        ("|b1", [24]),
        ("<f4,<f4", [3]),
        ([["a", "<f4"]], [6]),
        ("<f4", [6.0]),
        ("<f4", ["6"]),
        ("<f4", [None]),
        ("<f4", [[6]]),
        ("<f4", 6),
        ("<f4", None),
        ("<f4", {"0": 6}),
        ("<f4", [True, 6]),
        (b"<f4", [6]),
        ("<f4", [math.nan]),
        ("<f4", [5]),
        ("<f4", [7]),
        ("<f4", []),
    ],
    ids=str,
)
@pytest.mark.parametrize("packed", [False, True])
def test_mismatched_array_headers_are_refused(dtype: Any, shape: Any, packed: bool) -> None:
    data = zlib.compress(bytes(24)) if packed else bytes(24)
    assert peak_mb(lambda: refused({"dtype": dtype, "shape": shape, "data": data, "packed": packed}, 100 * MIB)) < 1


@pytest.mark.parametrize("shape", [[0], [0, 3], [3, 0], [0, 0, 0, 0]], ids=str)
def test_empty_arrays_are_accepted(shape: list[int]) -> None:
    assert decode_array({"dtype": "<f4", "shape": shape, "data": b"", "packed": False}, 100).shape == tuple(shape)
    refused({"dtype": "<f4", "shape": shape, "data": b"x", "packed": False}, 100)


@given(
    st.sampled_from(DTYPES),
    st.lists(st.integers(-3, 6) | st.sampled_from([2**31, 2**32, 2**62, 2**63 - 1, 2**64 - 1]), max_size=6),
    st.integers(0, 300),
    st.booleans(),
    st.integers(0, 400),
)
@settings(max_examples=150)
def test_arrays_decode_when_shape_and_size_agree(
    dtype: str, shape: list[int], length: int, packed: bool, allowed: int
) -> None:
    """Against Python's own whole numbers, which do not overflow."""
    data = bytes(range(256))[:length] * (length <= 256) or bytes(length)
    value = {"dtype": dtype, "shape": shape, "data": zlib.compress(data) if packed else data, "packed": packed}
    size = math.prod(shape) * np.dtype(dtype).itemsize
    fits = (
        len(shape) <= MAX_DIMENSIONS and all(0 <= n <= allowed for n in shape) and size == len(data) and size <= allowed
    )
    if fits:
        found = decode_array(value, allowed)
        assert found.shape == tuple(shape) and found.dtype.str == dtype and found.tobytes() == data
    else:
        refused(value, allowed)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.binary(max_size=9),
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=4),
    ),
    st.sampled_from(["dtype", "shape", "data", "packed"]),
)
@settings(max_examples=80)
def test_any_header_is_an_array_or_a_protocol_error(value: Any, place: str) -> None:
    for packed in (False, True):
        try:
            assert isinstance(
                decode_array({**encode_array(np.zeros((2, 3), np.float32), packed), place: value}, 1000), np.ndarray
            )
        except ProtocolError:
            continue


@pytest.mark.parametrize("unpacked_mb", [1, 100])
def test_decompression_bombs_stay_within_the_limit(unpacked_mb: int) -> None:
    """zlib packs a thousand zeros into a byte at best; 100 MB for 3000 bytes are 35,000 to 1 of what was promised."""
    bomb = zeros(unpacked_mb * MIB)
    assert unpacked_mb * MIB / len(bomb) > 900
    value = {"dtype": "|u1", "shape": [3000], "data": bomb, "packed": True}
    # Allocations are counted, not timed: Python objects of some kB, twice the 10 kB allowed, and zlib's copy of the
    # input.
    assert peak_mb(lambda: refused(value, 10_000)) < 0.1 + len(bomb) / MIB, "zlib keeps the rest of the packed bytes"
    assert peak_mb(lambda: refused({**value, "shape": [unpacked_mb * MIB]}, 10_000)) < 0.1, (
        "what is claimed is above the limit, so nothing is unpacked"
    )


def test_inflate_caps_output_while_decompressing() -> None:
    bomb = zeros(100 * MIB)
    assert len(bomb) < 110_000
    assert peak_mb(lambda: inflate(bomb, 1000)) < 0.1 + len(bomb) / MIB
    assert len(inflate(bomb, 1000)) == 1001


def test_mesh_file_with_bombs_is_refused_unread() -> None:
    """Four arrays of 100 MB each from a file of 400 kB would be 400 MB."""
    bomb = zeros(100 * MIB)
    content = {
        name: {"dtype": "<f4", "shape": [3], "data": bomb, "packed": True}
        for name in ("vertices", "faces", "normals", "albedo")
    }
    data = msgpack.packb({"format": FORMAT, **content, "facts": {}})

    def read() -> None:
        with pytest.raises(ProtocolError):
            decode_mesh(data)

    assert peak_mb(read) < 4 * len(data) / MIB + 1


def test_arrays_of_a_mesh_file_share_its_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    mesh = ball(4)
    sizes = {name: getattr(mesh, name).nbytes for name in ("vertices", "faces", "normals", "albedo")}
    assert len(decode_mesh(encode_mesh(mesh)).vertices) == len(mesh.vertices)
    monkeypatch.setattr("dreamwright.shared.limits.FILE_BYTES", sum(sizes.values()))
    decode_mesh(encode_mesh(mesh))
    monkeypatch.setattr("dreamwright.shared.limits.FILE_BYTES", sum(sizes.values()) - 1)
    with pytest.raises(ProtocolError, match="array"):
        decode_mesh(encode_mesh(mesh))


@pytest.mark.parametrize(
    "head",
    [
        b"\xdd\xff\xff\xff\xff",
        b"\xdf\xff\xff\xff\xff",
        b"\xc6\xff\xff\xff\xff",
        b"\xdb\xff\xff\xff\xff",
        b"\xdc\xff\xff" * 20_000,
        b"\x91" * 60_000,
    ],
    ids=lambda head: f"{head[:5].hex()} of {len(head)}",
)
def test_huge_claimed_lengths_allocate_nothing(head: bytes) -> None:
    for read in (lambda data: unpack(data, 65536), decode_mesh):

        def attempt(read: Any = read) -> None:
            with pytest.raises(ProtocolError):
                read(head)

        assert peak_mb(attempt) < 2


def test_image_bombs_are_refused_unread() -> None:
    decode_frame = load("preview_history").decode_frame
    bomb = zeros(100 * MIB)
    for width, height in ((8, 8), (4096, 4096), (1, 4096)):

        def attempt(width: int = width, height: int = height) -> None:
            with pytest.raises(ValueError):
                decode_frame(PreviewFrame("j", 1, width, height, bomb))

        assert peak_mb(attempt) < 0.1 + len(bomb) / MIB


def test_peak_memory_measurement_detects_a_bomb() -> None:
    """The ear of the tests above is a good one."""
    assert peak_mb(lambda: zlib.decompress(zeros(20 * MIB))) > 19
