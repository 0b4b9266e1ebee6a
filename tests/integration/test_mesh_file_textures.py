# SPDX-License-Identifier: GPL-3.0-or-later
"""Textures of mesh files on the wire: round trip, and refusal of what a file must not hold."""

from __future__ import annotations

import dataclasses
import io
import struct
import zlib
from typing import Any

import msgpack
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from dreamwright.backend.geometry.build import Mesh, MeshReport
from dreamwright.shared.errors import ProtocolError
from dreamwright.shared.mesh_file import FORMAT, MeshFile, decode_mesh, encode_mesh
from dreamwright.shared.mesh_file import Texture as FileTexture
from dreamwright.shared.png import check_square_png
from tests.testing.mesh_files import png
from tests.testing.textured_meshes import flag_mesh


def mesh_file(mesh: Mesh) -> MeshFile:
    places = mesh.texture.unwrapping
    texture = FileTexture(mesh.texture.png(), places.uv, places.corners)
    return MeshFile(mesh.vertices, mesh.faces, mesh.normals, mesh.albedo, {}, texture)


def test_textured_mesh_file_round_trip(textured_torus: tuple[Mesh, MeshReport]) -> None:
    sent = mesh_file(textured_torus[0])
    found = decode_mesh(encode_mesh(sent))
    assert found.texture.png == sent.texture.png
    assert np.array_equal(found.texture.uv, sent.texture.uv) and np.array_equal(
        found.texture.corners, sent.texture.corners
    )


def test_untextured_mesh_file_has_format_1(textured_torus: tuple[Mesh, MeshReport]) -> None:
    data = encode_mesh(dataclasses.replace(mesh_file(textured_torus[0]), texture=None))
    content = msgpack.unpackb(data)
    assert content["format"] == FORMAT == "dreamwright-mesh-1"
    assert set(content) == {"format", "vertices", "faces", "normals", "albedo", "facts"}
    assert decode_mesh(data).texture is None


def changed(**parts: Any) -> bytes:
    sent = mesh_file(flag_mesh())
    return encode_mesh(dataclasses.replace(sent, texture=dataclasses.replace(sent.texture, **parts)))


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png_with(
    width: int = 64,
    height: int = 64,
    form: tuple[int, ...] = (8, 2, 0, 0, 0),
    pixels: bytes | None = None,
    extra: bytes = b"",
) -> bytes:
    packed = zlib.compress(bytes(64 * 193) if pixels is None else pixels)
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, *form))
    return b"\x89PNG\r\n\x1a\n" + header + extra + chunk(b"IDAT", packed) + chunk(b"IEND", b"")


GOOD = png_with()
BROKEN = {
    "uv that is no number": (changed(uv=np.full((4, 2), np.nan, np.float32)), "uv"),
    "uv outside the image": (changed(uv=np.full((4, 2), 1.5, np.float32)), "from 0 to 1"),
    "uv of three numbers": (changed(uv=np.zeros((4, 3), np.float32)), "uv"),
    "corners of another mesh": (changed(corners=np.zeros((3, 3), np.int32)), "corners"),
    "a corner beyond the places": (changed(corners=np.full((2, 3), 4, np.int32)), "coordinate 4 of 4"),
    "a corner before them": (changed(corners=np.full((2, 3), -1, np.int32)), "coordinate"),
    "no image": (changed(png=b""), "not a PNG"),
    "an image that is no bytes": (changed(png="text"), "not a PNG"),
    "a JPEG": (changed(png=b"\xff\xd8\xff\xe0" * 20), "not a PNG"),
    "half an image": (changed(png=GOOD[: len(GOOD) // 2]), "ends inside"),
    "no end": (changed(png=GOOD[:-12]), "IEND"),
    "more after its end": (changed(png=GOOD + chunk(b"IDAT", b"")), "order"),
    "another chunk": (changed(png=png_with(extra=chunk(b"tEXt", b"a\0b"))), "order"),
    "a wrong checksum": (changed(png=GOOD.replace(b"IEND\xaeB`\x82", b"IEND\xaeB`\x83")), "checksum"),
    "a small image": (changed(png=png_with(16, 16)), "16 x 16"),
    "a bomb": (changed(png=png_with(100_000, 100_000)), "64 to 4096"),
    "no square": (changed(png=png_with(64, 128)), "64 x 128"),
    "with alpha": (changed(png=png_with(form=(8, 6, 0, 0, 0))), "8-bit RGB"),
    "sixteen bits": (changed(png=png_with(form=(16, 2, 0, 0, 0))), "8-bit RGB"),
    "too few pixels": (changed(png=png_with(pixels=bytes(100))), "not hold the pixels"),
    "too many pixels": (changed(png=png_with(pixels=bytes(64 * 193 + 1))), "not hold the pixels"),
    "pixels that bomb": (changed(png=png_with(pixels=bytes(10_000_000))), "not hold the pixels"),
    "an unknown filter": (changed(png=png_with(pixels=b"\x05" + bytes(64 * 193 - 1))), "not hold the pixels"),
}


@pytest.mark.parametrize("fault", BROKEN)
def test_bad_texture_in_a_mesh_file_is_refused(fault: str) -> None:
    data, words = BROKEN[fault]
    with pytest.raises(ProtocolError, match=words):
        decode_mesh(data)
    assert check_square_png(GOOD, 64, 4096) == 64, "the same file without the fault is accepted"


@given(st.integers(64, 130), st.integers(0, 2**32 - 1))
@settings(max_examples=20, deadline=None)
def test_square_pngs_by_pillow_are_accepted(size: int, seed: int) -> None:
    image = np.random.default_rng(seed).integers(0, 256, (size, size, 3)).astype(np.uint8)
    assert check_square_png(png(image), 64, 4096) == size


FLAG = encode_mesh(mesh_file(flag_mesh()))


@given(st.data())
@settings(max_examples=150, deadline=None)
def test_flipped_byte_is_a_mesh_or_a_protocol_error(data: st.DataObject) -> None:
    packed = bytearray(FLAG)
    packed[data.draw(st.integers(0, len(packed) - 1))] ^= data.draw(st.integers(1, 255))
    try:
        found = decode_mesh(bytes(packed))
    except ProtocolError:
        return
    if found.texture is not None:
        assert found.texture.corners.max() < len(found.texture.uv)
        with Image.open(io.BytesIO(found.texture.png)) as image:
            assert image.size == (64, 64)
