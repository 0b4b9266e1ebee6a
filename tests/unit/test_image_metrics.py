# SPDX-License-Identifier: GPL-3.0-or-later
"""Chroma, detail and distances of images with known values."""

from __future__ import annotations

import math

import pytest
import torch

from dreamwright.backend.evaluation.image_metrics import (
    chroma,
    detail,
    mean_chroma,
    mean_distance,
    mean_feature_distance,
)

# Published a* and b* are rounded by up to 0.005, their length by 0.007. Float32 adds 500 x some roundings of 6e-8.
TWO_DECIMALS = 0.01


def plain(*color: float, size: int = 4) -> torch.Tensor:
    return torch.tensor(color).view(1, 3, 1, 1).expand(1, 3, size, size).contiguous()


@pytest.mark.parametrize(
    ("color", "expected"),
    # Published CIELAB a*, b* of sRGB's primaries: red (80.09, 67.20), green (-86.18, 83.18), blue (79.19, -107.86);
    # grays have none; steelblue (-4.08, -32.19).
    [
        ((1, 0, 0), math.hypot(80.09, 67.20)),
        ((0, 1, 0), math.hypot(86.18, 83.18)),
        ((0, 0, 1), math.hypot(79.19, 107.86)),
        ((0.5, 0.5, 0.5), 0.0),
        ((0, 0, 0), 0.0),
        ((70 / 255, 130 / 255, 180 / 255), math.hypot(4.08, 32.19)),
    ],
)
def test_chroma_of_known_colors(color, expected):
    assert float(chroma(plain(*color)).mean()) == pytest.approx(expected, abs=TWO_DECIMALS)


def test_mean_chroma_without_background():
    image = plain(0.55, 0.55, 0.55)
    image[..., :1, :2] = torch.tensor([1.0, 0.0, 0.0]).view(3, 1, 1)  # 2 of 16 pixels
    red = math.hypot(80.09, 67.20)
    assert mean_chroma(image)[0] == pytest.approx(red / 8, abs=TWO_DECIMALS)
    assert mean_chroma(image, 0.55)[0] == pytest.approx(red, abs=TWO_DECIMALS)
    assert mean_chroma(plain(0.55, 0.55, 0.55), 0.55) == [0.0]


def test_detail_by_hand():
    stripes = torch.tensor([0.0, 1.0, 0.0, 1.0]).view(1, 1, 1, 4).expand(1, 3, 4, 4)
    assert detail(stripes) == [0.5]  # 1 across, 0 down
    assert detail(plain(0.2, 0.3, 0.4)) == [0.0]


def test_distances_are_means_over_pairs():
    images = torch.cat([plain(0.1, 0.1, 0.1), plain(0.2, 0.2, 0.2), plain(0.5, 0.5, 0.5)])
    # Means of equal float32 differences below 1: some roundings of 6e-8.
    assert mean_distance(images) == pytest.approx((0.1 + 0.4 + 0.3) / 3, abs=1e-6)
    assert mean_distance(images[:1]) is None
    turned = torch.tensor([[1.0, 0.0], [0.0, 2.0], [3.0, 0.0]])
    assert mean_feature_distance(turned) == pytest.approx((1 + 0 + 1) / 3, abs=1e-6)
    assert mean_feature_distance(turned[:1]) is None
