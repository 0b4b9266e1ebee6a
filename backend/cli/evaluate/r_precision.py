# SPDX-License-Identifier: GPL-3.0-or-later
"""`dreamwright evaluate r-precision`: retrieve each prompt from renders of its props, by several models.

The paper's 153 object-centric COCO captions are in google-research's repository on GitHub, in
dreamfields/dreamfields/config/coco_queries_val.py (Apache-2.0); copy them into a file, one a line.
"""

from __future__ import annotations

import argparse
from pathlib import Path

MAX_PROP_SEEDS = 1000
MAX_AZIMUTHS = 360


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Define the suite's arguments."""
    from .arguments import add_retrieval_arguments

    parser.add_argument(
        "--prompts",
        type=Path,
        required=True,
        metavar="FILE",
        help="one prompt a line; they are each other's distractors",
    )
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument(
        "--meshes", type=Path, metavar="DIR", help="props by prompt and seed: a-red-mushroom.glb, a-red-mushroom.1.glb"
    )
    source.add_argument(
        "--renders",
        type=Path,
        metavar="DIR",
        help="images in a folder for each prompt and seed: a-red-mushroom/*.png, textureless*.png without color",
    )
    parser.add_argument(
        "--oracle", type=Path, metavar="DIR", help="true images of the prompts, laid out as --renders: one more row"
    )
    add_retrieval_arguments(parser)
    parser.add_argument(
        "--guided-by",
        default="",
        metavar="MODEL",
        help="the model that the props were optimized against: its value is put in parentheses",
    )
    parser.add_argument(
        "--seeds",
        type=int,
        metavar="N",
        help="props of each prompt: seeds 0 to N - 1, missing ones count as wrong (default: those that are there)",
    )
    parser.add_argument(
        "--azimuths", type=int, default=8, metavar="N", help="views of a mesh, evenly around it (default 8)"
    )
    parser.add_argument("--name", default="props", help="the row's name")
    parser.add_argument(
        "--out", type=Path, default=Path("r-precision"), help="folder for r-precision.json and r-precision.md"
    )
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")


def run(options: argparse.Namespace) -> int:
    """Measure, print the table and write it. Raises PromptError, ModelError, ConfigError and ExportError."""
    from ...evaluation.captions import read_prompts
    from ...evaluation.r_precision import markdown, measure_method, to_json
    from ...evaluation.render_retrieval import MIN_RESOLUTION
    from ...evaluation.samples import check_elevation, samples_from_images, samples_from_meshes
    from ..run_display import print_warning
    from ..sample import choose_device
    from .arguments import check_count, load_retrievers
    from .output import write_table

    if options.seeds is not None:
        check_count("--seeds", options.seeds, MAX_PROP_SEEDS)
    check_count("--azimuths", options.azimuths, MAX_AZIMUTHS)
    elevation, prompts = check_elevation(options.elevation), read_prompts(options.prompts)
    models = load_retrievers(options.models, prompts, choose_device(options.device))
    resolution = max(MIN_RESOLUTION, *(model.image_size for model in models.values()))
    settings: dict[str, object] = {}
    if options.meshes is not None:
        samples = samples_from_meshes(options.meshes, prompts, resolution, options.seeds, elevation, options.azimuths)
        settings = {"elevation_deg": elevation, "azimuths": options.azimuths, "resolution": resolution}
    else:
        samples = samples_from_images(options.renders, prompts, options.seeds)
    rows = [measure_method(options.name, options.guided_by, samples, prompts, prompts, models)]
    if options.oracle is not None:
        oracle = samples_from_images(options.oracle, prompts, None)
        rows.insert(0, measure_method("oracle", "", oracle, prompts, prompts, models))
    if rows[-1].missing:
        print_warning(f"{rows[-1].missing} of {len(samples)} props are missing and count as wrong")
    write_table(options.out, "r-precision", markdown(rows, list(models)), to_json(rows, prompts, prompts, settings))
    return 0
