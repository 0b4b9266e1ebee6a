# SPDX-License-Identifier: GPL-3.0-or-later
"""Wavefront .obj files: polygons of any shape, indices from either end, materials, textures and colors of vertices."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..geometry.color import display_to_linear
from ..geometry.polygons import triangulate
from ..geometry.topology import FloatArray, IntArray
from .mesh_data import PLAIN, MeshData, UnreadableMeshError, check_indices, mean_corner_colors
from .obj_materials import ObjMaterial, find_file, read_materials

NO_UV = -1
CURVED = frozenset(["curv", "curv2", "surf", "cstype", "deg", "parm", "trim", "hole", "scrv", "sp", "con"])


class _Parser:
    """One pass over the lines of a file: numbers as they come, faces as corners with the material of each."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.points: list[list[float]] = []
        self.colors: dict[int, list[float]] = {}
        self.uv: list[tuple[float, float]] = []
        self.corners: list[int] = []
        self.corner_uv: list[int] = []
        self.sizes: list[int] = []
        self.face_material: list[int] = []
        self.materials: dict[str, ObjMaterial] = {}
        self.used: list[str | None] = [None]
        self.notices: list[str] = []
        self._numbers: dict[str | None, int] = {None: 0}
        self._current = 0

    def line(self, number: int, line: str) -> None:
        """Take one line. Raises UnreadableMeshError, naming it."""
        words = line.split()
        if not words or words[0].startswith("#"):
            return
        key = words[0]
        try:
            if key == "v":
                self._vertex(_before_comment(words)[1:])
            elif key == "f" or key == "fo":
                self._face(_before_comment(words)[1:])
            elif key == "vt":
                values = _before_comment(words)[1:]
                self.uv.append((float(values[0]), float(values[1]) if len(values) > 1 else 0.0))
            elif key == "usemtl":
                self._use(line.strip()[len(key) :].strip())
            elif key == "mtllib":
                self._library(line.strip()[len(key) :].strip())
            elif key in CURVED:
                raise UnreadableMeshError(f"it has free-form geometry ({key!r}, line {number}); export polygons")
        except (ValueError, IndexError) as error:
            raise UnreadableMeshError(f"its line {number} is damaged: {line.strip()[:60]!r}") from error

    def _vertex(self, words: list[str]) -> None:
        numbers = [float(word) for word in words]
        if len(numbers) not in (3, 4, 6, 7):
            raise ValueError
        if len(numbers) >= 6:  # x y z r g b, perhaps with alpha
            self.colors[len(self.points)] = numbers[3:6]
        self.points.append(numbers[:3])

    def _face(self, words: list[str]) -> None:
        if len(words) < 3:
            return
        vertices, places = len(self.points), len(self.uv)
        for word in words:
            parts = word.split("/")
            self.corners.append(_resolved(parts[0], vertices))
            self.corner_uv.append(_resolved(parts[1], places) if len(parts) > 1 and parts[1] else NO_UV)
        self.sizes.append(len(words))
        self.face_material.append(self._current)

    def _use(self, name: str) -> None:
        if name not in self._numbers:
            self._numbers[name] = len(self.used)
            self.used.append(name)
        self._current = self._numbers[name]

    def _library(self, text: str) -> None:
        """One file whose name may hold spaces, or several."""
        whole = find_file(self._folder, text)
        found = [whole] if whole is not None else [find_file(self._folder, word) for word in text.split()]
        names = [text] if whole is not None else text.split()
        for name, path in zip(names, found, strict=True):
            if path is None:
                self.notices.append(f"the material file {name if len(names) > 1 else text!r} is missing")
                continue
            try:
                materials, notices = read_materials(path)
            except OSError as error:
                self.notices.append(f"the material file {path.name!r} cannot be read ({error.strerror})")
                continue
            self.materials |= {key: value for key, value in materials.items() if key not in self.materials}
            self.notices += notices


