# SPDX-License-Identifier: GPL-3.0-or-later
"""Score Distillation Sampling (eq 3, fig 8) and ancestral sampling (fig 7) from any `Denoiser`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Callable, Iterator, Literal, Mapping

import torch
from torch import Tensor

from dreamwright.backend.cameras import Cameras
from dreamwright.backend.config import GuidanceConfig
from dreamwright.backend.errors import RunError
from dreamwright.backend.guidance.contract import Conditioning, Denoiser, GuidanceResult, PromptConditioning
from dreamwright.backend.guidance.prediction import sample_from_noise


def guided_noise(
    denoiser: Denoiser, z_t: Tensor, t: Tensor, positive: Conditioning, negative: Conditioning, omega: float
) -> Tensor:
    """eps_hat = (1 + omega) eps_c - omega eps_u, both predicted in one call of 2n pictures."""
    both = denoiser.predict_noise(torch.cat([z_t, z_t]), torch.cat([t, t]), Conditioning.stack([positive, negative]))
    conditional, unconditional = both.chunk(2)
    return (1 + omega) * conditional - omega * unconditional


class ScoreDistillation:
    """SDS as a `Guidance`: gradient w(t) (eps_hat - eps) on x = 2 image - 1, so twice that on the image."""

    def __init__(self, denoiser: Denoiser, config: GuidanceConfig) -> None:
        self.denoiser = denoiser
        self.config = config

    def largest_time(self, progress: float) -> float:
        """t_max annealed linearly over the run."""
        return self.config.t_max + (self.config.t_max_end - self.config.t_max) * progress

    @torch.no_grad()
    def gradient(
        self,
        image: Tensor,
        cameras: Cameras | None,
        conditioning: PromptConditioning,
        generator: torch.Generator,
        progress: float,
    ) -> GuidanceResult:
        """One noise and one time a view. Raises RunError when the denoiser returns anything that is not finite."""
        n = len(image)
        t_max = self.largest_time(progress)
        t = self.config.t_min + (t_max - self.config.t_min) * torch.rand(n, generator=generator)
        noise = torch.randn(image.shape, generator=generator).to(image)
        t = t.to(image.device)
        alpha, sigma = (value.to(image).view(n, 1, 1, 1) for value in self.denoiser.alpha_sigma(t))
        z_t = alpha * (2 * image - 1) + sigma * noise
        predicted = guided_noise(self.denoiser, z_t, t, conditioning.positive, conditioning.negative, self.config.omega)
        weight = sigma.square() if self.config.weighting == "sigma2" else torch.ones_like(sigma)
        gradient = 2 * weight * (predicted - noise)
        if not bool(torch.isfinite(gradient).all()):
            raise RunError(
                "the guidance returned NaN or infinite noise; the model's weights are damaged or its precision is too "
                "low: verify the model, or use float32"
            )
        norms = gradient.flatten(1).norm(dim=1)
        if self.config.gradient_clip > 0:
            gradient = gradient * (self.config.gradient_clip / norms.clamp(min=1e-12)).clamp(max=1).view(n, 1, 1, 1)
        return GuidanceResult(gradient, {"t": float(t.mean()), "sds_gradient": float(norms.mean())})


@torch.no_grad()
def ancestral_sample(
    denoiser: Denoiser,
    positive: Conditioning,
    negative: Conditioning,
    omega: float,
    steps: int,
    generator: torch.Generator,
    clip: bool = True,
) -> Iterator[Tensor]:
    """DDPM ancestral sampling (fig 7): yields x0_hat (n, 3, h, w) in [0, 1] after each step, the last is the sample.

    z_s ~ N(mean of q(z_s | z_t, x0_hat), its variance) with s the next lower time of an even grid; x0_hat is clipped to
    the picture range, since strong guidance leaves it.
    """
    n, size = len(positive), denoiser.image_size
    z = torch.randn(n, 3, size, size, generator=generator)
    times = torch.linspace(1.0, 0.0, steps + 1)
    for now, after in zip(times, times[1:]):
        t = now.repeat(n)
        alpha, sigma = (value.to(z).view(n, 1, 1, 1) for value in denoiser.alpha_sigma(t))
        noise = guided_noise(denoiser, z, t, positive, negative, omega)
        x0 = sample_from_noise(noise, z, alpha, sigma)
        if clip:
            x0 = x0.clamp(-1, 1)
        yield (0.5 * x0 + 0.5).clamp(0, 1)
        alpha_s, sigma_s = (value.to(z).view(n, 1, 1, 1) for value in denoiser.alpha_sigma(after.repeat(n)))
        # Posterior of the forward process between s and t: alpha_ts = alpha_t / alpha_s, sigma_ts^2 its noise.
        alpha_ts = alpha / alpha_s
        variance_ts = (sigma.square() - alpha_ts.square() * sigma_s.square()).clamp(min=0)
        sigma2 = sigma.square().clamp(min=1e-12)
        mean = (alpha_ts * sigma_s.square() * z + alpha_s * variance_ts * x0) / sigma2
        deviation = (sigma_s.square() * variance_ts / sigma2).sqrt()
        z = mean + deviation * torch.randn(z.shape, generator=generator)


@dataclass(frozen=True)
class ImageStep:
    """One step of SDS on a picture: image (n, 3, h, w) in [0, 1]."""

    step: int
    image: Tensor
    scalars: Mapping[str, float]


def distill_image(
    guidance: ScoreDistillation,
    conditioning: PromptConditioning,
    steps: int,
    learning_rate: float,
    generator: torch.Generator,
    constraint: Literal["free", "symmetric"] = "free",
) -> Iterator[ImageStep]:
    """SDS on pixels (fig 2): x = theta, or the mirror-symmetric x = (flip(theta), theta); yields after each step."""
    n, size = len(conditioning.positive), guidance.denoiser.image_size
    width = size if constraint == "free" else size // 2
    theta = torch.randn(n, 3, size, width, generator=generator).mul_(0.1).requires_grad_()
    picture: Callable[[], Tensor] = (
        (lambda: torch.sigmoid(theta))
        if constraint == "free"
        else (lambda: torch.sigmoid(torch.cat([theta.flip(-1), theta], dim=-1)))
    )
    optimizer = torch.optim.Adam([theta], lr=learning_rate)
    for step in range(1, steps + 1):
        image = picture()
        result = guidance.gradient(image.detach(), None, conditioning, generator, step / steps)
        (result.gradient * image).sum().backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        yield ImageStep(step, picture().detach(), result.scalars)
