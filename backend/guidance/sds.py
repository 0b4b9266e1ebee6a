# SPDX-License-Identifier: GPL-3.0-or-later
"""Score distillation (eq 3 and the rules after it): the gradient of a rendered image, and its use on plain images."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor
from torch.nn import functional

from ..config.schedules import lowest_end, time_range
from ..config.schema import GuidanceConfig
from ..errors import ConfigError, NonFiniteError
from ..runtime.rng import sample_for_views
from ..text.conditioning import Conditioning, PromptConditioning
from .classifier_free import check_finite, draw_noise
from .interfaces import CameraAware, Denoiser, Draws, GuidanceResult, LatentDenoiser, Learner, ScoreEstimate
from .rules import make_rule

if TYPE_CHECKING:
    from ..cameras.poses import Cameras

ImageKind = Literal["free", "symmetric"]
IMAGE_KINDS: tuple[ImageKind, ...] = ("free", "symmetric")


class ScoreDistillation:
    """grad_x L = w(t) r, r that of `guidance.rule`: eps_hat - eps for SDS (eq 3). Implements `LearningGuidance`.

    The frozen model is run forwards only. A view's gradient is the mean over `guidance.noises` pairs of time and noise,
    all in one call of the denoiser. `estimate`: of the renders' own score, for the rule "vsd".
    Raises ConfigError for times outside 0 <= t_min <= t_max <= 1, at the start or at the end, less than one noise or a
    negative clip.
    """

    def __init__(self, denoiser: Denoiser, config: GuidanceConfig, estimate: ScoreEstimate | None = None) -> None:
        low_end = lowest_end(config)
        if not (0 <= config.t_min <= config.t_max <= 1 and 0 <= low_end <= config.t_max_end <= 1):
            raise ConfigError(
                f"guidance times t_min {config.t_min} and t_max {config.t_max}, at the end t_min_end {low_end} and "
                f"t_max_end {config.t_max_end}; allowed is 0 <= t_min <= t_max <= 1 at both; change guidance.t_min or "
                "guidance.t_max, guidance.t_min_end or guidance.t_max_end"
            )
        if config.noises < 1:
            raise ConfigError(f"guidance.noises {config.noises}; allowed is 1 or more a view; change it")
        if not config.gradient_clip >= 0:
            raise ConfigError(
                f"guidance.gradient_clip {config.gradient_clip}; allowed is 0 (no clipping) or more; change it"
            )
        self.denoiser = denoiser
        self.config = config
        self.rule = make_rule(denoiser, config, estimate)

    @property
    def learner(self) -> Learner | None:
        """What the rule trains on renders, None for nothing."""
        return self.rule.learner

    def times(self, n: int, generator: torch.Generator, progress: float) -> Tensor:
        """Times (noises n,) in [t_min, t_max] of `schedules.time_range` at this progress in [0, 1].

        Rows are draw by draw: all n views of draw 0, then all of draw 1. The draws of a view are stratified: draw k is
        uniform in the k-th of `noises` equal parts. Their mean is therefore that of t ~ U(t_min, t_max), and varies
        less than with independent times.
        """
        config = self.config
        low, high = time_range(config, progress)
        uniform = sample_for_views(torch.rand, (n, config.noises), generator)
        stratified = (torch.arange(config.noises, device=uniform.device) + uniform) / config.noises
        return low + (high - low) * stratified.T.flatten()

    def gradient(
        self,
        image: Tensor,
        cameras: Cameras | None,
        conditioning: PromptConditioning,
        generator: torch.Generator,
        progress: float,
    ) -> GuidanceResult:
        """2 w(t) r, (n, 3, h, w), with respect to the image in [0, 1]; x = 2 image - 1.

        An image of another resolution is resized bilinearly and the gradient is taken back through the resize. A latent
        model's x is encoded once, and the mean over the noises of w(t) r is taken back through the encoder once:
        J^T w r. Scalars: t (mean), gradient_norm (mean over views, before clipping) and those of the rule. Raises
        NonFiniteError for NaN or infinity, naming the image, the encoder or the denoiser as its origin.
        """
        size = self.denoiser.image_size
        leaf = image.detach().float()
        if not bool(torch.isfinite(leaf).all()):
            raise NonFiniteError(
                "the rendered image holds NaN or infinity, so the field has diverged; images must be finite; "
                "lower optimizer.learning_rate or start from another seed"
            )
        resize = leaf.shape[-2:] != (size, size)
        latent = self.denoiser if isinstance(self.denoiser, LatentDenoiser) else None
        with torch.enable_grad():
            leaf.requires_grad_(resize or latent is not None)
            fitted = _resized(leaf, size) if resize else leaf
            x = 2 * fitted - 1
            if latent is not None:
                x = latent.encode(x, generator)
        clean = x.detach()
        if latent is not None and not bool(torch.isfinite(clean).all()):
            raise NonFiniteError(
                "the VAE encoder returned NaN or infinity though the image was finite, so its numbers overflowed; "
                "latents must be finite; set model.dtype to bfloat16 or float32"
            )
        gradient, scalars = self._mean_residual(clean, cameras, conditioning, generator, progress)
        if latent is not None:
            gradient = _through_encoder(x, leaf, gradient)
        else:
            gradient = torch.autograd.grad(x, leaf, gradient)[0] if resize else 2 * gradient
        norm = gradient.flatten(1).norm(dim=1)
        scalars["gradient_norm"] = float(norm.mean())
        if self.config.gradient_clip > 0:
            factor = (self.config.gradient_clip / norm.clamp(min=1e-12)).clamp(max=1)
            gradient = gradient * factor.view(-1, 1, 1, 1)
        return GuidanceResult(gradient.to(image.dtype), scalars)

    def _mean_residual(
        self,
        clean: Tensor,
        cameras: Cameras | None,
        conditioning: PromptConditioning,
        generator: torch.Generator,
        progress: float,
    ) -> tuple[Tensor, dict[str, float]]:
        """Mean over the noises of w(t) times the rule's residual, like clean (n, c, h, w), and the scalars."""
        n, draws = len(clean), self.config.noises
        positive = self._conditioned(conditioning.positive, cameras)
        t = self.times(n, generator, progress).to(clean.device)
        if isinstance(self.denoiser, CameraAware):
            together = self.denoiser.views_together(positive)
            t = t[::together].repeat_interleave(together)
        # The views of a draw stay together in the batch: a multi-view model reads them as one set.
        alpha, sigma = (c.to(clean).view(-1, 1, 1, 1) for c in self.denoiser.alpha_sigma(t))
        empty = None if conditioning.empty is None else self._conditioned(conditioning.empty, cameras)
        opposite = conditioning.opposite
        if opposite is not None:
            opposite = opposite.with_prompts(lambda prompt: self._conditioned(prompt, cameras))
        drawn = Draws(
            clean.repeat(draws, 1, 1, 1), t, alpha, sigma, positive, self._conditioned(conditioning.negative, cameras),
            opposite, empty, cameras, draws, generator, progress,
        )  # fmt: skip
        residual, scalars = self.rule.residual(drawn)
        check_finite(residual, t)
        mean = (self._weight(alpha, sigma) * residual).unflatten(0, (draws, n)).mean(0)
        return mean, {"t": float(t.mean()), **scalars}

    def _weight(self, alpha: Tensor, sigma: Tensor) -> Tensor:
        """w(t)."""
        if self.config.weighting == "clean":
            return sigma / alpha.clamp(min=1e-6)
        return sigma.square() if self.config.weighting == "sigma2" else torch.ones_like(sigma)

    def _conditioned(self, views: Conditioning, cameras: Cameras | None) -> Conditioning:
        """Conditioning (n rows) with the cameras where the model uses them, repeated for each draw."""
        if cameras is not None and isinstance(self.denoiser, CameraAware):
            views = self.denoiser.with_cameras(views, cameras)
        return Conditioning.stack([views] * self.config.noises)


