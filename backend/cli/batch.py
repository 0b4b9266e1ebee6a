# SPDX-License-Identifier: GPL-3.0-or-later
"""`dreamwright batch`: a list of prompts becomes an asset library, on all devices; the same command continues.

The library holds props/*.glb, thumbnails/*.png, library.json, blender_assets.cats.txt and library.blend, whose objects
are assets. Rows that were done before are not done again. Rows that failed are in failures.csv.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..library.batch import Batch
    from ..library.library_folder import LibraryFolder
    from ..library.planning import PlannedProp

STOP_MESSAGE = "stopping after this step; what is done is kept (a second signal ends at once)"
FAILURES_SHOWN = 20


def add_arguments(subparsers: Any) -> argparse.ArgumentParser:
    """Define the command's arguments."""
    parser = subparsers.add_parser(
        "batch", help="make an asset library from a list of prompts, on all devices", description=__doc__
    )
    parser.add_argument(
        "list",
        type=Path,
        metavar="LIST",
        help="text file with one prompt a line, or a CSV table with a column prompt and, as needed, name, seed, "
        "preset, tags (separated by ;) and catalog (parts separated by /)",
    )
    parser.add_argument("--library", type=Path, required=True, metavar="DIR", help="folder of the library")
    parser.add_argument("--preset", default="draft", help="of rows that name none (default draft)")
    parser.add_argument("--model", help="a name from `dreamwright models`, or a folder (default: the preset's own)")
    parser.add_argument("--seed", type=int, default=0, help="of rows that state none (default 0)")
    parser.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", help="a setting of every row, as for generate"
    )
    parser.add_argument(
        "--device",
        action="append",
        default=[],
        help="cpu or cuda:N, one job at a time on each; repeatable (default: every GPU, or the CPU)",
    )
    parser.add_argument("--encoding", default="", help="of the list, where it is neither UTF-8 nor UTF-16")
    parser.add_argument("--retry", action="store_true", help="try the rows again that failed before")
    parser.add_argument(
        "--blender",
        type=Path,
        metavar="PROGRAM",
        help="a Blender of 4.2 or later that writes library.blend (default: bpy in this Python, else blender on PATH)",
    )
    return parser


def run(options: argparse.Namespace) -> int:
    """Make the props and the library. Raises DreamwrightError for what the user can mend."""
    from ..library.batch import Batch
    from ..library.library_folder import LibraryFolder
    from .serve import all_devices

    planned = _planned(options)
    folder, devices = LibraryFolder(options.library), all_devices(options.device)
    folder.check()
    blender_fault = _blender_fault(options.blender)
    with folder.locked():
        batch = Batch(folder, folder.read(), planned, options.retry)
        if batch.open_props:
            if blender_fault:
                print(f"dreamwright: warning: {blender_fault}; the props are made without it", file=sys.stderr)
            if not make_props(batch, devices):
                from .signals import INTERRUPTED

                done = len(planned) - len(batch.open_props)
                print(f"stopped with {done} of {len(planned)} props; the same command continues", file=sys.stderr)
                return INTERRUPTED
        folder.write(batch.library)
        return _finish(batch, options.blender)


def _planned(options: argparse.Namespace) -> list[PlannedProp]:
    """The jobs of the list. Raises PromptError for a list that cannot be used, with its rows."""
    from dreamwright.shared.limits import SEED_LARGEST
    from dreamwright.shared.prompt_list import PromptListError, decode_list, parse_list

    from ..errors import ConfigError, PromptError
    from ..library.planning import parse_settings, plan_props

    if not 0 <= options.seed <= SEED_LARGEST:
        raise ConfigError(f"--seed {options.seed}; allowed are 0 to {SEED_LARGEST}; give a number in that range")
    settings = parse_settings(options.set)
    try:
        data = options.list.read_bytes()
    except OSError as error:
        raise PromptError(
            f"cannot read the list {str(options.list)!r}: {error.strerror or error}; give a text file or a CSV table"
        ) from error
    try:
        table = options.list.suffix.lower() in (".csv", ".tsv")
        found = parse_list(decode_list(data, options.encoding), options.seed, table or None)
        planned = plan_props(found.rows, options.preset, options.model, settings)
    except PromptListError as error:
        raise PromptError(f"the list {str(options.list)!r} cannot be used: {error}") from error
    for notice in found.notices:
        print(notice, file=sys.stderr)
    return planned


