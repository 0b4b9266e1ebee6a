# SPDX-License-Identifier: GPL-3.0-or-later
"""Text of every block of figures in the documents, from the JSON files that the recipes leave."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dreamwright.backend.evaluation.r_precision import MethodResult, markdown
from dreamwright.backend.evaluation.results_table import Column, ResultsTable
from dreamwright.backend.evaluation.retrieval import RPrecision
from dreamwright.backend.evaluation.starter_report import BARS, PRESETS
from dreamwright.shared.numbers import number_text

from .fingerprints import file_digest
from .picture_list import CLASSIFIER, FIRST_PROP, IMAGE_TEXT, STARTER
from .recipe import ROOT

Folders = Mapping[str, Path]  # of the recipes, by name
UNET = f"{STARTER}/unet/diffusion_pytorch_model.safetensors"
HASH_DIGITS = 8
GUIDANCE_2D_COLUMNS = ("prop and color", "mean chroma", "detail", "distance of seeds", "in the classifier's features")
DIGITS = {  # of columns that are no shares
    "mean chroma": 1,
    "mean chroma of the albedo": 1,
    "detail": 4,
    "distance of seeds": 3,
    "in the classifier's features": 3,
}


@dataclass(frozen=True)
class Figures:
    """A block of a document, and the recipes whose files it is written from; without recipes, from what ships."""

    name: str
    document: str
    recipes: tuple[str, ...]
    text: Callable[[Folders], str]


def _read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cells)} |".replace("  ", " ") for cells in lines)  # empty cells as well


def _percent(share: float, digits: int = 0) -> str:
    return f"{100 * share:.{digits}f}%"


def _evaluations(folders: Folders) -> list[dict[str, Any]]:
    return [_read(folders[f"{preset}-evaluation"] / "out" / "evaluation.json") for preset in PRESETS]


def weights_sentence(root: Path = ROOT) -> str:
    """Which weights a result is of."""
    return f"Starter with the U-Net of sha256 {file_digest(root / UNET)[:HASH_DIGITS]}..."


def readme_sentence(folders: Folders) -> str:
    """What the README says below the contact sheet of `draft`."""
    draft, standard = _evaluations(folders)

    def counts(record: dict[str, Any]) -> tuple[float, int, int, int]:
        rows = record["rows"]
        iou = float(np.mean([row["silhouette_iou"] for row in rows]))
        return iou, sum(row["color_right"] for row in rows), sum(row["geometry_right"] for row in rows), len(rows)

    iou, color, bare, rows = counts(draft)
    more_iou, more_color, more_bare, _ = counts(standard)
    return (
        f"*All {rows} results of `dreamwright evaluate starter --preset draft`: mean silhouette IoU {iou:.2f} against "
        f"the modeled props; a classifier names {color} of {rows} by color and\n{bare} of {rows} by shape alone. With "
        f"`standard`: {more_iou:.2f}, {more_color} and {more_bare}. [More figures](docs/results/results.md).*"
    )


def evaluation_table(folders: Folders) -> str:
    """Every bar of the starter's evaluation by preset, with its target."""
    records = _evaluations(folders)
    summaries = [record["summary"] for record in records]
    rows = []
    for bar in BARS:
        cells = [bar.label]
        for summary in summaries:
            found = summary["bars"][bar.name]
            sign = "≤" if bar.at_most else "≥"
            shown = [
                "—" if value is None else _percent(value) if bar.percent else f"{value:.3g}"
                for value in (found["value"], found["target"])
            ]
            cells += [shown[0], f"{sign} {shown[1]}" if found["target"] is not None else "—"]
        rows.append(cells)
    ious = [[row["silhouette_iou"] for row in record["rows"]] for record in records]
    rows.append(
        ["silhouette IoU, lowest and highest"]
        + [cell for values in ious for cell in (f"{min(values):.2f}, {max(values):.2f}", "")]
    )
    seconds = [[row["seconds"] for row in record["rows"]] for record in records]
    rows.append(
        ["seconds a prompt, lowest and highest"]
        + [cell for values in seconds for cell in (f"{min(values):.0f}, {max(values):.0f}", "")]
    )
    first = summaries[0]
    sentence = f"{weights_sentence()}, {first['prompts']} prompts of {first['seeds']} seed(s), one thread for each job:"
    head = ["", *(cell for preset in PRESETS for cell in (preset, "target"))]
    return f"{sentence}\n\n{_table(head, rows)}"


