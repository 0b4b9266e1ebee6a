# SPDX-License-Identifier: GPL-3.0-or-later
"""Lifting quality on the starter's prompts: each mesh against the procedural prop that its prompt names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from ..geometry.build import Mesh
from ..geometry.color import linear_to_display
from ..mesh_rendering.rasterize import orbit_axes, rasterize
from ..starter import domain, props
from ..starter.classifier import StarterClassifier
from .classifier_metrics import AZIMUTHS, classify_mesh, render_views
from .contact_sheet import LINE, to_image
from .silhouettes import (
    DISTANCE,
    FOCAL,
    Solid,
    align,
    centered,
    held_out_views,
    hole_is_open,
)
from .surfaces import surface_distance

# 24 prompts, every prop among them. Hard props come first and twice; symmetric ones are easily right.
PROMPTS: tuple[str, ...] = (
    "a blue chair", "a red chair", "a white house", "an orange house", "a yellow torus", "a green torus",
    "a red mug", "a blue mug", "a purple table", "a white table", "a red rocket", "a white rocket",
    "a green car", "a blue robot", "a yellow duck", "an orange sofa", "a purple boat", "a green cactus",
    "a black lamp", "a green tree", "a white snowman", "a red mushroom", "a purple mushroom", "a black car",
)  # fmt: skip


@dataclass(frozen=True)
class PromptResult:
    """Metrics of one prompt's mesh."""

    prompt: str
    silhouette_iou: float
    scale: float
    rotation_deg: float
    chamfer: float
    f_score: float
    albedo_error: float  # mean absolute difference of display sRGB over shared pixels
    color_right: bool
    geometry_right: bool
    retrieved: str
    retrieved_geometry: str
    fronts: int
    janus: int
    hole_open: bool | None  # None for props without a hole
    seconds: float


def measure(classifier: StarterClassifier, mesh: Mesh, prompt: str, seconds: float) -> PromptResult:
    """Compare a mesh with the prop that its prompt names. Raises ValueError for a prompt of another domain."""
    color, prop = domain.parse(prompt)
    model = props.triangles(props.build(prop))
    reference = centered(model.vertices, model.faces)
    lifted = centered(mesh.vertices, mesh.faces)
    fit = align(lifted, reference)
    turned = lifted.transformed(fit.scale, fit.rotation_deg)
    distance = surface_distance(turned, reference)
    seen = classify_mesh(classifier, mesh, fit.rotation_deg, color, prop)
    face_colors = np.where(model.primary[:, None], np.array(domain.COLORS[color]), model.colors)
    return PromptResult(
        prompt=prompt,
        silhouette_iou=fit.iou,
        scale=fit.scale,
        rotation_deg=fit.rotation_deg,
        chamfer=distance.chamfer,
        f_score=distance.f_score,
        albedo_error=_albedo_error(
            turned, linear_to_display(np.asarray(mesh.albedo, np.float64)), reference, face_colors
        ),
        color_right=seen.color_right,
        geometry_right=seen.geometry_right,
        retrieved=" ".join(seen.color_prompt),
        retrieved_geometry=seen.geometry_prop,
        fronts=seen.fronts,
        janus=seen.janus,
        hole_open=hole_is_open(turned) if domain.prop_named(prop).hole else None,
        seconds=seconds,
    )


def failed_result(prompt: str, seconds: float) -> PromptResult:
    """The result of a prompt without a mesh: the worst value of every metric."""
    hole = domain.prop_named(domain.parse(prompt)[1]).hole
    return PromptResult(
        prompt=prompt,
        silhouette_iou=0.0,
        scale=1.0,
        rotation_deg=0.0,
        chamfer=1.0,
        f_score=0.0,
        albedo_error=1.0,
        color_right=False,
        geometry_right=False,
        retrieved="nothing",
        retrieved_geometry="nothing",
        fronts=0,
        janus=0,
        hole_open=False if hole else None,
        seconds=seconds,
    )


def _albedo_error(lifted: Solid, vertex_colors: np.ndarray, reference: Solid, face_colors: np.ndarray) -> float:
    errors = []
    for azimuth, elevation in held_out_views():
        axes = orbit_axes(azimuth, elevation)
        first = rasterize(lifted.vertices, lifted.faces, DISTANCE * axes[:, 2], axes, FOCAL, 64)
        second = rasterize(reference.vertices, reference.faces, DISTANCE * axes[:, 2], axes, FOCAL, 64)
        shared = first.mask & second.mask
        if shared.any():
            got = first.interpolate(lifted.faces, vertex_colors)[shared]
            errors.append(np.abs(got - face_colors[second.face[shared]]).mean())
    return float(np.mean(errors)) if errors else 1.0


def summarize(results: Sequence[PromptResult]) -> dict[str, Any]:
    """Means and fractions over prompts, and the project's targets."""
    fronted = [r for r in results if domain.prop_named(domain.parse(r.prompt)[1]).has_front]
    holed = [r for r in results if r.hole_open is not None]
    return {
        "prompts": len(results),
        "silhouette_iou": float(np.mean([r.silhouette_iou for r in results])),
        "r_precision_color": float(np.mean([r.color_right for r in results])),
        "r_precision_geometry": float(np.mean([r.geometry_right for r in results])),
        "f_score": float(np.mean([r.f_score for r in results])),
        "chamfer": float(np.mean([r.chamfer for r in results])),
        "albedo_error": float(np.mean([r.albedo_error for r in results])),
        "janus_props": sum(r.janus > 0 for r in fronted),
        "fronted_props": len(fronted),
        "open_holes": sum(bool(r.hole_open) for r in holed),
        "holed_props": len(holed),
        "seconds_mean": float(np.mean([r.seconds for r in results])),
        "targets": {"silhouette_iou": 0.75, "r_precision_color": 0.85, "r_precision_geometry": 0.60},
    }


def report(results: Sequence[PromptResult], preset: str) -> dict[str, Any]:
    """The JSON record of an evaluation."""
    return {"preset": preset, "summary": summarize(results), "rows": [asdict(result) for result in results]}


def prompt_sheet(meshes: Sequence[tuple[PromptResult, Mesh]], tile: int = 64) -> Image.Image:
    """Contact sheet with a row for each prompt: eight azimuths in color, four textureless, and the metrics."""
    line, margin = tile + LINE, 4
    sheet = Image.new("RGB", (margin + tile * (AZIMUTHS + 4), max(1, len(meshes)) * line), "white")
    draw = ImageDraw.Draw(sheet)
    for index, (result, mesh) in enumerate(meshes):
        color = render_views(mesh, result.rotation_deg, textureless=False)
        bare = render_views(mesh, result.rotation_deg, textureless=True)[::2]
        for column, image in enumerate([*color, *bare]):
            sheet.paste(to_image(image).resize((tile, tile)), (margin + column * tile, index * line + LINE))
        prop = domain.prop_named(domain.parse(result.prompt)[1])
        text = (
            f"{result.prompt}: IoU {result.silhouette_iou:.2f}  F {result.f_score:.2f}  "
            f"seen as {result.retrieved} / {result.retrieved_geometry}"
            + (f"  fronts elsewhere {result.janus}" if prop.has_front else "")
            + (f"  hole {'open' if result.hole_open else 'CLOSED'}" if result.hole_open is not None else "")
        )
        draw.text((margin, index * line), text, fill="black")
    return sheet
