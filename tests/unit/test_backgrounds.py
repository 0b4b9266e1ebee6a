# SPDX-License-Identifier: GPL-3.0-or-later
"""Random plain backgrounds: their share of views and their colors."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from dreamwright.backend.config.schema import BackgroundConfig
from dreamwright.backend.fields.background import plain_colors

share = st.floats(0, 1, width=32)


def test_last_draw_selects_the_background_kind() -> None:
    """By hand: 0.1 is below 0.5 * 0.4, 0.3 is below 0.5 only, 0.6 is above."""
    config = BackgroundConfig(
        random_probability=0.5, random_any_share=0.4, random_kind="grey", random_min=0.3, random_max=0.8
    )
    draws = torch.tensor([[0.0, 0.25, 0.5, 0.1], [0.4, 0.25, 0.5, 0.3], [0.4, 0.25, 0.5, 0.6]])
    colors, chosen = plain_colors(draws, config)
    assert colors[0].equal(draws[0, :3])
    # 0.3 + 0.4 (0.8 - 0.3) in float32: three roundings of at most 3e-8, with a margin of five.
    torch.testing.assert_close(colors[1], torch.full((3,), 0.5), rtol=0, atol=5e-7)
    assert chosen.tolist() == [True, True, False]


@given(share, share, st.integers(0, 2**31))
def test_colors_are_in_range_and_views_independent(probability: float, anything: float, seed: int) -> None:
    draws = torch.rand(64, 4, generator=torch.Generator().manual_seed(seed))
    ranged = BackgroundConfig(random_probability=probability, random_kind="color", random_min=0.2, random_max=0.6)
    mixed = BackgroundConfig(
        random_probability=probability, random_kind="color", random_min=0.2, random_max=0.6, random_any_share=anything
    )
    (plain, chosen), (colors, chosen_too) = plain_colors(draws, ranged), plain_colors(draws, mixed)
    assert chosen.equal(chosen_too)
    assert ((plain >= 0.2 - 1e-6) & (plain <= 0.6 + 1e-6)).all()  # 0.2 + 0.4 u: float32 roundings of 3e-8 to 6e-8
    changed = (colors != plain).any(1)
    assert (chosen | ~changed).all(), "a view without a random background has no background color"
    assert colors[changed].equal(draws[changed, :3])
