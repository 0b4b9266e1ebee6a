# SPDX-License-Identifier: GPL-3.0-or-later
"""What a recipe is: the commands that make some pictures and figures of the documents, and what these depend on."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PICTURES = "docs/pictures"
WORK = "{work}"  # stands for the recipe's folder in the arguments of a step
PROGRAMS = {
    "dreamwright": (sys.executable, "-m", "dreamwright.backend.cli.main"),
    "python": (sys.executable,),
}


@dataclass(frozen=True)
class Step:
    """One command of a recipe.

    arguments: "dreamwright" or "python" first; WORK stands for the recipe's folder. tiny: added in a rehearsal.
    folder: what the command writes, below the recipe's folder; it is removed before an attempt unless the command
    `continues` from it. report: file below the recipe's folder that takes the command's output.
    """

    arguments: tuple[str, ...]
    folder: str
    tiny: tuple[str, ...] = ()
    continues: bool = False
    report: str = ""

    def words(self, tiny: bool) -> tuple[str, ...]:
        """The command as it is fingerprinted: the program by its name, and WORK for the folder."""
        return (*self.arguments, *(self.tiny if tiny else ()))

    def command(self, work: Path, tiny: bool) -> list[str]:
        """The command as it is run in `work`."""
        program, *rest = self.words(tiny)
        return [*PROGRAMS[program], *(word.replace(WORK, str(work)) for word in rest)]


@dataclass(frozen=True)
class Picture:
    """A picture: its path below docs/pictures, the file that is made, and the documents that show it."""

    path: str
    made: str  # below the recipe's folder
    documents: tuple[str, ...]


@dataclass(frozen=True)
class Recipe:
    """Steps that make pictures, and files that figures are read from.

    presets, weights, code: what the result depends on: names of presets, and paths below the checkout. minutes: on two
    cores. compose: makes files of the recipe's folder from others of it, after the steps.
    """

    name: str
    steps: tuple[Step, ...]
    minutes: float
    presets: tuple[str, ...]
    weights: tuple[str, ...]
    code: tuple[str, ...]
    pictures: tuple[Picture, ...] = ()
    compose: Callable[[Path], None] | None = None
