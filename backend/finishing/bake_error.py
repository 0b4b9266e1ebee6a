# SPDX-License-Identifier: GPL-3.0-or-later
"""How true a baked normal map is: decoded at random points as a renderer does, and compared with the dense mesh."""

from __future__ import annotations

import numpy as np

from ..evaluation.silhouettes import Solid
from ..evaluation.surface_normals import angle_deg
from ..evaluation.surfaces import sample_faces
from ..geometry.topology import FloatArray
from .asset import Level
from .bake import Baker, Frames, decode_normals
from .surface_search import SurfaceSearch

POINTS = 10_000


def normal_map_error(level: Level, baker: Baker, seed: int = 0) -> dict[str, float]:
    """Mean angle in degrees between the dense mesh's normals and those shaded with and without the normal map."""
    if level.unwrapping is None or level.maps is None or level.maps.normal is None:
        raise ValueError("a level without a normal map has no error of it")
    solid = Solid(level.surface.vertices, np.asarray(level.surface.faces, dtype=np.int64))
    points = sample_faces(solid, POINTS, np.random.default_rng(seed))[0]
    found = SurfaceSearch(level.surface).nearest(points)
    face, weights = found.face, found.barycentric
    smooth = np.einsum("mc,mck->mk", weights, level.normals[level.surface.faces[face]])
    smooth /= np.maximum(np.linalg.norm(smooth, axis=1, keepdims=True), 1e-12)
    truth = baker.normals_at(baker.land(points, smooth), smooth)
    uv = np.einsum("mc,mck->mk", weights, level.unwrapping.uv[level.unwrapping.corners[face]].astype(np.float64))
    local = decode_normals(bilinear(level.maps.normal.astype(np.float64), uv))
    shaded = Frames.of(level, face, weights).to_object_space(local)
    return {
        "shading_deg": float(angle_deg(shaded, truth).mean()),
        "shading_deg_without_map": float(angle_deg(smooth, truth).mean()),
    }


def bilinear(image: FloatArray, uv: FloatArray) -> FloatArray:
    """Values (m, k) of an image (s, s, k) at uv (m, 2), v down from the top left, between texel centers bilinear."""
    size = len(image)
    place = np.clip(np.asarray(uv, np.float64) * size - 0.5, 0.0, size - 1.0)
    low = np.minimum(place.astype(np.int64), size - 2)
    (x, y), (column, row) = (place - low).T[:, :, None], low.T
    top = (1 - x) * image[row, column] + x * image[row, column + 1]
    bottom = (1 - x) * image[row + 1, column] + x * image[row + 1, column + 1]
    return (1 - y) * top + y * bottom
