# SPDX-License-Identifier: GPL-3.0-or-later
"""The hash grid's table and its derivatives: against a scalar float64 reference of the published formula."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from dreamwright.backend.config.parsing import apply_settings
from dreamwright.backend.config.schema import Config, FieldConfig
from dreamwright.backend.errors import ConfigError
from dreamwright.backend.fields import hash_encoding
from dreamwright.backend.fields.hash_density import density_with_slope
from dreamwright.backend.fields.hash_encoding import HashTable, encode
from dreamwright.backend.fields.hash_levels import Level, active_levels, hash_levels

PUBLISHED = FieldConfig(kind="hash-grid")
# Levels of 5 (dense) and of 10, 18, 35 (hashed) vertices a side.
SMALL = replace(PUBLISHED, hash_levels=4, hash_log2_size=8, hash_base_resolution=5, hash_growth=1.9)


def entry_of(level: Level, x: int, y: int, z: int) -> int:
    """Equation 4 of Instant-NGP, and tiny-cuda-nn's dense index where all vertices fit."""
    side = math.ceil(level.scale) + 1
    if side**3 <= level.size:
        return (x + y * side + z * side * side) % level.size
    return ((x * 1 % 2**32) ^ (y * 2654435761 % 2**32) ^ (z * 805459861 % 2**32)) % level.size


def encoded(levels: tuple[Level, ...], table: list[list[float]], position: list[float]) -> list[list[float]]:
    """Features [feature][level] of one position, number by number."""
    features = [[0.0] * len(levels) for _ in table]
    for number, level in enumerate(levels):
        places = [p * level.scale + 0.5 for p in position]
        low = [math.floor(place) for place in places]
        for corner in range(8):
            upper = [corner >> axis & 1 for axis in range(3)]
            weight = 1.0
            for place, start, up in zip(places, low, upper, strict=True):
                weight *= place - start if up else 1 - (place - start)
            entry = level.offset + entry_of(level, *(start + up for start, up in zip(low, upper, strict=True)))
            for feature, values in enumerate(table):
                features[feature][number] += weight * values[entry]
    return features


def layout_of(config: FieldConfig, dtype: torch.dtype = torch.float64) -> HashTable:
    return HashTable(hash_levels(config), torch.device("cpu"), dtype)


def random_table(config: FieldConfig, draws: torch.Generator) -> Tensor:
    last = hash_levels(config)[-1]
    return torch.randn(config.hash_features, last.offset + last.size, generator=draws, dtype=torch.float64)


@given(
    count=st.integers(1, 5),
    features=st.integers(1, 3),
    size=st.integers(8, 12),
    base=st.integers(2, 40),
    growth=st.floats(1.0, 3.0),
    seed=st.integers(0, 999),
)
def test_encoding_is_the_published_formula(
    count: int, features: int, size: int, base: int, growth: float, seed: int
) -> None:
    config = replace(
        PUBLISHED, hash_levels=count, hash_features=features, hash_log2_size=size, hash_base_resolution=base,
        hash_growth=growth,
    )  # fmt: skip
    draws = torch.Generator().manual_seed(seed)
    table, levels = random_table(config, draws), hash_levels(config)
    where = torch.rand(3, 12, generator=draws, dtype=torch.float64)
    where[:, :4] = where[:, :4].round()  # corners of the cube, where dense levels wrap
    found = encode(table, where, layout_of(config), count)
    numbers = table.tolist()
    for point in range(where.shape[1]):
        expected = torch.tensor(encoded(levels, numbers, where[:, point].tolist()), dtype=torch.float64)
        # float64: a place below 40 x 3^4 errs by 5e-13, which moves a weight, and 8 values of size below 6, as much.
        torch.testing.assert_close(found[:, :, point], expected, rtol=0, atol=1e-10)


def test_levels_of_the_published_settings_are_those_of_tiny_cuda_nn() -> None:
    """16 levels from 16 to 4096 vertices in tables of 2^19: the sizes by hand, scale 16 x 1.4473^l - 1."""
    levels = hash_levels(PUBLISHED)
    assert [level.resolution for level in levels[:5]] == [16, 24, 34, 49, 71]
    assert [level.size for level in levels[:5]] == [16**3, 24**3, 34**3, 117_656, 357_912]  # multiples of 8
    assert all(level.size == 2**19 and level.hashed for level in levels[5:])
    assert not any(level.hashed for level in levels[:5])
    assert 2 * (levels[-1].offset + levels[-1].size) == 12_599_920
    for number, level in enumerate(levels):
        # float32: the exponent 15 x 0.533 errs by 5e-7, and 2^8 by as large a share.
        assert level.scale == pytest.approx(16 * 1.447269237440378**number - 1, rel=2e-6)


