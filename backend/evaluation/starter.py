# SPDX-License-Identifier: GPL-3.0-or-later
"""Lifting quality on the starter's prompts: each mesh against the procedural prop that its prompt names."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..geometry.build import Mesh
from ..geometry.color import linear_to_display
from ..mesh_rendering.rasterize import orbit_axes, rasterize
from ..starter import domain, props
from ..starter.classifier import StarterClassifier
from .classifier_metrics import AZIMUTHS, classify_mesh
from .fronts import ELSEWHERE, MARGIN, fit_distance, front_ratios, turned, view_distances
from .reference_surface import reference_surface
from .silhouettes import DISTANCE, FOCAL, Alignment, Solid, align, centered, held_out_iou, held_out_views, hole_is_open
from .surface_normals import angle_deg, face_normals, mean_dihedral_deg, normal_error_deg
from .surfaces import POINTS, sample_surface, surface_distance
from .visible_surface import visible_surface

# 24 prompts, every prop among them. Hard props come first and twice; symmetric ones are easily right.
PROMPTS: tuple[str, ...] = (
    "a blue chair", "a red chair", "a white house", "an orange house", "a yellow torus", "a green torus",
    "a red mug", "a blue mug", "a purple table", "a white table", "a red rocket", "a white rocket",
    "a green car", "a blue robot", "a yellow duck", "an orange sofa", "a purple boat", "a green cactus",
    "a black lamp", "a green tree", "a white snowman", "a red mushroom", "a purple mushroom", "a black car",
)  # fmt: skip


WORST_FRONTS = len(range(AZIMUTHS)[ELSEWHERE])
LEAST_PIXELS = 0.01  # share of the pixels below which a kind of part has no albedo error: a mug's inner rim flickers
SAME_SILHOUETTE = 0.02  # IoU by which silhouettes do not tell one alignment from another


@dataclass(frozen=True)
class PromptResult:
    """Metrics of one prompt's mesh; None where a prop or a failed job has no such value."""

    prompt: str
    seed: int
    seconds: float | None  # None for a mesh that was given
    triangles: int  # 0 for a job that gave no mesh
    silhouette_iou: float
    scale: float
    rotation_deg: float
    chamfer: float
    f_score: float
    hidden_share: float | None  # of the area, inner walls that no view from outside shows
    dihedral_deg: float | None  # of what is seen
    reference_dihedral_deg: float | None  # of the true prop in as many triangles as are seen
    normal_error_deg: float | None
    reference_normal_error_deg: float | None
    view_normal_error_deg: float | None  # over shared pixels, as textureless views show it
    albedo_error: float  # mean absolute difference of display sRGB over shared pixels
    albedo_error_primary: float | None  # where the true prop has the prompt's color
    albedo_error_fixed: float | None  # where its parts have a color of their own
    color_right: bool
    geometry_right: bool
    retrieved: str
    retrieved_geometry: str
    fronts_elsewhere: int  # of 5 views at 90 to 270 degrees, those that are more like the true prop's front
    front_ratio: float | None  # the smallest ratio of `fronts.front_ratios`, None for props without a front
    classifier_fronts: int  # of 8 views, those that the classifier calls a front
    classifier_fronts_elsewhere: int  # of these, the ones at 90 to 270 degrees
    hole_open: bool | None  # None for props without a hole

    @property
    def dihedral_ratio(self) -> float | None:
        """The dihedral angle in multiples of the true prop's."""
        if self.dihedral_deg is None or not self.reference_dihedral_deg:
            return None
        return self.dihedral_deg / self.reference_dihedral_deg


@dataclass(frozen=True)
class ViewErrors:
    """Errors over the pixels that a mesh and the true prop share in 16 views.

    Albedo: mean absolute difference of display sRGB, of all pixels and of each kind of part; None for a kind that has
    hardly any pixels. Normals: mean angle in degrees between the faces' normals, None without shared pixels.
    """

    albedo: float
    albedo_primary: float | None
    albedo_fixed: float | None
    normal_deg: float | None


