# SPDX-License-Identifier: GPL-3.0-or-later
"""Passes over a triangle mesh that split, collapse and flip edges which do not touch each other, as whole arrays."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..geometry.topology import FloatArray, IntArray, half_edges

MOST_PASSES = 12  # of one operation in a round; what is left waits for the next round
FLATTEST = 0.6  # cosine between the normals of a face before and after a change; a lower one is refused


@dataclass(frozen=True)
class Patch:
    """vertices (V, 3), some without faces; faces (F, 3), at most two an edge; features (K, 2) sorted edges to keep."""

    vertices: FloatArray
    faces: IntArray
    features: IntArray


@dataclass(frozen=True)
class _Edges:
    """ends (E, 2) sorted; of_face (F, 3) edge from each corner to the next; faces (E, 2) beside it, -1 for none;
    opposite (E, 2) third corners of these, -1 for none; is_feature (E,).
    """

    ends: IntArray
    of_face: IntArray
    faces: IntArray
    opposite: IntArray
    is_feature: NDArray[np.bool_]

    @classmethod
    def of(cls, patch: Patch) -> _Edges:
        count = len(patch.faces)
        directed, edge = half_edges(patch.faces)
        number = int(edge.max()) + 1
        ends = np.zeros((number, 2), dtype=np.int64)
        ends[edge] = np.sort(directed, axis=1)
        order = np.argsort(edge, kind="stable")
        start = np.searchsorted(edge[order], np.arange(number))
        pair = np.bincount(edge) == 2
        halves = np.stack([order[start], np.where(pair, order[np.minimum(start + 1, len(order) - 1)], -1)], axis=1)
        face, corner = halves % count, halves // count
        opposite = patch.faces[face, (corner + 2) % 3]
        faces = np.where(halves >= 0, face, -1)
        keys = _keys(ends, len(patch.vertices))
        features = np.isin(keys, _keys(patch.features, len(patch.vertices))) | ~pair
        return cls(ends, edge.reshape(3, count).T, faces, np.where(halves >= 0, opposite, -1), features)


def split_long(patch: Patch, longest: float) -> Patch:
    """Every edge longer than `longest` halved, the longest first."""
    for _ in range(MOST_PASSES):
        edges = _Edges.of(patch)
        length = _lengths(patch.vertices, edges.ends)
        score = np.where(length > longest, length, -np.inf)
        chosen = np.flatnonzero(_best_of_faces(score, edges))
        if not len(chosen):
            break
        new = len(patch.vertices) + np.arange(len(chosen))
        vertices = np.concatenate([patch.vertices, patch.vertices[edges.ends[chosen]].mean(axis=1)])
        at = np.full(len(edges.ends), -1)
        at[chosen] = new
        middle = at[edges.of_face]  # (F, 3)
        face, corner = np.nonzero(middle >= 0)  # at most one a face
        a, b, c = (patch.faces[face, (corner + step) % 3] for step in range(3))
        m = middle[face, corner]
        kept = np.ones(len(patch.faces), dtype=bool)
        kept[face] = False
        faces = np.concatenate([patch.faces[kept], np.stack([a, m, c], 1), np.stack([m, b, c], 1)])
        halved = edges.is_feature[chosen]
        cut = edges.ends[chosen][halved]
        features = patch.features[~np.isin(_keys(patch.features, len(vertices)), _keys(cut, len(vertices)))]
        halves = [np.stack([cut[:, side], new[halved]], axis=1) for side in (0, 1)]
        patch = Patch(vertices, faces, np.concatenate([features, *halves]))
    return patch


def collapse_short(patch: Patch, shortest: float, longest: float) -> Patch:
    """Edges shorter than `shortest` collapsed, the shortest first, where no edge becomes longer than `longest`.

    A vertex of a sharp edge takes the other with it; along a sharp edge the two meet in the middle; corners stay.
    """
    for _ in range(MOST_PASSES):
        edges = _Edges.of(patch)
        count = len(patch.vertices)
        length = _lengths(patch.vertices, edges.ends)
        degree = np.bincount(edges.ends[edges.is_feature].reshape(-1), minlength=count)
        kept, gone, place, allowed = _roles(patch.vertices, edges, degree)
        score = np.where((length < shortest) & allowed & _link_condition(edges, count), -length, -np.inf)
        chosen = np.flatnonzero(_best_of_rings(score, edges, count))
        if not len(chosen):
            break
        target = np.arange(count)
        target[gone[chosen]] = kept[chosen]
        moved = patch.vertices.copy()
        moved[kept[chosen]] = place[chosen]
        refused = _refused(patch, moved, target, longest)
        chosen = chosen[~np.isin(kept[chosen], refused)]
        if not len(chosen):
            break
        target = np.arange(count)
        target[gone[chosen]] = kept[chosen]
        moved = patch.vertices.copy()
        moved[kept[chosen]] = place[chosen]
        faces = target[patch.faces]
        alive = (faces[:, 0] != faces[:, 1]) & (faces[:, 1] != faces[:, 2]) & (faces[:, 2] != faces[:, 0])
        features = np.sort(target[patch.features], axis=1)
        features = np.unique(features[features[:, 0] != features[:, 1]], axis=0)
        patch = Patch(moved, faces[alive], features)
    return patch


def flip_edges(patch: Patch) -> Patch:
    """Edges flipped where that brings the four vertices around them nearer to six neighbors (four at a border)."""
    for _ in range(MOST_PASSES):
        edges = _Edges.of(patch)
        count = len(patch.vertices)
        valence = np.bincount(edges.ends.reshape(-1), minlength=count)
        border = np.zeros(count, dtype=bool)
        border[edges.ends[edges.faces[:, 1] < 0].reshape(-1)] = True
        excess = valence - np.where(border, 4, 6)
        inner = np.flatnonzero(~edges.is_feature)
        a, b = edges.ends[inner].T
        c, d = edges.opposite[inner].T
        before = sum(excess[one] ** 2 for one in (a, b, c, d))
        after = (excess[a] - 1) ** 2 + (excess[b] - 1) ** 2 + (excess[c] + 1) ** 2 + (excess[d] + 1) ** 2
        gain = (before - after).astype(np.float64)
        new = np.sort(np.stack([c, d], axis=1), axis=1)
        usable = (gain > 0) & (c != d) & ~np.isin(_keys(new, count), _keys(edges.ends, count))
        usable &= (valence[a] > 3) & (valence[b] > 3)
        first, second, is_flat = _flipped(patch, edges, inner)
        score = np.where(usable & is_flat, gain - 1e-9 * np.arange(len(inner)), -np.inf)
        best = np.full(count, -np.inf)
        for one in (a, b, c, d):
            np.maximum.at(best, one, score)
        chosen = np.isfinite(score) & np.all([score == best[one] for one in (a, b, c, d)], axis=0)
        if not chosen.any():
            break
        faces = patch.faces.copy()
        faces[edges.faces[inner[chosen], 0]] = first[chosen]
        faces[edges.faces[inner[chosen], 1]] = second[chosen]
        patch = Patch(patch.vertices, faces, patch.features)
    return patch


def _flipped(patch: Patch, edges: _Edges, inner: IntArray) -> tuple[IntArray, IntArray, NDArray[np.bool_]]:
    """The two faces (m, 3) after flipping edges, and whether both look where the old ones do."""
    one, other = edges.faces[inner].T
    c, d = edges.opposite[inner].T
    own = patch.faces[one]
    corner = (own == c[:, None]).argmax(axis=1)  # the face is (c, s, e): the edge runs from s to e in it
    rows = np.arange(len(inner))
    s, e = own[rows, (corner + 1) % 3], own[rows, (corner + 2) % 3]
    first, second = np.stack([c, s, d], axis=1), np.stack([c, d, e], axis=1)
    old = _unit_normals(patch.vertices, patch.faces)
    mean = old[one] + old[other]
    mean /= np.maximum(np.linalg.norm(mean, axis=1, keepdims=True), 1e-30)
    is_flat = (old[one] * old[other]).sum(axis=1) > FLATTEST
    for faces in (first, second):
        is_flat &= (_unit_normals(patch.vertices, faces) * mean).sum(axis=1) > FLATTEST
    return first, second, is_flat


def _roles(
    vertices: FloatArray, edges: _Edges, degree: IntArray
) -> tuple[IntArray, IntArray, FloatArray, NDArray[np.bool_]]:
    """For each edge: the vertex that is kept, the one that goes, where the kept one goes, whether it may collapse.

    degree: sharp edges at each vertex; 0 inside, 2 along a sharp edge, else a corner.
    """
    a, b = edges.ends.T
    swap = (degree[b] > 0) & ((degree[a] == 0) | ((degree[b] != 2) & (degree[a] == 2)))
    kept, gone = np.where(swap, b, a), np.where(swap, a, b)
    equal = ((degree[a] == 0) & (degree[b] == 0)) | (edges.is_feature & (degree[a] == 2) & (degree[b] == 2))
    place = np.where(equal[:, None], 0.5 * (vertices[a] + vertices[b]), vertices[kept])
    allowed = (degree[gone] == 0) | ((degree[gone] == 2) & edges.is_feature)
    return kept, gone, place, allowed


def _link_condition(edges: _Edges, count: int) -> NDArray[np.bool_]:
    """(E,) whether the ends have no common neighbor but the corners opposite the edge, and border edges meet there."""
    a, b = edges.ends.T
    neighbors = np.concatenate([edges.ends, edges.ends[:, ::-1]])
    order = np.lexsort((neighbors[:, 1], neighbors[:, 0]))
    sorted_ = neighbors[order]
    start = np.searchsorted(sorted_[:, 0], np.arange(count + 1))
    degree = np.diff(start)
    which = np.repeat(np.arange(len(a)), degree[a])
    offset = np.arange(len(which)) - np.repeat(np.cumsum(degree[a]) - degree[a], degree[a])
    around = sorted_[start[a[which]] + offset, 1]
    keys = np.sort(_keys(edges.ends, count))
    wanted = _keys(np.sort(np.stack([around, b[which]], axis=1), axis=1), count)
    found = keys[np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)] == wanted
    common = np.bincount(which, found, minlength=len(a))
    sides = (edges.faces >= 0).sum(axis=1)
    border = np.zeros(count, dtype=bool)
    border[edges.ends[sides == 1].reshape(-1)] = True
    pinching = (sides == 2) & border[a] & border[b]
    return (common == sides) & ~pinching


def _refused(patch: Patch, moved: FloatArray, target: IntArray, longest: float) -> IntArray:
    """The kept vertices whose collapse would turn a face over or make an edge too long."""
    faces = target[patch.faces]
    alive = (faces[:, 0] != faces[:, 1]) & (faces[:, 1] != faces[:, 2]) & (faces[:, 2] != faces[:, 0])
    changed = alive & ((faces != patch.faces).any(axis=1) | (moved[faces] != patch.vertices[faces]).any(axis=(1, 2)))
    now, before = faces[changed], patch.faces[changed]
    cosine = (_unit_normals(moved, now) * _unit_normals(patch.vertices, before)).sum(axis=1)
    corners = moved[now]
    sides = np.linalg.norm(corners - np.roll(corners, -1, axis=1), axis=2).max(axis=1)
    bad = now[(cosine < FLATTEST) | (sides > longest)]
    return np.unique(bad)


def _best_of_faces(score: FloatArray, edges: _Edges) -> NDArray[np.bool_]:
    """(E,) edges with a score that is the highest in each of their faces; the lowest number of equals."""
    ranked = _ranked(score)
    best = ranked[edges.of_face].max(axis=1)
    highest = np.where(edges.faces >= 0, best[edges.faces], -1).max(axis=1)
    return np.isfinite(score) & (ranked == highest)


def _best_of_rings(score: FloatArray, edges: _Edges, count: int) -> NDArray[np.bool_]:
    """(E,) edges with a score that is the highest of all edges within two steps, so that their rings do not touch."""
    ranked = np.where(np.isfinite(score), _ranked(score), -1)
    at = np.full(count, -1)
    for side in (0, 1):
        np.maximum.at(at, edges.ends[:, side], ranked)
    for _ in range(2):
        wider = at.copy()
        np.maximum.at(wider, edges.ends[:, 0], at[edges.ends[:, 1]])
        np.maximum.at(wider, edges.ends[:, 1], at[edges.ends[:, 0]])
        at = wider
    return np.isfinite(score) & (ranked == at[edges.ends[:, 0]]) & (ranked == at[edges.ends[:, 1]])


def _ranked(score: FloatArray) -> IntArray:
    """Distinct ranks of scores, rising; the first of equals is the highest."""
    order = np.argsort(-score, kind="stable")
    ranked = np.empty(len(score), dtype=np.int64)
    ranked[order] = np.arange(len(score))[::-1]
    return ranked


def _keys(pairs: IntArray, count: int) -> IntArray:
    return np.asarray(pairs, dtype=np.int64).reshape(-1, 2) @ np.array([count, 1], dtype=np.int64)


def _lengths(vertices: FloatArray, ends: IntArray) -> FloatArray:
    return np.linalg.norm(vertices[ends[:, 0]] - vertices[ends[:, 1]], axis=1)


def _unit_normals(vertices: FloatArray, faces: IntArray) -> FloatArray:
    a, b, c = (vertices[faces[:, corner]] for corner in range(3))
    cross = np.cross(b - a, c - a)
    return cross / np.maximum(np.linalg.norm(cross, axis=1, keepdims=True), 1e-300)
