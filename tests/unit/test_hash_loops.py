# SPDX-License-Identifier: GPL-3.0-or-later
"""The compiled loops of the hash encoding against the torch path: values, gradients, threads, when they are used."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from dreamwright.backend.config.schema import FieldConfig
from dreamwright.backend.fields import hash_density, hash_encoding, hash_loops
from dreamwright.backend.fields.hash_density import density_with_slope
from dreamwright.backend.fields.hash_encoding import HashTable, encode
from dreamwright.backend.fields.hash_levels import hash_levels

# Levels of 5 (dense) and of 10, 18, 35 (hashed) vertices a side.
SMALL = FieldConfig(kind="hash-grid", hash_levels=4, hash_log2_size=8, hash_base_resolution=5, hash_growth=1.9)


def layout_of(config: FieldConfig, dtype: torch.dtype = torch.float32) -> HashTable:
    return HashTable(hash_levels(config), torch.device("cpu"), dtype)


def random_table(config: FieldConfig, draws: torch.Generator) -> Tensor:
    last = hash_levels(config)[-1]
    return torch.randn(config.hash_features, last.offset + last.size, generator=draws)


def places(config: FieldConfig, count: int, draws: torch.Generator) -> Tensor:
    """Positions (3, about count) not within rounding of a cell's wall, where a slope jumps; corners of the cube too."""
    where = torch.rand(3, count, generator=draws)
    kept = torch.ones(count, dtype=torch.bool)
    for level in hash_levels(config):
        place = where.double() * level.scale + 0.5
        kept &= ((place - place.round()).abs() > 1e-6 * (level.scale + 1)).all(0)
    corners = torch.tensor([[x, y, z] for x in (0.0, 1.0) for y in (0.0, 1.0) for z in (0.0, 1.0)]).T
    return torch.cat([where[:, kept], corners], 1)


def by_both(monkeypatch: pytest.MonkeyPatch, compute: Callable[[], list[Tensor]]) -> tuple[list[Tensor], list[Tensor]]:
    """What `compute` returns with the loops, and in torch."""
    looped = compute()
    with monkeypatch.context() as patched:
        for module in (hash_encoding, hash_density):
            patched.setattr(module, "takes_loops", lambda *_: False)
        return looped, compute()


def assert_close(looped: list[Tensor], reference: list[Tensor], share: float) -> None:
    """Equal within a share of the largest number."""
    for ours, theirs in zip(looped, reference, strict=True):
        assert float((ours - theirs).abs().max()) <= share * max(1.0, float(theirs.abs().max()))


SIZES = {
    "count": st.integers(1, 4),
    "features": st.integers(1, 4),
    "size": st.integers(6, 12),
    "base": st.integers(2, 12),
    "growth": st.floats(1.0, 2.0),
    "data": st.data(),
}


@settings(max_examples=40, deadline=None)
@given(**SIZES)
def test_encoding_and_its_gradient_equal_torch(
    count: int, features: int, size: int, base: int, growth: float, data: st.DataObject
) -> None:
    """Dense and hashed levels, any number of them on, the cube's corners included."""
    config = replace(
        SMALL, hash_levels=count, hash_features=features, hash_log2_size=size, hash_base_resolution=base,
        hash_growth=growth,
    )  # fmt: skip
    active = data.draw(st.integers(1, count))
    draws = torch.Generator().manual_seed(data.draw(st.integers(0, 999)))
    table, layout = random_table(config, draws).requires_grad_(), layout_of(config)
    where = places(config, 60, draws)
    given = torch.randn(features, active, where.shape[1], generator=draws)

    def compute() -> list[Tensor]:
        found = encode(table, where, layout, active)
        return [found.detach(), *torch.autograd.grad((found * given).sum(), table)]

    with pytest.MonkeyPatch.context() as monkeypatch:
        # A place below 12 x 2^3 + 1/2 errs by 4e-6, where the sum of a product and 1/2 rounds once or twice, and moves
        # each of three sides by that; 8 values, or at most 68 points, of size below 5 follow: 3 x 4e-6 x 5 a term, of
        # which some add up.
        assert_close(*by_both(monkeypatch, compute), share=2e-4)


