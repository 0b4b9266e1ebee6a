# SPDX-License-Identifier: GPL-3.0-or-later
"""Antialiased silhouettes: their pixels are blended by where the outline passes, which gives vertices gradients.

After the analytic antialiasing of Laine et al. 2020 (section 3.4): where an outline crosses the line between two pixel
centers, the pixel that holds the crossing takes of the other's color what the crossing says. There, the outlines are
looked for in the faces that pixels see; here, each outline's crossings are listed, since at 64 pixels most faces on an
outline of a fine mesh cover no pixel's center.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..geometry.topology import half_edges
from .visibility import NEAR, Projected, ZBuffer

BEHIND_PIXELS = 4.0  # footprints of a pixel by which the surface inside an outline may lie behind it


@dataclass(frozen=True)
class Edges:
    """Undirected edges of a mesh: ends (E, 2), and opposite (E, 2), the third vertices of the two faces at each; the
    second is -1 where there is one face, or more than two.
    """

    ends: Tensor
    opposite: Tensor

    def to(self, device: torch.device | str) -> Edges:
        """The same edges on another device."""
        return Edges(self.ends.to(device), self.opposite.to(device))


def mesh_edges(faces: NDArray[np.integer]) -> Edges:
    """The edges of faces (F, 3), sorted by their vertices."""
    faces = np.asarray(faces, dtype=np.int64).reshape(-1, 3)
    directed, edge = half_edges(faces)
    third = np.concatenate([faces[:, 2], faces[:, 0], faces[:, 1]])
    order = np.lexsort((third, edge))
    counts = np.bincount(edge)
    start = np.cumsum(counts) - counts
    ends = np.sort(directed[order[start]], axis=1)
    other = np.where(counts == 2, third[order[np.minimum(start + 1, max(len(order) - 1, 0))]], -1)
    opposite = np.stack([third[order[start]], other], axis=1)
    return Edges(torch.from_numpy(ends), torch.from_numpy(opposite))


def _cross(a: Tensor, b: Tensor) -> Tensor:
    return a[..., 0] * b[..., 1] - a[..., 1] * b[..., 0]


@dataclass(frozen=True)
class Crossings:
    """Where outlines pass between pixel centers: inner and outer (k,) pixel indices on either side of the outline, and
    distance (k,) in [0, 1] pixels from the inner one's center, differentiable.
    """

    inner: Tensor
    outer: Tensor
    distance: Tensor


@torch.no_grad()
def outline_edges(projected: Projected, edges: Edges) -> tuple[Tensor, Tensor, Tensor]:
    """(view, edge, side) of edges whose faces lie on one side of them on the screen; `side` is its sign."""
    points, forward = projected.points.double(), projected.forward
    a, b = points[:, edges.ends[:, 0]], points[:, edges.ends[:, 1]]
    first = _cross(b - a, points[:, edges.opposite[:, 0]] - a)
    second = _cross(b - a, points[:, edges.opposite[:, 1].clamp(min=0)] - a)
    lone = edges.opposite[:, 1] < 0
    outline = (lone | (first * second > 0)) & (first != 0)
    outline &= (forward[:, edges.ends] > NEAR).all(-1)
    view, edge = outline.nonzero(as_tuple=True)
    return view, edge, torch.sign(first[view, edge])


def crossings(projected: Projected, edges: Edges, buffer: ZBuffer, footprint: Tensor) -> Crossings:
    """The outlines' visible crossings, at most one for each side of a pair of pixels; footprint (n,) is a pixel's size
    at unit distance in scene units.
    """
    view, edge, side = outline_edges(projected, edges)
    n, vertices = projected.points.shape[:2]
    everything = torch.cat([projected.points, projected.forward[..., None]], dim=-1).reshape(n * vertices, 3)
    rows = view[:, None] * vertices + edges.ends[edge]
    ends = everything.index_select(0, rows.reshape(-1)).view(-1, 2, 3)
    slope = (ends[:, 1, :2] - ends[:, 0, :2]).detach().abs()
    upright = slope[:, 1] >= slope[:, 0]
    parts = [
        _along(ends[chosen], view[chosen], side[chosen], axis, buffer, footprint)
        for axis, chosen in ((1, upright.nonzero(as_tuple=True)[0]), (0, (~upright).nonzero(as_tuple=True)[0]))
    ]
    return Crossings(*(torch.cat([getattr(part, name) for part in parts]) for name in ("inner", "outer", "distance")))


def _along(ends: Tensor, view: Tensor, side: Tensor, axis: int, buffer: ZBuffer, footprint: Tensor) -> Crossings:
    """Crossings with the lines of pixel centers along which `axis` (0 column, 1 row) is constant."""
    resolution, across = buffer.face.shape[-1], 1 - axis
    low, high = ends[:, :, axis].detach().amin(1), ends[:, :, axis].detach().amax(1)
    # Half-open, so that a line through a common end belongs to one of two edges.
    first = (torch.floor(low) + 1).clamp(min=0).long()
    last = torch.floor(high).clamp(max=resolution - 1).long()
    counts = (last - first + 1).clamp(min=0)
    which = torch.repeat_interleave(torch.arange(len(ends), device=ends.device), counts)
    line = first[which] + torch.arange(len(which), device=ends.device) - (torch.cumsum(counts, 0) - counts)[which]
    a, b = ends[which, 0], ends[which, 1]
    share = (line - a[:, axis]) / (b[:, axis] - a[:, axis])
    where = a[:, across] + share * (b[:, across] - a[:, across])
    with torch.no_grad():
        depth = 1 / ((1 - share) / a[:, 2] + share / b[:, 2])
        before = torch.floor(where)
        inside = (before >= 0) & (before + 1 <= resolution - 1)
        left = before.clamp(0, max(resolution - 2, 0)).long()
        # The faces' side of the edge: towards smaller numbers across, when a step that way turns like `side`.
        direction = b[:, axis] - a[:, axis]
        towards = torch.sign(direction) if axis == 1 else -torch.sign(direction)
        to_left = towards * side[which] > 0
        near = torch.where(to_left, left, left + 1)
        far = torch.where(to_left, left + 1, left)

        def pixel(place: Tensor) -> Tensor:
            row, column = (line, place) if axis == 1 else (place, line)
            return (view[which] * resolution + row) * resolution + column

        inner, outer = pixel(near), pixel(far)
        face, forward = buffer.face.reshape(-1), buffer.forward.reshape(-1)
        slack = BEHIND_PIXELS * footprint.to(depth)[view[which]] * depth
        visible = inside & (face[inner] >= 0) & (face[inner] != face[outer])
        visible &= (forward[outer] > depth) & (forward[inner] < depth + slack)
        chosen = visible.nonzero(as_tuple=True)[0]
        # Of several outlines between the same two pixels the outermost is the one against what is behind.
        reach = (where - near).abs()[chosen]
        farthest = torch.full((face.numel() * 2,), -1.0, dtype=reach.dtype, device=reach.device)
        key = inner[chosen] * 2 + to_left[chosen]
        farthest.scatter_reduce_(0, key, reach, "amax")
        chosen = chosen[reach == farthest[key]]
    return Crossings(inner[chosen], outer[chosen], (where[chosen] - near[chosen]).abs())


def antialias(image: Tensor, found: Crossings) -> Tensor:
    """The image (n, r, r, c) with its outlines blended, differentiable with respect to colors and crossings.

    A crossing at distance d from the inner center gives the outer pixel d - 1/2 of the inner color, or the inner pixel
    1/2 - d of the outer one: the share of a pixel's width that the outline has passed or not reached.
    """
    flat = image.reshape(-1, image.shape[-1])
    beyond = found.distance.to(flat) - 0.5
    difference = flat.index_select(0, found.inner) - flat.index_select(0, found.outer)
    target = torch.where(beyond.detach() > 0, found.outer, found.inner)
    return flat.index_add(0, target, beyond[:, None] * difference).view(image.shape)
