# SPDX-License-Identifier: GPL-3.0-or-later
"""PLY files: ASCII or binary of either byte order, any properties, polygons and strips, colors of vertices or faces."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dreamwright.shared.numbers import number_text

from ..geometry.color import display_to_linear
from ..geometry.polygons import triangulate
from ..geometry.topology import FloatArray, IntArray
from .mesh_data import PLAIN, MeshData, UnreadableMeshError, check_indices, mean_corner_colors
from .texture_sampling import ImageTexture, decode_image

TYPES = {"char": "i1", "uchar": "u1", "short": "i2", "ushort": "u2", "int": "i4", "uint": "u4"}
TYPES |= {"float": "f4", "double": "f8", "int8": "i1", "uint8": "u1", "int16": "i2", "uint16": "u2", "int32": "i4"}
TYPES |= {"uint32": "u4", "float32": "f4", "float64": "f8"}
ORDERS = {"ascii": "", "binary_little_endian": "<", "binary_big_endian": ">"}
LARGEST_HEADER = 1 << 20
COLOR_NAMES = (("red", "green", "blue"), ("r", "g", "b"), ("diffuse_red", "diffuse_green", "diffuse_blue"))
UV_NAMES = (("s", "t"), ("u", "v"), ("texture_u", "texture_v"), ("texcoord_u", "texcoord_v"))


@dataclass(frozen=True)
class _Property:
    name: str
    kind: str  # numpy type without byte order
    length: str | None  # numpy type of a list's length; None for a single number


@dataclass(frozen=True)
class _Element:
    name: str
    count: int
    properties: tuple[_Property, ...]


@dataclass(frozen=True)
class _List:
    """Values of a list property, one row after another, and the length of each row."""

    values: NDArray[Any]
    lengths: IntArray


Table = dict[str, "NDArray[Any] | _List"]


def read_ply(path: Path) -> MeshData:
    """Vertices and triangles in the file's order; colors are display sRGB. Raises UnreadableMeshError and OSError."""
    content = path.read_bytes()
    form, elements, comments, start = _header(content)
    tables = _ascii(content[start:], elements) if form == "ascii" else _binary(content, start, elements, ORDERS[form])
    if "vertex" not in tables or not {"x", "y", "z"} <= set(tables["vertex"]):
        raise UnreadableMeshError("it has no vertices with x, y and z")
    vertex = tables["vertex"]
    vertices = np.stack([_numbers(vertex, axis).astype(np.float64) for axis in "xyz"], axis=1)
    corners, sizes = _polygons(tables)
    check_indices(corners, len(vertices))
    picked, polygon = triangulate(vertices, corners, sizes)
    if not len(picked):
        raise UnreadableMeshError("it holds no triangles")
    albedo, notices = _albedo(tables, corners, sizes, len(vertices), _textures(comments), path.parent)
    return MeshData(vertices, corners[picked], albedo, notices)


def _header(content: bytes) -> tuple[str, list[_Element], list[str], int]:
    """Format, elements, comments, and where the data starts."""
    found = re.search(rb"(?:^|[\r\n])end_header[ \t]*(\r\n|\n|\r)", content[:LARGEST_HEADER])
    if not re.match(rb"ply[ \t]*[\r\n]", content) or found is None:
        raise UnreadableMeshError("it has no PLY header")
    form, elements, comments = "", [], []
    for line in content[: found.start()].decode("utf-8", errors="replace").splitlines()[1:]:
        words = line.split()
        try:
            if not words or words[0] == "obj_info":
                continue
            if words[0] == "comment":
                comments.append(line.partition("comment")[2].strip())
            elif words[0] == "format":
                form = words[1]
            elif words[0] == "element":
                elements.append(_Element(words[1], int(words[2]), ()))
            elif words[0] == "property":
                one = (
                    _Property(words[4], TYPES[words[3]], TYPES[words[2]])
                    if words[1] == "list"
                    else _Property(words[2], TYPES[words[1]], None)
                )
                last = elements[-1]
                elements[-1] = _Element(last.name, last.count, (*last.properties, one))
            else:
                raise UnreadableMeshError(f"its header has the unknown line {line.strip()[:60]!r}")
        except (LookupError, ValueError) as error:
            raise UnreadableMeshError(f"its header has the damaged line {line.strip()[:60]!r}") from error
    if form not in ORDERS:
        raise UnreadableMeshError(f"its format is {form or 'missing'!r}; allowed are {', '.join(ORDERS)}")
    if any(element.count < 0 for element in elements):
        raise UnreadableMeshError("an element has a negative count")
    return form, elements, comments, found.end()


