# SPDX-License-Identifier: GPL-3.0-or-later
"""How far a mesh is from the field it came from: both rendered from the same cameras, unlit."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from ..cameras.poses import Cameras
from ..mesh_rendering.rasterize import rasterize
from .color import linear_to_display
from .texture import Texture
from .topology import FloatArray, Surface

PSNR_CEILING = 99.0  # dB reported for identical images


# (cameras) -> image (n, 3, r, r) display sRGB albedo composited on `background`, opacity (n, 1, r, r)
RenderViews = Callable[[Cameras], tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class FieldViews:
    """How to render the field for the comparison: cameras, the function, and the plain background it composites on."""

    cameras: Cameras
    render: RenderViews
    background: tuple[float, float, float] = (1.0, 1.0, 1.0)


@dataclass(frozen=True)
class MeshFieldError:
    """Mean over the views: PSNR of the whole image and of the object's pixels (dB), IoU of the silhouettes [0, 1]."""

    psnr: float
    psnr_object: float  # over pixels that either image covers: not flattered by the background
    silhouette_iou: float


def psnr(mean_squared_error: float) -> float:
    """-10 log10(MSE) in dB for values in [0, 1], at most 99."""
    return min(PSNR_CEILING, -10.0 * math.log10(max(mean_squared_error, 1e-12)))


def mesh_render_error(
    surface: Surface, rho: FloatArray, views: FieldViews, texture: Texture | None = None
) -> MeshFieldError:
    """Compare a mesh before placement (scene units) with the field's albedo render in display sRGB.

    surface with vertices (V, 3), rho (V, 3) display sRGB in [0, 1]. A field pixel is covered when its opacity is above
    one half. The mesh is not anti-aliased, so its outline alone costs some dB. A `texture` shows instead of rho.
    """
    image, opacity = views.render(views.cameras)
    images = image.detach().double().cpu().numpy().transpose(0, 2, 3, 1)
    opaque = opacity.detach().double().cpu().numpy()[:, 0] > 0.5
    cameras = [
        getattr(views.cameras, name).detach().double().cpu().numpy() for name in ("position", "rotation", "focal")
    ]
    whole, within, overlap = [], [], []
    for picture, covered, position, rotation, focal in zip(images, opaque, *cameras, strict=True):
        seen = rasterize(surface.vertices, surface.faces, position, rotation, float(focal), len(covered))
        color = linear_to_display(texture.seen(seen)) if texture else seen.interpolate(surface.faces, rho)
        squared = ((np.where(seen.mask[..., None], color, views.background) - picture) ** 2).mean(axis=-1)
        either = seen.mask | covered
        whole.append(psnr(float(squared.mean())))
        within.append(psnr(float(squared[either].mean())) if either.any() else PSNR_CEILING)
        overlap.append(float((seen.mask & covered).sum() / either.sum()) if either.any() else 1.0)
    return MeshFieldError(float(np.mean(whole)), float(np.mean(within)), float(np.mean(overlap)))
