# SPDX-License-Identifier: GPL-3.0-or-later
"""How well prompts of the starter domain are lifted: each mesh against the procedural prop that its prompt names."""

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
from .classifier_metrics import AZIMUTHS, render_views, verdict
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

# 24 prompts, every prop among them, the hard ones first and twice: symmetric props prove little.
PROMPTS: tuple[str, ...] = (
    "a blue chair", "a red chair", "a white house", "an orange house", "a yellow torus", "a green torus",
    "a red mug", "a blue mug", "a purple table", "a white table", "a red rocket", "a white rocket",
    "a green car", "a blue robot", "a yellow duck", "an orange sofa", "a purple boat", "a green cactus",
    "a black lamp", "a green tree", "a white snowman", "a red mushroom", "a purple mushroom", "a black car",
)  # fmt: skip


@dataclass(frozen=True)
class Row:
    """Everything measured on one prompt."""

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


def measure(judge: StarterClassifier, mesh: Mesh, prompt: str, seconds: float) -> Row:
    """Compare a lifted mesh with the prop that its prompt names."""
    color, prop = domain.parse(prompt)
    model = props.triangles(props.build(prop))
    reference = centered(model.vertices, model.faces)
    lifted = centered(mesh.vertices, mesh.faces)
    fit = align(lifted, reference)
    turned = lifted.transformed(fit.scale, fit.rotation_deg)
    distance = surface_distance(turned, reference)
    seen = verdict(judge, mesh, fit.rotation_deg, color, prop)
    face_colors = np.where(model.primary[:, None], np.array(domain.COLORS[color]), model.colors)
    return Row(
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


def failed_row(prompt: str, seconds: float) -> Row:
    """The row of a prompt that gave no mesh: wrong in everything."""
    hole = domain.prop_named(domain.parse(prompt)[1]).hole
    return Row(
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


def summarize(rows: Sequence[Row]) -> dict[str, Any]:
    """Means and shares over prompts, with the bars of the project beside them."""
    fronted = [r for r in rows if domain.prop_named(domain.parse(r.prompt)[1]).has_front]
    holed = [r for r in rows if r.hole_open is not None]
    return {
        "prompts": len(rows),
        "silhouette_iou": float(np.mean([r.silhouette_iou for r in rows])),
        "r_precision_color": float(np.mean([r.color_right for r in rows])),
        "r_precision_geometry": float(np.mean([r.geometry_right for r in rows])),
        "f_score": float(np.mean([r.f_score for r in rows])),
        "chamfer": float(np.mean([r.chamfer for r in rows])),
        "albedo_error": float(np.mean([r.albedo_error for r in rows])),
        "janus_props": sum(r.janus > 0 for r in fronted),
        "fronted_props": len(fronted),
        "open_holes": sum(bool(r.hole_open) for r in holed),
        "holed_props": len(holed),
        "seconds_mean": float(np.mean([r.seconds for r in rows])),
        "bars": {"silhouette_iou": 0.75, "r_precision_color": 0.85, "r_precision_geometry": 0.60},
    }


def report(rows: Sequence[Row], preset: str) -> dict[str, Any]:
    """The JSON of one evaluation."""
    return {"preset": preset, "summary": summarize(rows), "rows": [asdict(row) for row in rows]}


def prompt_sheet(meshes: Sequence[tuple[Row, Mesh]], tile: int = 64) -> Image.Image:
    """One line a prompt: eight azimuths in color, then four textureless, with its figures."""
    line, margin = tile + 14, 4
    sheet = Image.new("RGB", (margin + tile * (AZIMUTHS + 4), max(1, len(meshes)) * line), "white")
    draw = ImageDraw.Draw(sheet)
    for index, (row, mesh) in enumerate(meshes):
        color = render_views(mesh, row.rotation_deg, textureless=False)
        clay = render_views(mesh, row.rotation_deg, textureless=True)[::2]
        for column, picture in enumerate([*color, *clay]):
            pixels = (picture.permute(1, 2, 0).numpy() * 255).astype(np.uint8)
            sheet.paste(Image.fromarray(pixels).resize((tile, tile)), (margin + column * tile, index * line + 14))
        words = (
            f"{row.prompt}: IoU {row.silhouette_iou:.2f}  F {row.f_score:.2f}  seen as {row.retrieved} / {row.retrieved_geometry}"
            + (f"  fronts elsewhere {row.janus}" if domain.prop_named(domain.parse(row.prompt)[1]).has_front else "")
            + (f"  hole {'open' if row.hole_open else 'SHUT'}" if row.hole_open is not None else "")
        )
        draw.text((margin, index * line), words, fill="black")
    return sheet
