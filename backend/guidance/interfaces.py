# SPDX-License-Identifier: GPL-3.0-or-later
"""Protocols of guidance: a denoiser, and a rule that turns its predictions into gradients of images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import torch
from torch import Tensor

from ..runtime.rng import sample_for_views
from ..text.conditioning import Conditioning, Negatives, PromptConditioning, PromptEncoder
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


@dataclass(frozen=True)
class Draws:
    """What a rule of distillation is given: `count` draws of a time for each of n views.

    Rows are draw by draw: all n views of draw 0, then all of draw 1. clean: x (count n, c, h, w) in the model's space,
    without a graph. t (count n,) in [0, 1]; alpha, sigma (count n, 1, 1, 1). positive, negative and the others: a row
    for each, with the cameras where the model uses them; `opposite` for Perp-Neg, `empty` of the empty prompt where the
    negative one is another. cameras: of the n views, where they are known. progress in [0, 1].
    """

    clean: Tensor
    t: Tensor
    alpha: Tensor
    sigma: Tensor
    positive: Conditioning
    negative: Conditioning
    opposite: Negatives | None
    empty: Conditioning | None
    cameras: Cameras | None
    count: int
    generator: torch.Generator
    progress: float

    @property
    def views(self) -> int:
        """n."""
        return len(self.clean) // self.count

    def noise(self) -> Tensor:
        """Unit noise like clean, drawn view by view, so that the views of other processes change nothing."""
        shape = (self.views, self.count, *self.clean.shape[1:])
        drawn = sample_for_views(torch.randn, shape, self.generator).to(self.clean.device)
        return drawn.transpose(0, 1).flatten(0, 1)

    def rows(self, chosen: Tensor) -> Draws:
        """Only these rows; they cannot draw noise any more."""
        return replace(
            self,
            clean=self.clean[chosen],
            t=self.t[chosen],
            alpha=self.alpha[chosen],
            sigma=self.sigma[chosen],
            positive=self.positive[chosen],
            negative=self.negative[chosen],
            opposite=None if self.opposite is None else self.opposite[chosen],
            empty=None if self.empty is None else self.empty[chosen],
        )

    def at(self, denoiser: Denoiser, t: Tensor | float) -> Draws:
        """The same rows at other times, one for all or one each."""
        t = torch.full_like(self.t, t) if isinstance(t, float) else t
        alpha, sigma = (level.to(self.clean).view(-1, 1, 1, 1) for level in denoiser.alpha_sigma(t))
        return replace(self, t=t, alpha=alpha, sigma=sigma)


class Learner(Protocol):
    """Weights that a rule trains on the renders of each step, beside the scene. All are float32 on one device.

    weights: by name. optimizer: of them, in that order. A run's checkpoint holds both.
    """

    weights: Mapping[str, Tensor]
    optimizer: torch.optim.Optimizer

    def reset(self, seed: int) -> None:
        """Begin anew: the weights that this seed gives, no state of the optimizer."""
        ...

    def finish_gradients(self) -> list[Tensor]:
        """Leave in each weight's `grad` the mean over the views since the last step; returns the weights."""
        ...

    def discard_gradients(self) -> None:
        """Forget the views since the last step."""
        ...


class ScoreEstimate(Protocol):
    """An estimate of the score of the noised renders, as a prediction of the denoiser's own kind.

    learner: what is trained for it on renders, None for nothing.
    """

    @property
    def learner(self) -> Learner | None: ...

    def predict(self, z_t: Tensor, draws: Draws) -> Tensor:
        """The prediction at z_t (count n, c, h, w), without gradient."""
        ...

    def learn(self, draws: Draws) -> float:
        """Add the gradients of the loss on the n views; returns the loss."""
        ...


class Rule(Protocol):
    """A rule of distillation: from the predictions at z_t to a direction in the model's space.

    learner: what it trains on renders, None for nothing.
    """

    @property
    def learner(self) -> Learner | None: ...

    def residual(self, draws: Draws) -> tuple[Tensor, dict[str, float]]:
        """What w(t) multiplies, like draws.clean, and named numbers for monitors. No network's Jacobian is in it."""
        ...


class Guidance(Protocol):
    """What gives the gradient of an image."""

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


@runtime_checkable
class LearningGuidance(Guidance, Protocol):
    """A guidance that may train weights of its own; `learner` is None where it does not."""

    @property
    def learner(self) -> Learner | None: ...


def learner_of(guidance: Guidance) -> Learner | None:
    """What the guidance trains on renders, None for nothing."""
    return guidance.learner if isinstance(guidance, LearningGuidance) else None
