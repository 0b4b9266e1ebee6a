# SPDX-License-Identifier: GPL-3.0-or-later
"""Make the pictures and the tables of figures in the documents with the weights, presets and code of this checkout.

    python -m tools.docs.pictures                    # all that is not up to date, hours on two cores
    python -m tools.docs.pictures --only relit sweep
    python -m tools.docs.pictures --check            # what is stale; exit status 1 if anything is
    python -m tools.docs.pictures --tiny             # a rehearsal of few steps, into a folder of its own

Ctrl-C keeps what is done; the same command continues. tools/docs/picture_list.py lists the pictures.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from dreamwright.backend.cli.signals import INTERRUPTED, StopSignal
from dreamwright.backend.errors import ConfigError, DreamwrightError, StoppedError

from .figure_tables import FIGURES
from .fingerprints import fingerprints
from .making import is_made, make, publish, recipe_folder, write_figures
from .manifest import Manifest, read_manifest, write_manifest
from .picture_list import RECIPES
from .recipe import ROOT, Recipe
from .staleness import all_findings

WORK = ROOT / "runs" / "pictures"
TINY_SHARE = 0.02  # of a recipe's minutes, in a rehearsal


def chosen_recipes(names: Sequence[str] | None) -> tuple[Recipe, ...]:
    """The recipes of these names, in the order of the list; all without names. Raises ConfigError."""
    known = [recipe.name for recipe in RECIPES]
    for name in names or ():
        if name not in known:
            raise ConfigError(f"--only {name}; allowed are {', '.join(known)}; choose some of them")
    return tuple(recipe for recipe in RECIPES if not names or recipe.name in names)


class Pace:
    """Remaining time: expected minutes of what is left, times what the recipes so far took of theirs."""

    def __init__(self, expected: Mapping[str, float]) -> None:
        """`expected` has the minutes of every recipe."""
        self._left, self._spent, self._planned = dict(expected), 0.0, 0.0

    def skip(self, name: str) -> None:
        """Leave out a recipe that is made already."""
        self._left.pop(name)

    def done(self, name: str, minutes: float) -> None:
        """Count a recipe that took so many minutes."""
        self._planned += self._left.pop(name)
        self._spent += minutes

    def remaining(self) -> float:
        """Minutes of all recipes that are neither skipped nor done."""
        return sum(self._left.values()) * (self._spent / self._planned if self._planned else 1.0)

    def text(self, name: str) -> str:
        """What to expect of the recipe that begins now, and of all."""
        end = time.strftime("%H:%M", time.localtime(time.time() + 60 * self.remaining()))
        return f"about {_duration(self._left[name])}; {_duration(self.remaining())} left in all, until {end}"


def make_all(recipes: Sequence[Recipe], work: Path, root: Path, tiny: bool, stop: StopSignal) -> None:
    """Make and publish the recipes one after the other, then write the figures whose recipes are all made.

    Raises DreamwrightError; what was published before stays.
    """
    manifest = read_manifest(root)
    for block in FIGURES:
        if not block.recipes:
            write_figures(block, {}, root, manifest)
    pace = Pace({recipe.name: _minutes(recipe, manifest, tiny) for recipe in recipes})
    for number, recipe in enumerate(recipes, 1):
        head = f"[{number}/{len(recipes)}] {recipe.name}"
        parts = fingerprints(recipe, tiny)
        folder = recipe_folder(work, recipe, parts)
        if is_made(folder, recipe):
            print(f"{head}: made before, in {folder}", file=sys.stderr)
            pace.skip(recipe.name)
        else:
            print(f"{head}: {pace.text(recipe.name)}", file=sys.stderr)
            start = time.monotonic()
            make(recipe, folder, tiny, stop)
            pace.done(recipe.name, (time.monotonic() - start) / 60)
        publish(recipe, folder, parts, root, manifest)
        write_manifest(root, manifest)
        _write_figures_of(recipe, work, root, manifest)


def _write_figures_of(recipe: Recipe, work: Path, root: Path, manifest: Manifest) -> None:
    """Write the blocks that need this recipe, from the runs that the published pictures are of."""
    by_name = {known.name: known for known in RECIPES}
    for block in (block for block in FIGURES if recipe.name in block.recipes):
        folders = {}
        for name in block.recipes:
            made = manifest.recipes.get(name)
            folder = recipe_folder(work, by_name[name], made.fingerprints) if made is not None else None
            if folder is not None and is_made(folder, by_name[name]):
                folders[name] = folder
        missing = [name for name in block.recipes if name not in folders]
        if missing:
            print(f"figures {block.name} stay as they are until {' and '.join(missing)} is made", file=sys.stderr)
            continue
        write_figures(block, folders, root, manifest)
        write_manifest(root, manifest)


def _minutes(recipe: Recipe, manifest: Manifest, tiny: bool) -> float:
    """Minutes that a recipe took last, or the list's estimate."""
    made = manifest.recipes.get(recipe.name)
    return recipe.minutes * TINY_SHARE if tiny else made.minutes if made is not None else recipe.minutes


def _duration(minutes: float) -> str:
    return f"{max(minutes, 1):.0f} min" if minutes < 60 else f"{int(minutes // 60)} h {int(minutes % 60)} min"


def check(root: Path) -> int:
    """Print what is stale; returns 1 when something is."""
    findings = all_findings(RECIPES, FIGURES, read_manifest(root), root)
    for finding in findings:
        print(f"{finding.name}: {finding.reason}{'' if finding.is_stale else ' (not counted as stale)'}")
    stale = sum(finding.is_stale for finding in findings)
    print(f"{stale} stale; python -m tools.docs.pictures makes them again" if stale else "nothing is stale")
    return int(stale > 0)


def rehearsal_root(work: Path) -> Path:
    """A copy of the documents below the work folder, so that a rehearsal changes none of the checkout's."""
    root = work / "documents"
    shutil.rmtree(root, ignore_errors=True)
    shutil.copytree(ROOT / "docs", root / "docs")
    shutil.copy(ROOT / "README.md", root)
    return root


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", metavar="NAME", help=f"of: {', '.join(r.name for r in RECIPES)}")
    parser.add_argument("--work", type=Path, default=WORK, help="folder of the runs, which continue there")
    parser.add_argument("--check", action="store_true", help="say what is stale, and make nothing")
    parser.add_argument("--tiny", action="store_true", help="few steps, into copies of the documents in --work")
    options = parser.parse_args(arguments)
    try:
        recipes = chosen_recipes(options.only)
        if options.check:
            return check(ROOT)
        work = (options.work / "tiny" if options.tiny else options.work).resolve()
        work.mkdir(parents=True, exist_ok=True)
        root = rehearsal_root(work) if options.tiny else ROOT
        with StopSignal("stopping; what is done is kept") as stop:
            make_all(recipes, work, root, options.tiny, stop)
    except StoppedError as stopped:
        print(stopped, file=sys.stderr)
        return INTERRUPTED
    except KeyboardInterrupt:  # the second signal
        return INTERRUPTED
    except DreamwrightError as error:
        print(f"tools.docs.pictures: {error}", file=sys.stderr)
        return error.exit_code
    print(f"the pictures and figures of {root} are made", file=sys.stderr)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