@pytest.mark.parametrize("active", [1, 3, 4])
@pytest.mark.parametrize("hidden", [1, 2])
def test_density_slope_and_their_gradients_equal_torch(
    active: int, hidden: int, monkeypatch: pytest.MonkeyPatch, generator: torch.Generator
) -> None:
    """More points than a piece; units whose sign depends on a rounding are few, and their columns small."""
    table, layout = random_table(SMALL, generator).requires_grad_(), layout_of(SMALL)
    where = places(SMALL, 5000, generator)
    widths = [2 * active, *[9] * hidden, 1]
    weights = [
        torch.randn(widths[i + 1], widths[i], generator=generator).requires_grad_() for i in range(len(widths) - 1)
    ]
    given = [torch.randn(shape, generator=generator) for shape in ((2, active, where.shape[1]), where.shape[1:])]
    along = torch.randn(where.shape, generator=generator)

    def compute() -> list[Tensor]:
        features, raw, slope = density_with_slope(table, where, layout, active, weights)
        total = (features * given[0]).sum() + (raw * given[1]).sum() + (slope * along).sum()
        return [features.detach(), raw.detach(), *torch.autograd.grad(total, [table, *weights])]

    looped, reference = by_both(monkeypatch, compute)
    # As above, with sums of at most 9 products a layer and 5,000 points: a place below 36 errs by 2e-6. A unit within
    # 1e-5 of zero may be on in one path only, 1e-5 of all, and moves a sum by one point's share, 1 / sqrt(5000) of it.
    assert_close(looped[:2], reference[:2], share=1e-4)
    for ours, theirs in zip(looped[2:], reference[2:], strict=True):
        assert float((ours - theirs).norm() / theirs.norm()) < 2e-2


def test_slope_is_that_of_float64(generator: torch.Generator) -> None:
    """A network without hidden units has no kink: the slope is linear in the table."""
    table, where = random_table(SMALL, generator), places(SMALL, 400, generator)[:, :-8]
    factors = torch.randn(2, 4, where.shape[1], generator=generator)
    found = hash_loops.slope_of(table, where, factors, layout_of(SMALL))
    layout = layout_of(SMALL, torch.float64)
    cells = hash_density._look_up(table.double(), where.double(), layout, 4)
    expected = sum(hash_density._slope(cell, factors.double()[:, cell.part.levels]) for cell in cells)
    # A side errs by 2e-6 and multiplies differences of size 10, times the scale of 34: 1e-3 of values of size 300.
    assert float((found - expected).abs().max()) <= 1e-5 * float(torch.as_tensor(expected).abs().max())


def test_results_do_not_depend_on_the_number_of_threads(generator: torch.Generator) -> None:
    """Bit by bit: each level's sums have one order, whichever thread makes them."""
    table, where, layout = random_table(SMALL, generator), places(SMALL, 900, generator), layout_of(SMALL)
    pulled, factors = torch.randn(2, 2, 4, where.shape[1], generator=generator)
    along, before, found = torch.randn(where.shape, generator=generator), torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            out, first, both = torch.empty_like(pulled), torch.zeros_like(table), torch.zeros_like(table)
            hash_loops.encode_into(out, table, where, layout)
            hash_loops.add_gradient(first, where, pulled, layout)
            slope = hash_loops.slope_of(table, where, factors, layout)
            of_factors = hash_loops.add_slope_gradient(both, table, where, pulled, factors, along, layout)
            found.append((out, first, slope, of_factors, both))
    finally:
        torch.set_num_threads(before)
    for numbers in zip(*found, strict=True):
        assert float(numbers[0].abs().max()) > 0
        assert all(torch.equal(one, numbers[0]) for one in numbers[1:])


def test_positions_out_of_the_cube_never_leave_the_table(generator: torch.Generator) -> None:
    """NaN stays NaN; a position far out reads some entry of the level."""
    table = random_table(SMALL, generator)
    where = torch.tensor([[float("nan")] * 3, [1e30, -1e30, 0.5], [0.5, 0.5, 0.5]]).T.contiguous()
    out = torch.empty(2, 4, 3)
    hash_loops.encode_into(out, table, where, layout_of(SMALL))
    assert bool(out[:, :, 0].isnan().all()) and bool(out[:, :, 2].isfinite().all())


def test_loops_are_for_float32_and_first_gradients(monkeypatch: pytest.MonkeyPatch, generator: torch.Generator) -> None:
    table, where = random_table(SMALL, generator).requires_grad_(), places(SMALL, 20, generator)
    calls: list[str] = []
    for name in ("encode_into", "add_gradient"):
        loop = getattr(hash_loops, name)
        monkeypatch.setattr(hash_loops, name, lambda *given, loop=loop, name=name: (calls.append(name), loop(*given)))
    given = torch.ones(2, 4, where.shape[1], requires_grad=True)
    torch.autograd.grad((encode(table, where, layout_of(SMALL), 4) * given).sum(), table)
    assert calls == ["encode_into", "add_gradient"]
    found = (encode(table, where, layout_of(SMALL), 4) * given).sum()
    (gradient,) = torch.autograd.grad(found, table, create_graph=True)
    assert calls[2:] == ["encode_into"], "a gradient of the gradient goes through torch"
    assert float(torch.autograd.grad(gradient.square().sum(), given)[0].abs().max()) > 0
    encode(table.double(), where.double(), layout_of(SMALL, torch.float64), 4)
    assert len(calls) == 3
