# SPDX-License-Identifier: GPL-3.0-or-later
"""Run recipes in a work folder, so that a stopped one continues, and publish what they make."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from dreamwright.backend.errors import RunError, StoppedError
from dreamwright.shared.atomic import write_atomically

from .figure_blocks import with_block
from .figure_tables import Figures
from .fingerprints import file_digest, joined
from .manifest import MadeFigures, MadeRecipe, Manifest, text_digest
from .recipe import PICTURES, ROOT, Recipe

DONE = "done.json"  # in a recipe's folder: seconds of each step that has ended
POLL_S = 0.2
FOLDER_DIGITS = 12  # of the fingerprint in the name of a recipe's folder


def recipe_folder(work: Path, recipe: Recipe, parts: Mapping[str, str]) -> Path:
    """The folder of a recipe of these fingerprints. Others' folders stay: weights may be taken back."""
    return work / f"{recipe.name}-{joined(dict(parts))[:FOLDER_DIGITS]}"


def done_seconds(folder: Path) -> dict[str, float]:
    """Seconds of each step that has ended, by the folder that it writes, and of composing."""
    try:
        found = json.loads((folder / DONE).read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return {}
    return {str(name): float(seconds) for name, seconds in found.items()}


def is_made(folder: Path, recipe: Recipe) -> bool:
    """Whether all steps have ended and all pictures are there."""
    done = done_seconds(folder)
    return all(step.folder in done for step in recipe.steps) and all(
        (folder / picture.made).is_file() for picture in recipe.pictures
    )


def make(
    recipe: Recipe,
    folder: Path,
    tiny: bool,
    should_stop: Callable[[], bool],
    clock: Callable[[], float] = time.monotonic,
) -> None:
    """Take the steps of a recipe that are not done. Raises StoppedError, and RunError for a command that fails."""
    folder.mkdir(parents=True, exist_ok=True)
    done = done_seconds(folder)
    for step in recipe.steps:
        if step.folder in done:
            continue
        if not step.continues:
            shutil.rmtree(folder / step.folder, ignore_errors=True)
        (folder / step.folder).mkdir(parents=True, exist_ok=True)
        start = clock()
        command = step.command(folder, tiny)
        status, output = _run(command, bool(step.report), should_stop)
        if should_stop():
            raise StoppedError(f"stopped in {recipe.name}; the same command continues there")
        if status:
            raise RunError(f"{recipe.name}: {' '.join(command)} ended with status {status}; see its messages above")
        if step.report:
            (folder / step.report).write_bytes(output)
        done[step.folder] = clock() - start
        write_atomically(folder / DONE, json.dumps(done).encode())
    if recipe.compose is not None:
        recipe.compose(folder)


def _run(command: Sequence[str], is_kept: bool, should_stop: Callable[[], bool]) -> tuple[int, bytes]:
    """Exit status and, if kept, the output of a command, which gets one SIGINT when `should_stop` becomes true.

    It has a session of its own: Ctrl-C in the terminal would else reach it twice, and twice means at once.
    """
    stdout = subprocess.PIPE if is_kept else None
    with subprocess.Popen(command, cwd=ROOT, stdout=stdout, start_new_session=True) as process:
        try:
            is_interrupted = False
            while True:
                try:
                    output, _ = process.communicate(timeout=POLL_S)
                    return process.returncode, output or b""
                except subprocess.TimeoutExpired:
                    if should_stop() and not is_interrupted:
                        process.send_signal(signal.SIGINT)
                        is_interrupted = True
        except BaseException:
            process.terminate()
            raise


def publish(recipe: Recipe, folder: Path, parts: dict[str, str], root: Path, manifest: Manifest) -> None:
    """Copy the pictures below `root`, and record them. Raises RunError for one that is missing, and OSError."""
    made = {}
    for picture in recipe.pictures:
        source, target = folder / picture.made, root / PICTURES / picture.path
        if not source.is_file():
            raise RunError(f"{recipe.name}: its commands left no {picture.made}; remove {folder} and make it again")
        target.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(target, source.read_bytes())
        made[picture.path] = file_digest(target)
    minutes = round(sum(done_seconds(folder).values()) / 60, 1)
    manifest.recipes[recipe.name] = MadeRecipe(parts, minutes, made)


def write_figures(figures: Figures, folders: Mapping[str, Path], root: Path, manifest: Manifest) -> None:
    """Write a block of figures below `root`, and record it. Raises BlockError, OSError, and KeyError for other JSON."""
    path, text = root / figures.document, figures.text(folders)
    document = with_block(path.read_text(encoding="utf-8"), figures.name, text)
    write_atomically(path, document.encode())
    if figures.recipes:
        made = {name: joined(manifest.recipes[name].fingerprints) for name in figures.recipes}
        manifest.figures[figures.name] = MadeFigures(text_digest(text), made)
