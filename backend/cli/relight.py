# SPDX-License-Identifier: GPL-3.0-or-later
"""`dreamwright demo --scene`: a set of props is made as a library, placed, rendered in three lightings, measured."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import ConfigError, RunError
from .signals import INTERRUPTED

if TYPE_CHECKING:
    from ..library.batch import Batch
    from ..relighting.lit_scene import Prop
    from ..relighting.placement import Placed
    from ..relighting.scene_description import SceneProp

WIDTH, ASPECT, SAMPLES = 640, 16 / 9, 32
LIBRARY = "library"


def run_scene(options: argparse.Namespace) -> int:
    """Make what is missing of the set, render and measure it; the exit code. Raises DreamwrightError."""
    from ..io.blender_program import blender_command
    from ..io.output_files import check_folder_writable
    from ..library.batch import Batch
    from ..library.library_folder import LibraryFolder
    from ..relighting.learned_background import background_png
    from ..relighting.lit_scene import Size
    from ..relighting.scene_description import DEFAULT_SET, read_scene
    from .batch import make_props, write_library_blend
    from .serve import all_devices

    scene = read_scene(Path(options.scene)) if options.scene else DEFAULT_SET
    width = options.size or WIDTH
    size = Size(width, max(1, round(width / ASPECT)), options.samples or SAMPLES)
    blender_command(options.blender)
    check_folder_writable(options.out)
    folder = LibraryFolder(options.library or options.out / LIBRARY)
    folder.check()
    world = background_png(options.world) if options.world else b""
    planned = _planned(scene, options)
    with folder.locked():
        batch = Batch(folder, folder.read(), planned, options.retry)
        if batch.open_props and not make_props(batch, all_devices([])):
            done = len(planned) - len(batch.open_props)
            print(f"stopped with {done} of {len(planned)} props; the same command continues", file=sys.stderr)
            return INTERRUPTED
        folder.write(batch.library)
        folder.write_failures(batch.failures)
        for failure in batch.failures:
            name = scene[failure.row - 1].name
            print(f"the scene is without {name}: {failure.reason}; --retry makes it again", file=sys.stderr)
        if not batch.library.props or len(batch.failures) == len(planned):
            raise RunError("no prop of the scene could be made, so that there is nothing to light; see the lines above")
        write_library_blend(batch, folder, options.blender)
        props = _finished(scene, batch)
        agrees = _render(options, scene, props, folder.blend, size, world)
    return 1 if batch.failures or not agrees else 0


def _planned(scene: Sequence[SceneProp], options: argparse.Namespace) -> Any:
    """The jobs of the set. Raises ConfigError, and PromptError for prompts that the model does not know."""
    from dreamwright.shared.limits import SEED_LARGEST
    from dreamwright.shared.prompt_list import PromptListError

    from ..errors import PromptError
    from ..library.planning import parse_settings, plan_props
    from ..relighting.scene_description import rows_of

    if not 0 <= options.seed <= SEED_LARGEST - len(scene):
        raise ConfigError(
            f"--seed {options.seed}; allowed are 0 to {SEED_LARGEST - len(scene)}; give a number in that range"
        )
    try:
        return plan_props(rows_of(scene, options.seed), options.preset, None, parse_settings(options.set))
    except PromptListError as error:
        raise PromptError(f"the scene cannot be made: {error}") from error


def _finished(scene: Sequence[SceneProp], batch: Batch) -> dict[str, Prop]:
    """The props that there are, by their names in the scene. Raises ExportError for a mesh that is gone."""
    from ..library.collecting import read_mesh_file
    from ..relighting.lit_scene import Prop
    from ..server.workers.job_executor import MESH_FILE

    found = {}
    for planned in batch.planned:
        entry = batch.library.props.get(planned.ticket)
        if entry is not None:
            mesh = read_mesh_file(batch.folder.jobs / "jobs" / entry.job / MESH_FILE)
            found[scene[planned.row.row - 1].name] = Prop(entry.job, mesh)
    return found


def _render(
    options: argparse.Namespace,
    scene: Sequence[SceneProp],
    props: Mapping[str, Prop],
    blend: Path,
    size: Any,
    world: bytes,
) -> bool:
    """Place, render and measure; whether the renders agree with the albedo."""
    from tqdm import tqdm

    from ..relighting.lit_scene import BLEND, LIGHTINGS, RECORD, finish_scene, placed_props, render_scene

    placed = placed_props(scene, props)
    for one in placed:
        if one.notice:
            print(one.notice, file=sys.stderr)
    with tqdm(desc="renders", unit="render", file=sys.stderr, dynamic_ncols=True) as bar:
        for done, total in render_scene(options.out, blend, placed, props, size, options.blender, world):
            bar.total = total
            bar.update(done - bar.n)
    record = finish_scene(options.out, placed)
    print(_figures(record, placed))
    print(", ".join(str(options.out / name) for name in (BLEND, *(f"{one}.png" for one in LIGHTINGS), RECORD)))
    if not record["agrees"]:
        print(
            f"the renders under direct light differ by more than {record['limit']:.0%} from the albedo of the props",
            file=sys.stderr,
        )
    return bool(record["agrees"])


def _figures(record: Mapping[str, Any], placed: Sequence[Placed]) -> str:
    """The worst error of each prop in a line."""
    lines = ["error of the albedo that the renders show, 95th percentile: direct light, all bounces"]
    for one in placed:
        cells = []
        for bounces in sorted({error["bounces"] for error in record["errors"]}):
            values = [
                error["p95_error"]
                for error in record["errors"]
                if (error["prop"], error["bounces"]) == (one.prop.name, bounces) and error["p95_error"] is not None
            ]
            cells.append(f"{max(values):.2%}" if values else "not seen")
        lines.append(f"  {one.prop.name:16} {', '.join(cells)}")
    return "\n".join(lines)
