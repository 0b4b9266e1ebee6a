# SPDX-License-Identifier: GPL-3.0-or-later
"""Quality and cost of each rule of distillation on the starter: rule x prompts x seeds, as one table.

    python benchmarks/distillation_rules.py --out runs/rules [--seeds 2] [--set run.threads=1] [--tiny]

Each row is `dreamwright evaluate starter` with the settings of the row; the same command continues where it was
stopped. Relative cost is that of the row's mean seconds a prompt, so all rows should run on an idle machine. --tiny
rehearses: one prompt, one seed, a few steps of a few rays.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dreamwright.backend.cli.main import main as dreamwright

PROMPTS = ("a red mushroom", "a white snowman", "a purple table", "a green cactus")
# Each rule with its published defaults, and SDI also with an inversion that the starter's omega of 3 suits.
ROWS: Mapping[str, tuple[str, ...]] = {
    "sds": (),
    "csd": ("guidance.rule=csd",),
    "sdi": ("guidance.rule=sdi",),
    "sdi, unguided inversion of 4 steps": (
        "guidance.rule=sdi", "guidance.inversion_steps=4", "guidance.inversion_omega=0", "guidance.inversion_eta=0",
    ),
    "vsd": ("guidance.rule=vsd",),
    "vsd, rate 1e-3": ("guidance.rule=vsd", "guidance.lora_rate=1e-3"),
}  # fmt: skip
TINY = (
    "run.steps=4", "surface.steps=2", "render.resolution=16", "render.samples=16", "render.occupancy_resolution=12",
    "field.voxel_resolutions=6,12", "mesh.resolution=24", "mesh.triangles=400", "run.max_restarts=0",
    "run.views_per_step=1", "camera.views_per_set=1", "guidance.noises=1",
)  # fmt: skip
COLUMNS = ("silhouette_iou", "f_score", "named_color", "named_bare", "fronts_elsewhere", "albedo_error")


def folder_of(row: str) -> str:
    """A row's folder."""
    return "".join(letter if letter.isalnum() else "-" for letter in row)


def table(summaries: Mapping[str, Mapping[str, Any]]) -> str:
    """Markdown: a line for each row, its cost as a multiple of the first row's."""
    header = ("rule", "jobs", "failed", "seconds", "cost", *COLUMNS)
    lines = ["| " + " | ".join(header) + " |", "|" + " --- |" * len(header)]
    base = next(iter(summaries.values()))["bars"]["seconds"]["value"]
    for row, summary in summaries.items():
        seconds = summary["bars"]["seconds"]["value"]
        values = [summary["bars"][name]["value"] for name in COLUMNS]
        cells = [
            row, str(summary["rows"]), str(summary["failed"]), f"{seconds:.0f}", f"{seconds / base:.2f}",
            *("" if value is None else f"{value:.3f}" for value in values),
        ]  # fmt: skip
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what is missing and write the table after each row; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder of the runs and of rules.md")
    parser.add_argument("--preset", default="draft", help="the settings to begin from (default draft)")
    parser.add_argument("--seeds", type=int, default=2, help="props of each prompt (default 2)")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="a setting of every job")
    parser.add_argument("--rows", nargs="+", choices=tuple(ROWS), default=list(ROWS), help="only these rows")
    parser.add_argument("--tiny", action="store_true", help="rehearse with one prompt, one seed and a few steps")
    options = parser.parse_args(arguments)
    prompts, seeds = (PROMPTS[:1], 1) if options.tiny else (PROMPTS, options.seeds)
    summaries: dict[str, Any] = {}
    for row in options.rows:
        out = options.out / folder_of(row)
        settings = [*(TINY if options.tiny else ()), *ROWS[row], *options.set]
        status = dreamwright(
            [
                "evaluate", "starter", "--preset", options.preset, "--prompts", *prompts, "--seeds", str(seeds),
                "--out", str(out), *(part for setting in settings for part in ("--set", setting)),
            ]
        )  # fmt: skip
        if status:
            return status
        summaries[row] = json.loads((out / "evaluation.json").read_text(encoding="utf-8"))["summary"]
        (options.out / "rules.md").write_text(table(summaries), encoding="utf-8")
    print(table(summaries), end="")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
