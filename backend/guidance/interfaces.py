# SPDX-License-Identifier: GPL-3.0-or-later
"""Protocols of guidance: a denoiser, and a rule that turns its predictions into gradients of images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import torch
from torch import Tensor

from ..text.conditioning import Conditioning, PromptConditioning, PromptEncoder
from .prediction import PredictionType

if TYPE_CHECKING:
    from ..cameras.poses import Cameras


@runtime_checkable
class Denoiser(PromptEncoder, Protocol):
    """A frozen diffusion model with its prompt encoder; it knows no classifier-free guidance and no renderer."""

    image_size: int

    def alpha_sigma(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """alpha_t and sigma_t of z_t = alpha_t x + sigma_t eps, each (n,), for t (n,) in [0, 1]."""
        ...

    def predict_noise(self, z_t: Tensor, t: Tensor, conditioning: Conditioning) -> Tensor:
        """eps_phi(z_t; y, t), shaped like z_t: images (n, 3, h, w) in [-1, 1] or latents. Never with a gradient."""
        ...


@runtime_checkable
class NativeDenoiser(Denoiser, Protocol):
    """A denoiser that also gives its own kind of prediction, which avoids the rounding of a conversion to noise."""

    prediction_type: PredictionType

    def predict_raw(self, z_t: Tensor, t: Tensor, conditioning: Conditioning) -> Tensor:
        """The model's own output, of `prediction_type` (`guidance.prediction`)."""
        ...


@runtime_checkable
class LatentDenoiser(Denoiser, Protocol):
    """A denoiser in a space of its own: z has shape (n, channels, latent_size, latent_size).

    `image_size` is in pixels, as for every denoiser. Pixel models are their own space and have no `encode`.
    """

    channels: int
    latent_size: int

    def encode(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """z of images x (n, 3, image_size, image_size) in [-1, 1], float32, differentiable with respect to x."""
        ...

    def decode(self, z: Tensor) -> Tensor:
        """Images (n, 3, image_size, image_size), about [-1, 1], float32, without gradient; never needed in a step."""
        ...


@runtime_checkable
class CameraAware(Protocol):
    """A denoiser that uses the cameras of its images (oracles, multi-view models)."""

    def with_cameras(self, conditioning: Conditioning, cameras: Cameras) -> Conditioning:
        """The conditioning, row i with camera i."""
        ...

    def views_together(self, conditioning: Conditioning) -> int:
        """How many rows in a row are views of one object that are denoised together, at one time t; 1 for none."""
        ...


@dataclass(frozen=True)
class GuidanceResult:
    """Gradient (n, 3, h, w) with respect to the [0, 1] image, and named numbers for monitors."""

    gradient: Tensor
    scalars: Mapping[str, float]


@dataclass(frozen=True)
class LayerGradients:
    """Gradients with respect to premultiplied color (n, 3, h, w) and opacity (n, 1, h, w), and numbers for monitors."""

    color: Tensor
    opacity: Tensor
    scalars: Mapping[str, float]


class Guidance(Protocol):
    """A rule that gives the gradient of an image."""

    def gradient(
        self,
        image: Tensor,
        cameras: Cameras | None,
        conditioning: PromptConditioning,
        generator: torch.Generator,
        progress: float,
    ) -> GuidanceResult:
        """Image (n, 3, h, w) in [0, 1], progress in [0, 1]: the gradient of each view, summed over its pixels."""
        ...


@runtime_checkable
class LayeredGuidance(Guidance, Protocol):
    """A guidance that chooses the background, so it takes the object without one."""

    def layer_gradients(
        self,
        color: Tensor,
        opacity: Tensor,
        cameras: Cameras | None,
        conditioning: PromptConditioning,
        generator: torch.Generator,
        progress: float,
    ) -> LayerGradients:
        """Color (n, 3, h, w) premultiplied in [0, 1], opacity (n, 1, h, w): the gradient of each view."""
        ...
