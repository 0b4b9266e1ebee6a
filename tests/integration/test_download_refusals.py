# SPDX-License-Identifier: GPL-3.0-or-later
"""Impossible downloads are refused with one line of advice before any weight is fetched."""

from __future__ import annotations

import socket
import subprocess

import pytest

from tests.testing.fake_hub import Repository, command, run_command
from tests.testing.hub_downloads import MB, assert_refused, models_folder


@pytest.mark.parametrize(
    ("files", "texts"),
    [
        (None, ("someone/thing is not on", "check the name")),
        ({"pytorch_lora_weights.safetensors": b""}, ("is a LoRA (pytorch_lora_weights.safetensors)",)),
        ({"model-Q4.gguf": b""}, ("holds GGUF weights (model-Q4.gguf)",)),
        (
            {"dreamy_v2.safetensors": b"", "README.md": b""},
            ("is a checkpoint in a single file (dreamy_v2.safetensors)",),
        ),
        ({"README.md": b""}, ("has no model_index.json",)),
        (
            {"model_index.json": b'{"_class_name": "FluxPipeline"}'},
            ("is a FluxPipeline; allowed are IFPipeline, MultiViewIFPipeline, StableDiffusionPipeline",),
        ),
        ({"model_index.json": b"{"}, ("model_index.json that cannot be read",)),
        ("pickled", ("only pickled weights of its unet (diffusion_pytorch_model.bin)", ".safetensors")),
        ("shard", ("lacks unet/diffusion_pytorch_model-00002-of-00002.safetensors",)),
    ],
)
def test_unsupported_pipeline_is_refused_before_its_weights(hub, env, run_in_process, tiny, files, texts):
    if isinstance(files, str):
        kept = {
            name: content
            for name, content in tiny.items()
            if not name.endswith(".safetensors") or name.startswith("text_encoder")
        }
        if files == "shard":
            del kept["unet/diffusion_pytorch_model.bin"]
            kept["unet/diffusion_pytorch_model-00001-of-00002.safetensors"] = b"half of it"
        files = kept
    if files is not None:
        hub.repositories["someone/thing"] = Repository(files)
    assert_refused(run_in_process("models", "download", "someone/thing"), "someone/thing", *texts)
    assert set(hub.fetched()) <= {"model_index.json"}
    assert not models_folder(env).exists() or not any(models_folder(env).iterdir())


def test_unknown_name_is_refused_with_the_known_ones(hub, env, run_in_process):
    assert_refused(run_in_process("models", "download", "sdx"), "unknown model 'sdx'", "sdxl", "owner/name")
    assert hub.requests == []


def test_full_disk_is_reported_before_any_weight(hub, env, run_in_process, tiny, tmp_path):
    weights = "unet/diffusion_pytorch_model.fp16.safetensors"
    hub.repositories["tiny/props"] = Repository(tiny, sizes={weights: 10**18})
    assert_refused(
        run_in_process("models", "download", "tiny/props", "--to", str(tmp_path / "d")),
        "GB free",
        "1000000000.",
        "another disk with --to",
    )
    assert hub.fetched() == ["model_index.json"]


def test_no_network_and_offline_mode_are_one_line_errors(hub, env, tiny):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}"
        assert_refused(
            run_command({**env, "HF_ENDPOINT": url}, "models", "download", "sdxl"),
            f"cannot reach {url}",
            "check the network",
        )
    hub.repositories["tiny/props"] = Repository(tiny)
    assert_refused(
        run_command({**env, "HF_HUB_OFFLINE": "1"}, "models", "download", "tiny/props"),
        "HF_HUB_OFFLINE is set; unset it",
    )
    assert hub.requests == []


def test_folder_with_other_contents_is_unchanged(hub, env, run_in_process, tiny, tmp_path):
    hub.repositories["tiny/props"] = hub.repositories["tiny/other"] = Repository(tiny)
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "novel.txt").write_text("draft")
    assert_refused(run_in_process("models", "download", "tiny/props", "--to", str(mine)), "holds other files")
    assert [path.name for path in mine.iterdir()] == ["novel.txt"]
    assert run_in_process("models", "download", "tiny/props", "--to", str(tmp_path / "props")).returncode == 0
    assert_refused(
        run_in_process("models", "download", "tiny/other", "--to", str(tmp_path / "props")), "holds tiny/props"
    )


def test_two_downloads_into_one_folder_exclude_each_other(hub, env, big):
    hub.repositories["tiny/props"] = Repository(big)
    hub.hold_after = 5 * MB
    first = subprocess.Popen(
        command("models", "download", "tiny/props"), env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        assert hub.held.wait(60)
        assert_refused(run_command(env, "models", "download", "tiny/props"), "another download is writing to")
    finally:
        first.kill()
        first.wait()
