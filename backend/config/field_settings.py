# SPDX-License-Identifier: GPL-3.0-or-later
"""Settings of what is rendered: cameras, lights, shading, the field and its background."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from .setting import FieldKind, SceneKind, Section, setting

FIELD: tuple[SceneKind, ...] = ("field",)
BACKED: tuple[SceneKind, ...] = ("field", "mesh")  # scenes that are rendered before a random background
SHARE, PROBABILITY, DISTANCE = (0, 1), (0, 1), (0.1, 100)
OF_RUN = "share of the run"
MIP_MLP: tuple[FieldKind, ...] = ("mip-mlp",)
VOXELS: tuple[FieldKind, ...] = ("voxels",)
HASH_GRID: tuple[FieldKind, ...] = ("hash-grid",)


@dataclass(frozen=True)
class CameraConfig:
    SECTION: ClassVar = Section("Random training cameras.", duration=False)

    elevation_min: float = setting(
        -10.0,
        (-90, 90),
        unit="degrees",
        at_most="elevation_max",
        help="Lowest elevation. Slightly below the horizon, so that undersides are seen.",
    )
    elevation_max: float = setting(90.0, (-90, 90), unit="degrees", help="Highest elevation.")
    uniform_angle_share: float = setting(
        0.5,
        PROBABILITY,
        unit="probability",
        help="How often the elevation is uniform in angle. Otherwise it is uniform in area.",
    )
    area_elevation_min: float = setting(
        0.0,
        (-90, 90),
        unit="degrees",
        help="Lowest elevation of draws that are uniform in area, if above elevation_min. 0: the paper's half-sphere.",
    )
    distance_min: float = setting(
        1.0, DISTANCE, unit="scene units", at_most="distance_max", help="Smallest distance from the origin."
    )
    distance_max: float = setting(1.5, DISTANCE, unit="scene units", help="Largest distance from the origin.")
    framing: Literal["focal", "fill"] = setting(
        "focal",
        help=(
            "focal: draw the focal length. fill: draw the share of the image that a prop of radius 0.5 covers; the "
            "focal length follows the distance."
        ),
    )
    focal_min: float = setting(
        0.7, DISTANCE, unit="image widths", at_most="focal_max", help="Smallest focal length (framing focal)."
    )
    focal_max: float = setting(1.35, DISTANCE, unit="image widths", help="Largest focal length (framing focal).")
    fill_min: float = setting(
        0.55,
        (0.05, 5),
        unit="share of the image width",
        at_most="fill_max",
        help="Smallest part that a sphere of radius 0.5 covers (framing fill).",
    )
    fill_max: float = setting(
        0.9,
        (0.05, 5),
        unit="share of the image width",
        help="Largest part that a sphere of radius 0.5 covers (framing fill).",
    )
    look_at_std: float = setting(
        0.4472135954999579,
        (0, 10),
        unit="scene units",
        help=(
            "Standard deviation of the point that is looked at: sqrt(.2), as the paper's N(0, .2 I) is read as a "
            "covariance."
        ),
    )
    up_std: float = setting(
        0.1414213562373095,
        (0, 10),
        help=(
            "Standard deviation of the noise on the up vector: sqrt(.02), as the paper's N(0, .02 I) is read as a "
            "covariance."
        ),
    )
    position_offset: float = setting(
        0.1, (0, 10), unit="scene units", help="The position is moved uniformly in (-offset, offset) along each axis."
    )
    stratified_azimuth: bool = setting(False, help="Spread the views of one step evenly around the object.")
    views_per_set: int = setting(
        1,
        (1, 8),
        help=(
            "Views at equal steps around the object, at one elevation, distance and focal length, of one look and "
            "before one background. A multi-view model needs as many as it denoises together. Divides "
            "run.views_per_step."
        ),
    )


@dataclass(frozen=True)
class LightConfig:
    SECTION: ClassVar = Section("Random point lights.", duration=False)

    direction_std: float = setting(
        1.0,
        (0, 100),
        unit="scene units",
        help="The light's direction is drawn from N(camera position, std^2 I), so it is usually on the camera's side.",
    )
    distance_min: float = setting(
        0.8,
        (0.01, 100),
        unit="scene units",
        at_most="distance_max",
        help="Smallest distance of the light from the origin.",
    )
    distance_max: float = setting(
        1.5, (0.01, 100), unit="scene units", help="Largest distance of the light from the origin."
    )


@dataclass(frozen=True)
class ShadingConfig:
    SECTION: ClassVar = Section("Which views are lit, and how (eq 7).")

    albedo_only_share: float = setting(
        1000 / 15000, SHARE, unit=OF_RUN, help="Initial part of the run with ambient light only (l_a = 1, l_rho = 0)."
    )
    shaded_probability: float = setting(0.75, PROBABILITY, unit="probability", help="Diffuse shading afterwards.")
    textureless_probability: float = setting(
        0.5, PROBABILITY, unit="probability", duration=False, help="White albedo (rho = 1) in a shaded view."
    )
    ambient: float = setting(0.1, (0, 1), duration=False, help="Ambient light l_a of a shaded view.")
    ambient_max: float = setting(
        0.1,
        (0, 1),
        duration=False,
        help="Where it exceeds shading.ambient, l_a is uniform between the two and l_rho = 1 - l_a.",
    )
    diffuse: float = setting(0.9, (0, 10), duration=False, help="Diffuse light l_rho of a shaded view.")


@dataclass(frozen=True)
class FieldConfig:
    SECTION: ClassVar = Section("The radiance field.", scenes=FIELD)

    kind: FieldKind = setting(
        "mip-mlp",
        help=(
            "mip-mlp: the paper's network. voxels: multi-resolution grids, fast on a CPU. hash-grid: hashed grids of "
            "many resolutions and a small network, for fine detail on a GPU."
        ),
    )
    bounding_radius: float = setting(
        1.4, (0.05, 100), unit="scene units", help="The field is queried inside this sphere only."
    )
    density_activation: Literal["exp", "softplus"] = setting("exp", help="From raw tau to density.")
    density_bias: Literal["gaussian", "linear"] = setting(
        "gaussian", help="The initial blob. gaussian: eq 9. linear: scale * (1 - r / width), as in Magic3D."
    )
    density_bias_scale: float = setting(5.0, (-1000, 1000), help="lambda_tau of eq 9.")
    density_bias_width: float = setting(0.2, (1e-3, 100), unit="scene units", help="sigma_tau of eq 9.")
    density_bias_on: Literal["density", "raw"] = setting(
        "raw",
        help=(
            "raw: the blob is added before the activation, so that training can remove it. density: it is added to "
            "tau, as eq 9 can be read; a chair's seat then stays filled."
        ),
    )
    density_bias_fade_share: float = setting(
        0.0, SHARE, unit=OF_RUN, zero="it never fades", help="Part of the run over which the blob fades to nothing."
    )
    encoding_levels: int = setting(
        8, (1, 16), fields=MIP_MLP, help="L of the integrated positional encoding: frequencies 2^0 .. 2^(L-1)."
    )
    covariance_start: float = setting(
        5e-2, (0, 10), duration=False, fields=MIP_MLP, help="lambda_Sigma of eq 8 at the start."
    )
    covariance_end: float = setting(2e-3, (0, 10), duration=False, fields=MIP_MLP, help="lambda_Sigma once annealed.")
    covariance_share: float = setting(
        5000 / 15000,
        SHARE,
        unit=OF_RUN,
        duration=False,
        fields=MIP_MLP,
        help="Part of the run over which lambda_Sigma anneals linearly.",
    )
    hidden_width: int = setting(128, (4, 1024), fields=MIP_MLP, help="Units of each ResNet block.")
    hidden_blocks: int = setting(5, (1, 32), fields=MIP_MLP, help="ResNet blocks.")
    voxel_resolutions: tuple[int, ...] = setting(
        (16, 32, 64),
        (4, 256),
        unit="cells a side",
        reduce_memory=((16, 32, 64),),
        fields=VOXELS,
        help="Grids that are summed.",
    )
    density_scale: float = setting(
        1.0, (1e-3, 1e4), help="Factor on the activated density. A prop is opaque within a few cells."
    )
    hash_levels: int = setting(16, (1, 24), fields=HASH_GRID, help="Grids of rising resolution.")
    hash_features: int = setting(2, (1, 8), fields=HASH_GRID, help="Features of an entry.")
    hash_log2_size: int = setting(
        19,
        (8, 24),
        reduce_memory=(15,),
        fields=HASH_GRID,
        help="Logarithm to base 2 of the most entries of a level. 15 suits a CPU.",
    )
    hash_base_resolution: int = setting(
        16, (2, 512), unit="vertices a side", fields=HASH_GRID, help="Resolution of the coarsest level."
    )
    hash_growth: float = setting(
        1.447269237440378, (1, 4), fields=HASH_GRID, help="Factor from one level's resolution to the next one's."
    )
    hash_start_level: int = setting(
        0,
        (1, 24),
        zero="all levels at once",
        at_most="hash_levels",
        fields=HASH_GRID,
        help="Coarsest levels that are seen at first; the others come one by one, from coarse to fine.",
    )
    hash_start_share: float = setting(
        0.0, SHARE, unit=OF_RUN, fields=HASH_GRID, help="Part of the run with the first levels alone, before the count."
    )
    hash_level_interval: float = setting(
        0.05, (1e-4, 1), unit=OF_RUN, fields=HASH_GRID, help="Part of the run from one further level to the next."
    )
    hash_hidden_width: int = setting(64, (4, 1024), fields=HASH_GRID, help="Units of a hidden layer of the networks.")
    hash_hidden_layers: int = setting(
        1, (1, 8), fields=HASH_GRID, help="Hidden layers of the networks of density and albedo."
    )
    normals: Literal["analytic", "finite-difference"] = setting(
        "analytic",
        fields=HASH_GRID,
        help="From the exact gradient, or from central differences, which are smoother.",
    )
    normal_step: float = setting(
        0.01, (1e-4, 1), unit="scene units", fields=HASH_GRID, help="Step of the central differences to either side."
    )


@dataclass(frozen=True)
class BackgroundConfig:
    SECTION: ClassVar = Section("What is behind the scene.", scenes=FIELD)

    kind: Literal["mlp", "constant"] = setting(
        "mlp", help="mlp: a second network on the encoded ray direction. constant: one learned color."
    )
    encoding_levels: int = setting(4, (0, 16), help="Frequencies of the encoding of ray directions (mlp).")
    hidden_width: int = setting(64, (4, 1024), help="Units of the hidden layers (mlp).")
    random_probability: float = setting(
        0.0,
        PROBABILITY,
        unit="probability",
        scenes=BACKED,
        duration=False,
        help="A plain random color instead. Field and background cannot hide each other's errors then.",
    )
    random_kind: Literal["color", "grey"] = setting(
        "color", scenes=BACKED, duration=False, help="That color: any, or a gray."
    )
    random_min: float = setting(
        0.0,
        (0, 1),
        unit="display sRGB",
        at_most="random_max",
        scenes=BACKED,
        duration=False,
        help="Smallest channel or gray level of it.",
    )
    random_max: float = setting(
        1.0, (0, 1), unit="display sRGB", scenes=BACKED, duration=False, help="Largest channel or gray level of it."
    )
    random_any_share: float = setting(
        0.0,
        SHARE,
        unit="share of the random colors",
        scenes=BACKED,
        duration=False,
        help="Any color instead of a gray. Before grays alone, gray parts of a prop are lost.",
    )
