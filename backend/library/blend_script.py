# SPDX-License-Identifier: GPL-3.0-or-later
"""Script inside Blender for `dreamwright batch`: one asset object for each prop, saved as one .blend file.

Blender runs it with the path of its request in $DREAMWRIGHT_BLEND; blender_run.py reads the lines that start with MARK.
It makes the same meshes and materials as the add-on, by the add-on's own modules.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

MARK = "DREAMWRIGHT "
ARGUMENTS = "DREAMWRIGHT_BLEND"
PREFIX = "dreamwright_"  # of the custom properties, as in the add-on
NAME_BYTES = 60  # of a custom property; Blender holds 63
GAP = 0.25  # meters between the props in the scene
# In a checkout and in site-packages alike.
ADDON = Path(__file__).resolve().parents[2] / "blender_addon"


def report(**fields: Any) -> None:
    """Print a line for blender_run.py."""
    print(MARK + json.dumps(fields), flush=True)


def read_mesh(path: str) -> tuple[Any, Any]:
    """(mesh, thumbnail) of an .npz file, as the add-on's modules take them."""
    with np.load(path) as arrays:
        found = {name: arrays[name] for name in arrays.files}
    texture = None
    if "png" in found:
        texture = SimpleNamespace(uv=found["uv"], corners=found["corners"], png=found["png"].tobytes())
    mesh = SimpleNamespace(
        vertices=found["vertices"], faces=found["faces"], albedo=found["albedo"], texture=texture
    )  # fmt: skip
    return mesh, found["thumbnail"]


def storable(value: Any) -> Any:
    """A value that a custom property holds: integers of 32 bits, numbers, booleans and text."""
    if isinstance(value, int) and not -(2**31) <= value < 2**31:
        return str(value)
    return value if isinstance(value, (bool, int, float, str)) else json.dumps(value)


def add_prop(bpy: Any, prop: dict[str, Any], left: float) -> float:
    """Add one asset whose left side is at x = `left`, meters; returns where its right side is."""
    from datablocks import assets, materials, meshes  # type: ignore[import-not-found]

    mesh, thumbnail = read_mesh(prop["arrays"])
    data = meshes.build_mesh(prop["name"], mesh)
    image = materials.build_image(prop["name"], mesh.texture.png) if mesh.texture is not None else None
    data.materials.append(materials.build_material(prop["name"], image))
    made = bpy.data.objects.new(prop["name"], data)
    low, high = float(mesh.vertices[:, 0].min()), float(mesh.vertices[:, 0].max())
    made.location = (left - low, 0.0, 0.0)
    values = {
        (PREFIX + name).encode()[:NAME_BYTES].decode(errors="ignore"): value
        for name, value in prop["properties"].items()
    }
    assets.set_properties(made, {name: storable(value) for name, value in values.items()})
    assets.mark_as_asset(made, prop["description"], prop["tags"], prop["catalog_id"])
    assets.set_thumbnail(made, thumbnail)
    bpy.context.scene.collection.objects.link(made)
    return left + high - low


def main() -> None:
    """Write the file of the request."""
    import bpy

    sys.path.insert(0, str(ADDON))
    request = json.loads(Path(os.environ[ARGUMENTS]).read_text(encoding="utf-8"))
    try:
        bpy.ops.wm.read_factory_settings(use_empty=True)
        bpy.context.preferences.filepaths.save_version = 0  # no copy of the file before, which is empty
        left = 0.0
        for done, prop in enumerate(request["props"], start=1):
            left = add_prop(bpy, prop, left) + GAP
            report(done=done)
        bpy.ops.wm.save_as_mainfile(filepath=request["blend"], compress=True, check_existing=False)
    except Exception as error:
        report(error=f"{type(error).__name__}: {error}")
        raise
    finally:
        sys.stdout.flush()


if __name__ == "__main__":
    main()
