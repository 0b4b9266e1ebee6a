# SPDX-License-Identifier: GPL-3.0-or-later
"""Tables of the README and of docs/results that the command for pictures does not write, and why."""

from __future__ import annotations

from collections.abc import Mapping

# By document and by the heading above the table.
KEPT_TABLES: Mapping[tuple[str, str], str] = {
    ("docs/results/ablations.md", "Stages of figure 6"): "no figures: what each stage is",
    ("docs/results/ablations.md", "Noises a view"): "a record of a choice, with the weights of its day",
    ("docs/results/ablations.md", "Views and noises in equal time"): "a record of a choice, with weights of its day",
    ("docs/results/ablations.md", "Four views a step"): "a record of a choice, with the weights of its day",
    ("docs/results/ablations.md", "Surface stage"): "a record of a choice, with the weights of its day",
    ("docs/results/benchmarks.md", "Benchmarks"): "no figures: which command measures what",
    ("docs/results/results.md", "Quality on the starter's domain"): "a record of the weights and settings before",
    ("docs/results/starter.md", "Starter model card"): "facts of the model's architecture",
    (
        "docs/results/results.md",
        "How the `draft` recipe was chosen",
    ): "a record of choices, with the weights of its day",
    ("docs/results/results.md", "Time of a step"): "one operation alone, before and after a change of it",
    (
        "docs/results/results.md",
        "Time of the add-on's ticks",
    ): "times of one machine: python benchmarks/blender_tick.py",
    ("docs/results/results.md", "A step with a hash grid"): "ratios of one run: python benchmarks/field_step.py",
    ("docs/results/results.md", "A step beside other implementations"): (
        "python benchmarks/peers.py, which needs checkouts of two other projects"
    ),
}
