# SPDX-License-Identifier: GPL-3.0-or-later
"""The work of rendering with gradients, from the settings alone: what is in a step beside the guidance.

Rules were fitted to counts of whole steps by `runtime.operation_count` (`tests/unit/test_render_work.py` counts again),
as if no sample were masked. P parameters of the field; bytes unless operations are named:

    voxels     700 a sample, 1450 with normals, and the compiled loops as long as 450; a cell of the finest grid 370,
               320 more with smoothness, 510 more with normals;
               16 (R r^3 + R^2 r^2 + R^3 r) operations of the products that enlarge a grid of r vertices a side to R
    hash grid  850 + 36 width layers + levels (605 + 207 features) a sample, 1.8 times that with analytic normals and 7
               times with finite differences; 33 P; 6 operations a sample and weight, 1.5 and 4 times
    mip MLP    2000 + 170 frequencies + width (47 + 100 blocks) a sample, 9 times with normals; 33 P; 7 operations a
               sample and weight, 16 with normals
    mesh       3800 a pixel after supersampling, 30,000 a vertex
"""

from __future__ import annotations

from ..config.schema import Config, FieldConfig
from ..fields.hash_levels import hash_levels
from ..runtime.operation_count import Work

# Operations of a step, without and with normals, where the device takes all views at once.
CALLS = {"voxels": (400, 520), "hash-grid": (550, 800), "mip-mlp": (600, 1100)}
MESH_CALLS = 1050
FIELD_CHANNELS = 4  # density and albedo


def field_work(config: Config, views: int, resolution: int, with_normals: bool, compiled: bool = False) -> Work:
    """A step of a field beside the guidance: rays of `views` images, their gradient and the optimizer's step.

    compiled: whether the loops of `fields.dense_grids.is_compiled` render it.
    """
    field = config.field
    samples = views * resolution**2 * config.render.samples
    if field.kind == "voxels":
        work = _voxels(field, samples, with_normals, config.regularizers.smoothness > 0, compiled)
    elif field.kind == "hash-grid":
        work = _hash_grid(field, samples, with_normals)
    else:
        work = _mip_mlp(field, samples, with_normals)
    return work + Work(calls=CALLS[field.kind][with_normals])


def mesh_work(vertices: int, views: int, resolution: int, supersampling: int) -> Work:
    """A step of a mesh of so many vertices beside the guidance."""
    pixels = views * (resolution * supersampling) ** 2
    return Work(0.0, 3800.0 * pixels + 30_000.0 * vertices, MESH_CALLS)


def _voxels(field: FieldConfig, samples: int, with_normals: bool, is_smooth: bool, compiled: bool) -> Work:
    finest = max(field.voxel_resolutions)
    coarser = (r for r in field.voxel_resolutions if r < finest)
    products = sum(finest * r**3 + finest**2 * r**2 + finest**3 * r for r in coarser)
    cells = (370 + 320 * is_smooth + 510 * with_normals) * finest**3
    moved = 450.0 if compiled else 1450.0 if with_normals else 700.0
    slopes = 9.0 * finest**4 * with_normals  # three products along axes for each part of a normal
    return Work(4.0 * (FIELD_CHANNELS * products + slopes), samples * moved + cells)


def _hash_grid(field: FieldConfig, samples: int, with_normals: bool) -> Work:
    last, width = hash_levels(field)[-1], field.hash_hidden_width
    inputs = field.hash_features * field.hash_levels
    hidden = width * inputs + width * width * (field.hash_hidden_layers - 1)
    weights = 2 * hidden + width * FIELD_CHANNELS
    finite = field.normals == "finite-difference"
    looks, passes = (7.0, 4.0) if finite else (1.8, 1.5)
    moved = 850 + 36 * width * field.hash_hidden_layers + field.hash_levels * (605 + 207 * field.hash_features)
    numbers = field.hash_features * (last.offset + last.size) + weights
    return Work(
        6.0 * samples * weights * (passes if with_normals else 1),
        moved * samples * (looks if with_normals else 1) + 33.0 * numbers,
    )


def _mip_mlp(field: FieldConfig, samples: int, with_normals: bool) -> Work:
    width, blocks = field.hidden_width, field.hidden_blocks
    weights = 6 * field.encoding_levels * width + 2 * blocks * width**2 + FIELD_CHANNELS * width
    moved = 2000 + 170 * field.encoding_levels + width * (47 + 100 * blocks)
    return Work(
        (16.0 if with_normals else 7.0) * samples * weights,
        moved * samples * (9.0 if with_normals else 1.0) + 33.0 * weights,
    )
