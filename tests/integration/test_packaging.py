# SPDX-License-Identifier: GPL-3.0-or-later
"""README commands that parse, and the packaged starter. The wheel is in test_wheel.py."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from dreamwright.backend.cli.generate import job_from
from dreamwright.backend.cli.main import build_parser
from dreamwright.backend.config.presets import PRESETS

ROOT = Path(__file__).resolve().parents[2]


def readme_commands() -> list[list[str]]:
    blocks = re.findall(r"```sh\n(.*?)```", (ROOT / "README.md").read_text(), re.S)
    lines = [part for block in blocks for line in block.splitlines() for part in line.split("&&")]
    words = [shlex.split(line, comments=True) for line in lines if line.strip()]
    return [w[1:] for w in words if w and Path(w[0]).name == "dreamwright"]


@pytest.mark.parametrize("command", readme_commands(), ids=" ".join)
def test_readme_commands_parse(command: list[str]) -> None:
    options = build_parser().parse_args(command)
    if options.command == "generate":
        assert job_from(options).preset in PRESETS
    elif options.command == "evaluate":
        assert getattr(options, "preset", "draft") in PRESETS


def test_packaged_starter_is_small_and_complete() -> None:
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
