# SPDX-License-Identifier: GPL-3.0-or-later
"""Pictures that are put together from what the commands make, and the meshes that `refine` is shown on.

python -m tools.docs.composites gray-mushroom mushroom.ply
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from dreamwright.backend.geometry.build import Mesh
from dreamwright.backend.geometry.color import display_to_linear
from dreamwright.backend.geometry.topology import Surface, vertex_normals
from dreamwright.backend.io.mesh_export import export_mesh
from dreamwright.backend.io.mesh_reader import read_mesh
from dreamwright.backend.mesh_rendering.turntable import lit_images
from dreamwright.backend.starter import domain, props
from dreamwright.backend.starter.solids import lathe

TILE = 200  # pixels a side
SIDES, ELEVATION = 4, 15.0
JPEG_QUALITY = 90
GRAY = (0.55, 0.55, 0.55)  # display sRGB
SEGMENTS, RINGS = 74, 39  # of the mushroom: 5,476 triangles
OUTLINE = (  # (radius, z) of the mushroom's profile
    (0.0, 0.0), (0.17, 0.0), (0.215, 0.03), (0.215, 0.07), (0.19, 0.12), (0.19, 0.40), (0.40, 0.38), (0.46, 0.40),
    *((0.46 * np.cos(angle), 0.42 + 0.38 * np.sin(angle)) for angle in np.linspace(0, np.pi / 2, 9)[:-1]), (0.0, 0.80),
)  # fmt: skip


def side_by_side(paths: Sequence[Path], out: Path, width: int | None = None) -> None:
    """Images of one height, joined from left to right, as a JPEG; scaled to a width in pixels if one is given."""
    images = []
    for path in paths:
        with Image.open(path) as opened:
            images.append(opened.convert("RGB"))
    joined = Image.new("RGB", (sum(image.width for image in images), max(image.height for image in images)))
    left = 0
    for image in images:
        joined.paste(image, (left, 0))
        left += image.width
    if width is not None:
        joined = joined.resize((width, round(joined.height * width / joined.width)), Image.Resampling.LANCZOS)
    joined.save(out, quality=JPEG_QUALITY, optimize=True)


def mesh_rows(paths: Sequence[Path], out: Path) -> None:
    """A row for each mesh file: four sides in color, the front first, and the front untextured."""
    rows = []
    for path in paths:
        mesh = read_mesh(path)
        color, plain = zip(*(lit_images(mesh, 360.0 / SIDES * k, ELEVATION, TILE) for k in range(SIDES)), strict=True)
        rows.append(np.concatenate([*color, plain[0]], axis=1))
    Image.fromarray((np.concatenate(rows) * 255 + 0.5).astype(np.uint8)).save(out, optimize=True)


def gray_mushroom() -> Mesh:
    """A closed mushroom of evenly spaced rings, gray all over: what `refine` has to color."""
    corners = np.array(OUTLINE)
    along = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(corners, axis=0), axis=1))])
    even = np.linspace(0.0, along[-1], RINGS)
    profile = [(float(np.interp(s, along, corners[:, 0])), float(np.interp(s, along, corners[:, 1]))) for s in even]
    vertices, faces = lathe(profile, SEGMENTS)
    fans = [(face[0], face[i], face[i + 1]) for face in faces for i in range(1, len(face) - 1)]
    return _painted(vertices, np.array(fans, np.int32), GRAY)


def blue_duck() -> Mesh:
    """The starter's duck, blue all over: parts that intersect, and details that are smaller than the noise."""
    model = props.triangles(props.build("duck"))
    return _painted(model.vertices, model.faces, domain.COLORS["blue"])


MESHES: dict[str, Callable[[], Mesh]] = {"gray-mushroom": gray_mushroom, "blue-duck": blue_duck}


def _painted(vertices: np.ndarray, faces: np.ndarray, color: Sequence[float]) -> Mesh:
    """The mesh in one color of display sRGB, with smooth normals."""
    normals = vertex_normals(Surface(vertices.astype(np.float64), faces))
    albedo = np.tile(display_to_linear(np.array(color)), (len(vertices), 1))
    return Mesh(vertices.astype(np.float32), faces, albedo.astype(np.float32), normals.astype(np.float32))


def main(arguments: Sequence[str] | None = None) -> int:
    """Write one of the meshes; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("mesh", choices=tuple(MESHES))
    parser.add_argument("out", type=Path, help="the mesh file")
    options = parser.parse_args(arguments)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    export_mesh(MESHES[options.mesh](), options.out, {"what": options.mesh})
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
