# SPDX-License-Identifier: GPL-3.0-or-later
"""What a stranger gets: a wheel that holds everything under one name, and README commands that are real."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from dreamwright.backend.cli.generate import job_from
from dreamwright.backend.cli.main import build_parser
from dreamwright.backend.config.presets import PRESETS

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
def test_the_wheel_holds_the_starter_and_installs_only_dreamwright(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "-q",
        "--no-deps",
        "--disable-pip-version-check",
        "-w",
        str(tmp_path),
        str(ROOT),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr
    names = zipfile.ZipFile(next(tmp_path.glob("*.whl"))).namelist()
    assert {name.split("/")[0].split("-")[0] for name in names} == {"dreamwright"}
    for needed in (
        "weights/model_index.json",
        "weights/unet/diffusion_pytorch_model.safetensors",
        "weights/domain.json",
        "classifier/judge.safetensors",
    ):
        assert f"dreamwright/backend/starter/{needed}" in names
    assert any(name.endswith("licenses/LICENSE") for name in names)


def readme_commands() -> list[list[str]]:
    blocks = re.findall(r"```sh\n(.*?)```", (ROOT / "README.md").read_text(), re.S)
    lines = [part for block in blocks for line in block.splitlines() for part in line.split("&&")]
    words = [shlex.split(line, comments=True) for line in lines if line.strip()]
    return [w[1:] for w in words if w and Path(w[0]).name == "dreamwright"]


@pytest.mark.parametrize("command", readme_commands(), ids=" ".join)
def test_every_dreamwright_command_in_the_readme_is_understood(command: list[str]) -> None:
    options = build_parser().parse_args(command)
    if options.command == "generate":
        assert job_from(options).preset in PRESETS
    elif options.command == "evaluate":
        assert getattr(options, "preset", "draft") in PRESETS


def test_the_packaged_starter_is_small_whole_and_never_pickled() -> None:
    weights = ROOT / "backend" / "starter" / "weights"
    assert sum(p.stat().st_size for p in weights.rglob("*") if p.is_file()) < 40e6
    assert not [p for p in weights.rglob("*") if p.suffix in (".bin", ".pt", ".pkl", ".ckpt")]
    for part in (
        "unet/config.json",
        "text_encoder/model.safetensors",
        "tokenizer/tokenizer.json",
        "scheduler/scheduler_config.json",
    ):
        assert (weights / part).is_file()
