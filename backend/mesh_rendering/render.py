# SPDX-License-Identifier: GPL-3.0-or-later
"""Differentiable rendering of a mesh: vertex colors, texels, shading and silhouettes have gradients."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from ..cameras.poses import Cameras
from ..geometry.topology import smooth_groups
from ..rendering.shading import Shading, shade
from .antialias import Edges, antialias, crossings, mesh_edges
from .normals import corner_normals, face_cross
from .texture_map import TextureMap, bilinear
from .visibility import covered_pixels, nearest_faces, project


@dataclass(frozen=True)
class Topology:
    """What stays of a mesh while its vertices move: faces (F, 3) int64, color_faces (F, 3) rows of the colors, groups
    (F, 3) of `topology.smooth_groups`, edges.
    """

    faces: Tensor
    color_faces: Tensor
    groups: Tensor
    edges: Edges

    @staticmethod
    def of(
        vertices: NDArray[np.floating],
        faces: NDArray[np.integer],
        crease_deg: float,
        color_faces: NDArray[np.integer] | None = None,
    ) -> Topology:
        """The topology of a mesh whose edges steeper than `crease_deg` (degrees) are shaded as creases."""
        whole = np.array(faces, dtype=np.int64)
        tints = whole if color_faces is None else np.array(color_faces, dtype=np.int64)
        groups = smooth_groups(np.asarray(vertices), whole, crease_deg)
        return Topology(torch.from_numpy(whole), torch.from_numpy(tints), torch.from_numpy(groups), mesh_edges(whole))

    def to(self, device: torch.device | str) -> Topology:
        """The same on another device."""
        return Topology(*(getattr(self, name).to(device) for name in self.__dataclass_fields__))


@dataclass(frozen=True)
class MeshRendering:
    """n views: image (n, 3, r, r) on the background, opacity (n, 1, r, r), the share of each pixel that is covered."""

    image: Tensor
    opacity: Tensor


def render_mesh(
    topology: Topology,
    vertices: Tensor,
    colors: Tensor,
    background: Tensor,
    cameras: Cameras,
    shadings: Sequence[Shading],
    lights: Tensor,
    resolution: int,
    supersampling: int = 1,
    texture: TextureMap | None = None,
) -> MeshRendering:
    """Images of vertices (V, 3) with colors (C, 3) display sRGB: one shading and one light (n, 3) a view, plain
    background (n, 3). With a texture, whose image is display sRGB, colors are what is added to it.

    Rasterized at `supersampling` times the resolution, antialiased there, then averaged. Shaded by eq 7 at each pixel
    with the corners' interpolated normal, reversed on faces seen from behind, since input meshes may be open.
    """
    n, fine = len(cameras), resolution * supersampling
    projected = project(vertices, cameras, fine)
    buffer = nearest_faces(projected, topology.faces, fine)
    seen = covered_pixels(projected, topology.faces, buffer)
    flat = topology.faces.reshape(-1)
    numbers = vertices.new_tensor([(s.ambient, s.diffuse, float(s.kind == "textureless")) for s in shadings])[seen.view]
    corners = [colors.index_select(0, topology.color_faces.reshape(-1))]
    if texture is not None:
        corners.append(texture.uv.to(vertices))
    lit = any(s.diffuse > 0 for s in shadings)
    if lit:
        corners += [vertices.index_select(0, flat), corner_normals(vertices, topology.faces, topology.groups)]
    values = list(seen.interpolate(torch.cat(corners, dim=-1)).split([part.shape[1] for part in corners], dim=1))
    albedo = values[0] if texture is None else (values[0] + bilinear(texture.image, values.pop(1))).clamp(0, 1)
    albedo = torch.where(numbers[:, 2:] > 0, torch.ones_like(albedo), albedo)
    if lit:
        place, normal = values[1], functional.normalize(values[2], dim=-1)
        with torch.no_grad():
            towards = cameras.position.to(vertices)[seen.view] - place
            inside_out = (face_cross(vertices, topology.faces)[seen.face] * towards).sum(-1, keepdim=True) < 0
        normal = torch.where(inside_out, -normal, normal)
        albedo = shade(albedo, normal, place, lights.to(vertices)[seen.view], numbers[:, :1], numbers[:, 1:2])
    behind = background.to(vertices)[:, None].expand(n, fine * fine, 3)
    behind = torch.cat([behind, torch.zeros_like(behind[..., :1])], dim=-1).reshape(-1, 4)
    shown = behind.index_copy(0, seen.pixel, torch.cat([albedo, torch.ones_like(albedo[:, :1])], dim=-1))
    shown = shown.view(n, fine, fine, 4)
    footprint = 1 / (cameras.focal.to(vertices) * fine)
    shown = antialias(shown, crossings(projected, topology.edges, buffer, footprint)).permute(0, 3, 1, 2)
    if supersampling > 1:
        shown = functional.avg_pool2d(shown, supersampling)
    return MeshRendering(shown[:, :3], shown[:, 3:].clamp(0, 1))
