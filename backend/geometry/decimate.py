# SPDX-License-Identifier: GPL-3.0-or-later
"""Quadric decimation to a triangle budget (fast-simplification), accepted only while the surface stays sound."""

from __future__ import annotations

import fast_simplification
import numpy as np
from scipy.spatial import cKDTree

from .clean import drop_bad_faces, split_pinched_vertices, taubin_smooth
from .topology import (
    Surface,
    degenerate_faces,
    diagonal,
    euler_number,
    is_manifold,
    signed_volume,
)

# (iterations of Taubin's filter, fast-simplification's `agg` from quick to careful). On perfectly flat walls every
# collapse is free and the library leaves needles; a little smoothing first evens the triangles out.
ATTEMPTS = ((0, 7.0), (0, 5.0), (0, 3.0), (2, 7.0), (2, 5.0), (2, 3.0))
RELAXATION = (1.0, 0.97, 1.25, 1.6, 2.2, 3.0)  # multiples of the budget to try, in this order
VOLUME_CHANGE = 0.1  # largest accepted relative change of volume
HAUSDORFF_LIMIT = 0.02  # of the diagonal: how far a new face may lie from the old surface when a handle has closed


def is_sound(surface: Surface) -> bool:
    """Closed two-manifold, outward, without degenerate faces."""
    return (
        len(surface.faces) >= 4
        and is_manifold(surface.faces)
        and signed_volume(surface) > 0
        and not degenerate_faces(surface).any()
    )


def simplify_once(surface: Surface, triangles: int, aggressiveness: float) -> Surface:
    """One call of the library, in the unit cube (its tolerances are absolute); pinched parts are repaired."""
    low = surface.vertices.min(axis=0)
    size = float(np.ptp(surface.vertices, axis=0).max())
    points = ((surface.vertices - low) / size).astype(np.float32)
    vertices, faces = fast_simplification.simplify(
        points, surface.faces.astype(np.int32), target_count=triangles, agg=aggressiveness
    )
    simplified = Surface(low + size * vertices.astype(np.float64), np.asarray(faces).astype(np.int64))
    return split_pinched_vertices(drop_bad_faces(simplified))


def hausdorff(surface: Surface, reference: Surface) -> float:
    """Largest distance from a face's middle to the nearest vertex of a dense reference, over its diagonal."""
    middles = surface.vertices[surface.faces].mean(axis=1)
    return float(cKDTree(reference.vertices).query(middles)[0].max()) / diagonal(reference)


def decimate(surface: Surface, triangles: int) -> Surface:
    """At most `triangles` faces: closed, outward, not degenerate, with the surface's Euler number where possible.

    Attempts get more careful. When all of them change the Euler number, the nearest one is taken if it has closed only
    handles too small to see (no new face lies off the old surface). When none is sound the budget is relaxed, up to
    three times; at worst the surface comes back as it was, as it does when it is within the budget.
    """
    if len(surface.faces) <= triangles:
        return surface
    euler, volume = euler_number(surface.faces), signed_volume(surface)
    for factor in RELAXATION:
        target = max(4, int(triangles * factor))
        if target >= len(surface.faces):
            break
        changed: list[Surface] = []
        for iterations, aggressiveness in ATTEMPTS:
            source = surface if iterations == 0 else taubin_smooth(surface, iterations)
            candidate = simplify_once(source, target, aggressiveness)
            if (
                len(candidate.faces) <= target
                and is_sound(candidate)
                and abs(signed_volume(candidate) / volume - 1.0) <= VOLUME_CHANGE
            ):
                if euler_number(candidate.faces) == euler:
                    return candidate
                changed.append(candidate)
        changed.sort(key=lambda candidate: abs(euler_number(candidate.faces) - euler))
        for candidate in changed:
            if hausdorff(candidate, surface) <= HAUSDORFF_LIMIT:
                return candidate
    return surface
