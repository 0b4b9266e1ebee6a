# SPDX-License-Identifier: GPL-3.0-or-later
"""Score Distillation Sampling (eq 3, fig 8) and DDPM ancestral sampling (fig 7) from any denoiser."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor
from torch.nn import functional

from ..config.schema import GuidanceConfig
from ..errors import ConfigError, NotANumber
from ..runtime.rng import draw_rows
from ..text.prompts import PromptConditioning
from .interfaces import (
    CameraAware,
    Conditioning,
    Denoiser,
    GuidanceResult,
    LatentDenoiser,
    NativeDenoiser,
)
from .prediction import PredictionType, clean_from, guided, noise_residual, perpendicular

if TYPE_CHECKING:
    from ..cameras.poses import Cameras

ImageKind = Literal["free", "symmetric"]
IMAGE_KINDS: tuple[ImageKind, ...] = ("free", "symmetric")


def guided_prediction(
    denoiser: Denoiser,
    z_t: Tensor,
    t: Tensor,
    positive: Conditioning,
    negative: Conditioning,
    omega: float,
    opposite: Conditioning | None = None,
    opposite_weight: float = 0.0,
) -> tuple[PredictionType, Tensor]:
    """Classifier-free guidance from one call of the denoiser on 2 n images: (kind, guided output (n, 3, h, w)).

    With omega = 0 the negative prompt has no say and is left out. A denoiser that offers its own kind of prediction is
    guided in that kind, which is the same thing with fewer roundings.
    `opposite` makes it 3 n images and Perp-Neg (Armandpour et al. 2023): u + (1 + omega) (c - u - weight p), with p what
    of o - u is perpendicular to c - u: away from how the opposite view looks, never away from the prompt itself.
    """
    if isinstance(denoiser, NativeDenoiser):
        kind, predict = denoiser.prediction_type, denoiser.predict
    else:
        kind, predict = "epsilon", denoiser.predict_noise
    if omega == 0:
        return kind, predict(z_t, t, positive)
    asked = [positive, negative] if opposite is None or opposite_weight == 0 else [positive, negative, opposite]
    answers = predict(torch.cat([z_t] * len(asked)), torch.cat([t] * len(asked)), Conditioning.stack(asked)).chunk(
        len(asked)
    )
    conditional, unconditional = answers[:2]
    output = guided(conditional, unconditional, omega)
    if len(asked) == 3:
        aside = perpendicular(answers[2] - unconditional, conditional - unconditional)
        output = output - (1 + omega) * opposite_weight * aside
    return kind, output


class ScoreDistillation:
    """grad_x L_SDS = w(t) (eps_hat - eps) (eq 3): the frozen model is run forwards only. Implements `Guidance`.

    Raises ConfigError for times outside 0 <= t_min <= t_max, t_max_end <= 1 or a negative clip.
    """

    def __init__(self, denoiser: Denoiser, config: GuidanceConfig) -> None:
        if not 0 <= config.t_min <= min(config.t_max, config.t_max_end) <= max(config.t_max, config.t_max_end) <= 1:
            raise ConfigError(
                f"guidance times t_min {config.t_min}, t_max {config.t_max}, t_max_end {config.t_max_end}; "
                "allowed is 0 <= t_min <= t_max, t_max_end <= 1; change guidance.t_min or guidance.t_max"
            )
        if not config.gradient_clip >= 0:
            raise ConfigError(
                f"guidance.gradient_clip {config.gradient_clip}; allowed is 0 (no clipping) or more; change it"
            )
        self.denoiser = denoiser
        self.config = config

    def times(self, n: int, generator: torch.Generator, progress: float) -> Tensor:
        """n times t ~ U(t_min, t_max), t_max going linearly to t_max_end with progress in [0, 1]."""
        config = self.config
        share = min(max(progress, 0.0), 1.0)
        high = config.t_max + (config.t_max_end - config.t_max) * share
        return config.t_min + (high - config.t_min) * draw_rows(torch.rand, (n,), generator)

    def gradient(
        self,
        image: Tensor,
        cameras: Cameras | None,
        conditioning: PromptConditioning,
        generator: torch.Generator,
        progress: float,
    ) -> GuidanceResult:
        """2 w(t) (eps_hat - eps), (n, 3, h, w), with respect to the image in [0, 1]; x = 2 image - 1.

        An image of another resolution is resized bilinearly and the gradient is taken back through the resize. A latent
        model's x is encoded, and w(t) (eps_hat - eps) is taken back through the encoder: J^T w (eps_hat - eps).
        Scalars: t (mean), gradient_norm (mean over views, before clipping), clean_error (root mean square of
        x - x0_hat in the model's units: how far it thinks the image is from good). Raises NotANumber for NaN or infinity,
        saying whether the image, the encoder or the denoiser brought it.
        """
        size = self.denoiser.image_size
        leaf = image.detach().float()
        if not bool(torch.isfinite(leaf).all()):
            raise NotANumber(
                "the rendered image holds NaN or infinity, so the field has diverged; images must be finite; "
                "lower optimizer.learning_rate or start from another seed"
            )
        resize = leaf.shape[-2:] != (size, size)
        latent = isinstance(self.denoiser, LatentDenoiser)
        with torch.enable_grad():
            leaf.requires_grad_(resize or latent)
            fitted = _resized(leaf, size) if resize else leaf
            x = 2 * fitted - 1
            if latent:
                x = self.denoiser.encode(x, generator)
        clean = x.detach()
        if latent and not bool(torch.isfinite(clean).all()):
            raise NotANumber(
                "the VAE encoder answered NaN or infinity though the image was finite, so its numbers overflowed; latents "
                "must be finite; set model.dtype to bfloat16 or float32"
            )
        n = len(clean)
        t = self.times(n, generator, progress).to(clean.device)
        noise = _noise(clean.shape, generator, clean.device)
        alpha, sigma = (c.to(clean).view(n, 1, 1, 1) for c in self.denoiser.alpha_sigma(t))
        z_t = alpha * clean + sigma * noise
        positive, negative, opposite = conditioning.positive, conditioning.negative, conditioning.opposite
        if cameras is not None and isinstance(self.denoiser, CameraAware):
            positive = self.denoiser.with_cameras(positive, cameras)
            negative = self.denoiser.with_cameras(negative, cameras)
            opposite = None if opposite is None else self.denoiser.with_cameras(opposite, cameras)
        config = self.config
        kind, output = guided_prediction(
            self.denoiser, z_t, t, positive, negative, config.omega, opposite, config.opposite_weight
        )
        residual = noise_residual(kind, output, clean, noise, alpha, sigma)
        _check_finite(residual, t)
        weight = sigma.square() if self.config.weighting == "sigma2" else torch.ones_like(sigma)
        # x - x0_hat = sigma / alpha (eps_hat - eps), for any kind of prediction.
        error = (sigma / alpha.clamp(min=1e-6) * residual).square().mean().sqrt()
        gradient = weight * residual
        if latent:
            gradient = _through_encoder(x, leaf, gradient)
        else:
            gradient = torch.autograd.grad(x, leaf, gradient)[0] if resize else 2 * gradient
        norm = gradient.flatten(1).norm(dim=1)
        scalars = {"t": float(t.mean()), "gradient_norm": float(norm.mean()), "clean_error": float(error)}
        if self.config.gradient_clip > 0:
            factor = (self.config.gradient_clip / norm.clamp(min=1e-12)).clamp(max=1)
            gradient = gradient * factor.view(n, 1, 1, 1)
        return GuidanceResult(gradient.to(image.dtype), scalars)


def _through_encoder(x: Tensor, leaf: Tensor, gradient: Tensor) -> Tensor:
    """(dx/dleaf)^T gradient, view by view scaled to a largest entry of 1 on the way, so that float16 neither overflows
    nor underflows; being linear, the way back loses nothing by it. Raises NotANumber when it brings NaN or infinity.
    """
    scale = gradient.abs().amax((1, 2, 3), keepdim=True).clamp(min=1e-30)
    back = scale * torch.autograd.grad(x, leaf, gradient / scale)[0]
    if not bool(torch.isfinite(back).all()):
        raise NotANumber(
            "the gradient through the VAE encoder is NaN or infinite though latents and predictions were finite; it must "
            "be finite; set model.dtype to bfloat16 or float32"
        )
    return back


def ancestral_step(
    z_t: Tensor, clean: Tensor, noise: Tensor, now: tuple[float, float], then: tuple[float, float]
) -> Tensor:
    """z_s ~ q(z_s | z_t, x = clean) for s < t, given (alpha, sigma) at t (`now`) and at s (`then`).

    With a = alpha_t / alpha_s and v = sigma_t^2 - a^2 sigma_s^2: mean = a sigma_s^2 / sigma_t^2 z_t
    + alpha_s v / sigma_t^2 clean, variance = v sigma_s^2 / sigma_t^2 (Ho et al. 2020, eq 6 and 7, in continuous time).
    """
    (alpha_t, sigma_t), (alpha_s, sigma_s) = now, then
    ratio = alpha_t / alpha_s
    added = max(sigma_t**2 - ratio**2 * sigma_s**2, 0.0)
    mean = (ratio * sigma_s**2 / sigma_t**2) * z_t + (alpha_s * added / sigma_t**2) * clean
    return mean + math.sqrt(added) * sigma_s / sigma_t * noise


def ancestral_steps(
    denoiser: Denoiser,
    conditioning: Conditioning,
    negative: Conditioning,
    omega: float,
    steps: int,
    generator: torch.Generator,
    size: int | None = None,
    clip: bool = True,
    opposite: Conditioning | None = None,
    opposite_weight: float = 0.0,
) -> Iterator[Tensor]:
    """Fig 7, one step at a time: t from 1 to 1 / steps; yields x0_hat in the model's space after each, which is
    (n, 3, size, size) in [-1, 1] or latents; `pictures` shows either.

    `clip` keeps x0_hat in [-1, 1] (static thresholding), without which guidance saturates; latents know no such range.
    `opposite` is Perp-Neg's, as in `guided_prediction`.
    Raises ConfigError for less than one step and NotANumber when the denoiser gives NaN or infinity.
    """
    if steps < 1:
        raise ConfigError(f"{steps} sampling steps; allowed are 1 or more; give a larger number")
    latent = isinstance(denoiser, LatentDenoiser)
    channels, own_size = (denoiser.channels, denoiser.latent_size) if latent else (3, denoiser.image_size)
    size = own_size if size is None else size
    device = conditioning.device
    n = len(conditioning)
    times = torch.linspace(1.0, 1.0 / steps, steps)
    z_t = _noise((n, channels, size, size), generator, device)
    # Coefficients in float64: the step's variance is a difference of nearly equal numbers.
    levels = [_level(denoiser, float(t), device) for t in times]
    for i, t in enumerate(times):
        alpha, sigma = levels[i]
        now = t.to(device).expand(n)
        kind, output = guided_prediction(denoiser, z_t, now, conditioning, negative, omega, opposite, opposite_weight)
        coefficients = (torch.full((1, 1, 1, 1), c, device=device) for c in (alpha, sigma))
        clean = clean_from(kind, output, z_t, *coefficients)
        _check_finite(clean, now)
        clean = clean.clamp(-1, 1) if clip and not latent else clean
        if i + 1 < steps:
            z_t = ancestral_step(z_t, clean, _noise(z_t.shape, generator, device), levels[i], levels[i + 1])
        yield clean


def ancestral_sample(
    denoiser: Denoiser,
    conditioning: Conditioning,
    negative: Conditioning,
    omega: float,
    steps: int,
    generator: torch.Generator,
    size: int | None = None,
    clip: bool = True,
    opposite: Conditioning | None = None,
    opposite_weight: float = 0.0,
) -> Tensor:
    """Images (n, 3, h, w) by DDPM ancestral sampling (fig 7), in [0, 1] when clipped; see `ancestral_steps`."""
    clean = None
    for clean in ancestral_steps(
        denoiser, conditioning, negative, omega, steps, generator, size, clip, opposite, opposite_weight
    ):
        pass
    return pictures(denoiser, clean, clip)


def pictures(denoiser: Denoiser, clean: Tensor, clip: bool = True) -> Tensor:
    """Images (n, 3, h, w) in [0, 1] of x0 in the model's space, decoded if those are latents; unclipped on request."""
    x = denoiser.decode(clean) if isinstance(denoiser, LatentDenoiser) else clean
    return 0.5 * ((x.clamp(-1, 1) if clip else x) + 1)


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
) -> Iterator[ImageStep]:
    """SDS on plain images (fig 2, fig 8): theta -> sigmoid -> image, by Adam with a cosine decay to lr / 100.

    "free": x = theta; "symmetric": x = (flip(theta), theta), mirrored about the vertical axis. One image for each row
    of the conditioning. Raises ConfigError for an unknown kind, less than one step or a rate that is not positive.
    """
    if generator_kind not in IMAGE_KINDS:
        raise ConfigError(f"image generator {generator_kind!r}; allowed are {', '.join(IMAGE_KINDS)}; choose one")
    if steps < 1 or not learning_rate > 0:
        raise ConfigError(
            f"{steps} steps at learning rate {learning_rate}; allowed are 1 or more at a positive rate; change them"
        )
    guidance = ScoreDistillation(denoiser, config)
    device, size, n = conditioning.positive.device, denoiser.image_size, len(conditioning.positive)
    width = size if generator_kind == "free" else size // 2
    theta = (0.1 * _noise((n, 3, size, width), generator, device)).requires_grad_(True)
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
        yield ImageStep(step + 1, result.scalars, generated_image(theta.detach(), generator_kind))


