# SPDX-License-Identifier: GPL-3.0-or-later
"""Sources of a model: its repository, a mirror or a gated repository; the source is printed and recorded."""

from __future__ import annotations

import hashlib
import json
import shutil

import pytest

from dreamwright.backend.models.registry import BY_NAME
from tests.testing.fake_hub import (
    LICENSED_TOKEN,
    UNLICENSED_TOKEN,
    FakeHub,
    Repository,
    folder_files,
    refusing,
    run_command,
)
from tests.testing.hub_downloads import SD, SD_COMMIT, assert_refused, models_folder


@pytest.mark.slow
def test_download_fetches_required_files_and_names_the_source(hub, env, tiny, tmp_path):
    hub.repositories["tiny/props"] = Repository(tiny)
    done = run_command(env, "models", "download", "tiny/props")
    assert done.returncode == 0, done.stderr
    folder = models_folder(env) / "tiny--props"
    assert "served by tiny/props, revision " + "c" * 40 in done.stdout and str(folder) in done.stdout
    there = {name: content for name, content in folder_files(folder).items() if not name.startswith(".dreamwright")}
    assert (
        "unet/diffusion_pytorch_model.fp16.safetensors" in there
        and "unet/diffusion_pytorch_model.safetensors" not in there
    )
    assert not [name for name in there if name.endswith((".bin", ".ckpt", ".md")) or "non_ema" in name or "vae" in name]
    assert there == {name: tiny[name] for name in there} and sorted(hub.fetched()) == sorted(there)
    hub.reset()
    again = run_command(env, "models", "download", "tiny/props")
    assert again.returncode == 0 and "here already" in again.stdout and hub.requests == []
    verified = run_command(refusing(env, tmp_path / "refuse"), "models", "verify", "tiny/props")
    assert (
        verified.returncode == 0
        and f"is sound: {len(there)} files" in verified.stdout
        and "all with their hash" in verified.stdout
    )
    assert not (tmp_path / "refuse" / "sockets.log").exists()


def test_mirror_is_used_when_the_first_source_is_gone(hub, env, run_in_process, tiny):
    hub.repositories[SD[1]] = Repository(tiny)
    done = run_in_process("models", "download", "sd-1.5")
    assert done.returncode == 0, done.stderr
    assert (
        f"served by {SD[1]}, a mirror, since {SD[0]} could not" in done.stdout and "no expected revision" in done.stdout
    )
    assert f"{SD[0]} is not on" in done.stderr


def test_unusable_source_is_skipped(hub, env, run_in_process, tiny):
    hub.repositories[SD[0]] = Repository(tiny, "d" * 40)
    hub.repositories[SD[1]] = Repository(tiny, broken={"text_encoder/config.json"})
    hub.repositories[SD[2]] = Repository(tiny)
    done = run_in_process("models", "download", "sd-1.5")
    assert done.returncode == 0 and f"served by {SD[2]}" in done.stdout
    assert f"has no revision '{SD_COMMIT}'" in done.stderr and "answered 500" in done.stderr
    shutil.rmtree(models_folder(env))
    del hub.repositories[SD[1]], hub.repositories[SD[2]]
    assert_refused(
        run_in_process("models", "download", "sd-1.5"),
        f"{SD[0]} has no revision",
        f"{SD[1]} is not on",
        "--revision main",
    )
    chosen = run_in_process("models", "download", "sd-1.5", "--revision", "main")
    assert chosen.returncode == 0 and f"served by {SD[0]}, revision {'d' * 40}" in chosen.stdout


def test_gated_model_needs_license_and_token(hub, env, tiny):
    model = BY_NAME["deepfloyd-if-m"]
    repo_id = model.sources[0].repo_id
    hub.repositories[repo_id] = Repository(tiny, gated=True)
    advice = (f"{repo_id} is gated", f"{hub.url}/{repo_id}", "`hf auth login`")
    assert_refused(run_command(env, "models", "download", model.name), *advice, "no token is stored")
    assert not models_folder(env).exists() or not any(models_folder(env).iterdir()), "no file was created"
    assert_refused(
        run_command({**env, "HF_TOKEN": UNLICENSED_TOKEN}, "models", "download", model.name),
        *advice,
        "has not accepted it",
    )
    assert (hub.fetched() and set(hub.fetched()) <= {"model_index.json"}) or not hub.fetched()
    done = run_command({**env, "HF_TOKEN": LICENSED_TOKEN}, "models", "download", model.name)
    assert done.returncode == 0 and LICENSED_TOKEN not in done.stdout + done.stderr, done.stderr
    assert f"here: {models_folder(env) / model.name}" in run_command(env, "models").stdout


def test_download_record_has_sizes_and_hashes(hub, env, run_in_process, tiny):
    hub.repositories["tiny/props"] = Repository(tiny)
    assert run_in_process("models", "download", "tiny/props").returncode == 0
    record = json.loads((models_folder(env) / "tiny--props" / ".dreamwright" / "download.json").read_text())
    assert (
        record["repo_id"] == "tiny/props"
        and record["revision"] == "c" * 40
        and record["requested"] == "main"
        and record["complete"]
    )
    for file in record["files"]:
        assert file["size"] == len(tiny[file["path"]]) and (
            file["sha256"] == hashlib.sha256(tiny[file["path"]]).hexdigest() or file["git_sha1"]
        )


def test_token_is_sent_to_the_hub_only(hub, run_in_process, tiny, monkeypatch):
    store = FakeHub()
    try:
        hub.repositories["tiny/props"] = store.repositories["tiny/props"] = Repository(tiny)
        hub.store = store
        monkeypatch.setenv("HF_TOKEN", LICENSED_TOKEN)
        assert run_in_process("models", "download", "tiny/props").returncode == 0
        assert sorted(store.fetched()) == [
            "text_encoder/model.safetensors",
            "unet/diffusion_pytorch_model.fp16.safetensors",
        ]
        assert f"Bearer {LICENSED_TOKEN}" in hub.tokens and set(store.tokens) == {""}
    finally:
        store.close()
