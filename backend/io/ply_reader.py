# SPDX-License-Identifier: GPL-3.0-or-later
"""PLY files: ASCII or binary of either byte order, any properties, polygons and strips, colors of vertices or faces."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dreamwright.shared.numbers import number_text

from ..geometry.color import display_to_linear
from ..geometry.polygons import triangulate
from ..geometry.topology import FloatArray, IntArray
from .mesh_data import PLAIN, MeshData, UnreadableMeshError, check_indices, mean_corner_colors
from .ply_file import PlyList, Table, read_tables
from .texture_sampling import ImageTexture, decode_image

COLOR_NAMES = (("red", "green", "blue"), ("r", "g", "b"), ("diffuse_red", "diffuse_green", "diffuse_blue"))
UV_NAMES = (("s", "t"), ("u", "v"), ("texture_u", "texture_v"), ("texcoord_u", "texcoord_v"))


def read_ply(path: Path) -> MeshData:
    """Vertices and triangles in the file's order; colors are display sRGB. Raises UnreadableMeshError and OSError."""
    tables, comments = read_tables(path.read_bytes())
    if "vertex" not in tables or not {"x", "y", "z"} <= set(tables["vertex"]):
        raise UnreadableMeshError("it has no vertices with x, y and z")
    vertex = tables["vertex"]
    vertices = np.stack([_numbers(vertex, axis).astype(np.float64) for axis in "xyz"], axis=1)
    corners, sizes = _polygons(tables)
    check_indices(corners, len(vertices))
    picked, _ = triangulate(vertices, corners, sizes)
    if not len(picked):
        raise UnreadableMeshError("it holds no triangles")
    albedo, notices = _albedo(tables, corners, sizes, len(vertices), _textures(comments), path.parent)
    return MeshData(vertices, corners[picked], albedo, notices)


def _numbers(table: Table, name: str) -> NDArray[Any]:
    column = table[name]
    if isinstance(column, PlyList):
        raise UnreadableMeshError(f"its {name} is a list; needed is one number a row")
    return column


def _polygons(tables: dict[str, Table]) -> tuple[IntArray, IntArray]:
    """Corners of all polygons, and how many each has: faces of 3 or more, then triangles of strips (-1 starts anew)."""
    corners: IntArray = np.zeros(0, dtype=np.int64)
    sizes: IntArray = np.zeros(0, dtype=np.int64)
    for name in ("vertex_indices", "vertex_index"):
        found = tables.get("face", {}).get(name)
        if isinstance(found, PlyList):
            keep = found.lengths >= 3
            corners = _whole(found.values)[np.repeat(keep, found.lengths)]
            sizes = found.lengths[keep]
            break
    for name in ("vertex_indices", "vertex_index"):
        strips = tables.get("tristrips", {}).get(name)
        if isinstance(strips, PlyList):
            ends = np.cumsum(strips.lengths)
            strip = np.insert(_whole(strips.values), ends[:-1], -1)  # every row is a strip of its own
            faces = _strip_triangles(strip)
            corners, sizes = np.concatenate([corners, faces.reshape(-1)]), np.append(sizes, np.full(len(faces), 3))
    return corners, sizes


def _whole(values: NDArray[Any]) -> IntArray:
    if values.dtype.kind == "f" and not (values == np.floor(values)).all():
        raise UnreadableMeshError("its faces name vertices by numbers that are not whole")
    return values.astype(np.int64)


def _strip_triangles(strip: IntArray) -> IntArray:
    number = np.arange(len(strip))
    starts = np.maximum.accumulate(np.where(strip < 0, number + 1, 0))
    windows = np.stack([strip[:-2], strip[1:-1], strip[2:]], axis=1)
    odd = (number[:-2] - starts[:-2]) % 2 == 1
    windows[odd] = windows[odd][:, [1, 0, 2]]
    distinct = (windows[:, 0] != windows[:, 1]) & (windows[:, 1] != windows[:, 2]) & (windows[:, 2] != windows[:, 0])
    return windows[(windows >= 0).all(axis=1) & distinct]


def _albedo(
    tables: dict[str, Table], corners: IntArray, sizes: IntArray, count: int, texture: str | None, folder: Path
) -> tuple[FloatArray, tuple[str, ...]]:
    """(V, 3) linear: colors of vertices, else of a texture, else of faces, else plain gray."""
    own = _display_colors(tables["vertex"])
    if own is not None:
        return display_to_linear(own), ()
    if texture is not None:
        uv = _corner_uv(tables, corners, sizes)
        if uv is not None:
            try:
                image = ImageTexture(decode_image((folder / texture).read_bytes(), repr(texture)))
            except (OSError, ValueError):
                return np.full((count, 3), PLAIN), (f"texture {texture!r} is missing; what it colors is gray",)
            return mean_corner_colors(count, corners, image.linear_at(uv * [1, -1] + [0, 1]), PLAIN), ()
    of_faces = _display_colors(tables.get("face", {}))
    if of_faces is not None:
        lengths = tables["face"]["vertex_indices" if "vertex_indices" in tables["face"] else "vertex_index"]
        kept = of_faces[lengths.lengths >= 3] if isinstance(lengths, PlyList) else of_faces
        linear = np.repeat(display_to_linear(kept), sizes[: len(kept)], axis=0)
        return mean_corner_colors(count, corners[: len(linear)], linear, PLAIN), ()
    return np.full((count, 3), PLAIN), ()


def _display_colors(table: Table) -> FloatArray | None:
    """(n, 3) in [0, 1] of an element's color properties by any of their usual names and types; None without any."""
    for names in COLOR_NAMES:
        there = [name for name in names if name in table]
        if not there:
            continue
        if len(there) < 3:
            raise UnreadableMeshError(f"it has {' and '.join(there)} without {' or '.join(set(names) - set(there))}")
        columns = [_numbers(table, name) for name in names]
        return np.stack([_unit(column, name) for column, name in zip(columns, names, strict=True)], axis=1)
    return None


def _unit(column: NDArray[Any], name: str) -> FloatArray:
    values = column.astype(np.float64)
    if not column.size:
        return values
    if column.dtype.kind == "u" and column.dtype.itemsize <= 2:
        return values / np.iinfo(column.dtype).max
    high = float(values.max()) if np.isfinite(values).all() else np.nan
    scale = 1.0 if column.dtype.kind == "f" and high <= 1.0 else 255.0
    if not (float(values.min()) >= 0.0 and high <= 255.0):
        raise UnreadableMeshError(
            f"its color {name} has values to {number_text(high)}; allowed are 0 to 1, 0 to 255 or 16-bit"
        )
    return values / scale


def _corner_uv(tables: dict[str, Table], corners: IntArray, sizes: IntArray) -> FloatArray | None:
    of_corners = tables.get("face", {}).get("texcoord")
    if isinstance(of_corners, PlyList) and len(of_corners.values) == 2 * len(corners):
        return np.asarray(of_corners.values, dtype=np.float64).reshape(-1, 2)
    for names in UV_NAMES:
        if set(names) <= set(tables["vertex"]):
            uv = [_numbers(tables["vertex"], name).astype(np.float64) for name in names]
            return np.stack(uv, axis=1)[corners]
    return None


def _textures(comments: list[str]) -> str | None:
    names = [comment[len("texturefile") :].strip() for comment in comments if comment.lower().startswith("texturefile")]
    return names[0] if len(names) == 1 else None