def _ascii(body: bytes, elements: list[_Element]) -> dict[str, Table]:
    words = body.split()
    try:
        numbers = np.array(words, dtype=np.float64)
    except ValueError as error:
        raise UnreadableMeshError(f"its data is not all numbers: {error}") from error
    tables: dict[str, Table] = {}
    place = 0
    for element in elements:
        width = len(element.properties)
        if not any(one.length for one in element.properties):
            rows = _take(numbers, place, element.count * width, element.name).reshape(element.count, width)
            place += element.count * width
            tables[element.name] = {one.name: _typed(rows[:, i], one.kind) for i, one in enumerate(element.properties)}
            continue
        tables[element.name], place = _ascii_lists(numbers, place, element)
    return tables


def _typed(column: FloatArray, kind: str) -> NDArray[Any]:
    """Text numbers: floats keep all their digits, whole numbers get their type, so that colors know their range."""
    if kind[0] == "f":
        return column
    low, high = np.iinfo(kind).min, np.iinfo(kind).max
    if not ((column >= low) & (column <= high)).all():
        raise UnreadableMeshError(f"a number of its data is outside of {low} to {high}")
    return column.astype(kind)


def _ascii_lists(numbers: FloatArray, place: int, element: _Element) -> tuple[Table, int]:
    columns: dict[str, list[FloatArray]] = {one.name: [] for one in element.properties}
    for _ in range(element.count):
        for one in element.properties:
            length = 1
            if one.length:
                length = _length(float(_take(numbers, place, 1, element.name)[0]))
                place += 1
            columns[one.name].append(_take(numbers, place, length, element.name))
            place += length
    return {one.name: _column(one, columns[one.name], one.kind) for one in element.properties}, place


def _binary(content: bytes, place: int, elements: list[_Element], order: str) -> dict[str, Table]:
    tables: dict[str, Table] = {}
    for element in elements:
        table = _binary_rows(content, place, element, order)
        if table is None:
            table, place = _binary_lists(content, place, element, order)
        else:
            table, place = table
        tables[element.name] = table
    return tables


def _binary_rows(content: bytes, place: int, element: _Element, order: str) -> tuple[Table, int] | None:
    """All rows at once, where they are equally long; None where the lists of an element differ in length."""
    fields: list[Any] = []
    lengths: dict[str, int] = {}
    at = place
    for number, one in enumerate(element.properties):
        if one.length:
            head = np.dtype(order + one.length)
            if not element.count or at + head.itemsize > len(content):
                return None
            length = _length(float(np.frombuffer(content, head, 1, at)[0]))
            lengths[f"{number}#"] = length
            fields += [(f"{number}#", head), (str(number), order + one.kind, (length,))]
            at += head.itemsize + length * np.dtype(one.kind).itemsize
        else:
            fields.append((str(number), order + one.kind))
            at += np.dtype(one.kind).itemsize
    row = np.dtype(fields)
    if place + element.count * row.itemsize > len(content):
        if lengths:
            return None
        raise UnreadableMeshError(f"it ends within the element {element.name}")
    rows = np.frombuffer(content, row, element.count, place) if row.itemsize else np.zeros(element.count, row)
    if any((rows[name] != length).any() for name, length in lengths.items()):
        return None
    table: Table = {}
    for number, one in enumerate(element.properties):
        values = rows[str(number)]
        if one.length:
            size = lengths[f"{number}#"]
            table[one.name] = _List(values.reshape(-1), np.full(element.count, size, dtype=np.int64))
        else:
            table[one.name] = values
    return table, place + element.count * row.itemsize