def _results(record: dict[str, Any], columns: Sequence[str] | None = None) -> ResultsTable:
    """The table that a suite recorded, with these columns (default: all), shares as whole percents."""
    names = list(record["rows"][0]["values"]) if columns is None else list(columns)
    table = ResultsTable(
        [Column(name, digits=DIGITS[name]) if name in DIGITS else Column(name, 100.0, 0) for name in names]
    )
    for row in record["rows"]:
        for name in names:
            for prompt, value in ((row["values"][name] or {}).get("by_prompt") or {}).items():
                table.add(row["row"], name, prompt, [value])
    return table


def ablation_table(folders: Folders) -> str:
    """Figure 6: R-Precision by stage, and the last stage less the base."""
    record = _read(folders["ablation"] / "out" / "ablation.json")
    table, stages = _results(record), [stage["name"] for stage in record["stages"]]
    change = table.changes_markdown("stage", [("last minus base, paired", stages[-1], stages[0])]).splitlines()[2:]
    return f"{_weights(record)}\n\n{table.markdown('stage').rstrip()}\n" + "\n".join(change)


def sweep_table(folders: Folders) -> str:
    """Figure 9: metrics by guidance weight."""
    record = _read(folders["sweep"] / "out" / "sweep.json")
    return f"{_weights(record)}\n\n{_results(record).markdown('omega')}"


def guidance_2d_table(folders: Folders) -> str:
    """Figure 2: metrics of 2D samples by weight and sampler."""
    record = _read(folders["guidance-2d"] / "out" / "guidance-2d.json")
    return f"{_weights(record)}\n\n{_results(record, GUIDANCE_2D_COLUMNS).markdown('omega: sampler')}"


def _weights(record: dict[str, Any]) -> str:
    """Which weights a suite recorded."""
    found = {Path(name).parent.name: digest[:HASH_DIGITS] for name, digest in record["weights"].items()}
    return f"Starter with the U-Net of sha256 {found['unet']}..."


def baselines_table(folders: Folders) -> str:
    """R-Precision by method; in parentheses what the guiding model says itself. And seconds by method."""
    record = _read(folders["baselines"] / "out" / "baselines.json")
    models = list(record["rows"][0]["values"])
    rows = [MethodResult(row["method"], row["guided_by"], _by_model(row["values"])) for row in record["rows"]]
    seconds: dict[str, list[float]] = {}
    for job in record["jobs"]:
        seconds.setdefault(job["method"], []).append(job["seconds"])
    shown = ", ".join(f"{method} {np.mean(values):.0f}" for method, values in seconds.items())
    return f"{weights_sentence()}, percent:\n\n{markdown(rows, models)}\nSeconds for one prop on one thread: {shown}."


def _by_model(values: dict[str, Any]) -> dict[str, dict[str, RPrecision | None]]:
    """What a row of the comparison recorded, by retrieval model and kind of render."""
    return {
        model: {kind: None if value is None else RPrecision(**value) for kind, value in kinds.items()}
        for model, kinds in values.items()
    }


def step_time_table(folders: Folders) -> str:
    """Milliseconds of a step by part and preset."""
    record = _read(folders["step-time"] / "out" / "step-time.json")
    presets = record["presets"]
    parts = sorted({part for timed in presets.values() for part in timed["parts_ms"]})
    by_time = sorted(parts, key=lambda part: -max(timed["parts_ms"].get(part, 0.0) for timed in presets.values()))
    rows = [
        [part, *(f"{timed['parts_ms'][part]:.0f}" if part in timed["parts_ms"] else "-" for timed in presets.values())]
        for part in by_time
    ]
    rows.append(["**whole step**", *(f"**{timed['step_ms']:.0f}**" for timed in presets.values())])
    rows.append(["peak memory so far, GB", *(f"{timed['peak_gb']:.2f}" for timed in presets.values())])
    smaller = [f"{name} with {', '.join(timed['settings'])}" for name, timed in presets.items() if timed["settings"]]
    where = f"torch {record['torch']}, {record['threads']} threads, load {record['load']:.1f} before the start"
    return f"{'; '.join([where, *smaller])}:\n\n{_table(['part (ms)', *presets], rows)}"


def sample_quality_table(folders: Folders) -> str:
    """What the classifier sees in ancestral samples, by their number of steps."""
    runs = [_read(folders["starter-samples"] / f"{steps}-steps" / "quality.json") for steps in (40, 25)]
    rows = [
        ["prop and color", *(_percent(run["prop_and_color"]) for run in runs)],
        ["prop", *(_percent(run["prop"]) for run in runs)],
        ["color", *(_percent(run["color"]) for run in runs)],
        ["view of props with a front", *(_percent(run["view_of_props_with_front"]) for run in runs)],
        [
            f"the same by view: {', '.join(runs[0]['by_view'])}",
            *(", ".join(_percent(share) for share in run["by_view"].values()) for run in runs),
        ],
    ]
    first = runs[0]
    head = ["classified correctly", *(f"{run['steps']} steps" for run in runs)]
    return (
        f"{first['samples']} ancestral samples, omega {number_text(first['omega'])}, weight "
        f"{number_text(first['opposite_weight'])} of the opposite view:\n\n{_table(head, rows)}"
    )


