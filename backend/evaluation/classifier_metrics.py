# SPDX-License-Identifier: GPL-3.0-or-later
"""What the independent judge sees in a lifted prop: R-Precision in color and textureless, and the Janus count."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from ..geometry.build import Mesh
from ..geometry.color import linear_to_display
from ..mesh_rendering.rasterize import orbit_axes, rasterize
from ..starter import domain
from ..starter.classifier import StarterClassifier

ELEVATION = 30.0  # degrees, as the paper evaluates
AZIMUTHS = 8
DISTANCE, FILL = 1.9, 0.8
BACKGROUND = 0.55  # grey level behind the prop


@dataclass(frozen=True)
class Verdict:
    """The judge on one prop: the caption retrieved from all props x colors, and from all props when textureless."""

    color_prompt: tuple[str, str]  # (color, prop)
    geometry_prop: str
    color_right: bool
    geometry_right: bool
    fronts: int  # azimuths, of 8, that show a front to the judge (fronted props only)
    janus: int  # of these, how many lie beyond the front's neighbors


def render_views(
    mesh: Mesh,
    rotation_deg: float,
    textureless: bool,
    elevation_deg: float = ELEVATION,
    resolution: int = 64,
    azimuths: int = AZIMUTHS,
    lit: bool = True,
) -> torch.Tensor:
    """Pictures (azimuths, 3, r, r) in [0, 1] as the judge was trained on: lit from the camera's side or not, plain grey behind."""
    vertices = np.asarray(mesh.vertices, np.float64)
    vertices = vertices - 0.5 * (vertices.min(0) + vertices.max(0))
    vertices *= 0.5 / max(1e-9, np.linalg.norm(vertices, axis=1).max())
    display = linear_to_display(np.asarray(mesh.albedo, np.float64))
    pictures = []
    for k in range(azimuths):
        # The mesh is turned by rotation_deg to face the reference's way; turning the camera back is the same.
        axes = orbit_axes(360.0 * k / azimuths - rotation_deg, elevation_deg)
        pictures.append(
            _lit(
                vertices, mesh.faces, np.asarray(mesh.normals, np.float64), display, axes, textureless, resolution, lit
            )
        )
    return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).float()


def _lit(
    vertices: NDArray[np.float64],
    faces: NDArray[np.int32],
    normals: NDArray[np.float64],
    display: NDArray[np.float64],
    axes: NDArray[np.float64],
    textureless: bool,
    resolution: int = 64,
    lit: bool = True,
) -> NDArray[np.float64]:
    fine = 2 * resolution
    seen = rasterize(vertices, faces, DISTANCE * axes[:, 2], axes, FILL * DISTANCE, fine)
    normal = seen.interpolate(faces, normals)
    normal /= np.maximum(np.linalg.norm(normal, axis=-1, keepdims=True), 1e-9)
    light = axes @ (np.array([-0.5, 0.6, 0.65]) / np.linalg.norm([-0.5, 0.6, 0.65]))
    shade = (0.35 + 0.65 * np.maximum(normal @ light, 0.0))[..., None] if lit else 1.0
    albedo = np.ones(3) if textureless else seen.interpolate(faces, display)
    picture = np.where(seen.mask[..., None], np.clip(albedo * shade, 0, 1), BACKGROUND)
    return picture.reshape(resolution, 2, resolution, 2, 3).mean((1, 3))


@torch.no_grad()
def verdict(judge: StarterClassifier, mesh: Mesh, rotation_deg: float, color: str, prop: str) -> Verdict:
    """Retrieve the caption from mean log-probabilities over azimuths and compare it with (color, prop)."""
    seen = judge(render_views(mesh, rotation_deg, textureless=False))
    clay = judge(render_views(mesh, rotation_deg, textureless=True))
    names = [p.name for p in domain.PROPS]
    score = seen.prop.mean(0)[:, None] + seen.color.mean(0)[None, :]  # (props, colors)
    best = int(score.argmax())
    retrieved = (list(domain.COLORS)[best % score.shape[1]], names[best // score.shape[1]])
    geometry = names[int(clay.prop.mean(0).argmax())]
    fronts = janus = 0
    if domain.prop_named(prop).has_front:
        level = judge(render_views(mesh, rotation_deg, textureless=False, elevation_deg=15.0))
        is_front = level.view.argmax(-1) == domain.VIEWS.index("front")
        fronts = int(is_front.sum())
        janus = int(is_front[2:-1].sum())  # azimuths 90 .. 270 degrees
    return Verdict(retrieved, geometry, retrieved == (color, prop), geometry == prop, fronts, janus)
