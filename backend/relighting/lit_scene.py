# SPDX-License-Identifier: GPL-3.0-or-later
"""From the finished props of a library to a lit scene: places, pictures in each lighting, figures of the albedo."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dreamwright.shared.mesh_file import MeshFile

from ..errors import ExportError, RunError
from ..io.blender_program import blender_command, blender_variables
from ..io.blender_run import blender_reports
from ..io.output_files import write_output
from .framing import View, frame
from .measurement import measure
from .placement import Placed, Shape, place, shade_begins
from .scene_description import SceneProp

SCENE_VERSION = 1  # raise it when the scripts make other pictures of the same request
SCRIPT = Path(__file__).with_name("relit_script.py")
ARGUMENTS = "DREAMWRIGHT_RELIT"
LIGHTINGS = ("sun", "lamp", "sky")
RENDERS, RECORD, BLEND, MEASURED = "renders", "relighting.json", "scene.blend", "measured.npz"
AZIMUTH_DEG, ELEVATION_DEG, FIELD_DEG, MARGIN = 16.0, 15.0, 32.0, 0.06
GRAY = 0.5  # albedo of the reference
PICTURE_BOUNCES = 4
# Bounces, and samples a pixel: direct light, whose quotient has no noise; and light as in the pictures, which has some.
MEASURED_LIGHT = ((0, 4), (PICTURE_BOUNCES, 16))


@dataclass(frozen=True)
class Prop:
    """A finished prop: the job that made it, which its object in library.blend names, and its mesh."""

    job: str
    mesh: MeshFile


@dataclass(frozen=True)
class Size:
    """Of the pictures: pixels, and Cycles samples a pixel."""

    width: int
    height: int
    samples: int


def placed_props(scene: Sequence[SceneProp], props: Mapping[str, Prop]) -> tuple[Placed, ...]:
    """The places of the finished props, by the names of the scene."""
    shapes = {name: Shape(prop.mesh.vertices, prop.mesh.faces) for name, prop in props.items()}
    return place(scene, shapes)


def view_of(placed: Sequence[Placed], size: Size) -> View:
    """The camera that has the whole set in its picture."""
    boxes = [(one.low, one.high) for one in placed]
    return frame(boxes, AZIMUTH_DEG, ELEVATION_DEG, FIELD_DEG, size.width / size.height, MARGIN)


def render_scene(
    out: Path,
    library_blend: Path,
    placed: Sequence[Placed],
    props: Mapping[str, Prop],
    size: Size,
    blender: Path | None,
    world: bytes = b"",
) -> Iterator[tuple[int, int]]:
    """Render what OUT/renders does not hold yet of this scene; yields how many renders are done, of how many.

    world: a PNG of all directions that takes the place of the sky.
    Raises BlenderError without a Blender, RunError when it fails and ExportError for a folder that cannot be written;
    what was rendered is kept.
    """
    command = blender_command(blender)
    request: dict[str, Any] = {
        "blend": str(library_blend.resolve()), "view": asdict(view_of(placed, size)), **asdict(size),
        "picture_bounces": PICTURE_BOUNCES, "measured_light": MEASURED_LIGHT, "gray": GRAY,
        "props": [_described(one, props[one.prop.name]) for one in placed],
    }  # fmt: skip
    renders = out / RENDERS
    try:
        with tempfile.TemporaryDirectory(prefix="dreamwright-relit-") as name:
            work = Path(name)
            _begin(renders, _digest(request, placed, props, world))
            (work / "world.png").write_bytes(world)
            request["world"] = str(work / "world.png") if world else ""
            for number, prop in enumerate(request["props"]):
                prop["expected"] = _expected(props[prop["name"]].mesh, work / f"{number}.npy")
            request["out"] = str(renders.resolve())
            (work / "request.json").write_text(json.dumps(request))
            variables = {**blender_variables(work / "blender"), ARGUMENTS: str(work / "request.json")}
            with (out / "blender.log").open("w") as log:
                for report in blender_reports(command, SCRIPT, variables, log):
                    yield int(report["done"]), int(report["total"])
    except RunError as error:
        raise RunError(
            f"Blender could not render the scene: {error}; the props and finished renders are kept, "
            f"{out / 'blender.log'} says more, and the same command tries again"
        ) from error
    except OSError as error:
        raise ExportError(
            f"cannot write {str(renders)!r}: {error.strerror or error}; free some space or choose another folder with "
            "--out"
        ) from error


def finish_scene(out: Path, placed: Sequence[Placed]) -> dict[str, Any]:
    """Measure the renders, and put the files where a person looks for them; the record. Raises ExportError."""
    renders = out / RENDERS
    with np.load(renders / MEASURED, allow_pickle=False) as arrays:
        figures = measure({name: arrays[name] for name in arrays.files}, [one.prop.name for one in placed], GRAY)
    record = {
        "props": [
            {
                "name": one.prop.name, "prompt": one.prop.prompt, "height_m": one.prop.height_m,
                "size_m": [round(high - low, 4) for low, high in zip(one.low, one.high, strict=True)],
                "location_m": [round(value, 4) for value in one.location],
            }
            for one in placed
        ],
        **figures,
    }  # fmt: skip
    for name in (*(f"{lighting}.png" for lighting in LIGHTINGS), BLEND):
        write_output(out / name, (renders / name).read_bytes())
    write_output(out / RECORD, (json.dumps(record, indent=1) + "\n").encode())
    return record


def _described(one: Placed, prop: Prop) -> dict[str, Any]:
    return {
        "name": one.prop.name, "job": prop.job, "scale": one.scale, "turn_deg": one.turn_deg,
        "location": one.location, "lamp": one.prop.lamp, "shade_begins": shade_begins(prop.mesh.vertices),
    }  # fmt: skip


def _digest(request: Mapping[str, Any], placed: Sequence[Placed], props: Mapping[str, Prop], world: bytes) -> str:
    """SHA-256 of all that the renders depend on; where the library is does not matter, but what its meshes are."""
    content = {name: value for name, value in request.items() if name != "blend"}
    found = hashlib.sha256(json.dumps([SCENE_VERSION, content], sort_keys=True).encode())
    found.update(world)
    for one in placed:
        mesh = props[one.prop.name].mesh
        for array in (mesh.vertices, mesh.faces, mesh.albedo):
            found.update(np.ascontiguousarray(array).tobytes())
        found.update(mesh.texture.png if mesh.texture is not None else b"")
    return found.hexdigest()


def _begin(renders: Path, digest: str) -> None:
    """Make the folder, without the renders of another scene. Raises OSError."""
    record = renders / "scene.sha256"
    renders.mkdir(parents=True, exist_ok=True)
    if not (record.is_file() and record.read_text() == digest):
        for name in (*(f"{lighting}.png" for lighting in LIGHTINGS), BLEND, MEASURED):
            (renders / name).unlink(missing_ok=True)
        record.write_text(digest)


def _expected(mesh: MeshFile, path: Path) -> str:
    """A file with the albedo that the mesh file states; "" for one whose albedo is a texture."""
    if mesh.texture is not None:
        return ""
    np.save(path, mesh.albedo)
    return str(path)
