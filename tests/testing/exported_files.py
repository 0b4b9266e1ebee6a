# SPDX-License-Identifier: GPL-3.0-or-later
"""Exported GLB files: their chunks, and the Khronos validator's report."""

from __future__ import annotations

import json
import os
import shutil
import struct
import subprocess
from pathlib import Path
from typing import Any

import pytest

NODE_FOLDER = Path(__file__).parents[1] / "node"
PROVENANCE = {"prompt": 'a "red"\nmushroom é', "seed": 7, "preset": "draft", "model": "starter", "omega": 30.0}


def glb_json(path: Path) -> dict[str, Any]:
    """The JSON chunk of a GLB, whose header is checked."""
    data = path.read_bytes()
    magic, version, total, length, kind = struct.unpack_from("<IIIII", data)
    assert (magic, version, total, kind) == (0x46546C67, 2, len(data), 0x4E4F534A)
    return json.loads(data[20 : 20 + length])


def glb_part(path: Path, view: int) -> bytes:
    """The bytes of a buffer view of a GLB."""
    data = path.read_bytes()
    (length,) = struct.unpack_from("<I", data, 12)
    buffer_view = json.loads(data[20 : 20 + length])["bufferViews"][view]
    return data[28 + length :][buffer_view["byteOffset"] : buffer_view["byteOffset"] + buffer_view["byteLength"]]


def unavailable(reason: str) -> None:
    """Fail in CI, where the tool is required, and skip with a reason elsewhere."""
    if os.environ.get("CI", "").lower() in ("1", "true", "yes"):
        pytest.fail(reason)
    pytest.skip(reason)


def khronos_report(path: Path) -> dict[str, Any]:
    """What the Khronos glTF validator reports on a file; `unavailable` without Node.js or the validator."""
    node = shutil.which("node")
    if node is None:
        unavailable("node is not installed; the Khronos validator needs it")
    if not (NODE_FOLDER / "node_modules" / "gltf-validator").is_dir():
        unavailable("the npm package gltf-validator is missing; run `npm ci` in tests/node")
    result = subprocess.run(
        [str(node), "validate.js", str(path)], cwd=NODE_FOLDER, capture_output=True, text=True, timeout=120
    )
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)
