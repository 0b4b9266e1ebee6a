# SPDX-License-Identifier: GPL-3.0-or-later
"""A small model on a fake hub, and the command line that downloads it."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from huggingface_hub import close_session, constants

from dreamwright.backend.cli.main import main
from dreamwright.backend.models.registry import BY_NAME
from tests.testing.fake_hub import FakeHub, environment, folder_files, safetensors_bytes
from tests.testing.tiny_pipeline import write_pipeline

MB = 2**20
SD = [home.repo_id for home in BY_NAME["sd-1.5"].sources]
SD_COMMIT = BY_NAME["sd-1.5"].sources[0].revision or ""


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """A pipeline in half and full precision, with unneeded files as in real repositories."""
    files = folder_files(write_pipeline(tmp_path_factory.mktemp("tiny") / "pipeline", domain=False))
    files["unet/diffusion_pytorch_model.fp16.safetensors"] = files["unet/diffusion_pytorch_model.safetensors"]
    clutter = (
        "README.md",
        "unet/diffusion_pytorch_model.bin",
        "text_encoder/pytorch_model.bin",
        "model.ckpt",
        "vae_1_0/model.safetensors",
    )
    return {
        **files,
        **dict.fromkeys(clutter, b"unneeded"),
        "unet/diffusion_pytorch_model.non_ema.safetensors": b"unneeded",
    }


@pytest.fixture
def big(tiny: dict[str, bytes]) -> dict[str, bytes]:
    """The same pipeline with a U-Net and a text encoder of some megabytes."""
    large = {
        "unet/diffusion_pytorch_model.fp16.safetensors": safetensors_bytes(6 * MB),
        "text_encoder/model.safetensors": safetensors_bytes(2 * MB, 1),
    }
    return {**tiny, **large}


@pytest.fixture
def hub() -> Iterator[FakeHub]:
    hub = FakeHub()
    yield hub
    hub.close()


@pytest.fixture
def env(hub: FakeHub, tmp_path: Path) -> dict[str, str]:
    home = tmp_path / "home"
    home.mkdir()
    return dict(environment(hub.url, home))


def assert_refused(done: subprocess.CompletedProcess[str], *texts: str) -> None:
    """Assert exit code 2 and one error line with these texts, without a traceback."""
    errors = [line for line in done.stderr.splitlines() if line.startswith("dreamwright: error:")]
    assert done.returncode == 2 and len(errors) == 1 and "Traceback" not in done.stderr, (
        done.returncode,
        done.stdout,
        done.stderr,
    )
    assert done.stderr.splitlines()[-1] == errors[0]
    for text in texts:
        assert text in errors[0], (text, errors[0])


@pytest.fixture
def run_in_process(hub, env, monkeypatch, capsys) -> Iterator[Callable[..., subprocess.CompletedProcess[str]]]:
    """Run the command line in this process, which is faster. For results that depend on the hub only."""
    monkeypatch.setattr(constants, "ENDPOINT", hub.url)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", hub.url + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(Path(env["HF_HOME"]) / "hub"))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(Path(env["HF_HOME"]) / "token"))
    monkeypatch.setenv("DREAMWRIGHT_MODELS", env["DREAMWRIGHT_MODELS"])
    monkeypatch.delenv("HF_TOKEN", raising=False)

    def call(*arguments: str) -> subprocess.CompletedProcess[str]:
        code = main(arguments)
        out, errors = capsys.readouterr()
        return subprocess.CompletedProcess(arguments, code, out, errors)

    yield call
    close_session()


def models_folder(env: dict[str, str]) -> Path:
    return Path(env["DREAMWRIGHT_MODELS"])
