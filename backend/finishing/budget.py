# SPDX-License-Identifier: GPL-3.0-or-later
"""A mesh within a triangle budget: quadric decimation, accepted only while no part of the shape is lost."""

from __future__ import annotations

from collections.abc import Iterator

import igl
import numpy as np

from ..errors import RunError
from ..geometry.clean import drop_bad_faces, split_pinched_vertices
from ..geometry.decimate import simplify_once
from ..geometry.topology import Surface, degenerate_faces, diagonal, half_edges, is_manifold
from .figures import ShapeError, shape_error
from .surface_search import SurfaceSearch

RELAXATION = (1.0, 1.25, 1.6, 2.2, 3.0)  # multiples of the budget to try, in this order
AGGRESSIVENESS = (7.0, 5.0, 3.0)  # of fast-simplification, from quick to careful, where three faces meet at an edge


def reduce_to_budget(
    surface: Surface, triangles: int, deviation: float, dense: Surface, search: SurfaceSearch
) -> tuple[Surface, ShapeError]:
    """At most `triangles` faces where that keeps the shape, up to three times as many where it does not.

    surface: closed or open, welded; dense: the mesh that `search` searches and that the error is measured from.
    deviation: largest Hausdorff distance from it as a share of its diagonal. Quadrics (Garland and Heckbert 1997) keep
    sharp edges; the distance is measured both ways, so that a thin part cannot vanish. A closed manifold stays one.
    Raises RunError where every attempt collapses.
    """
    if len(surface.faces) <= triangles:
        same = surface is dense
        return surface, ShapeError(0.0, 0.0, 0.0) if same else shape_error(surface, dense, search)
    worst = "no sound surface was found"
    for factor in RELAXATION:
        target = min(int(triangles * factor), len(surface.faces))
        for candidate in _candidates(surface, target):
            error = shape_error(candidate, dense, search)
            if error.hausdorff <= deviation * diagonal(dense):
                return candidate, error
            worst = (
                f"parts move by {100 * error.hausdorff / diagonal(dense):.1f}% of the diagonal, allowed are "
                f"{100 * deviation:.1f}%"
            )
        if target == len(surface.faces):
            break
    raise RunError(
        f"the mesh of {len(surface.faces)} triangles collapses at a budget of {triangles}: {worst}; give a larger "
        "finish.triangles or finish.deviation"
    )


def _candidates(surface: Surface, triangles: int) -> Iterator[Surface]:
    """Surfaces of at most `triangles` faces without degenerate ones; closed manifolds where the surface is one."""
    if triangles >= len(surface.faces):
        yield surface
        return
    _, edge = half_edges(surface.faces)
    if (np.bincount(edge) <= 2).all():
        whole = split_pinched_vertices(surface)
        found = _without_flat(_quadric(whole, triangles))
        if 0 < len(found.faces) <= triangles and (is_manifold(found.faces) or not is_manifold(whole.faces)):
            yield found
    for aggressiveness in AGGRESSIVENESS:
        found = _without_flat(simplify_once(surface, triangles, aggressiveness))
        if 0 < len(found.faces) <= triangles and (is_manifold(found.faces) or not is_manifold(surface.faces)):
            yield found


def _quadric(surface: Surface, triangles: int) -> Surface:
    """libigl's collapse of the cheapest edges first, in the unit cube; edges that would pinch the surface stay."""
    low = surface.vertices.min(axis=0)
    size = float(np.ptp(surface.vertices, axis=0).max())
    points = np.asfortranarray((surface.vertices - low) / size)
    vertices, faces, *_ = igl.qslim(points, np.asfortranarray(surface.faces.astype(np.int32)), triangles)
    return Surface(low + size * np.asarray(vertices), np.asarray(faces).astype(np.int64))


def _without_flat(surface: Surface) -> Surface:
    flat = degenerate_faces(surface) if len(surface.faces) else np.zeros(0, dtype=bool)
    return drop_bad_faces(Surface(surface.vertices, surface.faces[~flat]))
