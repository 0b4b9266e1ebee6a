# SPDX-License-Identifier: GPL-3.0-or-later
"""Where the props of a scene stand: real heights, on the ground or on the surface of another prop. Pure numpy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .scene_description import SceneProp

FloatArray = np.ndarray[Any, np.dtype[np.floating[Any]]]
BASE_SHARE = 0.04  # of a prop's height: what is lower belongs to its base
BASE_POINTS = 400  # of a base that are tried on the surface below; more change nothing that can be seen
LAYERS = 50  # of a lamp, by height
NECK_WITHIN = (0.15, 0.8)  # shares of a lamp's height
POINTS_AT_ONCE = 50  # of those: 50 points over 20,000 triangles take 8 MB an array


@dataclass(frozen=True)
class Shape:
    """A prop's mesh as its file has it: vertices (V, 3) and faces (F, 3), base on z = 0, centered in x and y."""

    vertices: FloatArray
    faces: np.ndarray[Any, Any]


@dataclass(frozen=True)
class Placed:
    """A prop in the scene: p = scale Rz(turn) v + location, meters. low, high: corners of its bounding box.

    notice: a sentence about a place that could not be had, or "".
    """

    prop: SceneProp
    scale: float
    turn_deg: float
    location: tuple[float, float, float]
    low: tuple[float, float, float]
    high: tuple[float, float, float]
    notice: str = ""


def place(props: Sequence[SceneProp], shapes: Mapping[str, Shape]) -> tuple[Placed, ...]:
    """The place of every prop that has a shape, by name. What stood on one without a shape stands on the ground."""
    centers: dict[str, FloatArray] = {}
    points: dict[str, FloatArray] = {}
    placed = []
    for prop in props:
        center = np.array(prop.at) + centers.get(prop.on, np.zeros(2))
        centers[prop.name] = center
        if prop.name not in shapes:
            continue
        shape = shapes[prop.name]
        vertices, scale = standing(shape.vertices, prop.height_m, prop.turn_deg)
        vertices[:, :2] += center - 0.5 * (vertices[:, :2].min(0) + vertices[:, :2].max(0))
        floor, notice = 0.0, ""
        if prop.on and prop.on not in points:
            notice = f"{prop.name} stands on the ground, as there is no {prop.on}"
        elif prop.on:
            height = resting_height(vertices, points[prop.on], shapes[prop.on].faces)
            floor = 0.0 if height is None else height
            if height is None:
                notice = f"{prop.name} stands on the ground, as no part of {prop.on} is below it"
        vertices[:, 2] += floor
        points[prop.name] = vertices
        turned = _turned(shape.vertices[:1].astype(np.float64) * scale, prop.turn_deg)[0]
        location = vertices[0] - turned
        placed.append(
            Placed(
                prop,
                scale,
                prop.turn_deg,
                _triple(location),
                _triple(vertices.min(0)),
                _triple(vertices.max(0)),
                notice,
            )
        )
    return tuple(placed)


def standing(vertices: FloatArray, height_m: float, turn_deg: float) -> tuple[FloatArray, float]:
    """(vertices, scale): vertices of that height in meters, turned about Z, the lowest at z = 0."""
    low, high = float(vertices[:, 2].min()), float(vertices[:, 2].max())
    scale = height_m / max(high - low, 1e-9)
    found = _turned(vertices.astype(np.float64) * scale, turn_deg)
    found[:, 2] -= low * scale
    return found, scale


def resting_height(vertices: FloatArray, below: FloatArray, faces: np.ndarray[Any, Any]) -> float | None:
    """How far a prop is raised until its base touches the mesh below; None where nothing of that is below its base.

    vertices: of the prop, its lowest at z = 0. The base touches the mesh at its highest place: max (z_below - z).
    """
    base = vertices[vertices[:, 2] <= BASE_SHARE * vertices[:, 2].max()]
    base = base[:: max(1, len(base) // BASE_POINTS)]
    gaps = top_at(below, faces, base[:, :2]) - base[:, 2]
    return float(gaps.max()) if np.isfinite(gaps.max()) else None


def shade_begins(vertices: FloatArray) -> float:
    """Where a lampshade begins above its stand, as a share of the lamp's height in (0, 1).

    The stand's narrowest layer is its neck; the shade begins where it is wider than the mean of the neck's and the
    shade's radius.
    """
    z = (vertices[:, 2] - vertices[:, 2].min()) / max(float(np.ptp(vertices[:, 2])), 1e-9)
    middle = 0.5 * (vertices[:, :2].min(0) + vertices[:, :2].max(0))
    radius = np.linalg.norm(vertices[:, :2] - middle, axis=1)
    layers = np.minimum((z * LAYERS).astype(int), LAYERS - 1)
    widths = np.array([radius[layers == layer].max(initial=0.0) for layer in range(LAYERS)])
    first, last = round(NECK_WITHIN[0] * LAYERS), round(NECK_WITHIN[1] * LAYERS)
    neck = first + int(np.where(widths[first:last] > 0, widths[first:last], np.inf).argmin())
    above = widths[neck:]
    return float((neck + int(np.argmax(above > 0.5 * (above[0] + above.max())))) / LAYERS)


def top_at(vertices: FloatArray, faces: np.ndarray[Any, Any], points: FloatArray) -> FloatArray:
    """(P,) the highest z of the mesh at the points (P, 2); -inf where there is no surface."""
    a, b, c = (vertices[faces[:, corner]].astype(np.float64) for corner in range(3))
    # Barycentric coordinates in the xy plane: p = a + u (b - a) + v (c - a).
    area = (b[:, 0] - a[:, 0]) * (c[:, 1] - a[:, 1]) - (b[:, 1] - a[:, 1]) * (c[:, 0] - a[:, 0])
    kept = np.abs(area) > 1e-14  # a vertical triangle has its edges in others
    a, b, c, area = a[kept], b[kept], c[kept], area[kept]
    found = [np.full(0, -np.inf)]
    for start in range(0, len(points), POINTS_AT_ONCE):
        x, y = (points[start : start + POINTS_AT_ONCE, axis][:, None] for axis in range(2))
        u = ((x - a[:, 0]) * (c[:, 1] - a[:, 1]) - (y - a[:, 1]) * (c[:, 0] - a[:, 0])) / area
        v = ((b[:, 0] - a[:, 0]) * (y - a[:, 1]) - (b[:, 1] - a[:, 1]) * (x - a[:, 0])) / area
        inside = (u >= -1e-9) & (v >= -1e-9) & (u + v <= 1 + 1e-9)
        z = a[:, 2] + u * (b[:, 2] - a[:, 2]) + v * (c[:, 2] - a[:, 2])
        found.append(np.where(inside, z, -np.inf).max(axis=1, initial=-np.inf))
    return np.concatenate(found)


def _turned(vertices: FloatArray, turn_deg: float) -> FloatArray:
    cosine, sine = np.cos(np.radians(turn_deg)), np.sin(np.radians(turn_deg))
    return vertices @ np.array([[cosine, sine, 0.0], [-sine, cosine, 0.0], [0.0, 0.0, 1.0]])


def _triple(values: FloatArray) -> tuple[float, float, float]:
    x, y, z = (float(value) for value in values)
    return x, y, z
