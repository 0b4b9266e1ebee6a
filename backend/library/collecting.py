# SPDX-License-Identifier: GPL-3.0-or-later
"""From the mesh of a finished job to the files of its prop: a GLB, a thumbnail, and an entry of the library."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image

from dreamwright.shared.errors import ProtocolError
from dreamwright.shared.mesh_file import MeshFile, decode_mesh

from ..errors import ExportError
from ..geometry.build import Mesh
from ..geometry.texture import Texture
from ..geometry.unwrap import Unwrapping
from ..io.mesh_export import export_mesh
from ..io.output_files import write_output
from ..mesh_rendering.turntable import lit_images
from ..scenes.initial_field import FIELD_FILE
from ..server.workers.job_executor import MESH_FILE
from .library_folder import Library, LibraryFolder, PropEntry, new_name, new_stem
from .planning import PlannedProp

THUMBNAIL_SIZE = 256  # pixels a side, which the Asset Browser shows in full
AZIMUTH_DEG, ELEVATION_DEG = 30.0, 20.0  # of the thumbnail's camera


def read_mesh_file(path: Path) -> MeshFile:
    """The mesh that a job left. Raises ExportError for one that is gone or damaged."""
    try:
        return decode_mesh(path.read_bytes())
    except (OSError, ProtocolError) as error:
        raise ExportError(
            f"the mesh {str(path)!r} cannot be read ({error}); remove that folder and start again"
        ) from error


def mesh_of_file(file: MeshFile) -> Mesh:
    """The mesh of a mesh file, with its texture."""
    texture = None
    if file.texture is not None:
        with Image.open(io.BytesIO(file.texture.png)) as opened:
            image = np.asarray(opened.convert("RGB"))
        vertex = np.zeros(len(file.texture.uv), np.int32)
        vertex[file.texture.corners.ravel()] = file.faces.ravel()
        texture = Texture(image, Unwrapping(file.texture.uv, file.texture.corners, vertex))
    return Mesh(file.vertices, file.faces, file.albedo, file.normals, texture)


def thumbnail_png(mesh: Mesh) -> bytes:
    """The prop from the front right and a little above, softly lit, as a PNG of THUMBNAIL_SIZE pixels a side."""
    image = lit_images(mesh, AZIMUTH_DEG, ELEVATION_DEG, THUMBNAIL_SIZE)[0]
    stream = io.BytesIO()
    Image.fromarray((image * 255.0 + 0.5).astype(np.uint8)).save(stream, format="PNG")
    return stream.getvalue()


def planned_entry(prop: PlannedProp, entry: PropEntry) -> PropEntry:
    """The entry with what the row says of its prop now: name, tags and catalog may change without a new job."""
    return PropEntry(**{**vars(entry), "name": new_name(prop), "tags": prop.row.tags, "catalog": prop.row.catalog})


def collect(
    folder: LibraryFolder, library: Library, prop: PlannedProp, job: str, job_folder: Path, sha256: str
) -> PropEntry:
    """Write the files of a finished prop, the entry of which is returned. Raises ExportError.

    The field that the job left for jobs that start from it is removed: a library needs its mesh only.
    """
    file = read_mesh_file(job_folder / MESH_FILE)
    mesh, request, known = mesh_of_file(file), prop.request, library.props.get(prop.ticket)
    entry = PropEntry(
        ticket=prop.ticket,
        stem=known.stem if known else new_stem(library, prop),
        name=new_name(prop),
        prompt=request.prompt,
        seed=request.seed,
        preset=request.preset,
        model=request.model,
        settings=dict(request.settings),
        tags=prop.row.tags,
        catalog=prop.row.catalog,
        job=job,
        mesh_sha256=sha256,
        provenance=dict(file.facts),
    )
    export_mesh(mesh, folder.path / entry.glb, entry.provenance)
    write_output(folder.path / entry.thumbnail, thumbnail_png(mesh))
    (job_folder / FIELD_FILE).unlink(missing_ok=True)
    return entry