def classifier_table(folders: Folders) -> str:
    """Accuracy of the classifier that ships."""
    found = _read(ROOT / CLASSIFIER / "classifier.json")["accuracy"]
    names = ("prop", "color", "view_of_props_with_front")
    rows = [
        [label, *(_percent(found[name + suffix], 1) for name in names)]
        for label, suffix in (("unchanged", ""), ("degraded", "_of_degraded"))
    ]
    return _table(["", "prop", "color", "view of props with a front"], rows)


def image_text_table(folders: Folders) -> str:
    """Retrieval by the image-text models that ship."""
    models = {"starter-clip": "guide", "starter-clip-retrieval": "retrieve"}
    rows = []
    for name, folder in models.items():
        found = _read(ROOT / IMAGE_TEXT / folder / "training.json")["accuracy"]
        shares = (found[key] for key in ("caption", "prop", "color", "textureless_prop"))
        rows.append([f"`{name}`", *(_percent(share, 1) for share in shares)])
    return _table(["model", "caption", "prop", "color", "prop of untextured images"], rows)


def scene_table(folders: Folders) -> str:
    """Error of the albedo that the renders of the scene show, by prop and lighting."""
    record = _read(folders["scene"] / "out" / "relighting.json")
    by_place = {(one["prop"], one["lighting"], one["bounces"]): one for one in record["errors"]}
    lightings, most = ("sun", "lamp", "sky"), max(bounces for _, _, bounces in by_place)
    direct = {one["prop"]: one["p95"] for one in record["spreads"] if one["bounces"] == 0}

    def pair(error: dict[str, Any]) -> str:
        values = (error["mean_error"], error["p95_error"])
        return "—" if None in values else ", ".join(_percent(value, 2) for value in values)

    rows = []
    for prop in record["props"]:
        name = prop["name"]
        cells = [pair(by_place[name, lighting, 0]) for lighting in lightings]
        spread = "—" if direct[name] is None else _percent(direct[name], 2)
        bounced = [pair(by_place[name, lighting, most]) for lighting in lightings]
        rows.append([name, f"{prop['height_m']:.2f}", *cells, spread, *bounced])
    head = ["prop", "height, m", *lightings, "between lightings", *(f"{one}, {most} bounces" for one in lightings)]
    return _table(head, rows)


def first_prop_moment(name: str) -> Callable[[Folders], str]:
    """The step at which a screenshot of the preview was taken."""

    def text(folders: Folders) -> str:
        report = _read(folders["first-prop"] / "report.json")
        moment = next(found for found in report["moments"] if found["name"] == name)
        return f"*Step {moment['step']} of {report['job'][2]}.*"

    return text


def first_prop_seconds(folders: Folders) -> str:
    """How long the job of the screenshots took."""
    seconds = round(_read(folders["first-prop"] / "report.json")["job"][3])
    minutes = f"{seconds // 60} minutes {seconds % 60} seconds" if seconds >= 60 else f"{seconds} seconds"
    return f"The job in the screenshots took {minutes}."


BOTH = tuple(f"{preset}-evaluation" for preset in PRESETS)
FIGURES: tuple[Figures, ...] = (
    Figures("readme-evaluation", "README.md", BOTH, readme_sentence),
    Figures("evaluation", "docs/results/results.md", BOTH, evaluation_table),
    Figures("ablation", "docs/results/ablations.md", ("ablation",), ablation_table),
    Figures("sweep", "docs/results/ablations.md", ("sweep",), sweep_table),
    Figures("guidance-2d", "docs/results/ablations.md", ("guidance-2d",), guidance_2d_table),
    Figures("baselines", "docs/results/methods.md", ("baselines",), baselines_table),
    Figures("step-time", "docs/results/results.md", ("step-time",), step_time_table),
    Figures("sample-quality", "docs/results/starter.md", ("starter-samples",), sample_quality_table),
    Figures("classifier", "docs/results/starter.md", (), classifier_table),
    Figures("image-text", "docs/results/starter.md", (), image_text_table),
    *(
        Figures(f"first-prop-{name}", "docs/user/first-prop.md", ("first-prop",), first_prop_moment(name))
        for name in FIRST_PROP[4:7]
    ),
    Figures("scene-albedo", "docs/user/relighting.md", ("scene",), scene_table),
    Figures("first-prop-seconds", "docs/user/first-prop.md", ("first-prop",), first_prop_seconds),
)
