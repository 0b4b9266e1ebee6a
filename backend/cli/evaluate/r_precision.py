# SPDX-License-Identifier: GPL-3.0-or-later
"""`dreamwright evaluate r-precision`: retrieve each prompt from its props' pictures, by several models.

The paper's 153 object-centric COCO captions are in google-research's repository on GitHub, in
dreamfields/dreamfields/config/coco_queries_val.py (Apache-2.0); copy them into a file, one a line.
"""

from __future__ import annotations

import argparse
from pathlib import Path

RESOLUTION = 64  # pixels a side of a picture of a mesh, at least; a model that takes more is shown more


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Define the suite's arguments."""
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
        help="pictures in a folder a prompt and seed: a-red-mushroom/*.png, textureless*.png without color",
    )
    parser.add_argument(
        "--oracle", type=Path, metavar="DIR", help="true pictures of the prompts, laid out as --renders: one more row"
    )
    parser.add_argument(
        "--models",
        nargs="+",
        metavar="MODEL",
        help="retrieval models: CLIP models by name or folder, or judge (default: the starter's)",
    )
    parser.add_argument(
        "--guided-by",
        default="",
        metavar="MODEL",
        help="the model that the props were optimized against: its figure is put in parentheses",
    )
    parser.add_argument(
        "--seeds",
        type=int,
        metavar="N",
        help="props a prompt: seeds 0 to N - 1, missing ones count as wrong (default: those that are there)",
    )
    parser.add_argument(
        "--azimuths", type=int, default=8, help="views of a mesh, evenly around it at 30 degrees (default 8)"
    )
    parser.add_argument("--name", default="props", help="the row's name")
    parser.add_argument(
        "--out", type=Path, default=Path("r-precision"), help="folder for r-precision.json and r-precision.md"
    )
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")


def run(options: argparse.Namespace) -> int:
    """Measure, print the table and write it. Raises PromptError, ModelError, ConfigError and ExportError."""
    import sys

    from ...errors import ConfigError
    from ...evaluation.captions import read_prompts
    from ...evaluation.r_precision import as_json, markdown, measure_row
    from ...evaluation.retrievers import DEFAULT_RETRIEVERS, load_retriever
    from ...evaluation.samples import ELEVATION, samples_from_images, samples_from_meshes
    from ..sample import choose_device

    for name, value, most in (("--seeds", options.seeds, 1000), ("--azimuths", options.azimuths, 360)):
        if value is not None and not 1 <= value <= most:
            raise ConfigError(f"{name} is {value}; allowed is 1 to {most}; change it")
    prompts = read_prompts(options.prompts)
    device = choose_device(options.device)
    models = {name: load_retriever(name, device) for name in options.models or DEFAULT_RETRIEVERS}
    resolution = max(RESOLUTION, *(model.image_size for model in models.values()))
    if options.meshes is not None:
        samples = samples_from_meshes(options.meshes, prompts, resolution, options.seeds, options.azimuths)
    else:
        samples = samples_from_images(options.renders, prompts, options.seeds)
    rows = [measure_row(options.name, options.guided_by, samples, prompts, prompts, models)]
    if options.oracle is not None:
        rows.insert(0, measure_row("oracle", "", samples_from_images(options.oracle, prompts, None), prompts, prompts, models))
    if rows[-1].missing:
        print(
            f"dreamwright: warning: {rows[-1].missing} of {len(samples)} props are missing and count as wrong",
            file=sys.stderr,
        )
    settings = {"elevation_deg": ELEVATION, "azimuths": options.azimuths, "resolution": resolution}
    write_table(options.out, "r-precision", markdown(rows, list(models)), as_json(rows, prompts, prompts, settings))
    return 0


def write_table(folder: Path, name: str, table: str, record: object) -> None:
    """Print the table, and write it and its JSON. Raises ConfigError for a place that cannot be written."""
    import json

    from ...errors import ConfigError

    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{name}.json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
        (folder / f"{name}.md").write_text(table, encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"cannot write to {folder} ({error.strerror}); give another folder with --out") from error
    print(table, end="")
