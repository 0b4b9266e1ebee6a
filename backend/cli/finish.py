# SPDX-License-Identifier: GPL-3.0-or-later
"""`dreamwright finish`: a mesh becomes a game-ready asset: budget, UVs, baked maps, levels of detail, collision."""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..config.finish_settings import PRESETS, STEPS
from .run_display import print_warning
from .signals import StopSignal

if TYPE_CHECKING:
    from ..config.finish_settings import FinishConfig
    from ..finishing.asset import Asset, DenseMesh
    from ..finishing.finish import Finishing

STOP_MESSAGE = "stopping after this piece of work; nothing will be written (a second signal ends at once)"


def add_arguments(subparsers: Any) -> argparse.ArgumentParser:
    """Define the command's arguments."""
    parser = subparsers.add_parser(
        "finish", help="make a game-ready asset of a mesh: budget, UVs, textures, LODs, collision", description=__doc__
    )
    parser.add_argument("mesh", type=Path, help="mesh file: .glb, .gltf, .ply or .obj")
    parser.add_argument(
        "--out", type=Path, required=True, metavar="DIR", help="folder for the asset's files; made if it is missing"
    )
    parser.add_argument(
        "--preset", default="game", help=", ".join(f"{one.name} ({one.summary})" for one in PRESETS.values())
    )
    parser.add_argument(
        "--only",
        action="append",
        default=[],
        metavar="STEP",
        choices=STEPS,
        help=f"run this step; may be given several times; default: all of {', '.join(STEPS)}; bake runs uv too",
    )
    parser.add_argument("--name", help="name of the objects and files (default: the mesh file's)")
    parser.add_argument("--triangles", type=int, help="budget of the finest level")
    parser.add_argument("--texture", type=int, metavar="SIZE", help="texels a side of its textures")
    parser.add_argument("--height", type=float, metavar="METERS", help="height along Z; default: as the mesh is")
    parser.add_argument("--roughness", type=float, help="of the material, 0 to 1")
    parser.add_argument("--metallic", type=float, help="of the material, 0 to 1")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="a setting of docs/user/finish.md, such as finish.levels=2; the options above win",
    )
    parser.add_argument(
        "--up", choices=("auto", "y", "z"), default="auto", help="the file's upward axis; auto: y for glTF, else z"
    )
    parser.add_argument(
        "--scene", action="store_true", help="write NAME_scene.glb too: all levels and hulls as objects of one scene"
    )
    parser.add_argument(
        "--events", type=Path, metavar="FILE", help="append a JSON line for each event, for programs that show progress"
    )
    parser.add_argument("--fbx", action="store_true", help="write an FBX too, with a Blender")
    parser.add_argument(
        "--quads", action="store_true", help="join pairs of triangles into quads in the FBX, where textures stay valid"
    )
    parser.add_argument(
        "--blender", type=Path, metavar="PROGRAM", help="the Blender (default: bpy in this Python, else on PATH)"
    )
    return parser


def config_from(options: argparse.Namespace) -> FinishConfig:
    """The validated settings that the options describe. Raises ConfigError."""
    from ..config.finish_settings import finish_config

    named = {
        "triangles": options.triangles, "texture": options.texture, "height_m": options.height,
        "roughness": options.roughness, "metallic": options.metallic,
    }  # fmt: skip
    given = [f"finish.{name}={value}" for name, value in named.items() if value is not None]
    return finish_config(options.preset, [*options.set, *given])


