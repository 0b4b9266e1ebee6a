# SPDX-License-Identifier: GPL-3.0-or-later
"""Bytes that a scene needs beside its guidance: a field and its renders, or a mesh, its texture and its renders."""

from __future__ import annotations

from ..config.schedules import view_resolution, views_per_step
from ..config.schema import Config
from ..fields.hash_levels import hash_levels
from ..fields.mip_mlp import CHUNK

SAMPLE_BYTES = 170  # of a training ray
RAY_BYTES, COMPILED_CELL_FLOATS = 400, 66  # of the compiled loops: rows of 8 + 1 numbers, a gradient of each part
POINT_BYTES = 88  # of the mip MLP, times width and blocks: 22 floats
CELL_FLOATS = 24  # of the voxel field's dense grid
HASH_BYTES = 8  # of the hash grid, times features and levels: a feature and its gradient
PIXEL_BYTES, FACE_BYTES = 320, 300  # of a rasterized pixel, supersampled ones each; of a face in each view
VERTEX_BYTES = 600  # of a mesh: positions, colors, their optimizer, and the factors of two sparse matrices
# Of a texture: image, its smoothing and gradient; of own texels, three fifths, base, offsets, gradient, moments.
TEXEL_BYTES = 140


def views_together(config: Config, progress: float) -> int:
    """Views that are rendered and scored together: `run.views_at_once`, but at least a set and at most all."""
    views = views_per_step(config, progress)
    return min(max(config.run.views_at_once or views, config.camera.views_per_set), views)


def renderer_bytes(config: Config, views: int, progress: float, compiled: bool) -> int:
    """Bytes that rendering these views keeps for the backward pass, as if no sample were masked."""
    render, field = config.render, config.field
    pixels = views * view_resolution(render, progress) ** 2
    samples = pixels * render.samples
    if compiled:
        kept = RAY_BYTES * pixels + 4 * COMPILED_CELL_FLOATS * max(field.voxel_resolutions) ** 3
    else:
        kept = SAMPLE_BYTES * samples
    if field.kind == "mip-mlp":
        kept += POINT_BYTES * field.hidden_width * field.hidden_blocks * min(samples, CHUNK)
    elif field.kind == "hash-grid":
        kept += HASH_BYTES * field.hash_features * field.hash_levels * samples
    if config.background.kind == "mlp":
        kept += 32 * config.background.hidden_width * pixels
    return kept


def mesh_renderer_bytes(config: Config, views: int) -> int:
    """Bytes that rasterizing these views of the surface stage keeps, as if the mesh filled half of each."""
    surface = config.surface
    pixels = views * ((surface.resolution or config.render.resolution) * surface.supersampling) ** 2
    return PIXEL_BYTES * pixels + FACE_BYTES * views * config.mesh.triangles


def mesh_bytes(config: Config) -> int:
    """The mesh of the surface stage with its optimizer, and its texture where texels are optimized."""
    texels = config.mesh.texture**2 if config.surface.texture_rate > 0 else 0
    return VERTEX_BYTES * config.mesh.triangles // 2 + TEXEL_BYTES * texels


def field_bytes(config: Config) -> int:
    """Weights, gradients, optimizer state and what else a step makes of the field's size; float32."""
    matrices, work = _field_shapes(config)
    numbers = sum(rows * columns for rows, columns in matrices)
    if config.optimizer.kind == "adam":
        return 4 * (4 * numbers + work)
    block = config.optimizer.block_size
    statistics = sum(
        2 * (a * a + b * b) for rows, columns in matrices for a in _tiles(rows, block) for b in _tiles(columns, block)
    )
    return 4 * (5 * numbers + statistics + work)


def field_weight_bytes(config: Config) -> int:
    """The weights alone, of a field that is not optimized any more; float32."""
    return 4 * sum(rows * columns for rows, columns in _field_shapes(config)[0])


def _field_shapes(config: Config) -> tuple[list[tuple[int, int]], int]:
    """(rows, columns) of each weight, and further numbers of the field's size that a step makes."""
    field = config.field
    if field.kind == "voxels":
        shapes = [(channels, r**3) for r in field.voxel_resolutions for channels in (1, 3)]
        cells = max(field.voxel_resolutions) ** 3
        # A grid (1, C, r, r, r) is one row of C r^3 numbers to Shampoo.
        matrices, work = [(1, channels * numbers) for channels, numbers in shapes], CELL_FLOATS * cells
    elif field.kind == "hash-grid":
        last, width = hash_levels(field)[-1], field.hash_hidden_width
        entries = last.offset + last.size
        hidden = [(width, field.hash_features * field.hash_levels), *[(width, width)] * (field.hash_hidden_layers - 1)]
        matrices = [(field.hash_features, entries), *hidden, (1, width), *hidden, (3, width)]
        work = field.hash_features * entries
    else:
        width = field.hidden_width
        matrices = [(width, 6 * field.encoding_levels), *[(width, width)] * (2 * field.hidden_blocks), (4, width)]
        work = 0
    return matrices, work


def _tiles(length: int, block: int) -> list[int]:
    """Sizes of the blocks that a side is divided into."""
    return [block] * (length // block) + ([length % block] if length % block else [])
