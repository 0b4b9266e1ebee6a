# SPDX-License-Identifier: GPL-3.0-or-later
"""The mesh of a finished field with a texture, whose vertices, vertex tints and texels the guidance optimizes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from ..config.schema import Config
from ..geometry.build import Mesh, MeshReport
from ..geometry.color import linear_to_display
from ..geometry.texture import Texture
from ..geometry.topology import FloatArray, Surface
from ..geometry.unwrap import Unwrapping
from ..guidance.interfaces import Guidance
from ..mesh_rendering.texture_map import TextureMap
from ..runtime.distributed import ProcessGroup
from ..text.prompts import PromptEmbeddings
from .surface_scene import SurfaceScene
from .texel_colors import TexelColors, vertex_albedo


def stored_texture(tensors: Mapping[str, Tensor]) -> Texture:
    """The texture of `surface_tensors`. Raises KeyError for a missing part and ValueError for one that does not fit."""
    uv, corners, texels = (tensors[name].cpu().numpy() for name in ("uv", "corners", "texels"))
    size = round(len(texels) ** 0.5)
    faces = tensors["faces"].cpu().numpy()
    if size < 2 or size * size != len(texels) or corners.shape != faces.shape or corners.max(initial=-1) >= len(uv):
        raise ValueError("its texture does not fit its faces")
    vertex = np.zeros(len(uv), np.int32)
    vertex[corners] = faces
    return Texture(texels.reshape(size, size, 3), Unwrapping(uv, corners, vertex))


class TexturedSurfaceScene(SurfaceScene):
    """A `SurfaceScene` whose color at a point is that of the texture, sampled bilinearly, plus the vertices' tint.

    Both are optimized: the own texels of `TexelColors`, and the changes of the vertices' colors, which are smooth on
    the surface. Texels add what is finer than the triangles.
    """

    def __init__(
        self,
        config: Config,
        guidance: Guidance,
        prompts: PromptEmbeddings,
        tensors: Mapping[str, Tensor],
        seed: int,
        device: torch.device | str = "cpu",
        group: ProcessGroup | None = None,
    ) -> None:
        super().__init__(config, guidance, prompts, tensors, seed, device, group)
        surface = Surface(self.input_mesh.unit, self.input_mesh.faces.astype(np.int64))
        self.texels = TexelColors(surface, stored_texture(tensors), self.device)
        self.texel_offsets = torch.zeros_like(self.texels.base).requires_grad_()
        self.parameters["texel_offsets"] = self.texel_offsets
        self.optimizer.add_param_group({"params": [self.texel_offsets], "rate": config.surface.texture_rate})
        size = self.texels.size
        self.notices += (f"a texture of {size} x {size}, of which {len(self.texels.base)} texels show the mesh",)

    def values(self) -> tuple[Tensor, ...]:
        """See `MeshScene.values`; the texture's image (s, s, 3) in addition."""
        return (*super().values(), self.texels.image(self.texel_colors()))

    def texel_colors(self) -> Tensor:
        """(m, 3) own texels without the vertices' tints, display sRGB."""
        rounds = self.config.surface.texture_smoothing
        return self.texels.base + self.texels.smoothed(self.texel_offsets, rounds)

    def _optimizer_step(self) -> None:
        super()._optimizer_step()
        with torch.no_grad():  # texels stay colors
            self.texel_offsets.copy_((self.texels.base + self.texel_offsets).clamp(0, 1) - self.texels.base)

    def _paint(self, values: Sequence[Tensor]) -> tuple[Tensor, TextureMap]:
        return values[1], TextureMap(self.texels.uv, values[2])

    @torch.no_grad()
    def texture(self) -> Texture:
        """The texture as it is, with the vertices' tints in it."""
        tints = self.color_changes().cpu().double().numpy()
        own = torch.from_numpy(self.texels.at_vertices(tints, self.input_mesh.faces)).to(self.texels.base)
        return self.texels.texture(self.texel_colors() + own)

    def vertex_colors(self) -> FloatArray:
        """See `SurfaceScene.vertex_colors`: those of the texture."""
        return linear_to_display(vertex_albedo(self.texture(), len(self.input_mesh.vertices)))

    def to_mesh(
        self, progress: Callable[[float], None] = lambda share: None, should_stop: Callable[[], bool] = lambda: False
    ) -> tuple[Mesh, MeshReport]:
        """See `SurfaceScene.to_mesh`; with its texture, and vertex colors that are the texture's.

        A run that asks for no texture any more gets the vertex colors alone.
        """
        mesh, report = super().to_mesh(progress, should_stop)
        texture = self.texture()
        mesh = replace(mesh, albedo=vertex_albedo(texture, len(mesh.vertices)).astype(np.float32))
        if not self.config.mesh.texture:
            return mesh, report
        return replace(mesh, texture=texture), replace(report, texture=self.texels.size)
