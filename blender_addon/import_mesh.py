# SPDX-License-Identifier: GPL-3.0-or-later
"""Import of a downloaded mesh as an object with material, colors and texture, at the 3D cursor, in one undo step."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import bpy
import numpy as np

from . import compat, import_places, labels, placement, provenance
from .datablocks import assets
from .datablocks.assets import set_properties
from .datablocks.materials import build_image, build_material
from .datablocks.meshes import ALBEDO, build_mesh, proper_faces, set_vertex_colors
from .preview_history import decode_frame
from .shared.asset_catalogs import catalog_id
from .shared.mesh_file import MeshFile
from .shared.messages import JobSummary, PreviewFrame
from .wording import say

__all__ = ["ALBEDO", "build_material", "build_mesh", "check_mesh", "import_mesh", "set_properties", "set_vertex_colors"]

CATALOG = provenance.PREFIX + "catalog"  # custom property: the path of an asset's catalog


def check_mesh(mesh: MeshFile) -> None:
    """Raise ValueError for a mesh without a proper face."""
    if not len(mesh.vertices) or not len(mesh.faces) or not proper_faces(mesh.faces).any():
        raise ValueError(say("the mesh is empty; try another seed or more steps"))


@dataclass(frozen=True)
class AssetLabel:
    """What an asset has besides what its job says. `name` "": the prompt; `thumbnail`: (h, w, 3) uint8, top first."""

    name: str = ""
    tags: tuple[str, ...] = ()
    catalog: str = ""
    offset_m: float = 0.0  # of its place along x, from the 3D cursor
    thumbnail: np.ndarray | None = None


def import_mesh(
    job: JobSummary,
    mesh: MeshFile,
    address: str,
    as_asset: bool = False,
    thumbnail: PreviewFrame | None = None,
    label: AssetLabel = AssetLabel(),
    stage: import_places.Stage | None = None,
) -> Any:
    """Import a mesh at the 3D cursor of the stage, selected and active, as one undo step; the new object.

    Raises ValueError for an empty mesh, an unreadable texture or a linked scene, and then leaves nothing behind.
    """
    check_mesh(mesh)
    return compat.with_window(bpy.context, lambda: _import(job, mesh, address, as_asset, thumbnail, label, stage))


def _import(
    job: JobSummary,
    mesh: MeshFile,
    address: str,
    as_asset: bool,
    thumbnail: PreviewFrame | None,
    label: AssetLabel,
    stage: import_places.Stage | None,
) -> Any:
    context = stage or import_places.stage_here()
    placement.check_scene(context)
    placement.leave_edit_mode(context)
    name = label.name or labels.short(job.prompt, 50) or "Prop"
    units = import_places.units_per_meter(context.scene)
    with placement.discard_on_error(context.view_layer):
        image = build_image(name, mesh.texture.png) if mesh.texture is not None else None
        data = build_mesh(name, mesh if units == 1 else replace(mesh, vertices=mesh.vertices * np.float32(units)))
        made = bpy.data.objects.new(name, data)
        if image is not None:
            image.name = made.name
        data.materials.append(build_material(name, image))
        made.location = context.scene.cursor.location
        made.location.x += label.offset_m * units
        set_properties(made, provenance.properties_of(job, mesh.facts, address))
        placement.link_to_scene(context, made, [context.collection] if context.collection else [])
        if as_asset:
            mark_as_asset(made, job, thumbnail, label)
    placement.push_undo(say("Import: {prompt}", prompt=labels.short(job.prompt, 40)))
    return made


def mark_as_asset(made: Any, job: JobSummary, thumbnail: PreviewFrame | None, label: AssetLabel = AssetLabel()) -> None:
    """Add an object to the Asset Browser, with a preview of its job as thumbnail."""
    assets.mark_as_asset(made, job.prompt, label.tags, catalog_id(label.catalog) if label.catalog else "")
    if label.catalog:
        made[CATALOG] = label.catalog
    if thumbnail is not None:
        assets.set_thumbnail(made, decode_frame(thumbnail))
    elif label.thumbnail is not None:
        assets.set_thumbnail(made, label.thumbnail)