def generated_image(theta: Tensor, generator_kind: ImageKind) -> Tensor:
    """The image generator g(theta) of fig 2 in [0, 1]: sigmoid(theta), mirrored to twice the width when symmetric."""
    half = torch.sigmoid(theta)
    return half if generator_kind == "free" else torch.cat([half.flip(-1), half], dim=-1)


def _noise(shape: tuple[int, ...], generator: torch.Generator, device: torch.device) -> Tensor:
    """Unit Gaussian noise drawn where the generator lives, so that a seed means the same on every device."""
    return draw_rows(torch.randn, shape, generator).to(device)


def _level(denoiser: Denoiser, t: float, device: torch.device) -> tuple[float, float]:
    alpha, sigma = denoiser.alpha_sigma(torch.tensor([t], device=device))
    return float(alpha[0]), float(sigma[0])


def _resized(image: Tensor, size: int) -> Tensor:
    return functional.interpolate(image, (size, size), mode="bilinear", align_corners=False, antialias=True)


def _check_finite(values: Tensor, t: Tensor) -> None:
    """Raise NotANumber when a denoiser, fed finite images, answered NaN or infinity."""
    bad = ~torch.isfinite(values).flatten(1).all(dim=1)
    if bool(bad.any()):
        where = ", ".join(f"{time:.3f}" for time in t[bad].tolist()[:4])
        raise NotANumber(
            f"the denoiser answered NaN or infinity for {int(bad.sum())} of {len(bad)} images (t = {where}) though its "
            "inputs were finite; predictions must be finite; use float32 weights or a smaller guidance.omega"
        )
