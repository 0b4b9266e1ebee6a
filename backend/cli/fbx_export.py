# SPDX-License-Identifier: GPL-3.0-or-later
"""FBX of a finished asset, written by a Blender: bpy in this Python, or a program."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import ExportError
from ..io.blender_program import blender_command, own_folder_first

if TYPE_CHECKING:
    from ..finishing.asset import Asset

TIMEOUT_S = 300.0
SCRIPT = Path(__file__).with_name("finish_fbx.py")


def fbx_file(asset: Asset, whole: bytes, program: Path | None, quads: bool = False) -> tuple[bytes, list[float]]:
    """The FBX of a .glb that holds all objects of the asset, and for `quads` each level's share of faces that are.

    Raises ExportError.
    """
    command = blender_command(program)
    with tempfile.TemporaryDirectory(prefix="dreamwright-") as folder:
        source, out, shares = (Path(folder) / one for one in ("asset.glb", "asset.fbx", "shares.json"))
        source.write_bytes(whole)
        arguments = {
            "glb": str(source), "out": str(out), "name": asset.name, "quads": quads, "shares": str(shares),
            "levels": [asset.level_name(number) for number in range(len(asset.levels))],
        }  # fmt: skip
        environment = own_folder_first(command[0], {**os.environ, "DREAMWRIGHT_FBX": json.dumps(arguments)})
        try:
            done = subprocess.run(
                [*command, str(SCRIPT)], env=environment, capture_output=True, text=True, timeout=TIMEOUT_S
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise ExportError(f"Blender wrote no FBX ({error}); leave --fbx out, or name another --blender") from error
        if done.returncode or not out.is_file():
            said = [line for line in (done.stderr or done.stdout).splitlines() if line.strip()][-1:]
            raise ExportError(
                f"Blender wrote no FBX ({said[0].strip() if said else f'exit status {done.returncode}'}); leave --fbx "
                "out, or name another --blender"
            )
        return out.read_bytes(), json.loads(shares.read_text(encoding="utf-8"))
