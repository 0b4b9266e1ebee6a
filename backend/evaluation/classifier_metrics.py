# SPDX-License-Identifier: GPL-3.0-or-later
"""Renders for the starter classifier, and its answers on a mesh: caption, bare shape, and repeated fronts (Janus)."""

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

ELEVATION = 30.0  # degrees, of `classify_mesh`: its accuracy was measured there, and all its recorded results are of it
FRONT_ELEVATION = 15.0  # degrees, of the views in which fronts are counted: from farther above faces are foreshortened
AZIMUTHS = 8
DISTANCE, FILL = 1.9, 0.8
BACKGROUND = 0.55  # gray level
LIGHT = np.array([-0.5, 0.6, 0.65]) / np.linalg.norm([-0.5, 0.6, 0.65])  # in camera axes: right, up, back


@dataclass(frozen=True)
class MeshClassification:
    """What the classifier sees in a mesh that was made for one caption."""

    color_prompt: tuple[str, str]  # (color, prop) retrieved from all props and colors
    geometry_prop: str  # prop retrieved from textureless renders
    color_right: bool
    geometry_right: bool
    fronts: int  # azimuths of 8 that show a front (only props with a front)
    janus: int  # of these, azimuths 90 to 270 degrees: not the front's neighbors


def render_views(
    mesh: Mesh,
    rotation_deg: float,
    textureless: bool,
    elevation_deg: float = ELEVATION,
    resolution: int = 64,
    azimuths: int = AZIMUTHS,
    lit: bool = True,
) -> torch.Tensor:
    """Display-sRGB images (azimuths, 3, r, r) in [0, 1] before gray, as the classifier was trained on.

    The mesh is centered, scaled to radius 0.5 and turned about Z by `rotation_deg`. Views are spaced evenly around it.
    Light comes from the upper left of the camera; `lit=False` shows the albedo.
    """
    vertices = np.asarray(mesh.vertices, np.float64)
    vertices = vertices - 0.5 * (vertices.min(0) + vertices.max(0))
    vertices *= 0.5 / max(1e-9, np.linalg.norm(vertices, axis=1).max())
    display = linear_to_display(np.asarray(mesh.albedo, np.float64))
    normals = np.asarray(mesh.normals, np.float64)
    images = []
    for k in range(azimuths):
        # Turning the camera by -rotation_deg is the same as turning the mesh by rotation_deg.
        axes = orbit_axes(360.0 * k / azimuths - rotation_deg, elevation_deg)
        images.append(_render(vertices, mesh.faces, normals, display, axes, textureless, resolution, lit))
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float()


def _render(
    vertices: NDArray[np.float64],
    faces: NDArray[np.int32],
    normals: NDArray[np.float64],
    display: NDArray[np.float64],
    axes: NDArray[np.float64],
    textureless: bool,
    resolution: int,
    lit: bool,
) -> NDArray[np.float64]:
    """One image (r, r, 3), averaged from four samples a pixel."""
    seen = rasterize(vertices, faces, DISTANCE * axes[:, 2], axes, FILL * DISTANCE, 2 * resolution)
    normal = seen.interpolate(faces, normals)
    normal /= np.maximum(np.linalg.norm(normal, axis=-1, keepdims=True), 1e-9)
    shade = (0.35 + 0.65 * np.maximum(normal @ (axes @ LIGHT), 0.0))[..., None] if lit else 1.0
    albedo = np.ones(3) if textureless else seen.interpolate(faces, display)
    image = np.where(seen.mask[..., None], np.clip(albedo * shade, 0, 1), BACKGROUND)
    return image.reshape(resolution, 2, resolution, 2, 3).mean((1, 3))


@torch.no_grad()
def classify_mesh(
    classifier: StarterClassifier, mesh: Mesh, rotation_deg: float, color: str, prop: str
) -> MeshClassification:
    """Retrieve the caption by the mean log-probability over azimuths, and compare it with (color, prop)."""
    seen = classifier(render_views(mesh, rotation_deg, textureless=False))
    bare = classifier(render_views(mesh, rotation_deg, textureless=True))
    names = [p.name for p in domain.PROPS]
    score = seen.prop.mean(0)[:, None] + seen.color.mean(0)[None, :]  # (props, colors)
    best = int(score.argmax())
    retrieved = (list(domain.COLORS)[best % score.shape[1]], names[best // score.shape[1]])
    geometry = names[int(bare.prop.mean(0).argmax())]
    fronts = janus = 0
    if domain.prop_named(prop).has_front:
        level = classifier(render_views(mesh, rotation_deg, textureless=False, elevation_deg=FRONT_ELEVATION))
        is_front = level.view.argmax(-1) == domain.VIEWS.index("front")
        fronts = int(is_front.sum())
        janus = int(is_front[2:-1].sum())
    return MeshClassification(retrieved, geometry, retrieved == (color, prop), geometry == prop, fronts, janus)
