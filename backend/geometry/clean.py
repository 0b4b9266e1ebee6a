# SPDX-License-Identifier: GPL-3.0-or-later
"""From raw marching cubes to one sound surface: no floaters, no cavities, manifold, outward, lightly smoothed."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.sparse import coo_matrix, csr_matrix, diags_array

from .topology import (
    FloatArray,
    Surface,
    corner_fans,
    degenerate_faces,
    drop_unused_vertices,
    edges_of,
    face_areas,
    face_components,
    face_volumes,
    signed_volume,
    vertex_normals,
)

KEEP_AREA_SHARE = 0.03  # of the largest part's area: parts at least this big are the prop's, whatever their density
KEEP_VOLUME_SHARE = 0.005  # of the largest part's volume: smaller parts are specks, whatever their density
KEEP_OPACITY = 0.95  # in between, a part stays when a ray through it is stopped


def merge_vertices(surface: Surface, tolerance: float = 0.0) -> Surface:
    """Join vertices that lie within the same `tolerance` cell (exactly equal when 0), then drop what that collapses."""
    keys = surface.vertices if tolerance <= 0 else np.round(surface.vertices / tolerance)
    _, first, inverse = np.unique(keys, axis=0, return_index=True, return_inverse=True)
    return drop_bad_faces(Surface(surface.vertices[first], inverse.reshape(-1)[surface.faces]))


def drop_bad_faces(surface: Surface) -> Surface:
    """Without faces that repeat a vertex and without second copies of a face; two faces back to back cancel."""
    f = surface.faces
    faces = f[(f[:, 0] != f[:, 1]) & (f[:, 1] != f[:, 2]) & (f[:, 2] != f[:, 0])]
    if not len(faces):
        return drop_unused_vertices(Surface(surface.vertices, faces))
    turned = np.take_along_axis(faces, (faces.argmin(axis=1)[:, None] + np.arange(3)) % 3, axis=1)
    positive = turned[:, 1] < turned[:, 2]
    _, group = np.unique(np.sort(turned, axis=1), axis=0, return_inverse=True)
    group = group.reshape(-1)
    balance = np.bincount(group, np.where(positive, 1, -1))
    _, first_of = np.unique(2 * group + positive, return_index=True)  # one face of each winding of each triple
    wanted = (balance[group] > 0) == positive
    keep = np.zeros(len(faces), dtype=bool)
    keep[first_of] = True
    return drop_unused_vertices(Surface(surface.vertices, faces[keep & wanted & (balance[group] != 0)]))


def split_pinched_vertices(surface: Surface) -> Surface:
    """Give each fan of faces its own vertex, so that sheets that only touch in a point no longer share it."""
    if not len(surface.faces):
        return surface
    fans = corner_fans(surface.faces)
    _, first, faces = np.unique(fans, return_index=True, return_inverse=True)
    return Surface(surface.vertices[surface.faces.reshape(-1)[first]], faces.reshape(fans.shape).astype(np.int64))


def drop_floaters(
    surface: Surface,
    density: Callable[[FloatArray], FloatArray] | None = None,
    keep_area_share: float = KEEP_AREA_SHARE,
    keep_volume_share: float = KEEP_VOLUME_SHARE,
) -> tuple[Surface, int]:
    """Keep the prop's parts; drop cavities (negative volume), specks, and small parts that are see-through.

    A part stays when its area is at least `keep_area_share` of the largest part's, or when its volume is at least
    `keep_volume_share` of the largest's and a ray through it is stopped: opacity 1 - exp(-tau 4 V / A) over its mean
    chord 4 V / A is at least 0.95, with tau = `density` (m, 3) -> (m,) taken below its surface. Without `density` small
    parts are dropped. Returns the surface and the number of parts dropped.
    """
    parts = face_components(surface.faces)
    if not len(parts):
        return surface, 0
    area = np.bincount(parts, face_areas(surface))
    volume = np.bincount(parts, face_volumes(surface))
    largest = int(np.where(volume > 0, area, -1.0).argmax())
    keep = (volume > 0) & (area >= keep_area_share * area[largest])
    keep[largest] = True
    if density is not None:
        normals = vertex_normals(surface)
        for part in np.flatnonzero(~keep & (volume >= keep_volume_share * volume[largest])):
            rows = np.unique(surface.faces[parts == part])
            chord = 4.0 * volume[part] / area[part]
            tau = density(surface.vertices[rows] - 0.5 * chord * normals[rows])
            keep[part] = 1.0 - np.exp(-float(np.mean(tau)) * chord) >= KEEP_OPACITY
    return drop_unused_vertices(Surface(surface.vertices, surface.faces[keep[parts]])), int((~keep).sum())


def orient_outward(surface: Surface) -> Surface:
    """With every face turned over when the enclosed volume is negative."""
    if signed_volume(surface) >= 0:
        return surface
    return Surface(surface.vertices, surface.faces[:, ::-1].copy())


def neighbor_mean(surface: Surface) -> csr_matrix:
    """(V, V) sparse matrix that averages each vertex's neighbors; identity for vertices without any."""
    count = len(surface.vertices)
    edges = edges_of(surface.faces)
    rows, columns = np.concatenate([edges, edges[:, ::-1]]).T
    links = coo_matrix((np.ones(len(rows)), (rows, columns)), shape=(count, count)).tocsr()
    degree = np.asarray(links.sum(axis=1)).reshape(-1)
    links = links + diags_array((degree == 0).astype(np.float64), format="csr")
    return csr_matrix(diags_array(1.0 / np.maximum(degree, 1.0)) @ links)


def taubin_smooth(surface: Surface, iterations: int, shrink: float = 0.5, inflate: float = 0.53) -> Surface:
    """Taubin 1995: x += shrink L x, then x -= inflate L x, which damps grid ripples and keeps the low frequencies.

    What volume it still changes is given back by scaling about the middle. 0 iterations: unchanged.
    """
    if iterations <= 0 or not len(surface.faces):
        return surface
    mean = neighbor_mean(surface)
    vertices = np.asarray(surface.vertices, dtype=np.float64)
    for _ in range(iterations):
        for factor in (shrink, -inflate):
            vertices = vertices + factor * (mean @ vertices - vertices)
    return with_volume(Surface(vertices, surface.faces), signed_volume(surface))


def with_volume(surface: Surface, volume: float) -> Surface:
    """Scaled about the mean of its vertices to `volume`; unchanged where either volume is not positive."""
    now = signed_volume(surface)
    if volume <= 0 or now <= 0:
        return surface
    middle = surface.vertices.mean(axis=0)
    return Surface(middle + (surface.vertices - middle) * np.cbrt(volume / now), surface.faces)


def smoothed(surface: Surface, iterations: int) -> Surface:
    """`taubin_smooth`, unless it folds a sliver flat: ripples are the lesser fault."""
    smooth = taubin_smooth(surface, iterations)
    return surface if degenerate_faces(smooth).sum() > degenerate_faces(surface).sum() else smooth


def clean_surface(
    surface: Surface,
    density: Callable[[FloatArray], FloatArray] | None = None,
    smoothing_iterations: int = 0,
) -> tuple[Surface, int]:
    """Merged, deduplicated, without floaters, unpinched, outward, smoothed: (surface, number of parts dropped)."""
    surface = orient_outward(merge_vertices(surface))
    surface, dropped = drop_floaters(surface, density)
    return smoothed(split_pinched_vertices(surface), smoothing_iterations), dropped
