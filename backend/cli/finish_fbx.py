# SPDX-License-Identifier: GPL-3.0-or-later
"""Script inside Blender for `dreamwright finish --fbx`: a .glb of all objects becomes an FBX of one LOD group.

It is never imported: `fbx_export.py` passes it to Blender with its arguments in $DREAMWRIGHT_FBX. It joins quads and
writes the file by the add-on's own modules.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import bpy
import numpy as np

# In a checkout and in site-packages alike.
ADDON = Path(__file__).resolve().parents[2] / "blender_addon"


def main() -> None:
    """Import, join quads where they are asked for, export; the shares of quads go to a file of their own."""
    sys.path.insert(0, str(ADDON))
    from datablocks import fbx_file, quads  # type: ignore[import-not-found]

    arguments: dict[str, Any] = json.loads(os.environ["DREAMWRIGHT_FBX"])
    bpy.ops.wm.read_factory_settings(use_empty=True)
    vars(np).setdefault("bool", bool)  # Debian's Blender 3.4 reads glTF with it, and its numpy has it no more
    bpy.ops.import_scene.gltf(filepath=arguments["glb"])
    levels = {name: bpy.data.objects[name] for name in arguments["levels"]}
    hulls = {one.name: one for one in bpy.data.objects if one.type == "MESH" and one.name not in levels}
    shares = [quads.join_into_quads(one.data) for one in levels.values()] if arguments["quads"] else []
    Path(arguments["shares"]).write_text(json.dumps(shares), encoding="utf-8")
    fbx_file.write_fbx(arguments["out"], arguments["name"], levels, hulls)


if __name__ == "__main__":
    main()
