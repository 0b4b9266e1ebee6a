# SPDX-License-Identifier: GPL-3.0-or-later
"""The torch hash encoding against tiny-cuda-nn's kernels."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from dreamwright.backend.config.schema import FieldConfig
from dreamwright.backend.fields.hash_encoding import HashTable, encode
from dreamwright.backend.fields.hash_levels import hash_levels
from dreamwright.backend.fields.tinycudann_encoding import missing_for_tinycudann, tinycudann_for

MISSING = missing_for_tinycudann("cuda")
PUBLISHED = FieldConfig(kind="hash-grid")
CONFIGS = {
    "threestudio's": PUBLISHED,
    "of a CPU": replace(PUBLISHED, hash_levels=8, hash_log2_size=15),
    "four features": replace(PUBLISHED, hash_levels=6, hash_features=4, hash_log2_size=12, hash_growth=1.7),
}

pytestmark = pytest.mark.skipif(bool(MISSING), reason=f"needs tinycudann, compiled for this GPU: {MISSING}")


@pytest.mark.parametrize("name", CONFIGS)
def test_torch_encoding_equals_tinycudann(name: str, generator: torch.Generator) -> None:
    """Features and the table's gradient, of points in the cube and on its faces."""
    config, device = CONFIGS[name], torch.device("cuda")
    levels = hash_levels(config)
    last = levels[-1]
    draws = torch.randn(config.hash_features, last.offset + last.size, generator=generator)
    where = torch.rand(3, 4096, generator=generator)
    where[0, :32] = where[0, :32].round()
    where = where.to(device)
    kernels = tinycudann_for(config, levels, device, torch.float32)
    assert kernels is not None
    results = []
    for kind in ("torch", "tinycudann"):
        table = draws.to(device).requires_grad_()
        if kind == "torch":
            features = encode(table, where, HashTable(levels, device, torch.float32), config.hash_levels)
        else:
            features = kernels(table, where, config.hash_levels)
        (gradient,) = torch.autograd.grad(features.square().sum(), table)
        results.append((features.detach(), gradient))
    (ours, our_gradient), (theirs, their_gradient) = results
    # A place of up to 4096 cells in float32 errs by 4096 x 6e-8 x 2 = 5e-4 cells, and neighbors differ by up to 8.
    assert float((ours - theirs).abs().max()) < 5e-3
    # The gradient of a square: some terms of size 8 x 5e-3; the norm of many errors of random signs is smaller still.
    assert float((our_gradient - their_gradient).norm()) < 1e-3 * float(their_gradient.norm())
