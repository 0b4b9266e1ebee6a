# SPDX-License-Identifier: GPL-3.0-or-later
"""The configuration of a run: one frozen dataclass a section, with everything known about a setting in its field.

The defaults are the paper's (Poole et al. 2022, section 3 and appendix A.2). `presets.py` holds other presets. Lengths
are in scene units (the prop fits a sphere of radius 0.5), angles in degrees, diffusion times in [0, 1], shares of the
run in [0, 1], colors in display sRGB in [0, 1].
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass

from .field_settings import (
    BackgroundConfig,
    CameraConfig,
    FieldConfig,
    LightConfig,
    ShadingConfig,
)
from .guidance_settings import ClipConfig, GuidanceConfig, ModelConfig, TextConfig
from .mesh_settings import MeshConfig, RefineConfig, SphereConfig, SurfaceConfig
from .render_settings import RegularizerConfig, RenderConfig
from .run_settings import OptimizerConfig, RunConfig
from .setting import GuidanceKind, SceneKind

__all__ = [
    "METHOD_GUIDANCE",
    "METHOD_SCENE",
    "BackgroundConfig",
    "CameraConfig",
    "ClipConfig",
    "Config",
    "FieldConfig",
    "GuidanceConfig",
    "LightConfig",
    "MeshConfig",
    "ModelConfig",
    "OptimizerConfig",
    "RefineConfig",
    "RegularizerConfig",
    "RenderConfig",
    "RunConfig",
    "ShadingConfig",
    "SphereConfig",
    "SurfaceConfig",
    "TextConfig",
]


@dataclass(frozen=True)
class Config:
    """All settings of a run."""

    run: RunConfig = dataclasses.field(default_factory=RunConfig)
    camera: CameraConfig = dataclasses.field(default_factory=CameraConfig)
    light: LightConfig = dataclasses.field(default_factory=LightConfig)
    shading: ShadingConfig = dataclasses.field(default_factory=ShadingConfig)
    field: FieldConfig = dataclasses.field(default_factory=FieldConfig)
    background: BackgroundConfig = dataclasses.field(default_factory=BackgroundConfig)
    render: RenderConfig = dataclasses.field(default_factory=RenderConfig)
    guidance: GuidanceConfig = dataclasses.field(default_factory=GuidanceConfig)
    clip: ClipConfig = dataclasses.field(default_factory=ClipConfig)
    model: ModelConfig = dataclasses.field(default_factory=ModelConfig)
    text: TextConfig = dataclasses.field(default_factory=TextConfig)
    regularizers: RegularizerConfig = dataclasses.field(default_factory=RegularizerConfig)
    optimizer: OptimizerConfig = dataclasses.field(default_factory=OptimizerConfig)
    mesh: MeshConfig = dataclasses.field(default_factory=MeshConfig)
    surface: SurfaceConfig = dataclasses.field(default_factory=SurfaceConfig)
    refine: RefineConfig = dataclasses.field(default_factory=RefineConfig)
    sphere: SphereConfig = dataclasses.field(default_factory=SphereConfig)

    @property
    def total_steps(self) -> int:
        """Steps of the run with those of its surface stage."""
        return self.run.steps + self.surface.steps

    @property
    def for_surface_model(self) -> Config:
        """The settings that load the model of the surface stage.

        Where it is another than the field's, it has its own image size and no LoRAs, since those are the field's.
        """
        if not (self.surface.steps and self.surface.model):
            return self
        return dataclasses.replace(self, model=dataclasses.replace(self.model, image_size=0, loras=""))

    @property
    def splits_further(self) -> bool:
        """Whether `run.views_at_once=1` renders a step in smaller chunks than now; views of one set stay together."""
        most = max(self.run.views_per_step, self.render.coarse_views)
        return (self.run.views_at_once or most) // self.camera.views_per_set > 1


# What each value of `run.method` optimizes, and the kind of model that guides it. The refinement of a mesh is a scene
# of its own, guided by diffusion.
METHOD_SCENE: Mapping[str, SceneKind] = {"dreamfusion": "field", "dream-fields": "field", "clip-mesh": "sphere"}
METHOD_GUIDANCE: Mapping[str, GuidanceKind] = {
    "dreamfusion": "diffusion",
    "dream-fields": "image-text",
    "clip-mesh": "image-text",
}
