# SPDX-License-Identifier: GPL-3.0-or-later
"""`dreamwright generate --variations`: one prompt with several seeds, one after another, and their contact sheet."""

from __future__ import annotations

import argparse
import dataclasses
import io
import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dreamwright.shared.limits import VARIATIONS_LARGEST

from ..errors import CheckpointError, ConfigError, OutOfMemoryError, RunError, one_line
from .run_display import PreviewFolder
from .signals import INTERRUPTED, StopSignal
from .training_run import STOP_MESSAGE, finish, locked_job, take_steps, work_folder

if TYPE_CHECKING:
    from ..geometry.build import Mesh, MeshReport
    from ..scenes.initial_field import InitialField
    from ..training.job import Job
    from ..training.pipeline import TextTo3DPipeline

RECORD_FILE, VIEWS_FILE, SHEET_FILE = "finished.json", "views.png", "contact-sheet.png"
VIEW_ELEVATION_DEG, VIEW_PIXELS = 15.0, 96  # of the tiles in the contact sheet, which show two sides
GO_ON = "the same command continues it"


@dataclass(frozen=True)
class Variation:
    """One prop of the group: its job, and where its files are.

    mesh: FOLDER/seed-N.glb. folder: FOLDER/seed-N, with the checkpoints of an unfinished run, and the field, the record
    and the views of a finished one.
    """

    job: Job
    mesh: Path
    folder: Path

    @property
    def seed(self) -> int:
        """The seed that was asked for."""
        return self.job.config.run.seed

    @property
    def record(self) -> dict[str, Any]:
        """What the record of this variation says once it is finished."""
        mesh = json.loads(json.dumps(dataclasses.asdict(self.job.config.mesh)))
        return {"fingerprint": self.job.fingerprint(), "mesh": mesh}

    def is_finished(self) -> bool:
        """Whether its mesh is there. Raises CheckpointError for files of another prompt, model or other settings."""
        from ..training.checkpoints import has_checkpoint, read_checkpoint

        try:
            found = json.loads((self.folder / RECORD_FILE).read_text(encoding="utf-8"))
        except (OSError, ValueError):  # not finished, or cut short by a crash
            if has_checkpoint(self.folder):
                try:
                    read_checkpoint(self.folder, self.job)
                except CheckpointError as error:
                    raise CheckpointError(f"{error}; or choose another --out") from error
            return False
        if found != self.record:
            raise CheckpointError(
                f"{self.folder} holds a variation of another prompt, model or other settings; choose another --out, or "
                "delete it"
            )
        return self.mesh.is_file()


def run_variations(
    options: argparse.Namespace,
    job_from: Callable[[argparse.Namespace], Job],
    describe: Callable[[Mesh, MeshReport], str],
) -> int:
    """Generate what is not finished yet, with the model loaded once. Returns the exit code.

    Raises DreamwrightError for what the user can mend.
    """
    from ..io.output_files import check_folder_writable
    from ..runtime.distributed import is_distributed
    from ..scenes.initial_field import read_initial_field

    _check_options(options, is_distributed())
    initial_field = None
    if options.like is not None or options.initial_field is not None:
        place = finished_folder(options.like) if options.like is not None else options.initial_field
        initial_field = read_initial_field(place)
        if options.like is not None:
            options.prompt = options.prompt or initial_field.prompt
            if options.seed is None:
                options.seed = (initial_field.seed or 0) + 1
    if options.prompt is None:
        raise ConfigError('there is no prompt; give one, for example "a red mushroom", or --like')
    out = check_folder_writable(options.out or Path("variations"))
    first = job_from(options)
    if initial_field is not None:
        first = replace(first, initial_field=initial_field.digest)
    variations = _plan(first, out, 1 if options.variations is None else options.variations)
    with StopSignal(STOP_MESSAGE) as stop:
        return _generate(variations, out, options, initial_field, stop, describe)


def _check_options(options: argparse.Namespace, is_distributed: bool) -> None:
    """Raise ConfigError for options that do not go together, or a number of variations out of range."""
    if options.variations is not None and not 1 <= options.variations <= VARIATIONS_LARGEST:
        raise ConfigError(f"--variations is {options.variations}; allowed are 1 to {VARIATIONS_LARGEST}")
    if options.like is not None and options.initial_field is not None:
        raise ConfigError("--like and --from both name a field to start from; leave one of them out")
    if options.work is not None:
        raise ConfigError("variations keep their checkpoints in --out; leave --work out")
    if is_distributed:
        raise ConfigError("variations run in one process; start the command without torchrun")


def finished_folder(place: Path) -> Path:
    """The folder with the field of a finished variation, or a file with a field, from any path that may mean it.

    `place`: the variation's mesh file or folder, the folder of a group with one finished variation, or what
    `read_initial_field` takes. Raises CheckpointError for a group with several.
    """
    from ..scenes.initial_field import FIELD_FILE

    if place.suffix.lower() == ".glb" and not place.is_dir():
        return place.with_suffix("")
    inside = sorted(path.parent for path in place.glob(f"seed-*/{FIELD_FILE}")) if place.is_dir() else []
    if not inside or (place / FIELD_FILE).is_file():
        return place
    if len(inside) > 1:
        names = ", ".join(path.name for path in inside)
        raise CheckpointError(f"{place} holds several variations ({names}); give one of them, for example {inside[0]}")
    return inside[0]


