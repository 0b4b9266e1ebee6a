# SPDX-License-Identifier: GPL-3.0-or-later
"""Turntable image of a mesh: a row in color and a textureless row, softly lit."""

from __future__ import annotations

import numpy as np
from PIL import Image

from ..errors import ConfigError
from ..geometry.build import Mesh
from ..geometry.color import linear_to_display
from ..geometry.topology import FloatArray
from .rasterize import orbit_axes, rasterize

FOCAL = 2.0  # image widths: a long lens, so that props keep their proportions
AMBIENT, DIFFUSE = 0.35, 0.75  # of linear albedo
LIGHT = np.array([-0.45, 0.55, 0.7])  # towards the light in the camera's right, up, back: over the left shoulder
PLAIN = 0.6  # linear gray of the textureless row
BACKGROUND = 0.85  # linear gray behind the mesh
SUPERSAMPLING = 2


def lit_images(mesh: Mesh, azimuth_deg: float, elevation_deg: float, resolution: int) -> tuple[FloatArray, FloatArray]:
    """Color and textureless images from one azimuth, display sRGB: two (r, r, 3) arrays in [0, 1].

    c = albedo (ambient + diffuse max(0, n.l)) in linear RGB, with smooth vertex normals and a light that goes with the
    camera. The mesh's bounding sphere fills the frame.
    """
    vertices = np.asarray(mesh.vertices, dtype=np.float64)
    center = 0.5 * (vertices.min(axis=0) + vertices.max(axis=0))
    radius = max(float(np.linalg.norm(vertices - center, axis=1).max()), 1e-9)
    axes = orbit_axes(azimuth_deg, elevation_deg)
    # sin(half field of view) = radius / distance just fits the sphere; 4% of air around it.
    distance = 1.04 * radius * float(np.sqrt(1.0 + (2.0 * FOCAL) ** 2))
    fine = SUPERSAMPLING * resolution
    seen = rasterize(vertices, mesh.faces, center + distance * axes[:, 2], axes, FOCAL, fine)
    normal = seen.interpolate(mesh.faces, np.asarray(mesh.normals, dtype=np.float64))
    normal /= np.maximum(np.linalg.norm(normal, axis=-1, keepdims=True), 1e-12)
    light = axes @ (LIGHT / np.linalg.norm(LIGHT))
    shade = AMBIENT + DIFFUSE * np.maximum(normal @ light, 0.0)[..., None]
    images = []
    colors = (
        mesh.texture.seen(seen)
        if mesh.texture
        else seen.interpolate(mesh.faces, np.asarray(mesh.albedo, dtype=np.float64))
    )
    for albedo in (colors, np.full(3, PLAIN)):
        linear = np.where(seen.mask[..., None], np.clip(albedo * shade, 0.0, 1.0), BACKGROUND)
        blocks = linear.reshape(resolution, SUPERSAMPLING, resolution, SUPERSAMPLING, 3)
        images.append(linear_to_display(blocks.mean(axis=(1, 3))))
    return images[0], images[1]


def turntable_image(mesh: Mesh, azimuths: int = 8, resolution: int = 160, elevation_deg: float = 15.0) -> Image.Image:
    """RGB image of `azimuths` x 2 tiles of resolution x resolution pixels: front first, then by rising azimuth.

    The upper row is in color, the lower textureless. Raises ConfigError for less than one azimuth or 8 pixels.
    """
    if azimuths < 1 or resolution < 8:
        raise ConfigError(
            f"turntable of {azimuths} azimuths at {resolution} pixels; allowed are 1 or more at 8 or more; "
            "give larger numbers"
        )
    tiles = [lit_images(mesh, 360.0 * turn / azimuths, elevation_deg, resolution) for turn in range(azimuths)]
    rows = [np.concatenate([tile[row] for tile in tiles], axis=1) for row in range(2)]
    return Image.fromarray((np.concatenate(rows, axis=0) * 255.0 + 0.5).astype(np.uint8))
