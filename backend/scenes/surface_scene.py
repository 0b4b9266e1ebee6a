# SPDX-License-Identifier: GPL-3.0-or-later
"""The mesh of a finished field, whose vertices and colors the guidance optimizes further."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import Tensor

from ..config.schema import Config
from ..geometry.build import Mesh, MeshReport
from ..geometry.input_mesh import InputMesh
from ..geometry.live_mesh import LiveMesh, live_mesh_of_surface
from ..geometry.topology import FloatArray
from ..guidance.interfaces import Guidance
from ..runtime.distributed import ProcessGroup
from ..text.prompts import PromptEmbeddings
from .derived_config import surface_config
from .mesh_losses import normal_difference
from .mesh_scene import MeshScene
from .placed_mesh import current_colors, current_surface, placed_mesh

# Tensors of a field's mesh: type and columns. The last three are of its texture, where it has one.
PARTS: Mapping[str, tuple[torch.dtype, int]] = {
    "vertices": (torch.float32, 3),
    "faces": (torch.int32, 3),
    "albedo": (torch.float32, 3),
    "uv": (torch.float32, 2),
    "corners": (torch.int32, 3),
    "texels": (torch.uint8, 3),
}


def surface_tensors(mesh: Mesh, report: MeshReport) -> dict[str, Tensor]:
    """vertices (V, 3) in scene units, faces (F, 3) and linear albedo (V, 3) of a field's mesh.

    With a texture also uv (U, 2) and corners (F, 3) of its `Unwrapping`, and texels (s * s, 3).
    """
    vertices = (mesh.vertices.astype(np.float64) - np.array(report.offset)) / report.scale
    arrays = {"vertices": vertices, "faces": mesh.faces, "albedo": mesh.albedo}
    if mesh.texture is not None:
        places = mesh.texture.unwrapping
        arrays |= {"uv": places.uv, "corners": places.corners, "texels": mesh.texture.image.reshape(-1, 3)}
    return {name: torch.from_numpy(np.ascontiguousarray(array)).to(PARTS[name][0]) for name, array in arrays.items()}


def surface_mesh(tensors: Mapping[str, Tensor]) -> InputMesh:
    """The mesh of `surface_tensors`: no scaling, every vertex its own place. Raises KeyError for a missing part."""
    parts = ("vertices", "faces", "albedo")
    vertices, faces, albedo = (tensors[name].cpu().to(PARTS[name][0]).numpy() for name in parts)
    return InputMesh(vertices, faces, albedo, vertices.astype(np.float64), np.arange(len(vertices)), 1.0)


class SurfaceScene(MeshScene):
    """A `MeshScene` of `surface_mesh` in a run of `config`, whose result stands in meters as the field's mesh does."""

    gentler = "a smaller surface.reach"

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
        super().__init__(surface_config(config), guidance, prompts, surface_mesh(tensors), seed, device, group)

    def penalties(self, displacements: Tensor) -> tuple[Tensor, dict[str, float]]:
        """See `MeshScene.penalties`; the differences of neighboring normals in addition."""
        total, figures = super().penalties(displacements)
        if self.config.surface.normals == 0:
            return total, figures
        bending = normal_difference(self.rest + displacements, self.topology.faces, self._pairs)
        return total + self.config.surface.normals * bending, {**figures, "bending": float(bending.detach())}

    @torch.no_grad()
    def tints(self) -> np.ndarray:
        """(V, 3) by which the display colors of the field's mesh have changed."""
        tinted = (self.colors + self.color_changes()).clamp(0, 1)
        return (tinted - self.colors).cpu().double().numpy()

    def live_mesh(self) -> LiveMesh:
        """See `Scene.live_mesh`."""
        return live_mesh_of_surface(current_surface(self), self.vertex_colors(), self.config.mesh.height_m)

    def vertex_colors(self) -> FloatArray:
        """The colors of the vertices (V, 3) as they are, display sRGB."""
        return current_colors(self)

    def to_mesh(
        self, progress: Callable[[float], None] = lambda share: None, should_stop: Callable[[], bool] = lambda: False
    ) -> tuple[Mesh, MeshReport]:
        """The surface as it is, in meters and standing on its base; made at once."""
        return placed_mesh(self, current_surface(self), folded=self.figures()["folded"])