def _blender_fault(given: Path | None) -> str:
    """Why there is no Blender; "" when there is one. Raises BlenderError for one that was named and is not there."""
    from ..io.blender_program import BlenderError, blender_command

    try:
        blender_command(given)
    except BlenderError as error:
        if given is not None:
            raise
        return str(error)
    return ""


def make_props(batch: Batch, devices: tuple[str, ...]) -> bool:
    """Run the jobs and show them; False when a signal stopped it."""
    from tqdm import tqdm

    from ..errors import CheckpointError
    from ..library.batch import Progress, PropDone, PropFailed, Waiting
    from ..server.local_queue import LocalQueue
    from .signals import StopSignal

    total, open_props = sum(prop.steps for prop in batch.planned), batch.open_props
    done = total - sum(prop.steps for prop in open_props)
    try:
        queue, said = LocalQueue(batch.folder.jobs, devices), set()
    except CheckpointError as error:
        raise CheckpointError(str(error).replace("--state", "--library")) from error
    try:
        with (
            StopSignal(STOP_MESSAGE) as stop,
            tqdm(total=total, initial=done, unit="step", file=sys.stderr, dynamic_ncols=True, mininterval=0.5) as bar,
        ):
            for event in batch.events(queue, stop):
                if isinstance(event, Progress):
                    if event.step != bar.n:
                        bar.update(event.step - bar.n)
                    names = ", ".join(f"{device} {prompt[:24]}" for device, prompt in sorted(event.running.items()))
                    bar.set_postfix_str(f"{event.done} of {event.rows} props; {names[:80]}", refresh=False)
                elif isinstance(event, PropDone):
                    triangles = event.entry.provenance.get("triangles", 0)
                    bar.write(f"row {event.prop.row.row}: {event.prop.row.prompt}, {triangles} triangles")
                elif isinstance(event, PropFailed):
                    bar.write(f"row {event.failure.row}: failed ({event.failure.reason})", file=sys.stderr)
                elif isinstance(event, Waiting) and event.message not in said:
                    said.add(event.message)
                    bar.write(event.message, file=sys.stderr)
            return not stop()
    finally:
        queue.close()


def _finish(batch: Batch, blender: Path | None) -> int:
    """List the failures, write the .blend file, and return the exit code. Raises BlenderError and RunError."""
    folder, failures = batch.folder, batch.failures
    folder.write_failures(failures)
    for failure in failures[:FAILURES_SHOWN]:
        print(f"row {failure.row}, {failure.prompt}, seed {failure.seed}: {failure.reason}", file=sys.stderr)
    if failures:
        more = f", of which {FAILURES_SHOWN} are shown" if len(failures) > FAILURES_SHOWN else ""
        print(
            f"{len(failures)} of {len(batch.planned)} rows failed{more}; they are in "
            f"{folder.path / 'failures.csv'}, and --retry tries them again",
            file=sys.stderr,
        )
    write_library_blend(batch, folder, blender)
    return 1 if failures else 0


def write_library_blend(batch: Batch, folder: LibraryFolder, blender: Path | None) -> None:
    """Write library.blend unless it is up to date. Raises BlenderError and RunError."""
    from tqdm import tqdm

    from ..io.blender_program import BlenderError, blender_command
    from ..library.blend_file import blend_digest, write_blend

    if not batch.library.props:
        return
    if batch.library.blend_of == blend_digest(batch.library) and folder.blend.is_file():
        print(f"{folder.blend} is up to date with {len(batch.library.props)} assets")
        return
    try:
        blender_command(blender)
    except BlenderError as error:
        raise BlenderError(
            f"{error}; the props are kept, and the same command then writes only {folder.blend.name}"
        ) from error
    with tqdm(total=len(batch.library.props), desc="assets", file=sys.stderr, dynamic_ncols=True) as bar:
        for done in write_blend(folder, batch.library, blender):
            bar.update(done - bar.n)
    print(f"{folder.blend}: {len(batch.library.props)} assets")
