# SPDX-License-Identifier: GPL-3.0-or-later
"""The container of PLY: its header, and its elements as tables, from ASCII or binary of either byte order."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..geometry.topology import FloatArray, IntArray
from .mesh_data import UnreadableMeshError

TYPES = {"char": "i1", "uchar": "u1", "short": "i2", "ushort": "u2", "int": "i4", "uint": "u4"}
TYPES |= {"float": "f4", "double": "f8", "int8": "i1", "uint8": "u1", "int16": "i2", "uint16": "u2", "int32": "i4"}
TYPES |= {"uint32": "u4", "float32": "f4", "float64": "f8"}
ORDERS = {"ascii": "", "binary_little_endian": "<", "binary_big_endian": ">"}
LARGEST_HEADER = 1 << 20


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
class PlyList:
    """Values of a list property, one row after another, and the length of each row."""

    values: NDArray[Any]
    lengths: IntArray


Table = dict[str, "NDArray[Any] | PlyList"]


def read_tables(content: bytes) -> tuple[dict[str, Table], list[str]]:
    """The elements of a file by name, and its comments. Raises UnreadableMeshError."""
    form, elements, comments, start = _header(content)
    if form == "ascii":
        return _ascii(content[start:], elements), comments
    return _binary(content, start, elements, ORDERS[form]), comments


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
        rows = _binary_rows(content, place, element, order) or _binary_lists(content, place, element, order)
        tables[element.name], place = rows
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
            table[one.name] = PlyList(values.reshape(-1), np.full(element.count, size, dtype=np.int64))
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


def _column(one: _Property, rows: list[NDArray[Any]], kind: str) -> NDArray[Any] | PlyList:
    values = np.concatenate(rows) if rows else np.zeros(0, kind)
    typed = _typed(values, one.kind) if values.dtype.kind == "f" else values
    return PlyList(typed, np.array([len(row) for row in rows], dtype=np.int64)) if one.length else typed


def _take(numbers: FloatArray, place: int, count: int, element: str) -> FloatArray:
    if place + count > len(numbers):
        raise UnreadableMeshError(f"it ends within the element {element}")
    return numbers[place : place + count]


def _length(value: float) -> int:
    if not 0 <= value < 1 << 31 or value != int(value):
        raise UnreadableMeshError(f"a list has the length {value!r}")
    return int(value)
