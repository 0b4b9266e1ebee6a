# SPDX-License-Identifier: GPL-3.0-or-later
"""Downloaded models are identical to the hub's, can be verified against their record, and work offline."""

from __future__ import annotations

import ast
import shutil
from pathlib import Path

import pytest

from tests.testing.fake_hub import Repository, refusing, run_command
from tests.testing.hub_downloads import assert_refused, models_folder
from tests.testing.tiny_model import ONE_VIEW


def test_damaged_transfer_is_rejected(hub, env, run_in_process, tiny):
    weights = "unet/diffusion_pytorch_model.fp16.safetensors"
    hub.repositories["tiny/props"] = Repository(tiny, damaged={weights})
    assert_refused(run_in_process("models", "download", "tiny/props"), weights, "damaged on its way")
    assert not (models_folder(env) / "tiny--props" / weights).exists()
    hub.repositories["tiny/props"] = Repository(tiny)
    hub.reset()
    assert run_in_process("models", "download", "tiny/props").returncode == 0 and hub.fetched() == [weights]


@pytest.mark.slow
def test_verify_and_download_repair_damaged_files(hub, env, tiny, tmp_path):
    folder = tmp_path / "elsewhere" / "props"
    hub.repositories["tiny/props"] = Repository(tiny)
    assert run_command(env, "models", "download", "tiny/props", "--to", str(folder)).returncode == 0
    weights, missing = (
        folder / "unet" / "diffusion_pytorch_model.fp16.safetensors",
        folder / "tokenizer" / "tokenizer.json",
    )
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    missing.unlink()
    cut = folder / "text_encoder" / "model.safetensors"
    cut.write_bytes(cut.read_bytes()[:-7])
    hub.reset()
    refused = refusing(env, tmp_path / "refuse")
    done = run_command(refused, "models", "verify", str(folder))
    assert_refused(done, "3 faults", f"`dreamwright models download tiny/props --to {folder}`")
    assert "unet/diffusion_pytorch_model.fp16.safetensors: differs from the record" in done.stdout
    assert (
        "tokenizer/tokenizer.json: is missing" in done.stdout
        and "text_encoder/model.safetensors: is cut off" in done.stdout
    )
    assert not Path(refused["SOCKET_LOG"]).exists()
    mended = run_command(env, "models", "download", "tiny/props", "--to", str(folder))
    assert mended.returncode == 0 and len(hub.fetched()) == 3, mended.stderr
    assert run_command(refused, "models", "verify", "tiny/props").returncode == 0, (
        "a model in another folder keeps its name"
    )
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    assert "all with their hash" in run_command(refused, "models", "verify", str(copy)).stdout, (
        "a copy keeps the hashes"
    )


def test_another_revision_replaces_the_old_files(hub, env, run_in_process, tiny):
    hub.repositories["tiny/props"] = Repository(tiny)
    assert run_in_process("models", "download", "tiny/props").returncode == 0
    fresh = {name: content for name, content in tiny.items() if ".fp16." not in name}
    hub.repositories["tiny/props"] = Repository(fresh, "e" * 40)
    hub.reset()
    done = run_in_process("models", "download", "tiny/props", "--revision", "e" * 40)
    assert done.returncode == 0, done.stderr
    folder = models_folder(env) / "tiny--props"
    assert [file.name for file in (folder / "unet").glob("*.safetensors")] == ["diffusion_pytorch_model.safetensors"]
    assert hub.fetched() == ["unet/diffusion_pytorch_model.safetensors"], "unchanged files are kept"


@pytest.mark.slow
def test_downloaded_model_runs_without_network(hub, env, tiny, tmp_path):
    """A complete run, including child processes, with the hub reachable and offline mode off."""
    hub.repositories["tiny/props"] = Repository(tiny)
    assert run_command(env, "models", "download", "tiny/props").returncode == 0
    hub.reset()
    refused = refusing(env, tmp_path / "refuse")
    small = (
        "run.steps=1", "surface.steps=0", *ONE_VIEW, "guidance.view_dependent=false", "render.resolution=8",
        "render.samples=8", "render.occupancy_resolution=8", "mesh.resolution=16",
    )  # fmt: skip
    settings = [part for setting in small for part in ("--set", setting)]
    arguments = ("a red mushroom", "--model", "tiny/props")
    run = run_command(
        refused, "generate", *arguments, "--out", str(tmp_path / "m.glb"), "--device", "cpu", *settings, cwd=tmp_path
    )
    assert run.returncode in (0, 1) and "Traceback" not in run.stderr and "1/1" in run.stderr + run.stdout, run.stderr
    absent = run_command(
        refused, "sample", "a red mushroom", "--model", "nobody/nothing", "--out", str(tmp_path / "x.png")
    )
    assert_refused(absent, "models download nobody/nothing")
    assert run_command(refused, "models").returncode == 0
    assert run_command(refused, "doctor").returncode == 0
    log = Path(refused["SOCKET_LOG"])
    assert hub.requests == [] and not log.exists(), log.read_text() if log.exists() else hub.requests


def test_refused_connections_are_recorded(hub, env, tiny, tmp_path):
    hub.repositories["tiny/props"] = Repository(tiny)
    refused = refusing(env, tmp_path / "refuse")
    assert_refused(run_command(refused, "models", "download", "tiny/props"), "cannot reach")
    assert Path(refused["SOCKET_LOG"]).read_text() and hub.requests == []


def test_only_download_modules_import_network_libraries():
    """No other module of backend or shared imports a network library."""
    root = Path(__file__).resolve().parents[2]
    webs = ("requests", "urllib.request", "urllib3", "httpx", "httpx2", "http.client", "aiohttp", "hf_xet")
    harmless = {"constants"}  # of huggingface_hub
    found = set()
    for path in [*(root / "backend").rglob("*.py"), *(root / "shared").rglob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.level == 0:
                module, names = node.module or "", {alias.name for alias in node.names}
                if module in webs or (
                    module.split(".")[0] == "huggingface_hub"
                    and not (module == "huggingface_hub" and names <= harmless)
                ):
                    found.add(path.relative_to(root).as_posix())
            elif isinstance(node, ast.Import) and any(
                alias.name in webs or alias.name.startswith("huggingface_hub") for alias in node.names
            ):
                found.add(path.relative_to(root).as_posix())
    assert found == {"backend/models/download.py", "backend/models/hub.py"}
