# SPDX-License-Identifier: GPL-3.0-or-later
"""Settings of meshes: extraction from a field, refinement of a given mesh, and the sphere of CLIP-Mesh."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from dreamwright.shared import limits

from .setting import SceneKind, Section, setting

SHARE, WEIGHT, STIFFNESS = (0, 1), (0, 1e9), (0, 1e4)
GIVEN: tuple[SceneKind, ...] = ("mesh",)  # scenes that start from a given mesh


@dataclass(frozen=True)
class MeshConfig:
    SECTION: ClassVar = Section("The mesh that is made of a finished field.", identity=False, scenes=("field",))

    resolution: int = setting(
        128,
        (16, 512),
        unit="cells a side",
        panel=True,
        label="Mesh Grid",
        help="Marching-cubes grid that the surface is taken from.",
    )
    triangles: int = setting(
        20000,
        (limits.TRIANGLES_SMALLEST, limits.TRIANGLES_LARGEST),
        panel=True,
        duration=False,
        help="Triangle budget of the finished mesh.",
    )
    threshold: float = setting(
        0.0,
        (0, 1e6),
        zero="chosen from the rendered opacity",
        unit="per scene unit",
        duration=False,
        help="Density of the surface.",
    )
    closing: float = setting(
        0.0, (0, 0.5), zero="none", unit="scene units", help="Pits and cracks narrower than twice this are filled."
    )
    smoothing: int = setting(
        0, (0, 200), help="Rounds of bilateral normal filtering on the decimated mesh. They flatten lumps, not edges."
    )
    texture: int = setting(
        0,
        (limits.TEXTURE_SMALLEST, limits.TEXTURE_LARGEST),
        zero="vertex colors",
        unit="texels a side",
        help="Albedo texture.",
    )
    height_m: float = setting(
        1.0,
        (limits.HEIGHT_M_SMALLEST, limits.HEIGHT_M_LARGEST),
        unit="meters",
        panel=True,
        label="Height",
        duration=False,
        scenes=("field", "sphere"),
        help="Height of the finished prop in meters.",
    )


@dataclass(frozen=True)
class SurfaceConfig:
    """Lengths are in scene units. What is not here is as the defaults of `RefineConfig` say."""

    SECTION: ClassVar = Section(
        "A stage after the field, which optimizes the vertices and colors of its mesh.",
        scenes=("field",),
        guidance=("diffusion",),
    )

    steps: int = setting(
        0,
        (1, 1_000_000),
        zero="no such stage",
        help="Optimization steps of the mesh, after the run.steps of the field.",
    )
    model: str = setting(
        "",
        help=(
            "Model of the stage, a name or a folder, where it is another than the field's. It is loaded when the field "
            "is finished and that model is freed. The other settings of the stage are those of its family's fine."
        ),
    )
    reach: float = setting(
        0.25, (1e-3, 1), unit="scene units", duration=False, help="Largest displacement of a vertex."
    )
    position_rate: float = setting(
        0.012, SHARE, unit="scene units a step", duration=False, help="Initial step size of positions."
    )
    color_rate: float = setting(
        0.0,
        SHARE,
        zero="colors stay the field's",
        unit="display sRGB a step",
        duration=False,
        help="Initial step size of colors.",
    )
    texture_rate: float = setting(
        0.0,
        SHARE,
        zero="texels follow the vertices' colors",
        unit="display sRGB a step",
        duration=False,
        help="Initial step size of the texels, where there is a texture (mesh.texture), beside that of colors.",
    )
    texture_smoothing: int = setting(
        2,
        (0, 64),
        duration=False,
        help=(
            "Rounds in which changes of texels are averaged with those of their neighbors. 0: single texels keep the "
            "noise of single steps."
        ),
    )
    resolution: int = setting(
        0,
        (8, 512),
        unit="pixels a side",
        zero="render.resolution",
        reduce_memory=(256, 128),
        help="Size of the stage's views.",
    )
    supersampling: int = setting(2, (1, 8), help="Samples a side of each pixel of the stage's views.")
    focal_min: float = setting(
        0.0,
        (0.1, 100),
        unit="image widths",
        zero="camera.focal_min",
        at_most="focal_max",
        duration=False,
        help="Smallest focal length of the stage (framing focal).",
    )
    focal_max: float = setting(
        0.0,
        (0.1, 100),
        unit="image widths",
        zero="camera.focal_max",
        duration=False,
        help="Largest focal length of the stage (framing focal).",
    )
    omega: float = setting(
        0.0, (1e-3, 1000), zero="guidance.omega", duration=False, help="guidance.omega of the stage."
    )
    weighting: Literal["same", "sigma2", "uniform", "clean"] = setting(
        "same", duration=False, help="guidance.weighting of the stage. same: that of the field."
    )
    normals: float = setting(
        300.0,
        WEIGHT,
        duration=False,
        help="Weight of the length of the difference between the normals of neighboring faces.",
    )
    consistency: float = setting(
        0.0, WEIGHT, duration=False, help="Weight of 1 - cos between the normals of neighboring faces, as in Magic3D."
    )
    laplacian: float = setting(30.0, WEIGHT, duration=False, help="Weight as refine.laplacian, for this stage.")
    edges: float = setting(30.0, WEIGHT, duration=False, help="Weight as refine.edges, for this stage.")
    stiffness: float = setting(
        2.0,
        STIFFNESS,
        duration=False,
        help="As refine.stiffness, for this stage. Normals of neighbors agree only where single vertices can move.",
    )
    t_min: float = setting(
        0.0,
        SHARE,
        zero="guidance.t_min",
        duration=False,
        help="Lowest diffusion time of the stage. At low times the starter takes dark colors for colors in the shade.",
    )
    t_max: float = setting(0.98, SHARE, duration=False, help="Highest diffusion time at the start of the stage.")
    t_max_end: float = setting(0.75, SHARE, duration=False, help="Highest diffusion time at its end.")


@dataclass(frozen=True)
class RefineConfig:
    """Lengths are in scene units, after the mesh was scaled to radius 0.5."""

    SECTION: ClassVar = Section("Refinement of a mesh, and how CLIP-Mesh moves its sphere.", scenes=("mesh", "sphere"))

    strength: float = setting(
        0.5,
        SHARE,
        scenes=GIVEN,
        panel=True,
        duration=False,
        help=(
            "How far vertices and colors may go. 0 changes nothing; at 1 a vertex moves by up to half of the mesh's "
            "radius. Scales the bounds, the rates and the range of the noise."
        ),
    )
    positions: bool = setting(True, panel=True, label="Shape", scenes=GIVEN, help="Move the vertices.")
    colors: bool = setting(True, panel=True, scenes=GIVEN, help="Change the vertices' colors.")
    reach: float = setting(
        0.25, (1e-3, 1), unit="scene units", duration=False, help="Largest displacement of a vertex at strength 1."
    )
    color_reach: float = setting(
        1.0, (1e-3, 1), unit="display sRGB", duration=False, help="Largest change of a color channel at strength 1."
    )
    stiffness: float = setting(
        20.0,
        STIFFNESS,
        duration=False,
        help="lambda of x = (I + lambda L)^-1 u. A push on a vertex spreads over about sqrt(lambda) edges.",
    )
    color_stiffness: float = setting(1.0, STIFFNESS, duration=False, help="The same for colors.")
    position_rate: float = setting(
        0.012, SHARE, unit="scene units a step", duration=False, help="Initial step size of positions at strength 1."
    )
    color_rate: float = setting(
        0.12, SHARE, unit="display sRGB a step", duration=False, help="Initial step size of colors at strength 1."
    )
    laplacian: float = setting(
        300.0,
        WEIGHT,
        duration=False,
        help=(
            "Weight of the squared difference between a vertex's displacement and its neighbors' mean one, in edge "
            "lengths."
        ),
    )
    edges: float = setting(300.0, WEIGHT, duration=False, help="Weight of the squared relative change of edge lengths.")
    normals: float = setting(
        0.0, WEIGHT, duration=False, help="Weight of 1 - cos between the normals of neighboring faces."
    )
    crease: float = setting(
        45.0,
        (0, 180),
        unit="degrees",
        duration=False,
        help="Angle between two faces above which their edge is shaded sharp.",
    )
    supersampling: int = setting(2, (1, 8), help="Samples a side of each pixel.")


@dataclass(frozen=True)
class SphereConfig:
    SECTION: ClassVar = Section("The sphere that CLIP-Mesh starts from, and its losses.", scenes=("sphere",))

    subdivisions: int = setting(4, (1, 6), help="Subdivisions n of an icosahedron, which give 10 * 4^n + 2 vertices.")
    radius: float = setting(0.35, (0.05, 0.5), unit="scene units", duration=False, help="Radius at the start.")
    color_noise: float = setting(
        0.25,
        SHARE,
        unit="display sRGB",
        zero="gray",
        duration=False,
        help=(
            "Standard deviation of the random vertex colors at the start. A model may take a gray sphere for one "
            "without texture and leave it gray."
        ),
    )
    color_noise_stiffness: float = setting(
        10.0,
        STIFFNESS,
        duration=False,
        help="Smoothing of the random colors, as refine.stiffness: over about its square root in edges.",
    )
    textureless_share: float = setting(
        0.5,
        SHARE,
        unit="share of the run",
        duration=False,
        help="Part of the run in which views may be textureless. All views show colors afterwards.",
    )
    laplacian_end: float = setting(
        1.0,
        WEIGHT,
        duration=False,
        help="Final value of refine.laplacian. A stiff start moves the whole shape before its parts.",
    )
    laplacian_share: float = setting(
        0.5, SHARE, unit="share of the run", duration=False, help="Part of the run over which refine.laplacian changes."
    )
    outside: float = setting(
        0.0,
        WEIGHT,
        duration=False,
        help="Weight of the mean squared distance of vertices outside of radius 0.5, which the cameras frame.",
    )
