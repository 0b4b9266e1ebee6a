# SPDX-License-Identifier: GPL-3.0-or-later
"""The files of a finished asset, as bytes by name."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..io.gltf_asset_writer import AssetMaterial, AssetPart, asset_glb
from .asset import Asset, Level


@dataclass(frozen=True)
class AssetFiles:
    """files: contents by name, the one with the levels of detail last. whole: a .glb of every object in one scene."""

    files: Mapping[str, bytes]
    whole: bytes


def asset_files(asset: Asset, provenance: Mapping[str, Any]) -> AssetFiles:
    """NAME.glb with its levels, NAME_collision.glb, the textures as PNG, and NAME.json with the figures."""
    pictures = {
        f"{asset.level_name(number)}_{kind}.png": png
        for number, level in enumerate(asset.levels)
        for kind, png in _pictures(level).items()
    }
    levels = [_level_part(asset, number, level, pictures) for number, level in enumerate(asset.levels)]
    hulls = [AssetPart(asset.hull_name(number), hull.vertices, hull.faces) for number, hull in enumerate(asset.hulls)]
    # A level is shown down to where the next one may be; the last one at any size.
    coverage = [*(level.screen_size for level in asset.levels[1:]), 0.0]
    files = dict(pictures)
    if hulls:
        files[f"{asset.name}_collision.glb"] = asset_glb(hulls, provenance)
    files[f"{asset.name}.json"] = json.dumps(report_of(asset, provenance), indent=2).encode("utf-8")
    files[f"{asset.name}.glb"] = asset_glb(levels, provenance, coverage)
    return AssetFiles(files, asset_glb([*levels, *hulls], provenance))


def report_of(asset: Asset, provenance: Mapping[str, Any]) -> dict[str, Any]:
    """Everything that was measured, ready for JSON: meters, degrees, texels a meter."""
    return {
        "name": asset.name,
        "steps": asset.figures,
        "levels": [
            {"name": asset.level_name(number), "screen_size": level.screen_size, **level.figures}
            for number, level in enumerate(asset.levels)
        ],
        "hulls": [
            {"name": asset.hull_name(number), "vertices": len(hull.vertices), "triangles": len(hull.faces)}
            for number, hull in enumerate(asset.hulls)
        ],
        "material": {"roughness": asset.roughness, "metallic": asset.metallic},
        "warnings": list(asset.warnings),
        "provenance": dict(provenance),
    }


def png_of(image: NDArray[np.uint8]) -> bytes:
    """An image (s, s, 3) as an 8-bit PNG without a color profile."""
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, format="PNG")
    return stream.getvalue()


def _pictures(level: Level) -> dict[str, bytes]:
    if level.maps is None:
        return {}
    images = {"albedo": level.maps.albedo, "normal": level.maps.normal}
    return {kind: png_of(image) for kind, image in images.items() if image is not None}


def _level_part(asset: Asset, number: int, level: Level, pictures: Mapping[str, bytes]) -> AssetPart:
    name, places = asset.level_name(number), level.unwrapping
    material = AssetMaterial(
        name,
        asset.roughness,
        asset.metallic,
        pictures.get(f"{name}_albedo.png"),
        pictures.get(f"{name}_normal.png"),
    )
    rows = np.arange(len(level.surface.vertices)) if places is None else places.vertex
    return AssetPart(
        name,
        level.surface.vertices[rows],
        level.surface.faces if places is None else places.corners,
        level.normals[rows],
        None if places is None else places.uv,
        level.tangents if level.maps is not None and level.maps.normal is not None else None,
        level.albedo[rows] if level.maps is None else None,
        material,
    )
