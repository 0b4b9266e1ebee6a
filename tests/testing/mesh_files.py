# SPDX-License-Identifier: GPL-3.0-or-later
"""Hypothesis strategies for PLY and OBJ files, with what each must be read as, computed independently."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import strategies as st
from PIL import Image

GRAY = ((0.5 + 0.055) / 1.055) ** 2.4  # linear, of what has no color
CUBE = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)], dtype=np.float64)
# Counter-clockwise from outside; each square is listed as a quad.
QUADS = np.array([[0, 1, 3, 2], [4, 6, 7, 5], [0, 4, 5, 1], [2, 3, 7, 6], [0, 2, 6, 4], [1, 5, 7, 3]])
TRIANGLES = np.concatenate([QUADS[:, [0, 1, 2]], QUADS[:, [0, 2, 3]]])


@dataclass
class MeshCase:
    """Files by name, the first of which is the mesh; expected: vertices (V, 3) in the file's axes, triangles (F, 3), or
    None where the cut of polygons is free, signed volume, linear albedo (V, 3).
    """

    files: dict[str, bytes]
    vertices: np.ndarray
    faces: np.ndarray | None
    volume: float
    albedo: np.ndarray

    def write(self, folder: Path) -> Path:
        """Write all files; the path of the mesh."""
        for name, data in self.files.items():
            (folder / name).write_bytes(data)
        return folder / next(iter(self.files))


def signed_volume(vertices: np.ndarray, faces: np.ndarray) -> float:
    """By determinants, about the first vertex."""
    corners = vertices[faces] - vertices[faces[0, 0]]
    return float(np.linalg.det(corners).sum() / 6.0)


def to_linear(display: Any) -> np.ndarray:
    """Display sRGB to linear, IEC 61966-2-1."""
    display = np.asarray(display, dtype=np.float64)
    return np.where(display <= 0.04045, display / 12.92, ((display + 0.055) / 1.055) ** 2.4)


def png(pixels: np.ndarray) -> bytes:
    """A PNG of uint8 RGB pixels."""
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, format="PNG")
    return stream.getvalue()


eight_bits = st.integers(0, 255)
rgb8 = st.tuples(eight_bits, eight_bits, eight_bits)
vertex_colors8 = st.lists(rgb8, min_size=8, max_size=8).map(lambda rows: np.array(rows, dtype=np.uint8))
# Texels of a 4 x 2 image, one a vertex, looked up at their centers, where filtering changes nothing.
TEXEL_UV = np.array([[(column + 0.5) / 4, (row + 0.5) / 2] for row in range(2) for column in range(4)])


PLY_COLORS = [("red", "green", "blue"), ("r", "g", "b"), ("diffuse_red", "diffuse_green", "diffuse_blue")]
PLY_TYPES = {"float": "f4", "float32": "f4", "double": "f8", "uchar": "u1", "uint8": "u1", "ushort": "u2", "int": "i4"}


def _ply_rows(rows: list[list[tuple[str, Any]]], form: str) -> bytes:
    """Rows of (PLY type, number) in a format."""
    if form == "ascii":
        return "".join(" ".join(repr(value) for _, value in row) + "\n" for row in rows).encode()
    order = "<" if "little" in form else ">"
    return b"".join(np.array(value, order + PLY_TYPES[kind]).tobytes() for row in rows for kind, value in row)


@st.composite
def ply_files(draw: st.DrawFn) -> MeshCase:
    """A cube in any format, with faces of any size, colors of vertices or faces, and properties to skip."""
    form = draw(st.sampled_from(["ascii", "binary_little_endian", "binary_big_endian"]))
    position, index = draw(st.sampled_from(["float", "double", "float32"])), draw(st.sampled_from(["int", "uchar"]))
    list_name = draw(st.sampled_from(["vertex_indices", "vertex_index"]))
    names, color = draw(st.sampled_from(PLY_COLORS)), draw(st.sampled_from(["none", "uchar", "ushort", "float"]))
    of_faces = draw(st.booleans()) and color != "none"
    polygons = [list(quad) for quad in QUADS] if draw(st.booleans()) else [list(face) for face in TRIANGLES]
    if draw(st.booleans()) and len(polygons) == 6:  # both sizes in one file
        polygons = [list(QUADS[0][[0, 1, 2]]), list(QUADS[0][[0, 2, 3]]), *polygons[1:]]
    vertices = CUBE * draw(st.sampled_from([1.0, 0.375, 2.5]))
    top = {"uchar": 255, "ushort": 65535, "float": 1.0, "none": 1.0}[color]
    given = draw(vertex_colors8).astype(np.float64) / 255
    stored = given * top if color == "float" else np.rint(given * top).astype(int)
    if color == "float":
        stored = stored.astype(np.float32).astype(np.float64)
    color_of = (stored[np.arange(len(polygons)) % 8] if of_faces else stored).tolist()
    cast = float if color == "float" else int
    extra = draw(st.booleans())
    vertex_rows = [
        [(position, float(value)) for value in point]
        + ([("float", 0.25), ("uchar", 7)] if extra else [])
        + ([(color, cast(value)) for value in color_of[row]] if color != "none" and not of_faces else [])
        for row, point in enumerate(vertices)
    ]
    face_rows = [
        ([("uchar", 3)] if extra else [])
        + [("uchar", len(polygon)), *((index, int(corner)) for corner in polygon)]
        + ([(color, cast(value)) for value in color_of[row]] if of_faces else [])
        for row, polygon in enumerate(polygons)
    ]
    head = ["ply", f"format {form} 1.0", "comment made by a test", "element vertex 8"]
    head += [f"property {position} {axis}" for axis in "xyz"]
    head += ["property float quality", "property uchar flags"] if extra else []
    head += [f"property {color} {name}" for name in names] if color != "none" and not of_faces else []
    face_head = [f"element face {len(polygons)}", *(["property uchar flags"] if extra else [])]
    face_head += [f"property list uchar {index} {list_name}"]
    face_head += [f"property {color} {name}" for name in names] if of_faces else []
    body = [_ply_rows(vertex_rows, form), _ply_rows(face_rows, form)]
    if draw(st.booleans()):  # faces first
        head = [*head[:3], *face_head, *head[3:]]
        body.reverse()
    else:
        head = head + face_head
    line = draw(st.sampled_from(["\n", "\r\n"])) if form == "ascii" else "\n"
    data = (line.join([*head, "end_header"]) + line).encode() + b"".join(body)
    if color == "none":
        albedo = np.full((8, 3), GRAY)
    elif of_faces:
        albedo = mean_of_corners(polygons, np.array(color_of) / top)
    else:
        albedo = to_linear(np.array(color_of) / top)
    return MeshCase({"mesh.ply": data}, vertices, None, signed_volume(vertices, TRIANGLES), albedo)


def mean_of_corners(polygons: list[list[int]], display: np.ndarray) -> np.ndarray:
    """(8, 3) linear: each vertex has the mean of its polygons' colors."""
    return np.array(
        [
            np.mean([to_linear(display[row]) for row, polygon in enumerate(polygons) if vertex in polygon], axis=0)
            for vertex in range(8)
        ]
    )


