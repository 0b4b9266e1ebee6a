# SPDX-License-Identifier: GPL-3.0-or-later
"""Contact sheet of an evaluation on the starter's prompts: each mesh above the true prop in the same views."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

from PIL import Image, ImageDraw

from ..geometry.build import Mesh
from .classifier_metrics import AZIMUTHS, render_views
from .contact_sheet import GAP, LINE, to_image
from .samples import true_prop
from .starter import PromptResult
from .starter_report import has_front

BARE_VIEWS = AZIMUTHS // 2
VIEWS = AZIMUTHS + BARE_VIEWS


def prompt_sheet(rows: Sequence[tuple[PromptResult, Mesh | None]], tile: int = 64) -> Image.Image:
    """A block for each row: its metrics, the mesh from eight sides in color and four textureless, the true prop below.

    A job without a mesh leaves the upper line of its block white.
    """
    block = LINE + 2 * tile + GAP
    sheet = Image.new("RGB", (2 * GAP + tile * VIEWS, max(1, len(rows)) * block), "white")
    draw = ImageDraw.Draw(sheet)
    for index, (result, mesh) in enumerate(rows):
        top = index * block
        draw.text((GAP, top), caption(result), fill="black")
        if mesh is not None:
            sheet.paste(_strip(mesh, result.rotation_deg, tile), (GAP, top + LINE))
        sheet.paste(_true_strip(result.prompt, tile), (GAP, top + LINE + tile))
    return sheet


def caption(result: PromptResult) -> str:
    """The line above a block."""
    if not result.triangles:
        return f"{result.prompt}, seed {result.seed}: no mesh"
    parts = [
        f"{result.prompt}, seed {result.seed}: IoU {result.silhouette_iou:.2f}",
        f"F {result.f_score:.2f}",
        f"seen as {result.retrieved} / {result.retrieved_geometry}",
        f"albedo error {result.albedo_error:.2f}",
    ]
    if result.dihedral_ratio is not None:
        parts.append(f"dihedral angle x{result.dihedral_ratio:.1f}")
    if has_front(result):
        parts.append(f"fronts elsewhere {result.fronts_elsewhere}")
    if result.hole_open is not None:
        parts.append(f"hole {'open' if result.hole_open else 'CLOSED'}")
    return "  ".join(parts)


def _strip(mesh: Mesh, rotation_deg: float, tile: int) -> Image.Image:
    color = render_views(mesh, rotation_deg, textureless=False, resolution=tile)
    bare = render_views(mesh, rotation_deg, textureless=True, resolution=tile, azimuths=BARE_VIEWS)
    strip = Image.new("RGB", (tile * VIEWS, tile))
    for column, image in enumerate([*color, *bare]):
        strip.paste(to_image(image), (column * tile, 0))
    return strip


@cache
def _true_strip(prompt: str, tile: int) -> Image.Image:
    return _strip(true_prop(prompt), 0.0, tile)
