# SPDX-License-Identifier: GPL-3.0-or-later
"""Settings of how a field is rendered while it is trained, and of the penalties on its renders."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from .field_settings import FIELD, OF_RUN, SHARE, VOXELS
from .setting import Section, setting

WEIGHT = (0, 1e6)


@dataclass(frozen=True)
class RenderConfig:
    SECTION: ClassVar = Section("Volume rendering.", scenes=FIELD)

    resolution: int = setting(
        64,
        (8, 512),
        unit="pixels a side",
        reduce_memory=(64,),
        scenes=("field", "mesh", "sphere"),
        help="Size of a training view.",
    )
    coarse_resolution: int = setting(
        0,
        (0, 512),
        unit="pixels a side",
        zero="no early resolution",
        help=(
            "Early training resolution, upsampled before guidance. Has no effect unless it is smaller than "
            "render.resolution."
        ),
    )
    coarse_share: float = setting(
        0.5,
        SHARE,
        unit=OF_RUN,
        help="Part of the run with the early resolution. The high noise of that part hides missing detail.",
    )
    coarse_views: int = setting(
        0,
        (0, 64),
        zero="run.views_per_step",
        reduce_memory=(0,),
        help="Views of a step with the early resolution, which can be more as they are small.",
    )
    samples: int = setting(
        128,
        (4, 2048),
        unit="samples a ray",
        label="Samples per Ray",
        panel=True,
        reduce_memory=(64,),
        help="Points along a ray. More points resolve thinner parts.",
    )
    stratified: bool = setting(True, duration=False, help="Jitter the samples inside their bins while training.")
    occupancy_resolution: int = setting(
        0, (0, 256), unit="cells a side", zero="no masking", help="Occupancy grid that masks samples in empty space."
    )
    occupancy_threshold: float = setting(
        0.001,
        (0, 1),
        unit="alpha",
        help="Opacity of one sample step below which a cell counts as empty. At 0.01, fog escapes the penalties.",
    )
    occupancy_interval: int = setting(
        8, (1, 1_000_000), unit="steps", help="Steps between two updates of the occupancy grid."
    )
    early_stop_transmittance: float = setting(
        0.0, (0, 1), help="Samples behind this transmittance are not evaluated for color."
    )
    smallest_weight: float = setting(
        0.0, (0, 0.1), help="Samples with a smaller weight w of eq 5 are not evaluated for color. 0: the full sum."
    )
    marching: Literal["auto", "dense", "compiled", "nerfacc"] = setting(
        "auto",
        help=(
            "dense: plain PyTorch. compiled: machine code for voxels on a CPU. nerfacc: its CUDA kernels. auto: the "
            "fastest that runs here."
        ),
    )


@dataclass(frozen=True)
class RegularizerConfig:
    SECTION: ClassVar = Section("Penalties on a field, beside the guidance.", scenes=FIELD)

    orientation_start: float = setting(1e-4, WEIGHT, help="Weight of the orientation loss (eq 10) at the start.")
    orientation_end: float = setting(1e-2, WEIGHT, help="Weight of the orientation loss once annealed.")
    orientation_begin: float = setting(
        0.0, SHARE, unit=OF_RUN, duration=False, help="Part of the run before it anneals."
    )
    orientation_share: float = setting(
        5000 / 15000,
        SHARE,
        unit=OF_RUN,
        duration=False,
        help="Part of the run over which it anneals linearly. 0: at once.",
    )
    opacity_start: float = setting(1e-3, WEIGHT, duration=False, help="Weight of sqrt((sum w)^2 + .01) at the start.")
    opacity_end: float = setting(1e-3, WEIGHT, duration=False, help="Weight of sqrt((sum w)^2 + .01) once annealed.")
    opacity_begin: float = setting(0.0, SHARE, unit=OF_RUN, duration=False, help="Part of the run before it anneals.")
    opacity_share: float = setting(
        5000 / 15000,
        SHARE,
        unit=OF_RUN,
        duration=False,
        help="Part of the run over which it anneals linearly. 0: at once.",
    )
    entropy_start: float = setting(
        0.0, WEIGHT, duration=False, help="Weight of the binary entropy of each ray's opacity at the start."
    )
    entropy_end: float = setting(
        0.0, WEIGHT, duration=False, help="Weight of the binary entropy of each ray's opacity once annealed."
    )
    entropy_begin: float = setting(
        0.5,
        SHARE,
        unit=OF_RUN,
        duration=False,
        help="Part of the run before it anneals. Until then fog is where the surface is found.",
    )
    entropy_share: float = setting(
        0.5,
        SHARE,
        unit=OF_RUN,
        duration=False,
        help="Part of the run over which it anneals linearly. 0: at once.",
    )
    smoothness: float = setting(
        0.0, (0, 1e9), fields=VOXELS, help="Weight of the total variation of the raw density, which smooths the field."
    )
    transmittance: float = setting(
        0.0,
        WEIGHT,
        duration=False,
        help="Weight of Dream Fields' -min(1 - target opacity, mean transmittance) of a view. Dream Fields uses 0.5.",
    )
    target_opacity_start: float = setting(
        0.5,
        (1e-3, 1),
        unit="mean opacity",
        duration=False,
        help="Target opacity at the start, as in Dream Fields. The loss does not push below it.",
    )
    target_opacity_end: float = setting(
        0.1, (1e-3, 1), unit="mean opacity", duration=False, help="Target opacity once annealed, as in Dream Fields."
    )
    target_opacity_share: float = setting(
        500 / 10000,
        SHARE,
        unit=OF_RUN,
        duration=False,
        help="Part of the run over which it anneals exponentially, as in Dream Fields.",
    )