def measure(
    classifier: StarterClassifier, mesh: Mesh, prompt: str, seed: int = 0, seconds: float | None = None
) -> PromptResult:
    """Compare a mesh with the prop that its prompt names. Raises ValueError for a prompt of another domain."""
    color, prop = domain.parse(prompt)
    model, truth = props.triangles(props.build(prop)), reference_surface(prop)
    reference = centered(model.vertices, model.faces)
    lifted = centered(mesh.vertices, mesh.faces)
    fit, ratios = align(lifted, reference), None
    if domain.prop_named(prop).has_front:
        fit, distances = facing(mesh, fit, lifted, reference, prompt)
        ratios = front_ratios(distances)
    placed = lifted.transformed(fit.scale, fit.rotation_deg)
    visible = visible_surface(placed)
    # A true prop is a heap of solids, and a field is often hollow: faces that no eye sees would be credited to pits.
    drawn = sample_surface(visible.seen, POINTS, np.random.default_rng(0))
    distance, best = surface_distance(drawn, truth.outside.points[:POINTS]), truth.quality(len(visible.seen.faces))
    seen = classify_mesh(classifier, mesh, fit.rotation_deg, color, prop)
    face_colors = np.where(model.primary[:, None], np.array(domain.COLORS[color]), model.colors)
    errors = _view_errors(
        placed, linear_to_display(np.asarray(mesh.albedo, np.float64)), reference, face_colors, model.primary
    )
    return PromptResult(
        prompt=prompt,
        seed=seed,
        seconds=seconds,
        triangles=len(mesh.faces),
        silhouette_iou=fit.iou,
        scale=fit.scale,
        rotation_deg=fit.rotation_deg,
        chamfer=distance.chamfer,
        f_score=distance.f_score,
        hidden_share=visible.hidden_share,
        dihedral_deg=mean_dihedral_deg(visible.seen),
        reference_dihedral_deg=best.dihedral_deg,
        normal_error_deg=normal_error_deg(visible.seen, truth.outside),
        reference_normal_error_deg=best.normal_error_deg,
        view_normal_error_deg=errors.normal_deg,
        albedo_error=errors.albedo,
        albedo_error_primary=errors.albedo_primary,
        albedo_error_fixed=errors.albedo_fixed,
        color_right=seen.color_right,
        geometry_right=seen.geometry_right,
        retrieved=" ".join(seen.color_prompt),
        retrieved_geometry=seen.geometry_prop,
        fronts_elsewhere=0 if ratios is None else int((ratios < MARGIN).sum()),
        front_ratio=None if ratios is None else float(ratios.min()),
        classifier_fronts=seen.fronts,
        classifier_fronts_elsewhere=seen.janus,
        hole_open=hole_is_open(placed) if domain.prop_named(prop).hole else None,
    )


def failed_result(prompt: str, seed: int = 0, seconds: float | None = None) -> PromptResult:
    """The result of a prompt without a mesh: the worst value of every metric that has one, else None."""
    prop = domain.prop_named(domain.parse(prompt)[1])
    return PromptResult(
        prompt=prompt,
        seed=seed,
        seconds=seconds,
        triangles=0,
        silhouette_iou=0.0,
        scale=1.0,
        rotation_deg=0.0,
        chamfer=1.0,
        f_score=0.0,
        hidden_share=None,
        dihedral_deg=None,
        reference_dihedral_deg=None,
        normal_error_deg=None,
        reference_normal_error_deg=None,
        view_normal_error_deg=None,
        albedo_error=1.0,
        albedo_error_primary=None,
        albedo_error_fixed=None,
        color_right=False,
        geometry_right=False,
        retrieved="nothing",
        retrieved_geometry="nothing",
        fronts_elsewhere=WORST_FRONTS if prop.has_front else 0,
        front_ratio=None,
        classifier_fronts=AZIMUTHS if prop.has_front else 0,
        classifier_fronts_elsewhere=WORST_FRONTS if prop.has_front else 0,
        hole_open=False if prop.hole else None,
    )


def facing(
    mesh: Mesh, fit: Alignment, lifted: Solid, reference: Solid, prompt: str
) -> tuple[Alignment, NDArray[np.float64]]:
    """The alignment and its `view_distances`, turned to where views fit best among rotations of the same silhouettes.

    A robot has one silhouette from the front and from behind, and a snowman almost one from all sides: lumps would
    decide which way it faces.
    """
    distances = view_distances(mesh, fit.rotation_deg, prompt)
    for steps in sorted(range(AZIMUTHS), key=lambda steps: fit_distance(turned(distances, steps))):
        rotation = (fit.rotation_deg + 360.0 / AZIMUTHS * steps) % 360.0
        overlap = held_out_iou(lifted.transformed(fit.scale, rotation), reference) if steps else fit.iou
        if overlap >= fit.iou - SAME_SILHOUETTE:
            break
    return Alignment(fit.scale, rotation, overlap), turned(distances, steps)


def _view_errors(
    lifted: Solid,
    vertex_colors: NDArray[np.float64],
    reference: Solid,
    face_colors: NDArray[np.float64],
    primary: NDArray[np.bool_],
) -> ViewErrors:
    errors, pixels, kinds, angles = [], [np.zeros(0)], [np.zeros(0, bool)], [np.zeros(0)]
    normals, true_normals = face_normals(lifted), face_normals(reference)
    for azimuth, elevation in held_out_views():
        axes = orbit_axes(azimuth, elevation)
        first = rasterize(lifted.vertices, lifted.faces, DISTANCE * axes[:, 2], axes, FOCAL, 64)
        second = rasterize(reference.vertices, reference.faces, DISTANCE * axes[:, 2], axes, FOCAL, 64)
        shared = first.mask & second.mask
        if shared.any():
            got, face = first.interpolate(lifted.faces, vertex_colors)[shared], second.face[shared]
            pixels.append(np.abs(got - face_colors[face]).mean(axis=1))
            kinds.append(primary[face])
            angles.append(angle_deg(normals[first.face[shared]], true_normals[face]))
            errors.append(pixels[-1].mean())
    error, is_primary = np.concatenate(pixels), np.concatenate(kinds)
    of_primary, of_fixed = (
        float(error[kind].mean()) if kind.sum() > LEAST_PIXELS * len(kind) else None
        for kind in (is_primary, ~is_primary)
    )
    angle = np.concatenate(angles)
    return ViewErrors(
        albedo=float(np.mean(errors)) if errors else 1.0,
        albedo_primary=of_primary,
        albedo_fixed=of_fixed,
        normal_deg=float(angle.mean()) if len(angle) else None,
    )
