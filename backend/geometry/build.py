# SPDX-License-Identifier: GPL-3.0-or-later
"""Build the mesh of a field: extracted, cleaned, decimated, colored, in meters with its origin at the base."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..config.schema import MeshConfig
from ..config.setting import check_section
from .clean import clean_surface
from .closing import close_pits, project_to_solid
from .color import AlbedoField, display_to_linear, sample_albedo
from .compare import FieldViews, MeshFieldError, mesh_render_error
from .denoise import flattened
from .extract import (
    DensityField,
    DensityGrid,
    extract_surface,
    occupied_box,
    query_density,
    refine_surface,
    sample_density_grid,
)
from .inset import inset_grid
from .texture import Texture, bake
from .threshold import choose_threshold
from .topology import (
    FloatArray,
    Surface,
    euler_number,
    face_components,
    is_watertight,
    signed_volume,
    vertex_normals,
)
from .triangle_budget import fit_to_budget
from .unwrap import unwrap

COARSE_RESOLUTION = 80  # cells a side of the first look at the whole bounding cube
BOX_MARGIN = 2.0  # coarse cells around what the first look found
# Of Taubin's filter: removes the grid's ripples and keeps edges, as tests/unit/test_clean.py measures.
SMOOTHING_ITERATIONS = 4


@dataclass(frozen=True)
class Mesh:
    """A prop in meters, Z up, front to -Y, origin at the middle of its base.

    vertices (V, 3) float32, faces (F, 3) int32 counter-clockwise seen from outside, albedo (V, 3) float32 linear RGB
    in [0, 1], normals (V, 3) float32 unit, outwards. texture: the albedo as an image too, where one was asked for. The
    vertices of a mesh that was read from a file are float64 where float32 does not hold them.
    """

    vertices: NDArray[np.float32]
    faces: NDArray[np.int32]
    albedo: NDArray[np.float32]
    normals: NDArray[np.float32]
    texture: Texture | None = None


@dataclass(frozen=True)
class MeshReport:
    """Figures of a mesh and of how it was made."""

    threshold: float  # density whose contour agrees best with the renders, 1 / scene unit; 0 where there was no field
    cell: float  # grid spacing, scene units; 0 where there was no field
    components_dropped: int  # floaters, specks and cavities that were removed
    components: int  # parts that stayed
    vertices: int
    triangles: int
    triangles_extracted: int  # before decimation
    watertight: bool
    euler_number: int  # 2 a part, less 2 a handle
    volume: float  # cubic meters
    scale: float  # meters a scene unit
    offset: tuple[float, float, float]  # placed = scale * scene + offset
    texture: int  # texels a side; 0 for a mesh without a texture
    error: MeshFieldError | None  # against the field's own renders; None when no views were given
    # Of a mesh that was optimized itself: share of the faces that point against their neighborhood, and share of its
    # pixels that see the surface from within, where parts run through each other.
    folded: float | None = None
    inside: float | None = None
    # Scene units that the surface lies inside the contour of a lower density (`inset_grid`); 0: it is the threshold's.
    inset: float = 0.0
    warnings: tuple[str, ...] = ()  # lines for the user

    @classmethod
    def of(cls, surface: Surface, mesh: Mesh, scale: float, offset: FloatArray, **measured: Any) -> MeshReport:
        """The figures of a surface and of the mesh placed from it; `measured`: the other fields."""
        return cls(
            components=int(face_components(surface.faces).max()) + 1,
            vertices=len(mesh.vertices),
            triangles=len(mesh.faces),
            watertight=is_watertight(mesh.faces),
            euler_number=euler_number(mesh.faces),
            volume=signed_volume(surface) * scale**3,
            scale=scale,
            offset=(float(offset[0]), float(offset[1]), float(offset[2])),
            texture=len(mesh.texture.image) if mesh.texture else 0,
            **measured,
        )


def locate_grid(field: DensityField, config: MeshConfig) -> tuple[DensityGrid, float]:
    """Fine density grid around the prop, and the threshold: a coarse look finds the box, the fine grid the surface."""
    coarse = sample_density_grid(field, min(COARSE_RESOLUTION, max(config.resolution, 32)))
    rough = config.threshold if config.threshold > 0 else choose_threshold(coarse)
    # Half the threshold: where the prop is thinner than a coarse cell, its peak density is missed.
    low, high = occupied_box(coarse, min(0.5 * rough, 0.5 * float(coarse.tau.max())), BOX_MARGIN)
    limit = float(field.bounding_radius)
    grid = sample_density_grid(field, config.resolution, np.maximum(low, -limit), np.minimum(high, limit))
    return grid, config.threshold if config.threshold > 0 else choose_threshold(grid)


def to_object_frame(vertices: FloatArray, height_m: float) -> tuple[FloatArray, float, FloatArray]:
    """Scale to `height_m` meters along Z, stand on z = 0, center in x and y: (vertices, scale, offset (3,))."""
    low, high = vertices.min(axis=0), vertices.max(axis=0)
    scale = height_m / float(high[2] - low[2])
    offset = -scale * np.array([0.5 * (low[0] + high[0]), 0.5 * (low[1] + high[1]), low[2]])
    return scale * vertices + offset, scale, offset


def assemble_mesh(surface: Surface, rho: FloatArray, height_m: float) -> tuple[Mesh, float, FloatArray]:
    """Placed float32 mesh of a surface in scene units with display-sRGB rho (V, 3): (mesh, scale, offset)."""
    vertices, scale, offset = to_object_frame(surface.vertices, height_m)
    mesh = Mesh(
        vertices=vertices.astype(np.float32),
        faces=surface.faces.astype(np.int32),
        albedo=display_to_linear(rho).astype(np.float32),
        normals=vertex_normals(surface).astype(np.float32),
    )
    return mesh, scale, offset


def build_mesh(
    field: AlbedoField,
    config: MeshConfig,
    views: FieldViews | None = None,
    smoothing_iterations: int = SMOOTHING_ITERATIONS,
    progress: Callable[[float], None] = lambda share: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> tuple[Mesh, MeshReport]:
    """Extract, clean, decimate, color, to_object_frame: the field's prop as a sound mesh, with a report.

    Call `field.begin_step(progress)` first. `views`: cameras of the mesh-versus-field render error. `progress` receives
    the baked share of the texture in [0, 1]; a bake that `should_stop` ends leaves the mesh without a texture. The
    extraction samples the field itself, without an occupancy grid. Raises ConfigError for settings out of range and
    RunError for a field that is empty or not finite.
    """
    check_section(config, "mesh")
    grid, threshold = locate_grid(field, config)
    soft = inset_grid(grid, threshold) if config.threshold == 0 else None
    solid, inset = soft or (grid, 0.0)
    closed = close_pits(solid, threshold, config.closing)
    raw = extract_surface(closed, threshold)
    if soft is None:
        raw = refine_surface(field, closed, raw, threshold)
    clean, dropped = clean_surface(raw, lambda mu: query_density(field, mu), smoothing_iterations)
    surface, budget_warning = fit_to_budget(clean, closed, threshold, config.triangles)
    onto = project_to_solid(grid, threshold) if config.closing > 0 or budget_warning else lambda mu: mu
    rho = sample_albedo(field, onto(surface.vertices), vertex_normals(surface), grid.cell)
    colored, surface = surface, flattened(surface, config.smoothing)  # colors stay with their vertices
    mesh, scale, offset = assemble_mesh(surface, rho, config.height_m)
    if config.texture:
        places = unwrap(mesh.vertices, mesh.faces, config.texture)
        mesh = replace(
            mesh, texture=bake(field, colored, places, config.texture, grid.cell, onto, progress, should_stop)
        )
    report = MeshReport.of(
        surface,
        mesh,
        scale,
        offset,
        threshold=threshold,
        inset=inset,
        cell=grid.cell,
        components_dropped=dropped,
        triangles_extracted=len(raw.faces),
        error=mesh_render_error(surface, rho, views, mesh.texture) if views is not None else None,
        warnings=(budget_warning,) if budget_warning else (),
    )
    return mesh, report
