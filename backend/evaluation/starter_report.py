# SPDX-License-Identifier: GPL-3.0-or-later
"""Summary and table of an evaluation on the starter's prompts, every bar beside its target."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ..starter import domain
from .starter import PromptResult


@dataclass(frozen=True)
class Bar:
    """A figure of the summary, None without any row that has it, and its target by preset."""

    name: str
    label: str
    value: Callable[[Sequence[PromptResult]], float | None]
    targets: tuple[float, float]  # of draft and standard
    at_most: bool = False  # the target is the largest good value, not the smallest
    percent: bool = False


PRESETS = ("draft", "standard")


def _mean(values: Sequence[float | bool | None]) -> float | None:
    known = [float(value) for value in values if value is not None]
    return float(np.mean(known)) if known else None


def has_front(result: PromptResult) -> bool:
    """Whether the prompt's prop has a front that differs from its back."""
    return domain.prop_named(domain.parse(result.prompt)[1]).has_front


BARS: tuple[Bar, ...] = (
    Bar("seconds", "seconds a prompt", lambda rows: _mean([r.seconds for r in rows]), (90.0, 240.0), at_most=True),
    Bar("silhouette_iou", "silhouette IoU", lambda rows: _mean([r.silhouette_iou for r in rows]), (0.87, 0.90)),
    Bar("f_score", "F-score", lambda rows: _mean([r.f_score for r in rows]), (0.85, 0.90)),
    Bar("named_color", "named, color", lambda rows: _mean([r.color_right for r in rows]), (0.97, 1.0), percent=True),
    Bar(
        "named_bare",
        "named, bare shape",
        lambda rows: _mean([r.geometry_right for r in rows]),
        (0.90, 0.96),
        False,
        True,
    ),
    Bar(
        "fronts_elsewhere",
        "props with a front whose front is seen again elsewhere",
        lambda rows: _mean([r.fronts_elsewhere > 0 for r in rows if has_front(r)]),
        (0.08, 0.04),
        at_most=True,
        percent=True,
    ),
    Bar("open_holes", "open holes", lambda rows: _mean([r.hole_open for r in rows]), (0.75, 1.0), percent=True),
    Bar("albedo_error", "albedo error", lambda rows: _mean([r.albedo_error for r in rows]), (0.07, 0.05), at_most=True),
    Bar(
        "dihedral_ratio",
        "dihedral angle, times the true prop's",
        lambda rows: _mean([r.dihedral_ratio for r in rows]),
        (2.0, 1.5),
        at_most=True,
    ),
)


def summarize(results: Sequence[PromptResult], preset: str) -> dict[str, Any]:
    """Every bar over all rows with its target by `preset`, None for others than draft and standard, and more means.

    Rows without a mesh have the worst value of each metric; those of dihedral angles and normals are of meshes alone.
    """
    bars: dict[str, Any] = {}
    for bar in BARS:
        value = bar.value(results)
        target = bar.targets[PRESETS.index(preset)] if preset in PRESETS else None
        met = None if value is None or target is None else value <= target if bar.at_most else value >= target
        bars[bar.name] = {"value": value, "target": target, "is_most": bar.at_most, "met": met}
    return {
        "rows": len(results),
        "prompts": len({result.prompt for result in results}),
        "seeds": len({result.seed for result in results}),
        "failed": sum(result.triangles == 0 for result in results),
        "bars": bars,
        "classifier_fronts_elsewhere": _mean([r.classifier_fronts_elsewhere > 0 for r in results if has_front(r)]),
        "chamfer": _mean([r.chamfer for r in results]),
        "hidden_share": _mean([r.hidden_share for r in results]),
        "dihedral_deg": _mean([r.dihedral_deg for r in results]),
        "reference_dihedral_deg": _mean([r.reference_dihedral_deg for r in results]),
        "normal_error_deg": _mean([r.normal_error_deg for r in results]),
        "reference_normal_error_deg": _mean([r.reference_normal_error_deg for r in results]),
        "view_normal_error_deg": _mean([r.view_normal_error_deg for r in results]),
        "albedo_error_primary": _mean([r.albedo_error_primary for r in results]),
        "albedo_error_fixed": _mean([r.albedo_error_fixed for r in results]),
    }


def report(results: Sequence[PromptResult], preset: str) -> dict[str, Any]:
    """The JSON record of an evaluation."""
    rows = [{**asdict(result), "dihedral_ratio": result.dihedral_ratio} for result in results]
    return {"preset": preset, "summary": summarize(results, preset), "rows": rows}


def markdown(results: Sequence[PromptResult], preset: str) -> str:
    """A table with a row for each prompt and seed, and one of every bar beside its target."""
    columns = (
        "prompt", "seed", "seconds", "IoU", "F", "named", "bare shape named", "fronts elsewhere", "by the classifier",
        "hole",
        "albedo error", "primary / fixed colors", "dihedral angle", "times the true prop's", "normal error",
        "the true prop's", "normal error in views", "triangles", "hidden area",
    )  # fmt: skip
    lines = [_line(columns), _line(["---"] * len(columns))]
    for r in results:
        cells = (
            r.prompt, str(r.seed), _number(r.seconds, 0), _number(r.silhouette_iou, 3), _number(r.f_score, 3),
            _named(r.retrieved, r.color_right), _named(r.retrieved_geometry, r.geometry_right),
            str(r.fronts_elsewhere) if has_front(r) else "",
            str(r.classifier_fronts_elsewhere) if has_front(r) else "",
            "" if r.hole_open is None else "open" if r.hole_open else "closed",
            _number(r.albedo_error, 3), f"{_number(r.albedo_error_primary, 3)} / {_number(r.albedo_error_fixed, 3)}",
            _number(r.dihedral_deg, 1), _number(r.dihedral_ratio, 2), _number(r.normal_error_deg, 1),
            _number(r.reference_normal_error_deg, 1), _number(r.view_normal_error_deg, 1),
            str(r.triangles) if r.triangles else "no mesh",
            "" if r.hidden_share is None else f"{100 * r.hidden_share:.0f}%",
        )  # fmt: skip
        lines.append(_line(cells))
    summary = summarize(results, preset)
    lines += ["", _line((f"mean of {len(results)} rows", preset, "target", "met")), _line(["---"] * 4)]
    for bar in BARS:
        found = summary["bars"][bar.name]
        target = _value(bar, found["target"])
        sign = ("at most " if bar.at_most else "at least ") if target else ""
        met = {True: "yes", False: "no", None: ""}[found["met"]]
        lines.append(_line((bar.label, _value(bar, found["value"]), sign + target, met)))
    return "\n".join(lines) + "\n"


def _value(bar: Bar, value: float | None) -> str:
    if value is None:
        return ""
    return f"{100 * value:.0f}%" if bar.percent else f"{value:.3g}"


def _number(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:.{digits}f}"


def _named(retrieved: str, is_right: bool) -> str:
    return "yes" if is_right else f"no: {retrieved}"


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"