@st.composite
def obj_files(draw: st.DrawFn) -> MeshCase:
    """A cube with indices from either end, in one or several objects and materials, with any source of color."""
    color = draw(st.sampled_from(["none", "vertex", "Kd", "texture"]))
    negative, quads = draw(st.booleans()), draw(st.booleans())
    polygons = [list(face) for face in (QUADS if quads else TRIANGLES)]
    vertices = CUBE * draw(st.sampled_from([1.0, 0.1, 123.456])) + np.array(
        draw(st.sampled_from([(0, 0, 0), (7.5, 0, -2)]))
    )
    colors = draw(vertex_colors8)
    lines, files = ["# a cube", "", "o cube"], {}
    library = draw(st.sampled_from(["paint.mtl", "my paint.mtl", "größe.mtl"]))
    albedo = np.full((8, 3), GRAY)
    lines += [f"v {x!r} {y!r} {z!r}" for x, y, z in vertices.tolist()]
    if color == "vertex":
        lines[3:] = [
            f"{line} {r / 255!r} {g / 255!r} {b / 255!r}"
            for line, (r, g, b) in zip(lines[3:], colors.tolist(), strict=True)
        ]
        albedo = to_linear(colors / 255)
    material_of = None
    if color in ("Kd", "texture"):
        lines.insert(2, f"mtllib {library}")
        lines += [f"vt {u!r} {1 - v!r}" for u, v in TEXEL_UV.tolist()]
        if color == "Kd":
            display = colors[np.arange(len(polygons)) % 3] / 255
            files[library] = "".join(
                f"newmtl no {i}\nKd {c[0]!r} {c[1]!r} {c[2]!r}\n" for i, c in enumerate((colors[:3] / 255).tolist())
            ).encode()
            material_of = [f"no {row % 3}" for row in range(len(polygons))]
            albedo = mean_of_corners(polygons, display)
        else:
            image = draw(st.sampled_from(["wood.png", "my wood #2.png"]))
            option = draw(st.sampled_from(["", "-s 1 1 1 ", "-o 0 0 -clamp on ", "-bm 0.5 -blendu on "]))
            files[library] = f"newmtl no 0\nKd 1 1 1\nmap_Kd {option}{image}\n".encode()
            files[image] = png(colors.reshape(2, 4, 3))
            material_of = ["no 0"] * len(polygons)
            albedo = to_linear(colors / 255)
    for row, polygon in enumerate(polygons):
        if material_of:
            lines.append(f"usemtl {material_of[row]}")
        if draw(st.booleans()):
            lines.append(draw(st.sampled_from(["g part", "s off", "o another", "l 1 2", "# f 1 2 3"])))
        numbers = [corner - 8 if negative else corner + 1 for corner in polygon]
        style = "{0}/{0}" if color == "texture" else draw(st.sampled_from(["{0}", "{0}//", "{0} "]))
        lines.append("f " + " ".join(style.format(number).strip() for number in numbers))
    line = draw(st.sampled_from(["\n", "\r\n"]))
    data = line.join(lines).encode() + line.encode()
    case = {"my mesh.obj": data, **files}
    return MeshCase(case, vertices, None if quads else np.array(polygons), signed_volume(vertices, TRIANGLES), albedo)
