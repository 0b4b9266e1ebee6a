# SPDX-License-Identifier: GPL-3.0-or-later
"""`dreamwright evaluate`: measure lifting quality; each suite measures something else."""

from __future__ import annotations

import argparse
import importlib
from typing import Any

# Each module has add_arguments(parser) and run(options) -> exit code.
SUITES = {
    "starter": ("starter", "lift the starter's prompts and compare each mesh with the prop that its prompt names"),
    "r-precision": ("r_precision", "CLIP R-Precision of mesh files or images"),
    "baselines": ("baselines", "generate the starter's prompts by every method, for a table like the paper's table 1"),
    "ablation": (
        "ablation",
        "the paper's figure 6: R-Precision of five stages from a base to the whole preset",
    ),
    "sweep": ("sweep", "the paper's figure 9: props by guidance weight and seed"),
    "guidance-2d": (
        "guidance_2d",
        "the paper's figure 2: ancestral samples beside 2D score distillation, by guidance weight",
    ),
}


def add_arguments(subparsers: Any) -> argparse.ArgumentParser:
    """Define the command and its suites."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "evaluate", help="measure lifting quality", description=__doc__
    )
    suites = parser.add_subparsers(dest="suite", required=True, metavar="SUITE")
    for name, (module, summary) in SUITES.items():
        suite = _module(module)
        suite.add_arguments(suites.add_parser(name, help=summary, description=suite.__doc__))
    return parser


def run(options: argparse.Namespace) -> int:
    """Run the chosen suite; raises what it raises."""
    return int(_module(SUITES[options.suite][0]).run(options))


def _module(name: str) -> Any:
    return importlib.import_module(f"dreamwright.backend.cli.evaluate.{name}")
