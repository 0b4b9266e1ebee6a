# SPDX-License-Identifier: GPL-3.0-or-later
"""Inside a Blender without a window: one prop through the real server, from the greeting to the object."""

from __future__ import annotations

import json
from typing import Any

import bpy
from headless import connect, imported_jobs, session, until

SMALL = {
    "run.steps": 12, "surface.steps": 3, "run.threads": 1, "run.preview_interval": 2, "render.resolution": 16,
    "render.coarse_resolution": 16,
    "render.samples": 16, "mesh.resolution": 32, "mesh.threshold": 1.0, "mesh.height_m": 0.5, "mesh.texture": 64,
}  # fmt: skip


def main() -> None:
    """Connect, generate, watch, import."""
    connect()
    panel = bpy.context.window_manager.dreamwright
    report: dict[str, Any] = {
        "models": [card.name for card in session.capabilities.models if card.ready],
        "chosen": [panel.model_name, panel.preset_name],
    }
    # What the panel has no control for is sent by name.
    session.submit("a red mushroom", "", "starter", "draft", 3, SMALL)
    until(lambda: bool(session.jobs), "the job")
    job = next(iter(session.jobs))
    until(lambda: session.jobs[job].state in ("succeeded", "failed", "cancelled"), "the job's end", 200)
    ended = session.jobs[job]
    image = bpy.data.images.get("Dreamwright Preview")
    ring = session.previews.get(job)
    report |= {
        "job": [ended.state, ended.message, ended.step],
        "previews": len(ring) if ring else 0,
        "first and last": [ring.at(share).step for share in (0, 1)] if ring else [],
        "image": [*image.size, len({round(value, 3) for value in image.pixels[:]})] if image else [],
    }
    bpy.ops.dreamwright.import_mesh(job=job)
    until(lambda: imported_jobs() == [job], "the import")
    made = next(one for one in bpy.data.objects if "dreamwright_prompt" in one)
    attribute = made.data.color_attributes.get("albedo")
    values = [value for item in attribute.data for value in item.color[:3]] if attribute else []
    image, layer = bpy.data.images.get(made.name), made.data.uv_layers.active
    texels = image.pixels[:] if image else []
    report |= {
        "picture": [*image.size, image.colorspace_settings.name, len(set(texels)), len(layer.data)]
        if image and layer
        else [],
        "albedo": [attribute.data_type, attribute.domain, min(values), max(values)] if attribute else [],
        "triangles": len(made.data.polygons),
        "height": made.dimensions.z,
        "base": min(corner[2] for corner in made.bound_box),
        "provenance": {
            name.removeprefix("dreamwright_"): made[name]
            for name in list(made.keys())
            if name.startswith("dreamwright_")
        },
        "notices": [notice.text for notice in session.notices],
    }
    print("REPORT " + json.dumps(report))


main()
