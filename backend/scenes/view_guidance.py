# SPDX-License-Identifier: GPL-3.0-or-later
"""From rendered views to a loss whose gradient is the guidance's."""

from __future__ import annotations

import torch
from torch import Tensor

from ..guidance.interfaces import Guidance, LayeredGuidance
from ..text.prompts import PromptEmbeddings
from .views import StepViews


def background_for(guidance: Guidance, background: Tensor) -> Tensor:
    """The background to render on: black for a guidance that chooses its own."""
    return torch.zeros_like(background) if isinstance(guidance, LayeredGuidance) else background


def guidance_loss(
    guidance: Guidance,
    prompts: PromptEmbeddings,
    image: Tensor,
    opacity: Tensor,
    views: StepViews,
    generator: torch.Generator,
    progress: float,
) -> tuple[Tensor, dict[str, float]]:
    """(loss, figures) of image (n, 3, h, w) and opacity (n, 1, h, w) of n views at `progress` in [0, 1].

    The loss, a scalar, is <gradient, image> averaged over views: its gradient is the guidance's (eq 3), no network's.
    """
    angles = views.cameras.azimuth.cpu(), views.cameras.elevation.cpu()
    conditioning = prompts.for_cameras(*angles, [shading.kind for shading in views.shadings])
    shown = image.clamp(0, 1)
    if isinstance(guidance, LayeredGuidance):
        layers = guidance.layer_gradients(shown, opacity, views.cameras, conditioning, generator, progress)
        loss = (layers.color.detach() * image).sum() + (layers.opacity.detach() * opacity).sum()
        return loss / len(image), dict(layers.scalars)
    result = guidance.gradient(shown, views.cameras, conditioning, generator, progress)
    return (result.gradient.detach() * image).sum() / len(image), dict(result.scalars)