def read_obj(path: Path) -> MeshData:
    """All polygons as triangles, the vertices as they are numbered; colors are display sRGB.

    A corner's color is that of its material's texture times its diffuse color, else of its vertex, else the material's
    diffuse color, else gray; a vertex has the mean of its corners. Raises UnreadableMeshError and OSError.
    """
    parser = _Parser(path.parent)
    text = path.read_bytes().decode("utf-8-sig", errors="surrogateescape").replace("\\\r\n", " ").replace("\\\n", " ")
    for number, line in enumerate(text.split("\n"), 1):
        parser.line(number, line)
    if not parser.sizes:
        raise UnreadableMeshError("it holds no triangles")
    vertices = np.array(parser.points, dtype=np.float64).reshape(-1, 3)
    corners, sizes = np.array(parser.corners, dtype=np.int64), np.array(parser.sizes, dtype=np.int64)
    check_indices(corners, len(vertices))
    picked, _ = triangulate(vertices, corners, sizes)
    albedo = _albedo(parser, corners, sizes)
    return MeshData(vertices, corners[picked], albedo, tuple(dict.fromkeys(parser.notices)))


def _albedo(parser: _Parser, corners: IntArray, sizes: IntArray) -> FloatArray:
    """(V, 3) linear colors of the vertices."""
    count = len(parser.points)
    own = _vertex_colors(parser)
    colors = np.full((len(corners), 3), PLAIN) if own is None else own[corners]
    uv = np.full((len(corners), 2), np.nan)
    uv_index = np.array(parser.corner_uv, dtype=np.int64)
    if uv_index.size and int(uv_index.max()) >= len(parser.uv):
        raise UnreadableMeshError(f"a face names texture coordinate {int(uv_index.max()) + 1} of {len(parser.uv)}")
    there = uv_index != NO_UV
    if there.any():
        uv[there] = np.array(parser.uv, dtype=np.float64)[uv_index[there]]
    material_of = np.repeat(np.array(parser.face_material, dtype=np.int64), sizes)
    undefined: list[str] = []
    for number, name in enumerate(parser.used):
        at = np.flatnonzero(material_of == number)
        if name is None or not len(at):
            continue
        material = parser.materials.get(name)
        if material is None:
            undefined.append(name)
            continue
        if material.texture is not None or own is None:
            found = material.linear_colors(uv[at])
            colors[at] = colors[at] if found is None else found
    if undefined:
        names = ", ".join(repr(name) for name in undefined[:3]) + (" ..." if len(undefined) > 3 else "")
        parser.notices.append(
            f"no material file defines {names}; "
            f"the faces of {len(undefined)} material{'s' * (len(undefined) > 1)} are gray"
        )
    return mean_corner_colors(count, corners, colors, PLAIN if own is None else own)


def _vertex_colors(parser: _Parser) -> FloatArray | None:
    """(V, 3) linear colors of "v x y z r g b" lines, 0 to 1 or 0 to 255; gray where a line has none; else None."""
    if not parser.colors:
        return None
    given = np.array(list(parser.colors.values()), dtype=np.float64)
    if not np.isfinite(given).all() or given.min() < 0 or given.max() > 255:
        raise UnreadableMeshError("the colors of its vertices are not all in 0 to 1, or in 0 to 255")
    linear = np.full((len(parser.points), 3), PLAIN)
    linear[list(parser.colors)] = display_to_linear(given / (255.0 if given.max() > 1 else 1.0))
    return linear


def _resolved(word: str, count: int) -> int:
    """Position of a 1-based index, or of one from the end. Raises ValueError for 0 and before the first."""
    index = int(word)
    position = index - 1 if index > 0 else count + index
    if index == 0 or position < 0:
        raise ValueError
    return position


def _before_comment(words: list[str]) -> list[str]:
    for number, word in enumerate(words):
        if word.startswith("#"):
            return words[:number]
    return words