def test_pieces_join_without_a_seam(monkeypatch: pytest.MonkeyPatch, generator: torch.Generator) -> None:
    table = random_table(SMALL, generator).requires_grad_()
    where = torch.rand(3, 1000, generator=generator, dtype=torch.float64)
    whole = encode(table, where, layout_of(SMALL), 4)
    (gradient,) = torch.autograd.grad(whole.square().sum(), table)
    monkeypatch.setitem(hash_encoding.PIECE, "cpu", 4 * 256)
    parts = encode(table, where, layout_of(SMALL), 4)
    # float64: 8 terms, or some hundred, in another order.
    torch.testing.assert_close(parts, whole, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(torch.autograd.grad(parts.square().sum(), table)[0], gradient, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("active", [1, 3, 4])
@pytest.mark.parametrize("hidden", [[7], [7, 5]], ids=["one layer", "two layers"])
def test_gradients_equal_finite_differences(active: int, hidden: list[int], generator: torch.Generator) -> None:
    """torch's gradcheck in float64, of features, raw density and slope in the table and the network's weights."""
    where = torch.rand(3, 6, generator=generator, dtype=torch.float64)
    table, layout = random_table(SMALL, generator).requires_grad_(), layout_of(SMALL)
    widths = [2 * active, *hidden, 1]
    weights = [
        torch.randn(outputs, inputs, generator=generator, dtype=torch.float64, requires_grad=True)
        for inputs, outputs in itertools.pairwise(widths)
    ]
    assert torch.autograd.gradcheck(lambda t: encode(t, where, layout, active), table, fast_mode=True)
    assert torch.autograd.gradcheck(
        lambda t, *w: density_with_slope(t, where, layout, active, w), (table, *weights), fast_mode=True
    )


def test_density_and_slope_are_those_of_the_encoding(
    monkeypatch: pytest.MonkeyPatch, generator: torch.Generator
) -> None:
    """The network on `encode`, and central differences of it, in two pieces."""
    monkeypatch.setitem(hash_encoding.PIECE, "cpu", 4 * 256)
    table, layout = random_table(SMALL, generator), layout_of(SMALL)
    where = torch.rand(3, 300, generator=generator, dtype=torch.float64)
    first = torch.randn(9, 8, generator=generator, dtype=torch.float64)
    last = torch.randn(1, 9, generator=generator, dtype=torch.float64)

    def density(places: Tensor) -> Tensor:
        return (last @ torch.relu(first @ encode(table, places, layout, 4).flatten(0, 1)))[0]

    features, raw, slope = density_with_slope(table, where, layout, 4, [first, last])
    # float64: sums of 9 products of size 10.
    torch.testing.assert_close(features, encode(table, where, layout, 4), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(raw, density(where), rtol=1e-12, atol=1e-12)
    step, smooth = 1e-6, torch.ones(300, dtype=torch.bool)
    for level in hash_levels(SMALL):
        place = where * level.scale + 0.5
        smooth &= ((place - place.round()).abs() > 2 * step * level.scale).all(0)  # no wall within the difference
    moves = step * torch.eye(3, dtype=torch.float64)[:, :, None]
    sides = [torch.stack([density(where + sign * move) for move in moves]) for sign in (1, -1)]
    on = [first @ encode(table, where + sign * move, layout, 4).flatten(0, 1) > 0 for sign in (1, -1) for move in moves]
    smooth &= torch.stack([units == on[0] for units in on]).all(0).all(0)  # and no kink of a unit
    assert int(smooth.sum()) > 200
    # The density is linear along an axis there, so only rounding: values of size 100 with 1e-14 each, over 2e-6.
    torch.testing.assert_close(slope[:, smooth], ((sides[0] - sides[1]) / (2 * step))[:, smooth], rtol=0, atol=1e-6)


def test_levels_come_one_by_one() -> None:
    """threestudio's dreamfusion-sd: 8 levels, from step 2000 of 10,000 one more every 500."""
    config = replace(PUBLISHED, hash_start_level=8, hash_start_share=0.2, hash_level_interval=0.05)
    steps = {0: 8, 1999: 8, 2000: 8, 2499: 8, 2500: 9, 3500: 11, 5999: 15, 6000: 16, 10_000: 16}
    assert {step: active_levels(config, step / 10_000) for step in steps} == steps
    assert active_levels(PUBLISHED, 0.0) == 16


def test_settings_that_contradict_each_other_are_named() -> None:
    with pytest.raises(ConfigError, match=r"field.hash_start_level is 9 and field.hash_levels is 8"):
        apply_settings(Config(), ["field.hash_levels=8", "field.hash_start_level=9"])
    with pytest.raises(ConfigError, match=r"level 14 of field.hash_levels=16 .* lower field.hash_levels"):
        hash_levels(replace(PUBLISHED, hash_growth=2.0))
    assert hash_levels(replace(PUBLISHED, hash_growth=2.0, hash_levels=13))[-1].resolution == 65_536  # 16 x 2^12
