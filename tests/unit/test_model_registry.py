# SPDX-License-Identifier: GPL-3.0-or-later
"""The model registry, its page in the documentation, and how absent models are listed."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from dreamwright.backend.models.families import BY_PIPELINE
from dreamwright.backend.models.registry import BY_NAME, BY_REPO, MODELS, PACKAGED, STARTER
from dreamwright.backend.server.requests import capabilities

pytestmark = pytest.mark.usefixtures("only_packaged_models")


def test_registry_entries_are_complete():
    assert [model.name for model in MODELS] == list(BY_NAME) and MODELS[0].name == STARTER
    assert {"deepfloyd-if", "deepfloyd-if-l", "deepfloyd-if-m", "sd-1.5", "sd-2.1-base", "sdxl", "sd3-medium"} < set(
        BY_NAME
    )
    for model in MODELS[1:]:
        assert model.license and model.memory_gb > 0 and model.text_encoder_gb > 0
        assert (model.download_gb > 0) == bool(model.sources) and bool(model.sources) != (model.name in PACKAGED)
        for home in model.sources:
            assert re.fullmatch(r"[\w.-]+/[\w.-]+", home.repo_id) and (
                home.revision is None or re.fullmatch(r"[0-9a-f]{40}", home.revision)
            )
            assert BY_REPO[home.repo_id.lower()] is model
    assert len(BY_REPO) == sum(len(model.sources) for model in MODELS), "no source serves two models"
    removed = ("runwayml/", "stabilityai/stable-diffusion-2")
    assert not [name for name in BY_REPO if name.startswith(removed)], "removed sources are not listed"


def test_models_page_matches_the_registry():
    page = (Path(__file__).resolve().parents[2] / "docs" / "user" / "models.md").read_text(encoding="utf-8")
    table = (line.split("|") for line in page.splitlines() if line.startswith("| `"))
    rows = {cells[1].strip("` "): [cell.strip() for cell in cells[3:-1]] for cells in table}
    assert list(rows) == list(BY_NAME)
    for model in MODELS:
        license, gate, memory, text, size = rows[model.name]
        assert model.license.startswith(license) and gate == ("yes" if model.gated else "no")
        assert [memory, text] == [f"{model.memory_gb:g} GB", f"{model.text_encoder_gb:g} GB"]
        assert size == (f"{model.download_gb:g} GB" if model.sources else "none")
    assert all(pipeline in page for pipeline in BY_PIPELINE)


def test_absent_models_name_their_download_command():
    cards = {card.name: card for card in capabilities(("cpu",), may_manage_models=True).models}
    assert cards[STARTER].ready and not cards[STARTER].missing
    assert not cards["sdxl"].ready and "`dreamwright models download sdxl`" in cards["sdxl"].missing
    for name in ("deepfloyd-if", "sd3-medium"):
        assert BY_NAME[name].sources[0].url in cards[name].missing and "`hf auth login`" in cards[name].missing


def test_listing_models_imports_no_heavy_library():
    code = (
        "import sys; from dreamwright.backend.cli.main import main; main(['models']);"
        "heavy = ('torch', 'diffusers', 'transformers', 'httpx', 'httpx2', 'requests');"
        "print([name for name in heavy if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.splitlines()[-1] == "[]", done.stdout + done.stderr