def _plan(first: Job, out: Path, count: int) -> tuple[Variation, ...]:
    """The variations with the first job's seed and those after it. Raises ConfigError for seeds out of range."""
    from ..config.parsing import validate
    from ..training.job import identify_model

    first = identify_model(first)
    planned = []
    for seed in range(first.config.run.seed, first.config.run.seed + count):
        config = validate(replace(first.config, run=replace(first.config.run, seed=seed)))
        planned.append(Variation(replace(first, config=config), out / f"seed-{seed}.glb", out / f"seed-{seed}"))
    return tuple(planned)


def _generate(
    variations: Sequence[Variation],
    out: Path,
    options: argparse.Namespace,
    initial_field: InitialField | None,
    stop: StopSignal,
    describe: Callable[[Mesh, MeshReport], str],
) -> int:
    from ..training.pipeline import TextTo3DPipeline
    from .sample import choose_device

    todo = [variation for variation in variations if not variation.is_finished()]
    device = choose_device(options.device)
    pipeline: TextTo3DPipeline | None = None
    failed, began = [], time.monotonic()
    for number, variation in enumerate(todo):
        _print_progress(variations, variation, number, len(todo), time.monotonic() - began)
        own = _own_options(options, variation)
        previews = PreviewFolder(own.previews)
        try:
            with locked_job(own, variation.job) as (job, resumed):
                if pipeline is None:
                    pipeline = TextTo3DPipeline(job, device, resumed, stop, initial_field=initial_field)
                else:
                    pipeline = pipeline.with_seed(variation.seed, resumed)
                outcome = take_steps(pipeline, work_folder(own), previews)
                code = finish(own, pipeline, outcome, previews, describe, _keeper(variation, pipeline), GO_ON)
        except OutOfMemoryError:
            raise  # the others would need as much
        except RunError as error:
            failed.append(f"seed {variation.seed} ({error})")
            continue
        if code:
            return code
        write_sheet(variations, out)
        if stop() and number + 1 < len(todo):
            print(f"stopped after seed {variation.seed}; {GO_ON}", file=sys.stderr)
            return INTERRUPTED
    if not todo:
        write_sheet(variations, out)
    print(f"{out}: {len(variations) - len(failed)} of {len(variations)} variations, {out / SHEET_FILE}")
    if failed:
        raise RunError(f"{len(failed)} of {len(variations)} variations failed: {'; '.join(failed)}")
    return 0


def _print_progress(variations: Sequence[Variation], variation: Variation, done: int, todo: int, took_s: float) -> None:
    """One line: which of the variations begins, and about how long the rest takes, from those of this process."""
    place = variations.index(variation) + 1
    left = f"; about {took_s / done * (todo - done) / 60:.0f} min left for {todo - done}" if done else ""
    print(f"variation {place} of {len(variations)}: seed {variation.seed}{left}", file=sys.stderr)


def _own_options(options: argparse.Namespace, variation: Variation) -> argparse.Namespace:
    """The options as if this variation alone were generated."""
    from ..training.checkpoints import has_checkpoint

    previews = options.previews / variation.folder.name if options.previews is not None else None
    own = {"out": variation.mesh, "work": variation.folder, "previews": previews}
    return argparse.Namespace(**{**vars(options), **own, "resume": has_checkpoint(variation.folder)})


def _keeper(variation: Variation, pipeline: TextTo3DPipeline) -> Callable[[Mesh], None]:
    """Keeps what later commands need of a finished variation; its record comes last, so that a crash leaves none."""
    from ..evaluation.contact_sheet import mesh_tile, png_of, to_image
    from ..io.output_files import write_output
    from ..scenes.initial_field import save_field

    def keep(mesh: Mesh) -> None:
        save_field(variation.folder, variation.job, pipeline.state())
        views = mesh_tile(mesh, VIEW_ELEVATION_DEG, VIEW_PIXELS)
        write_output(variation.folder / VIEWS_FILE, png_of(to_image(views)))
        write_output(variation.folder / RECORD_FILE, (json.dumps(variation.record) + "\n").encode())

    return keep


def write_sheet(variations: Sequence[Variation], out: Path) -> None:
    """Write the contact sheet of the variations that are finished, each with its seed. Raises ExportError."""
    from PIL import Image, UnidentifiedImageError

    from ..evaluation.contact_sheet import labeled_sheet, png_of
    from ..io.output_files import write_output
    from .run_display import print_warning

    tiles = []
    for variation in variations:
        try:
            data = (variation.folder / VIEWS_FILE).read_bytes()
            tiles.append((f"seed {variation.seed}", Image.open(io.BytesIO(data)).convert("RGB")))
        except FileNotFoundError:
            continue  # not finished
        except (OSError, UnidentifiedImageError) as error:
            print_warning(f"the contact sheet lacks seed {variation.seed}: {one_line(error)}")
    if tiles:
        write_output(out / SHEET_FILE, png_of(labeled_sheet(tiles)))
