# SPDX-License-Identifier: GPL-3.0-or-later
"""Random backgrounds of three kinds (Dream Fields, Jain et al. 2022, section 4.2): the object must rely on none.

Everything is sampled per view with `rng.sample_for_views`, so that processes and groups of views get equal numbers.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..runtime.rng import sample_for_views

KINDS = ("noise", "checkerboard", "fourier")  # each as likely as the others, as in Dream Fields
SQUARES = 8  # of the checkerboard, a side; Dream Fields' published configuration
NOISE_STD = 1 / math.sqrt(12)  # its published code draws uniform noise, which has this deviation and the mean 0.5
DECAY = 1.5  # the Fourier texture's amplitude falls with frequency to this power; the same
CONTRAST = 1.2  # standard deviation of the texture before its sigmoid: most of it then lies in 0.2 .. 0.8
# Blur of up to 10 of 224 pixels' deviation, but by a kernel of 15 pixels: no wider than a box of those, 4.3 of 224.
BLUR_MAX = 4.3 / 224  # image widths


def random_backgrounds(views: int, crops: int, size: int, generator: torch.Generator) -> Tensor:
    """Backgrounds (views, crops, 3, size, size) in [0, 1], each of one kind, blurred by a random width."""
    choice = sample_for_views(torch.rand, (views, crops, 2), generator)
    colors = sample_for_views(torch.rand, (views, crops, 2, 3), generator)
    white = sample_for_views(torch.randn, (views, crops, 3, size, size), generator)
    kind = (choice[..., 0] * len(KINDS)).long().clamp(max=len(KINDS) - 1)[..., None, None, None]
    noise = 0.5 + NOISE_STD * white
    mixed = torch.where(kind == 0, noise, torch.where(kind == 1, checkerboards(colors, size), fourier_textures(white)))
    return blurred(mixed, BLUR_MAX * size * choice[..., 1]).clamp(0, 1)


def checkerboards(colors: Tensor, size: int) -> Tensor:
    """8 x 8 squares of two colors: (..., 2, 3) -> (..., 3, size, size)."""
    square = torch.arange(size, device=colors.device) * SQUARES // size
    odd = ((square[:, None] + square[None, :]) % 2).bool()
    first, second = colors[..., 0, :, None, None], colors[..., 1, :, None, None]
    return torch.where(odd, second, first)


def fourier_textures(white: Tensor) -> Tensor:
    """White noise (..., 3, s, s) filtered to amplitudes 1 / f^1.5, of deviation `CONTRAST`, through a sigmoid.

    Half of each channel's noise is shared by all three, so that a texture has few hues, as photographs do.
    """
    size = white.shape[-1]
    shared = (white.sum(-3, keepdim=True) / math.sqrt(3) + white) / math.sqrt(2)
    amplitude = _frequencies(size, white).clamp(min=1 / size).pow(-DECAY)
    amplitude[0, 0] = 0.0  # the mean is gray
    texture = torch.fft.ifft2(torch.fft.fft2(shared) * amplitude).real
    return torch.sigmoid(CONTRAST * texture / texture.std(dim=(-3, -2, -1), keepdim=True).clamp(min=1e-8))


def blurred(images: Tensor, std: Tensor) -> Tensor:
    """Images (..., 3, s, s) blurred by Gaussians of `std` (...) pixels, periodic at the edges."""
    frequency = _frequencies(images.shape[-1], images)
    filters = torch.exp(-2 * (math.pi * std[..., None, None, None] * frequency) ** 2)
    return torch.fft.ifft2(torch.fft.fft2(images) * filters).real


def _frequencies(size: int, like: Tensor) -> Tensor:
    """|f| in cycles a pixel, (size, size), in the order of an FFT."""
    axis = torch.fft.fftfreq(size, device=like.device, dtype=like.dtype)
    return (axis[:, None] ** 2 + axis[None, :] ** 2).sqrt()