def run(options: argparse.Namespace) -> int:
    """Finish. Raises DreamwrightError for what the user can mend; then nothing was written."""
    from ..errors import ConfigError
    from ..finishing.asset_files import asset_files
    from ..finishing.asset_name import asset_name
    from ..finishing.finish import Finishing
    from ..io.blender_program import blender_command
    from ..io.output_files import check_folder_writable
    from .fbx_export import fbx_file

    config, name = config_from(options), asset_name(options.name or options.mesh.stem)
    check_folder_writable(options.out)
    if options.quads and not options.fbx:
        raise ConfigError("--quads is given without --fbx; the other files are glTF, of triangles only; add --fbx")
    if options.fbx:
        blender_command(options.blender)
    dense = read_dense(options.mesh, options.up, config)
    began = time.monotonic()
    with StopSignal(STOP_MESSAGE) as stop:
        finishing = Finishing(dense, name, config, options.only or STEPS, stop)
        asset = show(finishing, name, options.events)
    for warning in asset.warnings:
        print_warning(warning)
    provenance = {"source": options.mesh.name, "preset": options.preset, "name": name}
    made = asset_files(asset, provenance)
    files = dict(made.files)
    if options.scene:
        files = {f"{name}_scene.glb": made.whole, **files}
    if options.fbx:
        fbx, shares = fbx_file(asset, made.whole, options.blender, options.quads)
        files = {f"{name}.fbx": fbx, **files}
    write_files(options.out, files)
    print(describe(asset))
    if options.quads:
        print(f"quads in the FBX: {', '.join(f'{100 * share:.0f}%' for share in shares)} of each level's faces")
    print(f"{len(files)} files in {options.out}, {time.monotonic() - began:.0f} s")
    return 0


def read_dense(path: Path, up: Any, config: FinishConfig) -> DenseMesh:
    """The mesh of a file, ready for finishing; what of it could not be read is printed. Raises ConfigError."""
    from ..finishing.dense import dense_mesh
    from ..finishing.paint import SurfacePaint
    from ..io.mesh_reader import read_mesh_data

    data = read_mesh_data(path, up)
    for notice in data.notices:
        print_warning(notice)
    paint = SurfacePaint(data.faces, data.albedo, data.textures)
    return dense_mesh(data.vertices, data.faces, paint, data.normals, config.crease)


def show(finishing: Finishing, name: str, log: Path | None) -> Asset:
    """Run the steps with a progress bar, and a line of `log` for each event; returns the asset."""
    from tqdm import tqdm

    from ..finishing.finish import Finished, StepFinished, StepStarted

    asset: Asset | None = None
    with tqdm(total=100, desc=name[:32], unit="%", file=sys.stderr, dynamic_ncols=True) as bar:
        for event in finishing.events():
            if isinstance(event, Finished):
                asset = event.asset
                continue
            if log is not None:
                write_event(log, {"event": type(event).__name__, **asdict(event)})
            if isinstance(event, StepStarted):
                bar.set_postfix_str(event.step)
            bar.update(round(100 * event.share) - bar.n)
            if isinstance(event, StepFinished):
                bar.write(f"{event.step}: {figures_line(event.figures)}", file=sys.stderr)
    if asset is None:
        raise RuntimeError("finishing ended without an asset")
    return asset


def write_event(log: Path, event: dict[str, Any]) -> None:
    """Append one line of JSON. Raises ExportError."""
    from ..errors import ExportError

    try:
        with open(log, "a", encoding="utf-8") as stream:
            stream.write(json.dumps(event) + "\n")
    except OSError as error:
        raise ExportError(f"cannot write {str(log)!r}: {error.strerror}; choose another file with --events") from error


def figures_line(figures: dict[str, Any]) -> str:
    """Figures in one line."""
    return ", ".join(
        f"{key} ({figures_line(value)})" if isinstance(value, dict) else f"{key} {_number(value)}"
        for key, value in figures.items()
    )


def _number(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value).lower()


def describe(asset: Asset) -> str:
    """The asset in one line."""
    triangles = ", ".join(str(len(level.surface.faces)) for level in asset.levels)
    share = 100 * asset.levels[0].figures.get("hausdorff_share", 0.0)
    return (
        f"{asset.name}: triangles {triangles}; LOD0 within {share:.2f}% of the diagonal of the given mesh; "
        f"{len(asset.hulls)} collision hull{'s' * (len(asset.hulls) != 1)}"
    )


def write_files(folder: Path, files: dict[str, bytes]) -> None:
    """Write the files, the one with the levels last, each as a whole or not at all. Raises ExportError."""
    from ..errors import ExportError
    from ..io.output_files import check_writable, write_output

    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ExportError(
            f"cannot make the folder {str(folder)!r}: {error.strerror}; choose another with --out"
        ) from error
    for name in files:
        check_writable(folder / name)
    for name, data in files.items():
        write_output(folder / name, data)