def _binary_lists(content: bytes, place: int, element: _Element, order: str) -> tuple[Table, int]:
    columns: dict[str, list[NDArray[Any]]] = {one.name: [] for one in element.properties}
    plan = [
        (one.name, np.dtype(order + one.kind), np.dtype(order + one.length) if one.length else None)
        for one in element.properties
    ]
    for _ in range(element.count):
        for name, dtype, head in plan:
            length = 1
            if head is not None:
                if place + head.itemsize > len(content):
                    raise UnreadableMeshError(f"it ends within the element {element.name}")
                length = _length(float(np.frombuffer(content, head, 1, place)[0]))
                place += head.itemsize
            if place + length * dtype.itemsize > len(content):
                raise UnreadableMeshError(f"it ends within the element {element.name}")
            columns[name].append(np.frombuffer(content, dtype, length, place))
            place += length * dtype.itemsize
    return {one.name: _column(one, columns[one.name], order + one.kind) for one in element.properties}, place


def _column(one: _Property, rows: list[NDArray[Any]], kind: str) -> NDArray[Any] | _List:
    values = np.concatenate(rows) if rows else np.zeros(0, kind)
    typed = _typed(values, one.kind) if values.dtype.kind == "f" else values
    return _List(typed, np.array([len(row) for row in rows], dtype=np.int64)) if one.length else typed


def _take(numbers: FloatArray, place: int, count: int, element: str) -> FloatArray:
    if place + count > len(numbers):
        raise UnreadableMeshError(f"it ends within the element {element}")
    return numbers[place : place + count]


def _length(value: float) -> int:
    if not 0 <= value < 1 << 31 or value != int(value):
        raise UnreadableMeshError(f"a list has the length {number_text(value)}")
    return int(value)


def _numbers(table: Table, name: str) -> NDArray[Any]:
    column = table[name]
    if isinstance(column, _List):
        raise UnreadableMeshError(f"its {name} is a list; needed is one number a row")
    return column


def _polygons(tables: dict[str, Table]) -> tuple[IntArray, IntArray]:
    """Corners of all polygons, and how many each has: faces of 3 or more, then triangles of strips (-1 starts anew)."""
    corners, sizes = np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64)
    for name in ("vertex_indices", "vertex_index"):
        found = tables.get("face", {}).get(name)
        if isinstance(found, _List):
            keep = found.lengths >= 3
            corners = _whole(found.values)[np.repeat(keep, found.lengths)]
            sizes = found.lengths[keep]
            break
    for name in ("vertex_indices", "vertex_index"):
        strips = tables.get("tristrips", {}).get(name)
        if isinstance(strips, _List):
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
    begun = np.maximum.accumulate(np.where(strip < 0, number + 1, 0))
    windows = np.stack([strip[:-2], strip[1:-1], strip[2:]], axis=1)
    odd = (number[:-2] - begun[:-2]) % 2 == 1
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
        kept = of_faces[lengths.lengths >= 3] if isinstance(lengths, _List) else of_faces
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
    if isinstance(of_corners, _List) and len(of_corners.values) == 2 * len(corners):
        return np.asarray(of_corners.values, dtype=np.float64).reshape(-1, 2)
    for names in UV_NAMES:
        if set(names) <= set(tables["vertex"]):
            uv = [_numbers(tables["vertex"], name).astype(np.float64) for name in names]
            return np.stack(uv, axis=1)[corners]
    return None


def _textures(comments: list[str]) -> str | None:
    names = [comment[len("texturefile") :].strip() for comment in comments if comment.lower().startswith("texturefile")]
    return names[0] if len(names) == 1 else None
