# SPDX-License-Identifier: GPL-3.0-or-later
"""A binary PLY writer for one vertex-colored mesh."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ..geometry.build import Mesh
from ..geometry.color import linear_to_display
from .provenance import MADE_BY, provenance_lines


def ply_bytes(mesh: Mesh, provenance: Mapping[str, Any]) -> bytes:
    """Binary little-endian PLY: x y z, float nx ny nz, uchar red green blue (display sRGB), Z up, meters.

    Positions are float, or double where the mesh has float64 vertices.
    """
    wide = mesh.vertices.dtype == np.float64
    kinds = dict.fromkeys("xyz", ("<f8", "double") if wide else ("<f4", "float"))
    kinds |= dict.fromkeys(("nx", "ny", "nz"), ("<f4", "float"))
    kinds |= dict.fromkeys(("red", "green", "blue"), ("u1", "uchar"))
    vertex = np.zeros(len(mesh.vertices), dtype=[(name, kind) for name, (kind, _) in kinds.items()])
    colors = np.rint(255.0 * linear_to_display(mesh.albedo.astype(np.float64)))
    for axis in range(3):
        vertex["xyz"[axis]] = mesh.vertices[:, axis]
        vertex["n" + "xyz"[axis]] = mesh.normals[:, axis]
        vertex[("red", "green", "blue")[axis]] = colors[:, axis]
    face = np.zeros(len(mesh.faces), dtype=[("count", "u1"), ("indices", "<i4", (3,))])
    face["count"], face["indices"] = 3, mesh.faces
    header = ["ply", "format binary_little_endian 1.0"]
    header += [f"comment {line}" for line in [MADE_BY, *provenance_lines(provenance)]]
    header += [f"element vertex {len(vertex)}"] + [f"property {kind} {name}" for name, (_, kind) in kinds.items()]
    header += [f"element face {len(face)}", "property list uchar int vertex_indices", "end_header"]
    return "\n".join(header).encode("ascii") + b"\n" + vertex.tobytes() + face.tobytes()
