# SPDX-License-Identifier: GPL-3.0-or-later
"""Visibility of a mesh in some views: projection (differentiable) and a z-buffer (without gradients)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from ..cameras.poses import Cameras

NEAR = 1e-4  # scene units; faces with a vertex nearer than this, or behind the camera, are left out
BATCH = 1 << 21  # candidates handled at a time
EDGE_ON = 1e-12  # squared pixels of twice a face's area, below which it is a line
ROUNDING = 1e-9  # of a pixel or of a barycentric coordinate: a center on a common edge is in at least one face


@dataclass(frozen=True)
class Projected:
    """Vertices as n cameras see them: points (n, V, 2) column and row in pixels, whole numbers being pixel centers, and
    forward (n, V), the distance before the camera in scene units.
    """

    points: Tensor
    forward: Tensor


def project(vertices: Tensor, cameras: Cameras, resolution: int) -> Projected:
    """column = (focal x / z + 1/2) r - 1/2, row = (1/2 - focal y / z) r - 1/2, of vertices (V, 3), differentiable.

    x right, y up, z forward (docs/developer/conventions.md). Points behind a camera have no meaning and are not used.
    """
    position, rotation = cameras.position.to(vertices), cameras.rotation.to(vertices)
    local = torch.einsum("nvi,nij->nvj", vertices[None] - position[:, None], rotation)
    forward = -local[..., 2]
    scale = cameras.focal.to(vertices)[:, None] / torch.where(
        forward.abs() < NEAR, torch.full_like(forward, NEAR), forward
    )
    columns = (local[..., 0] * scale + 0.5) * resolution - 0.5
    rows = (0.5 - local[..., 1] * scale) * resolution - 0.5
    return Projected(torch.stack([columns, rows], dim=-1), forward)


@dataclass(frozen=True)
class ZBuffer:
    """face (n, r, r) int64, the nearest face at each pixel's center, -1 where there is none; forward (n, r, r) float64,
    its distance before the camera, infinite where there is none.
    """

    face: Tensor
    forward: Tensor


@dataclass(frozen=True)
class Candidates:
    """Pixels (m,) that triangles (m,) may cover: row, column, and barycentric coordinates (m, 3) on the screen."""

    triangle: Tensor
    row: Tensor
    column: Tensor
    barycentric: Tensor


def pixel_candidates(corners: Tensor, usable: Tensor, resolution: int, reach: float) -> Iterator[Candidates]:
    """All pixels within the bounding boxes, widened by `reach` pixels, of the usable of some triangles, in batches.

    corners (T, 3, 2) float64 columns and rows, whole numbers being pixel centers; usable (T,) bool. Triangles come in
    their order, those of less than `EDGE_ON` area not at all.
    """
    edge1, edge2 = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    area = edge1[:, 0] * edge2[:, 1] - edge1[:, 1] * edge2[:, 0]
    low = torch.ceil((corners.amin(1) - reach).clamp(min=0) - ROUNDING)
    high = torch.floor((corners.amax(1) + reach).clamp(max=resolution - 1) + ROUNDING)
    seen = (usable & (area.abs() > EDGE_ON) & (low <= high).all(1) & torch.isfinite(area)).nonzero(as_tuple=True)[0]
    low, size = low[seen].long(), (high[seen] - low[seen] + 1).long()
    counts = size[:, 0] * size[:, 1]
    ends = torch.cumsum(counts, 0)
    start, device = 0, corners.device
    while start < len(seen):
        done = int(ends[start - 1]) if start else 0
        stop = max(start + 1, int(torch.searchsorted(ends, done + BATCH, right=True)))
        which = torch.repeat_interleave(torch.arange(start, stop, device=device), counts[start:stop])
        index = torch.arange(len(which), device=device) - (ends[which] - counts[which] - done)
        column = low[which, 0] + index % size[which, 0]
        row = low[which, 1] + torch.div(index, size[which, 0], rounding_mode="floor")
        triangle = seen[which]
        dx, dy = column - corners[triangle, 0, 0], row - corners[triangle, 0, 1]
        b1 = (dx * edge2[triangle, 1] - dy * edge2[triangle, 0]) / area[triangle]
        b2 = (dy * edge1[triangle, 0] - dx * edge1[triangle, 1]) / area[triangle]
        yield Candidates(triangle, row, column, torch.stack([1 - b1 - b2, b1, b2], dim=1))
        start = stop


class HighestScore:
    """For each pixel the highest score so far, and the number that had it; the lowest number of equals."""

    def __init__(self, pixels: int, floor: float, device: torch.device) -> None:
        self.score = torch.full((pixels,), floor, dtype=torch.float64, device=device)
        self.winner = torch.full((pixels,), -1, dtype=torch.int64, device=device)

    def update(self, pixel: Tensor, score: Tensor, number: Tensor) -> None:
        """Enter scores (m,) of numbers (m,) at pixels (m,). Numbers of later calls must not be lower."""
        before = self.score[pixel]
        self.score.scatter_reduce_(0, pixel, score, "amax")
        best = ((score > before) & (score == self.score[pixel])).nonzero(as_tuple=True)[0]
        self.winner.scatter_reduce_(0, pixel[best], number[best], "amin", include_self=False)


@torch.no_grad()
def nearest_faces(projected: Projected, faces: Tensor, resolution: int) -> ZBuffer:
    """The z-buffer of faces (F, 3) int64. Both sides of a face count, borders belong to it, the first of equals wins.

    In float64, so that a pixel center on a common edge is in one of the two faces.
    """
    views, count = len(projected.points), len(faces)
    corners = projected.points.double()[:, faces].reshape(views * count, 3, 2)
    depths = projected.forward.double()[:, faces].reshape(views * count, 3)
    nearest = HighestScore(views * resolution * resolution, 0.0, faces.device)
    for found in pixel_candidates(corners, depths.amin(1) > NEAR, resolution, 0.0):
        inside = (found.barycentric >= -ROUNDING).all(1).nonzero(as_tuple=True)[0]
        triangle = found.triangle[inside]
        view = torch.div(triangle, count, rounding_mode="floor")
        pixel = (view * resolution + found.row[inside]) * resolution + found.column[inside]
        inverse = (found.barycentric[inside] / depths[triangle]).sum(1)  # 1 / forward is linear on the screen
        nearest.update(pixel, inverse, triangle % count)
    shape = (views, resolution, resolution)
    forward = torch.where(nearest.winner >= 0, 1 / nearest.score, torch.inf)
    return ZBuffer(nearest.winner.view(shape), forward.view(shape))


@dataclass(frozen=True)
class Fragments:
    """The m pixels that see a face: pixel (m,) index into the n r r pixels, view (m,), face (m,), weights (m, 3)
    perspective-correct barycentric coordinates, differentiable with respect to the projected vertices.
    """

    pixel: Tensor
    view: Tensor
    face: Tensor
    weights: Tensor

    def interpolate(self, corners: Tensor) -> Tensor:
        """Values (m, k) of corner values (F * 3, k)."""
        picked = corners.index_select(
            0, (3 * self.face[:, None] + torch.arange(3, device=self.face.device)).reshape(-1)
        )
        return (self.weights[..., None] * picked.view(-1, 3, corners.shape[1])).sum(1)


def covered_pixels(projected: Projected, faces: Tensor, buffer: ZBuffer) -> Fragments:
    """The fragments of a z-buffer (n, r, r)."""
    resolution, vertices = buffer.face.shape[-1], projected.points.shape[1]
    flat = buffer.face.reshape(-1)
    pixel = (flat >= 0).nonzero(as_tuple=True)[0]
    face = flat[pixel]
    view = torch.div(pixel, resolution * resolution, rounding_mode="floor")
    row = torch.div(pixel, resolution, rounding_mode="floor") % resolution
    rows_of = (view[:, None] * vertices + faces[face]).reshape(-1)
    everything = torch.cat([projected.points, projected.forward[..., None]], dim=-1).reshape(-1, 3)
    corners = everything.index_select(0, rows_of).view(-1, 3, 3)
    center = torch.stack([pixel % resolution, row], dim=-1).to(corners)
    offset = corners[..., :2] - center[:, None]
    x, y = offset[..., 0], offset[..., 1]
    # Twice the area opposite each corner; over z, since 1 / z is what is linear on the screen.
    opposite = x.roll(-1, 1) * y.roll(-2, 1) - x.roll(-2, 1) * y.roll(-1, 1)
    over_depth = opposite / corners[..., 2]
    return Fragments(pixel, view, face, over_depth / over_depth.sum(1, keepdim=True))
