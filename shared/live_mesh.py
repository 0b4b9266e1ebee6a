# SPDX-License-Identifier: GPL-3.0-or-later
"""The growing prop on the wire: 16-bit positions in its bounding box, 8-bit colors and 16-bit corners, compressed."""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import numpy as np

from .arrays import inflate
from .errors import ProtocolError
from .limits import LIVE_MESH_TRIANGLES, LIVE_MESH_VERTICES

STEPS = 65535  # of a position, along each side of the box
BOX_BYTES = 24  # its lowest and its highest corner, three float32 each


@dataclass(frozen=True)
class LiveMeshArrays:
    """A coarse mesh, in meters and in the frame of the finished one.

    vertices (V, 3) float32, colors (V, 3) uint8 display sRGB, faces (F, 3) uint16, counter-clockwise from outside.
    """

    vertices: np.ndarray
    colors: np.ndarray
    faces: np.ndarray


def encode_live_mesh(vertices: np.ndarray, colors: np.ndarray, faces: np.ndarray) -> bytes:
    """A mesh within the limits as bytes; a position is off by half of 1/65535 of its box's side at most.

    vertices (V, 3) float meters, colors (V, 3) uint8, faces (F, 3) integers. Raises ProtocolError beyond the limits.
    """
    _check_counts(len(vertices), len(faces))
    low, high = vertices.min(axis=0).astype("<f4"), vertices.max(axis=0).astype("<f4")
    if not np.isfinite(low).all() or not np.isfinite(high).all():
        raise ProtocolError("a live mesh with positions that are not finite")
    size = np.where(high > low, high.astype(np.float64) - low, 1.0)
    places = np.rint(STEPS * np.clip((vertices - low) / size, 0, 1)).astype("<u2")
    parts = (low, high, places, colors.astype("|u1"), faces.astype("<u2"))
    return zlib.compress(b"".join(part.tobytes() for part in parts), 1)


def decode_live_mesh(data: bytes, vertices: int, triangles: int) -> LiveMeshArrays:
    """The mesh in untrusted bytes of `encode_live_mesh`, of so many vertices and triangles.

    Raises ProtocolError for another size, a box that is not finite or a corner that no vertex has.
    """
    _check_counts(vertices, triangles)
    wanted = BOX_BYTES + 9 * vertices + 6 * triangles
    raw = inflate(data, wanted)
    if len(raw) != wanted:
        raise ProtocolError(
            f"a live mesh of {len(raw)} bytes; {vertices} vertices and {triangles} triangles have {wanted}"
        )
    box = np.frombuffer(raw, "<f4", 6).reshape(2, 3)
    places = np.frombuffer(raw, "<u2", 3 * vertices, BOX_BYTES).reshape(vertices, 3)
    colors = np.frombuffer(raw, "|u1", 3 * vertices, BOX_BYTES + 6 * vertices).reshape(vertices, 3)
    faces = np.frombuffer(raw, "<u2", 3 * triangles, BOX_BYTES + 9 * vertices).reshape(triangles, 3)
    if not np.isfinite(box).all() or (box[0] > box[1]).any():
        raise ProtocolError("a live mesh whose box is not finite, or whose lowest corner is above its highest")
    if int(faces.max()) >= vertices:
        raise ProtocolError(f"a live mesh whose triangles name vertex {int(faces.max())} of {vertices}")
    span = box[1].astype(np.float64) - box[0]
    return LiveMeshArrays((box[0] + places * (span / STEPS)).astype(np.float32), colors, faces)


def _check_counts(vertices: int, triangles: int) -> None:
    """Raise ProtocolError for more than the limits allow, or none."""
    if not 1 <= vertices <= LIVE_MESH_VERTICES or not 1 <= triangles <= LIVE_MESH_TRIANGLES:
        raise ProtocolError(
            f"a live mesh of {vertices} vertices and {triangles} triangles; allowed are 1 to {LIVE_MESH_VERTICES} and "
            f"1 to {LIVE_MESH_TRIANGLES}"
        )