def _through_encoder(x: Tensor, leaf: Tensor, gradient: Tensor) -> Tensor:
    """(dx/dleaf)^T gradient. Raises NonFiniteError when it is NaN or infinite.

    Each view's gradient is scaled to a largest entry of 1 for the backward pass, so that float16 neither overflows nor
    underflows; the pass is linear, so scaling back is exact.
    """
    scale = gradient.abs().amax((1, 2, 3), keepdim=True).clamp(min=1e-30)
    back = scale * torch.autograd.grad(x, leaf, gradient / scale)[0]
    if not bool(torch.isfinite(back).all()):
        raise NonFiniteError(
            "the gradient through the VAE encoder is NaN or infinite though latents and predictions were finite; it "
            "must be finite; set model.dtype to bfloat16 or float32"
        )
    return back


@dataclass(frozen=True)
class ImageStep:
    """One step of an image's distillation: steps done, its scalars, the images (n, 3, h, w) in [0, 1] after it."""

    step: int
    scalars: Mapping[str, float]
    image: Tensor


def distill_image(
    denoiser: Denoiser,
    conditioning: PromptConditioning,
    config: GuidanceConfig,
    generator_kind: ImageKind,
    steps: int,
    learning_rate: float,
    generator: torch.Generator,
    estimate: ScoreEstimate | None = None,
) -> Iterator[ImageStep]:
    """Distill plain images (fig 2, fig 8): theta -> sigmoid -> image, by Adam with a cosine decay to lr / 100.

    "free": x = theta; "symmetric": x = (flip(theta), theta), mirrored about the vertical axis. One image for each row
    of the conditioning. Raises ConfigError for an unknown kind, less than one step or a rate that is not positive.
    """
    if generator_kind not in IMAGE_KINDS:
        raise ConfigError(f"image generator {generator_kind!r}; allowed are {', '.join(IMAGE_KINDS)}; choose one")
    if steps < 1 or not learning_rate > 0:
        raise ConfigError(
            f"{steps} steps at learning rate {learning_rate}; allowed are 1 or more at a positive rate; change them"
        )
    guidance = ScoreDistillation(denoiser, config, estimate)
    device, size, n = conditioning.positive.device, denoiser.image_size, len(conditioning.positive)
    width = size if generator_kind == "free" else size // 2
    theta = (0.1 * draw_noise((n, 3, size, width), generator, device)).requires_grad_(True)
    optimizer = torch.optim.Adam([theta], lr=learning_rate)
    for step in range(steps):
        progress = step / steps
        for group in optimizer.param_groups:
            group["lr"] = learning_rate * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * progress)))
        with torch.enable_grad():
            image = generated_image(theta, generator_kind)
            result = guidance.gradient(image, None, conditioning, generator, progress)
            # Images are independent of each other, so no averaging over them.
            optimizer.zero_grad(set_to_none=True)
            (result.gradient * image).sum().backward()
        optimizer.step()
        if guidance.learner is not None:
            guidance.learner.finish_gradients()
            guidance.learner.optimizer.step()
            guidance.learner.discard_gradients()
        yield ImageStep(step + 1, result.scalars, generated_image(theta.detach(), generator_kind))


def generated_image(theta: Tensor, generator_kind: ImageKind) -> Tensor:
    """The image generator g(theta) of fig 2 in [0, 1]: sigmoid(theta), mirrored to twice the width when symmetric."""
    half = torch.sigmoid(theta)
    return half if generator_kind == "free" else torch.cat([half.flip(-1), half], dim=-1)


def _resized(image: Tensor, size: int) -> Tensor:
    return functional.interpolate(image, (size, size), mode="bilinear", align_corners=False, antialias=True)
