# SPDX-License-Identifier: GPL-3.0-or-later
"""Script inside Blender for `dreamwright finish --fbx`: a .glb of all objects becomes an FBX of one LOD group.

It is never imported: `fbx_export.py` passes it to Blender with its arguments in $DREAMWRIGHT_FBX.
"""

from __future__ import annotations

import json
import os
from typing import Any

import bpy


def main() -> None:
    """Import, group, export."""
    arguments: dict[str, Any] = json.loads(os.environ["DREAMWRIGHT_FBX"])
    bpy.ops.wm.read_factory_settings(use_empty=True)
    bpy.ops.import_scene.gltf(filepath=arguments["glb"])
    levels = sorted((one for one in bpy.data.objects if one.name in arguments["levels"]), key=lambda one: one.name)
    if len(levels) > 1:
        # Blender writes the FBX type that this property names; engines read the group's children as its levels.
        group = bpy.data.objects.new(arguments["name"], None)
        group["fbx_type"] = "LodGroup"
        bpy.context.scene.collection.objects.link(group)
        for level in levels:
            level.parent = group
    bpy.ops.export_scene.fbx(
        filepath=arguments["out"], use_custom_props=True, mesh_smooth_type="OFF", use_tspace=True, path_mode="COPY",
        embed_textures=True, add_leaf_bones=False, bake_anim=False, apply_scale_options="FBX_SCALE_UNITS",
        object_types={"MESH", "EMPTY"},
    )  # fmt: skip


if __name__ == "__main__":
    main()
