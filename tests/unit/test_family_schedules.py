# SPDX-License-Identifier: GPL-3.0-or-later
"""Noise levels and predictions of latent families equal those of the diffusers schedulers."""

from __future__ import annotations

import diffusers
import pytest
import torch

from dreamwright.backend.guidance.denoisers.loading import load_denoiser
from dreamwright.backend.guidance.prediction import clean_from
from tests.testing.family_folders import edit
from tests.testing.tiny_families import LINEAR, save, stable_diffusion, stable_diffusion_3

SCHEDULERS = {
    "ddpm": ("DDPMScheduler", {}),
    "ddim": ("DDIMScheduler", {"timestep_spacing": "trailing"}),
    "ddim-zero-snr": ("DDIMScheduler", {"prediction_type": "v_prediction", "rescale_betas_zero_snr": True}),
    "pndm": ("PNDMScheduler", {"skip_prk_steps": True}),
    "euler": ("EulerDiscreteScheduler", {}),
    "euler-zero-snr": ("EulerDiscreteScheduler", {"prediction_type": "v_prediction", "rescale_betas_zero_snr": True}),
    "euler-ancestral": ("EulerAncestralDiscreteScheduler", {}),
    "dpm": ("DPMSolverMultistepScheduler", {"timestep_spacing": "trailing"}),
    "unipc": ("UniPCMultistepScheduler", {"timestep_spacing": "trailing"}),
    "few-steps": ("DDPMScheduler", {"num_train_timesteps": 200}),
}


@pytest.mark.parametrize("case", list(SCHEDULERS))
def test_noise_levels_equal_the_schedulers_add_noise(copy, case):
    kind, config = SCHEDULERS[case]
    scheduler = getattr(diffusers, kind)(**{**LINEAR, **config})
    path = copy("sd15")
    edit(path / "model_index.json", scheduler=["diffusers", kind])
    scheduler.save_pretrained(path / "scheduler")
    denoiser = load_denoiser(path)
    steps = scheduler.config.num_train_timesteps
    x, eps = torch.randn(2, 3, 4, 2, 2, generator=torch.Generator().manual_seed(0))
    t = torch.tensor([0.0, 0.37, 1.0])
    timesteps = denoiser.model_timestep(t)
    assert timesteps.tolist() == [0, round(0.37 * (steps - 1)), steps - 1]
    alpha, sigma = (level.view(3, 1, 1, 1) for level in denoiser.alpha_sigma(t))
    if config.get("timestep_spacing") == "trailing":
        scheduler.set_timesteps(steps)  # these schedulers set their levels by the number of steps: here all
    expected = scheduler.add_noise(x, eps, timesteps)
    if kind.startswith("Euler"):  # in the coordinates x + sigma' eps, unlike the network's input
        levels = torch.tensor([float(scheduler.sigmas[scheduler.timesteps.tolist().index(k)]) for k in timesteps]).view(
            3, 1, 1, 1
        )
        expected = expected / (levels**2 + 1).sqrt()
    # diffusers computes its levels in float32 by cumulative products of 1000 factors: 1000 x 6e-8 = 6e-5.
    torch.testing.assert_close(alpha * x + sigma * eps, expected, rtol=1e-4, atol=1e-4)
    last_signal = float(alpha[-1, 0, 0, 0])
    assert (last_signal < 3e-4) == ("zero-snr" in case)  # some diffusers samplers keep 2^-24 of the signal's power


@pytest.mark.parametrize(
    "scheduling", [{"shift": 1.0}, {"shift": 3.0}, {"use_dynamic_shifting": True, "base_shift": 0.7}]
)
def test_flow_levels_equal_the_schedulers_scale_noise(tmp_path, scheduling):
    path = save(lambda: stable_diffusion_3(tmp_path, t5=False, **scheduling), tmp_path / "m")
    denoiser = load_denoiser(path)
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler.from_pretrained(path / "scheduler")
    if "use_dynamic_shifting" in scheduling:
        tokens = 16  # 8 x 8 latents in patches of 2
        mu = 0.7 + (1.15 - 0.7) / (4096 - 256) * (tokens - 256)
        scheduler.set_timesteps(sigmas=[k / 1000 for k in range(1000, 0, -1)], mu=mu)
    x, eps = torch.randn(2, 3, 16, 2, 2, generator=torch.Generator().manual_seed(0))
    t = torch.tensor([0.0, 0.37, 1.0])
    alpha, sigma = (level.view(3, 1, 1, 1) for level in denoiser.alpha_sigma(t))
    timesteps = denoiser.model_timestep(t)
    listed = scheduler.timesteps[:1000].flip(0)
    chosen = listed[[0, 370, 999]]
    # Timesteps up to 1000 are rounded to 3e-5 in float32, some times in the shift.
    torch.testing.assert_close(timesteps, chosen, rtol=0, atol=3e-4)
    # Levels in float32 times samples of up to 4: some ten roundings of 6e-8 x 4.
    torch.testing.assert_close(alpha * x + sigma * eps, scheduler.scale_noise(x, chosen, eps), rtol=0, atol=1e-5)
    assert float(alpha[-1, 0, 0, 0]) == 0 and denoiser.prediction_type == "flow"


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction", "sample"])
def test_clean_latents_equal_the_schedulers(tmp_path, kind):
    path = save(lambda: stable_diffusion(tmp_path, kind, timestep_spacing="trailing"), tmp_path / "m")
    denoiser = load_denoiser(path)
    z = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    t = torch.tensor([0.6])
    output = denoiser.predict_raw(z, t, denoiser.embed(["a red chair"]))
    alpha, sigma = (level.view(1, 1, 1, 1) for level in denoiser.alpha_sigma(t))
    scheduler = diffusers.DDIMScheduler.from_pretrained(path / "scheduler")
    scheduler.set_timesteps(1000)
    step = scheduler.step(output, int(denoiser.model_timestep(t)), z)
    # diffusers' float32 levels are products of up to 1000 factors: 6e-5.
    torch.testing.assert_close(
        clean_from(denoiser.prediction_type, output, z, alpha, sigma), step.pred_original_sample, rtol=1e-4, atol=1e-4
    )
    noise = denoiser.predict_noise(z, t, denoiser.embed(["a red chair"]))
    # diffusers' float32 levels are products of up to 1000 factors: 6e-5.
    torch.testing.assert_close(alpha * step.pred_original_sample + sigma * noise, z, rtol=1e-4, atol=1e-4)
