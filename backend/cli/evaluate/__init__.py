# SPDX-License-Identifier: GPL-3.0-or-later
"""`dreamwright evaluate`: how good props are; each suite measures something else."""

from __future__ import annotations

import argparse
import importlib
from typing import Any

# Each module has add_arguments(parser) and run(options) -> exit code.
SUITES = {
    "starter": ("starter", "lift the starter's prompts and compare each with the prop that it names"),
    "r-precision": ("r_precision", "CLIP R-Precision of props or pictures that are there"),
    "baselines": (
        "baselines",
        "make the starter's prompts by every method, and a table like the paper's table 1",
    ),
    "ablation": (
        "ablation",
        "the paper's figure 6: from a base to the whole preset in five rungs, retrieved from albedo, shaded and textureless renders",
    ),
    "sweep": ("sweep", "the paper's figure 9: props by guidance weight and seed"),
    "guidance-2d": (
        "guidance_2d",
        "the paper's figure 2: ancestral samples beside 2D score distillation, by guidance weight",
    ),
}


def add_arguments(subparsers: Any) -> argparse.ArgumentParser:
    """Define the command and its suites."""
    parser = subparsers.add_parser("evaluate", help="measure lifting quality", description=__doc__)
    suites = parser.add_subparsers(dest="suite", required=True, metavar="SUITE")
    for name, (module, summary) in SUITES.items():
        _module(module).add_arguments(suites.add_parser(name, help=summary, description=_module(module).__doc__))
    return parser


def run(options: argparse.Namespace) -> int:
    """Run the suite that was asked for; raises what it raises."""
    return int(_module(SUITES[options.suite][0]).run(options))


def _module(name: str) -> Any:
    return importlib.import_module(f"dreamwright.backend.cli.evaluate.{name}")
