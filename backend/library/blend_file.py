# SPDX-License-Identifier: GPL-3.0-or-later
"""The .blend file of a library, written by a Blender that runs blend_script.py, and its catalog file."""

from __future__ import annotations

import hashlib
import io
import json
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from dreamwright.shared.asset_catalogs import FILE_NAME as CATALOG_FILE
from dreamwright.shared.asset_catalogs import catalog_id, catalog_ids, merged_catalogs
from dreamwright.shared.atomic import atomic_path

from ..errors import ExportError, RunError
from ..io.blender_program import blender_command, blender_variables
from ..io.blender_run import blender_reports
from ..io.output_files import write_output
from ..server.workers.job_executor import MESH_FILE
from .blend_script import ARGUMENTS
from .collecting import read_mesh_file
from .library_folder import Library, LibraryFolder, PropEntry

BLEND_VERSION = 1  # raise it when the script makes other assets of the same props


def blend_digest(library: Library) -> str:
    """SHA-256 of all that the .blend file is written from."""
    content = [BLEND_VERSION, [asdict(prop) for prop in library.props.values()]]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def write_blend(folder: LibraryFolder, library: Library, blender: Path | None) -> Iterator[int]:
    """Write the catalog file, then library.blend as a whole; yields how many assets are in it so far.

    Raises BlenderError when there is no Blender, RunError when it fails, ExportError for a mesh that is gone and a
    folder that cannot be written. A failure leaves the old .blend file.
    """
    command, props = blender_command(blender), library.props.values()
    ids = write_catalogs(folder.path / CATALOG_FILE, [prop.catalog for prop in props if prop.catalog])
    try:
        with tempfile.TemporaryDirectory(prefix="dreamwright-blend-") as name, atomic_path(folder.blend) as blend:
            work = Path(name)
            described = [
                _described(prop, ids.get(prop.catalog, ""), _write_arrays(folder, prop, work / f"{number}.npz"))
                for number, prop in enumerate(props)
            ]
            (work / "request.json").write_text(json.dumps({"blend": str(blend.resolve()), "props": described}))
            yield from _run_blender(command, work)
    except OSError as error:
        raise ExportError(
            f"cannot write {str(folder.blend)!r}: {error.strerror or error}; free some space or choose another folder "
            "with --library"
        ) from error
    folder.write(replace(library, blend_of=blend_digest(library)))


def write_catalogs(path: Path, paths: list[str]) -> dict[str, str]:
    """Add catalogs to the file, which a user may have edited; the id of each path. Raises ExportError."""
    try:
        before = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        before = ""
    except (OSError, UnicodeError) as error:
        raise ExportError(f"cannot read the catalogs in {str(path)!r} ({error}); mend or remove that file") from error
    text = merged_catalogs(before, paths)
    if text != before:
        write_output(path, text.encode())
    # A catalog that the user has moved keeps its id, and is not under its first path any more.
    return {one: catalog_id(one) for one in paths} | catalog_ids(text)


def _described(prop: PropEntry, identifier: str, arrays: Path) -> dict[str, Any]:
    """What the script needs to know of a prop."""
    known = {"prompt": prop.prompt, "preset": prop.preset, "seed": prop.seed, "model": prop.model, "job": prop.job}
    known["settings"] = json.dumps(dict(prop.settings), sort_keys=True)
    return {
        "arrays": str(arrays),
        "name": prop.name,
        "description": prop.prompt,
        "tags": list(prop.tags),
        "catalog_id": identifier,
        "properties": {**{name.replace(".", "_"): value for name, value in prop.provenance.items()}, **known},
    }


def _write_arrays(folder: LibraryFolder, prop: PropEntry, path: Path) -> Path:
    """Write a prop's mesh and thumbnail as arrays, which Blender's Python can read without other packages."""
    mesh = read_mesh_file(folder.jobs / "jobs" / prop.job / MESH_FILE)
    arrays: dict[str, np.ndarray[Any, Any]] = {
        "vertices": mesh.vertices,
        "faces": mesh.faces,
        "albedo": mesh.albedo,
        "thumbnail": _image(folder.path / prop.thumbnail),
    }
    if mesh.texture is not None:
        arrays |= {"uv": mesh.texture.uv, "corners": mesh.texture.corners}
        arrays["png"] = np.frombuffer(mesh.texture.png, np.uint8)
    np.savez(path, **arrays)
    return path


def _image(path: Path) -> np.ndarray[Any, Any]:
    with Image.open(path) as opened:
        return np.asarray(opened.convert("RGB"))


def _run_blender(command: list[str], work: Path) -> Iterator[int]:
    """Run the script; yields how many assets are done. Raises RunError."""
    variables = {**blender_variables(work / "blender"), ARGUMENTS: str(work / "request.json")}
    script = Path(__file__).with_name("blend_script.py")
    try:
        for report in blender_reports(command, script, variables, io.StringIO()):
            yield int(report["done"])
    except RunError as error:
        raise RunError(
            f"Blender could not write the library: {error}; the props are kept, and the same command tries again"
        ) from error
