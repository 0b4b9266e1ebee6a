# SPDX-License-Identifier: GPL-3.0-or-later
"""A coarse mesh of a run's present state, made in a fraction of a step's time, to be watched while the run goes on."""

from __future__ import annotations

from dataclasses import dataclass

import fast_simplification
import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from dreamwright.shared.limits import LIVE_MESH_TRIANGLES

from ..errors import RunError
from .build import Mesh, to_object_frame
from .color import AlbedoField, display_to_linear, sample_albedo
from .extract import DensityGrid, extract_surface, sample_density_grid
from .threshold import choose_threshold
from .topology import FloatArray, Surface, face_areas, face_components, vertex_normals

RESOLUTION = 48  # cells a side of the bounding cube
FLOATER_SHARE = 0.05  # of the largest part's faces, below which a part is fog and is left out
# Of the six views that the finished mesh's threshold is found with, and every second node: a quarter of the time.
THRESHOLD_VIEWS = ((10.0, 20.0), (100.0, 20.0))
THRESHOLD_STRIDE = 2
AGGRESSIVENESS = 7.0  # of fast-simplification, whose quickest this is


@dataclass(frozen=True)
class LiveMesh:
    """A prop as it stands, in the frame of the finished mesh: meters, Z up, origin at the middle of its base.

    vertices (V, 3) float32, faces (F, 3) int32 counter-clockwise seen from outside, F at most LIVE_MESH_TRIANGLES,
    colors (V, 3) uint8 display sRGB.
    """

    vertices: NDArray[np.float32]
    faces: NDArray[np.int32]
    colors: NDArray[np.uint8]


def live_mesh_of_field(field: AlbedoField, threshold: float, height_m: float) -> LiveMesh:
    """The surface of a field on a coarse grid, without fog beside it; `threshold` 0: the one its renders agree with.

    Call `field.begin_step(progress)` first. Raises RunError for a field that is empty or not finite.
    """
    grid = sample_density_grid(field, RESOLUTION)
    level = threshold if threshold > 0 else choose_threshold(_coarser(grid), THRESHOLD_VIEWS)
    surface = within_budget(without_floaters(extract_surface(grid, level)))
    return _placed(surface, sample_albedo(field, surface.vertices, vertex_normals(surface), grid.cell), height_m)


def _coarser(grid: DensityGrid) -> DensityGrid:
    """Every second node of a grid, its empty border included."""
    stride = THRESHOLD_STRIDE
    return DensityGrid(np.ascontiguousarray(grid.tau[::stride, ::stride, ::stride]), grid.origin, stride * grid.cell)


def live_mesh_of_surface(surface: Surface, colors: FloatArray, height_m: float = 0.0) -> LiveMesh:
    """A surface with display-sRGB colors (V, 3) in [0, 1], with fewer triangles where it has too many.

    `height_m` 0 leaves it in its place and size. Raises RunError for one that is empty or not finite.
    """
    if not len(surface.faces) or not np.isfinite(surface.vertices).all():
        raise RunError("the mesh is empty or not finite")
    fewer = within_budget(_with_faces(surface, surface.faces))
    nearest = cKDTree(surface.vertices).query(fewer.vertices)[1]
    return _placed(fewer, colors[nearest], height_m)


def as_mesh(live: LiveMesh) -> Mesh:
    """A live mesh as one that can be written to a file."""
    surface = Surface(live.vertices.astype(np.float64), live.faces.astype(np.int64))
    albedo, normals = display_to_linear(live.colors / 255.0), vertex_normals(surface)
    return Mesh(live.vertices, live.faces, albedo.astype(np.float32), normals.astype(np.float32))


def without_floaters(surface: Surface) -> Surface:
    """The parts of a surface that have FLOATER_SHARE of the largest part's faces."""
    part = face_components(surface.faces)
    counts = np.bincount(part)
    return _with_faces(surface, surface.faces[counts[part] >= FLOATER_SHARE * counts.max()])


def within_budget(surface: Surface, triangles: int = LIVE_MESH_TRIANGLES) -> Surface:
    """At most `triangles` faces by quadric decimation; without the smallest ones where it stops early."""
    if len(surface.faces) <= triangles:
        return surface
    low, size = surface.vertices.min(axis=0), float(np.ptp(surface.vertices, axis=0).max())
    points = ((surface.vertices - low) / size).astype(np.float32)  # the library's tolerances are absolute
    vertices, faces = fast_simplification.simplify(
        points, surface.faces.astype(np.int32), target_count=triangles, agg=AGGRESSIVENESS
    )
    fewer = Surface(low + size * vertices.astype(np.float64), faces.astype(np.int64))
    if len(faces) > triangles:
        kept = np.sort(np.argsort(-face_areas(fewer), kind="stable")[:triangles])
        fewer = Surface(fewer.vertices, fewer.faces[kept])
    return _with_faces(fewer, fewer.faces)


def _with_faces(surface: Surface, faces: NDArray[np.integer]) -> Surface:
    """The surface of some of its faces, without the vertices that only others had."""
    used, corners = np.unique(faces, return_inverse=True)
    return Surface(surface.vertices[used], corners.reshape(faces.shape).astype(np.int64))


def _placed(surface: Surface, colors: FloatArray, height_m: float) -> LiveMesh:
    vertices = to_object_frame(surface.vertices, height_m)[0] if height_m > 0 else surface.vertices
    return LiveMesh(
        np.ascontiguousarray(vertices, np.float32),
        np.ascontiguousarray(surface.faces, np.int32),
        np.round(255 * np.clip(colors, 0, 1)).astype(np.uint8),
    )
