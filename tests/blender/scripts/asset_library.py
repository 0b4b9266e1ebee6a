# SPDX-License-Identifier: GPL-3.0-or-later
"""In a Blender without the add-on: what the assets of $LIBRARY are, and one of them appended as a drop does it."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import bpy
import numpy as np

LIBRARY = Path(os.environ["LIBRARY"])


def values(items: Any, name: str, width: int) -> np.ndarray:
    found = np.empty(len(items) * width, np.float32)
    items.foreach_get(name, found)
    return found.reshape(-1, width)


def asset_of(one: Any) -> dict[str, Any]:
    """What the Asset Browser shows of an object, and what it is made of."""
    data, preview, mesh, material = one.asset_data, one.preview, one.data, one.data.materials[0]
    principled = next(node for node in material.node_tree.nodes if node.type == "BSDF_PRINCIPLED")
    source = principled.inputs["Base Color"].links[0].from_node
    pixels = np.array(preview.image_pixels_float[:]).reshape(*preview.image_size, 4)[::-1, :, :3]
    return {
        "description": data.description,
        "author": data.author,
        "tags": [tag.name for tag in data.tags],
        "catalog_id": data.catalog_id,
        "thumbnail": (255 * pixels[::32, ::32]).round().astype(int).tolist(),
        "polygons": len(mesh.polygons),
        "colors": values(mesh.color_attributes["albedo"].data, "color", 4)[:3].round(6).tolist(),
        "color_from": source.bl_idname,
        "packed": getattr(source, "image", None) is not None and source.image.packed_file is not None,
        "properties": {name: value for name, value in one.items() if name.startswith("dreamwright_")},
    }


def main() -> None:
    """Read the library as assets, then append one by its name into an empty scene."""
    bpy.ops.wm.read_factory_settings(use_empty=True)
    path = str(LIBRARY / "library.blend")
    with bpy.data.libraries.load(path, assets_only=True) as (source, _):
        offered = {"objects": list(source.objects), "materials": list(source.materials)}
    with bpy.data.libraries.load(path) as (source, target):
        target.objects = list(source.objects)
    found = {one.name: asset_of(one) for one in target.objects}
    bpy.ops.wm.read_factory_settings(use_empty=True)
    name = offered["objects"][0]
    bpy.ops.wm.append(filepath=f"{path}/Object/{name}", directory=f"{path}/Object/", filename=name)
    dropped = bpy.context.scene.objects[name]
    kinds = ("objects", "meshes", "materials", "images")
    counts = {kind: len(getattr(bpy.data, kind)) for kind in kinds}
    is_local = all(one.library is None for kind in kinds for one in getattr(bpy.data, kind))
    report = {
        "offered": offered, "assets": found, "dropped": name, "counts": counts, "local": is_local,
        "dimensions": list(dropped.dimensions), "location": list(dropped.location),
    }  # fmt: skip
    print("REPORT " + json.dumps(report), flush=True)


main()
