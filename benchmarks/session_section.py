# SPDX-License-Identifier: GPL-3.0-or-later
"""The section of docs/results/benchmarks.md that a GPU session writes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from gpu_step import CASES, GIGABYTES, HEADS, MINUTES, RATIO, Timings, row
from session_parts import Counts, Outcome

MISSED, NOT_MEASURED = "**missed**", "not measured"


def bars(steps: Sequence[Mapping[str, Any]], tiny: bool) -> list[str]:
    """The issue's targets beside what was measured, one row each."""
    good = [figures for figures in steps if "error" not in figures]
    by_case = {figures["case"]: figures for figures in good}
    ratios = ", ".join(f"{figures['case']} {figures['ratio']:.2f}" for figures in good)
    stable, large = by_case.get("sd-1.5"), by_case.get("if-xl")
    rows = [
        ("a step over its network's forward pass", f"at most {RATIO}", ratios, all(f["ratio"] <= RATIO for f in good)),
        (
            "peak memory of Stable Diffusion 1.5, one view",
            f"under {GIGABYTES:g} GB",
            "" if stable is None else f"{stable['peak'] / 1e9:.1f} GB",
            stable is None or stable["peak"] < GIGABYTES * 1e9,
        ),
        (
            "`standard` on DeepFloyd IF-I-XL, from the time of its steps",
            f"under {MINUTES:g} min",
            "" if large is None else f"{large['run'] / 60:.1f} min",
            large is None or large["run"] < 60 * MINUTES,
        ),
    ]
    lines = ["| target | wanted | measured | |", "| --- | --- | --- | --- |"]
    for name, wanted, measured, met in rows:
        verdict = NOT_MEASURED if not measured else "tiny models, no verdict" if tiny else "met" if met else MISSED
        lines.append(f"| {name} | {wanted} | {measured} | {verdict} |")
    return lines


def step_table(steps: Sequence[Mapping[str, Any]], tiny: bool) -> list[str]:
    """The table of `gpu_step.py`, from its figures."""
    lines = ["| " + " | ".join(HEADS) + " |", "| --- " * len(HEADS) + "|"]
    for figures in steps:
        if "error" in figures:
            lines.append(f"| {figures['case']} | {figures['error']} |" + " |" * (len(HEADS) - 2))
        else:
            timings = Timings(**{name: figures[name] for name in Timings.__dataclass_fields__})
            lines.append(row(figures["case"], CASES[figures["case"]], timings, tiny))
    return lines


def tests_text(counts: Counts) -> list[str]:
    """Counts in one line, then each failure and each reason of skips."""
    skips = sum(counts.skipped.values())
    lines = [f"{counts.passed} passed, {len(counts.failed)} failed, {skips} skipped.", ""]
    lines += [f"- **failed**: `{name}`" for name in counts.failed]
    lines += [f"- skipped, {number} times: {reason}" for reason, number in counts.skipped.items()]
    return lines


def training_text(trained: tuple[int, int, float, float] | None, saved: str) -> list[str]:
    """What the last report of the training said, and where its weights and state are."""
    if trained is None:
        return ["No report of a training (one is written every 100 steps).", *([saved] if saved else [])]
    step, images, loss, rate = trained
    return [f"Step {step}, {images} images, loss {loss:.4f}, {rate:.0f} images a second. {saved}"]


def section(
    title: str,
    machine: str,
    outcomes: Sequence[Outcome],
    counts: Counts,
    steps: Sequence[Mapping[str, Any]],
    starter: str,
    training: Sequence[str],
    tiny: bool,
) -> str:
    """The whole section in Markdown."""
    lines = [
        f"## {title}",
        "",
        machine,
        "",
        *bars(steps, tiny),
        "",
        "| part | seconds | result |",
        "| --- | --- | --- |",
    ]
    for outcome in outcomes:
        result = f"not run: {outcome.skipped}" if outcome.skipped else outcome.fault or "done"
        lines.append(f"| {outcome.name} | {outcome.seconds:.0f} | {result} |")
    lines += ["", "### Tests marked gpu", "", *tests_text(counts)]
    lines += [
        "",
        "### A step of each family",
        "",
        f"Milliseconds; `standard` of each family; random weights of {'tiny' if tiny else 'full'} size.",
    ]
    lines += ["", *step_table(steps, tiny)]
    lines += ["", "### The starter, `standard`", "", starter.strip() or "No prop was finished."]
    lines += ["", "### Training of the starter", "", *training]
    return "\n".join(lines).replace("\n\n\n", "\n\n") + "\n"
