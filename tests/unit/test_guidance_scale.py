# SPDX-License-Identifier: GPL-3.0-or-later
"""Two names of one setting: the paper's omega, and diffusers' guidance_scale = 1 + omega."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from dreamwright.backend.cli.main import build_parser, main
from dreamwright.backend.config.parsing import apply_settings, config_from_mapping
from dreamwright.backend.config.schema import Config, GuidanceConfig
from dreamwright.backend.errors import ConfigError
from dreamwright.backend.guidance.sds import ScoreDistillation
from dreamwright.backend.text.prompts import PromptEmbeddings
from dreamwright.backend.training.job import make_job
from tests.testing.oracles import GaussianOracle
from tests.testing.tiny_model import QUICK, save_tiny_model


@pytest.mark.parametrize(
    ("settings", "omega"),
    [
        (["guidance.guidance_scale=8.5"], 7.5),
        (["guidance.guidance_scale=1"], 0.0),
        (["guidance.guidance_scale=8.5", "guidance.omega=7.5"], 7.5),
        (["guidance.omega=7.6", "guidance.guidance_scale=8.6"], 7.6),
        (["guidance.guidance_scale=3", "guidance.guidance_scale=4"], 3.0),  # the last one applies, as for any setting
    ],
)
def test_guidance_scale_is_omega_plus_one(settings: list[str], omega: float) -> None:
    # A difference below 10 in float64: one rounding of 8.9e-16.
    assert apply_settings(Config(), settings).guidance.omega == pytest.approx(omega, abs=4e-15)


def test_both_names_are_one_setting_of_a_job() -> None:
    one, other = (
        make_job("a chair", "m", "draft", apply_settings(Config(), [s]))
        for s in ("guidance.omega=7.5", "guidance.guidance_scale=8.5")
    )
    assert one == other and one.fingerprint() == other.fingerprint()
    assert config_from_mapping({"guidance": {"guidance_scale": 8.5}}).guidance.omega == 7.5


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (["guidance.omega=7.5", "guidance.guidance_scale=7.5"], ("7.5", "1 + ", "guidance.omega=6.5")),
        (["guidance.guidance_scale=0.5"], ("guidance.guidance_scale", "0.5", "1 to 1001")),
        (["guidance.guidance_scale=nan"], ("guidance.guidance_scale", "nan")),
        (["guidance.guidance_scale=much"], ("guidance.guidance_scale", "much", "a number")),
        (["guidance.guidance_scael=3"], ("guidance.guidance_scale",)),
    ],
)
def test_contradiction_or_bad_number_is_refused_by_name(settings: list[str], words: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError) as caught:
        apply_settings(Config(), settings)
    assert all(word in str(caught.value) for word in words) and "\n" not in str(caught.value)


def test_help_log_and_mesh_name_both(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model, out = str(save_tiny_model(tmp_path / "model")), tmp_path / "x.glb"
    settings = [part for setting in (*QUICK, "guidance.guidance_scale=8.5") for part in ("--set", setting)]
    assert main(["generate", "a red mushroom", "--model", model, "--out", str(out), *settings]) == 0
    assert "omega 7.5" in (output := capsys.readouterr().err) and "guidance_scale 8.5" in output
    data = out.read_bytes()
    header = json.dumps(json.loads(data[20 : 20 + int.from_bytes(data[12:16], "little")]))
    assert '"omega": 7.5' in header and '"guidance_scale": 8.5' in header
    for command in ("generate", "sample"):
        with pytest.raises(SystemExit):
            build_parser().parse_args([command, "--help"])
        shown = capsys.readouterr().out
        assert "omega" in shown and "guidance_scale" in shown


def test_negative_prompt_and_perp_neg_together() -> None:
    """2 w (u + (1 + omega) (c - u - k p) - eps), in float64.

    u is the negative prompt's prediction, c the prompt's, o the opposite side's, p the part of o - u normal to c - u.
    """
    size, omega, k = 8, 3.0, 1.5
    draw = torch.Generator().manual_seed(3)
    texts = ("", "fog", *(f"a chair, {view} view" for view in ("front", "side", "back", "overhead")))
    means = {text: torch.rand(3, size, size, generator=draw) for text in texts}
    oracle = GaussianOracle(means, 0.5)
    config = GuidanceConfig(omega=omega, negative_prompt="fog", opposite_weight=k, t_min=0.6, t_max=0.6, t_max_end=0.6)
    views = PromptEmbeddings(oracle, "a chair", config).for_cameras([0.0, 90.0], [0.0, 0.0])
    image = torch.rand(2, 3, size, size, generator=draw)
    got = ScoreDistillation(oracle, config).gradient(image, None, views, torch.Generator().manual_seed(0), 0.0).gradient

    noise_stream = torch.Generator().manual_seed(0)
    torch.rand(2, generator=noise_stream)  # the times are drawn first
    eps = torch.randn(2, 3, size, size, generator=noise_stream).double()
    t = torch.tensor(0.6, dtype=torch.float64)
    alpha, sigma = torch.cos(torch.pi * t / 2), torch.sin(torch.pi * t / 2)
    z = alpha * (2 * image.double() - 1) + sigma * eps

    def noise(*prompts: str) -> torch.Tensor:
        mean = torch.stack([means[prompt] for prompt in prompts]).double()
        return sigma * (z - alpha * mean) / (alpha**2 * 0.25 + sigma**2)

    c, u = noise("a chair, front view", "a chair, side view"), noise("fog", "fog")
    o = noise("a chair, back view", "a chair, side view")
    toward, away = (c - u).flatten(1), (o - u).flatten(1)
    across = away - (away * toward).sum(1, keepdim=True) / toward.square().sum(1, keepdim=True) * toward
    expected = 2 * sigma**2 * (u + (1 + omega) * (c - u - k * across.view_as(c)) - eps)
    # Float32: predictions of size 5 with some roundings of 6e-8, times up to 2 (1 + omega) (1 + k) = 20: 6e-6 each.
    torch.testing.assert_close(got.double(), expected, rtol=0, atol=1e-4)
    plain = ScoreDistillation(oracle, GuidanceConfig(**{**vars(config), "negative_prompt": ""}))
    bank = PromptEmbeddings(oracle, "a chair", plain.config).for_cameras([0.0, 90.0], [0.0, 0.0])
    # The negative prompt changes the gradient by more than 500 times that.
    assert not torch.allclose(
        plain.gradient(image, None, bank, torch.Generator().manual_seed(0), 0.0).gradient, got, atol=0.05
    )
