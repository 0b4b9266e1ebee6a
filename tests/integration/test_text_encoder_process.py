# SPDX-License-Identifier: GPL-3.0-or-later
"""Text encoders in a child process: equal embeddings, no encoder in the parent, and clear errors."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from dreamwright.backend.config.schema import TextConfig
from dreamwright.backend.errors import ConfigError, ModelError, OutOfMemoryError, RunError, StoppedError
from dreamwright.backend.models.local import resolve_model
from dreamwright.backend.models.parameter_counts import loaded_weights, parameter_count
from dreamwright.backend.models.pipeline_folder import PipelineFolder, open_pipeline
from dreamwright.backend.text import encoder_process
from dreamwright.backend.text.encoder import PipelineTextEncoder
from dreamwright.backend.text.encoder_process import (
    SubprocessTextEncoder,
    embedding_cache,
    make_text_encoder,
    text_bytes,
)
from tests.testing.tiny_pipeline import write_pipeline

PROMPTS = ["a red mushroom, front view", "", "a blue chair"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> PipelineFolder:
    return open_pipeline(write_pipeline(tmp_path_factory.mktemp("models") / "tiny"))


def separate(folder: PipelineFolder, cache: Path | None = None, **options: object) -> SubprocessTextEncoder:
    return SubprocessTextEncoder(folder, "cpu", torch.float32, cache, **options)


def never(*_: object) -> None:
    raise AssertionError("an encoder was loaded in this process")


@pytest.mark.slow
def test_child_process_gives_identical_embeddings(
    folder: PipelineFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = PipelineTextEncoder(folder, "cpu", torch.float32, None).embed(PROMPTS)
    monkeypatch.setattr("dreamwright.backend.text.encoder.load_model", never)
    first = separate(folder, tmp_path)
    there = first.embed(PROMPTS)
    assert there.tensors.keys() == here.tensors.keys()
    assert all(torch.equal(there.tensors[name], here.tensors[name]) for name in here.tensors)
    assert first.processes_started == 1 and not first.is_loaded and first.child is None
    first.free()
    first.embed(PROMPTS[::-1])
    second = separate(folder, tmp_path)
    assert torch.equal(second.embed(PROMPTS).tensors["hidden"], here.tensors["hidden"])
    assert (first.processes_started, second.processes_started) == (1, 0)


@pytest.mark.slow
def test_model_error_of_the_child_is_raised(folder: PipelineFolder, tmp_path: Path) -> None:
    copy = open_pipeline(shutil.copytree(folder.path, tmp_path / "model"))
    weights = copy.path / "text_encoder" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(ModelError, match="text_encoder.*download the model again") as caught:
        separate(copy).embed(["a chair"])
    assert "\n" not in str(caught.value)


def test_killed_child_is_an_error_with_advice(folder: PipelineFolder) -> None:
    text = separate(folder, should_stop=lambda: os.kill(text.child.pid, signal.SIGKILL))
    with pytest.raises(OutOfMemoryError, match="system killed.*text.precision.*text.device=cpu") as caught:
        text.embed(["a chair"])
    assert caught.value.exit_code == 1 and "\n" not in str(caught.value)


def test_crashed_child_is_a_one_line_error(folder: PipelineFolder) -> None:
    text = separate(folder, should_stop=lambda: os.kill(text.child.pid, signal.SIGSEGV))
    with pytest.raises(RunError, match="signal 11"):
        text.embed(["a chair"])


@pytest.mark.parametrize("how", ["asked to", "by Ctrl-C"])
def test_stopping_ends_the_child(folder: PipelineFolder, how: str) -> None:
    seen: list[subprocess.Popen[bytes]] = []

    def stop() -> bool:
        seen.append(text.child)
        if how == "by Ctrl-C":
            raise KeyboardInterrupt
        return True

    text = separate(folder, should_stop=stop)
    with pytest.raises(StoppedError if how == "asked to" else KeyboardInterrupt) as caught:
        text.embed(["a chair"])
    assert len(seen) == 1 and seen[0].returncode is not None and text.child is None
    if how == "asked to":
        assert caught.value.exit_code == 130


@pytest.mark.slow
def test_child_ends_with_its_parent() -> None:
    """The child exits when its stdin closes, for any end of the parent."""
    code = (
        "import time; from dreamwright.backend.text import encoder_process as t; "
        "t.run_request = lambda request: time.sleep(60); t.main()"
    )
    child = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE)
    child.stdin.write(b"{}\n")
    child.stdin.close()
    assert child.wait(50) == 1


class Breaking(PipelineTextEncoder):
    """Raises out-of-memory while encoding, in this process."""

    def encode(self, texts: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB\nGPU 0 has ...")


def test_out_of_memory_in_the_child_gives_advice(
    folder: PipelineFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encoder_process, "PipelineTextEncoder", Breaking)
    request = {
        "folder": str(folder.path), "device": "cpu", "dtype": "float32", "int8": False, "threads": 1,
        "prompts": ["a chair"], "work": str(tmp_path),
    }  # fmt: skip
    status = encoder_process.run_request(request)
    failure = encoder_process._failure(tmp_path, status)
    assert isinstance(failure, OutOfMemoryError) and "20.00 GiB" in str(failure) and "text.precision" in str(failure)
    assert "\n" not in str(failure)


def test_too_large_encoders_are_refused_before_a_child_starts(
    folder: PipelineFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encoder_process, "free_bytes", lambda device: 1000)
    text = separate(folder)
    with pytest.raises(ConfigError, match="1 MB is free.*text.precision"):
        text.embed(["a chair"])
    assert text.processes_started == 0


def test_large_encoders_use_a_child_process_by_default(folder: PipelineFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    """For the starter's 0.7 MB, a child process would cost more time (the import of torch) than it saves memory."""
    starter = open_pipeline(resolve_model("starter"))

    def kind(of: PipelineFolder, **settings: str) -> type:
        return type(make_text_encoder(of, "cpu", torch.float32, TextConfig(**settings)))

    assert kind(starter) is PipelineTextEncoder and kind(starter, process="own") is SubprocessTextEncoder
    monkeypatch.setattr(encoder_process, "OWN_PROCESS_BYTES", text_bytes(folder, torch.float32))
    assert kind(folder) is SubprocessTextEncoder and kind(folder, process="same") is PipelineTextEncoder
    assert kind(folder, precision="bfloat16") is PipelineTextEncoder  # half as large


def test_configured_precision_and_device_are_used(folder: PipelineFolder) -> None:
    network = torch.float16
    assert make_text_encoder(folder, "cpu", network).dtype == network
    assert make_text_encoder(folder, "cpu", network, TextConfig(precision="float32")).dtype == torch.float32
    on_gpu = make_text_encoder(folder, "cuda", network, TextConfig(device="cpu"))
    assert (on_gpu.device, on_gpu.dtype) == (torch.device("cpu"), torch.float32)
    whole = make_text_encoder(folder, "cpu", torch.float32).embed(PROMPTS).tensors["hidden"]
    half = (
        make_text_encoder(folder, "cpu", torch.float32, TextConfig(precision="bfloat16"))
        .embed(PROMPTS)
        .tensors["hidden"]
    )
    assert half.dtype == torch.bfloat16
    # bfloat16 has 8 bits: 2^-9 = 0.2% per rounding, and some 25 of them one after the other are 5%.
    torch.testing.assert_close(half.float(), whole, rtol=0.05, atol=0.05)
    if not torch.cuda.is_available():
        with pytest.raises(ConfigError, match="no CUDA device"):
            make_text_encoder(folder, "cpu", network, TextConfig(device="cuda"))


def test_int8_without_its_library_names_the_package(folder: PipelineFolder) -> None:
    if find_spec("torchao"):
        pytest.skip("torchao is installed, so nothing is missing here")
    with pytest.raises(ConfigError, match=r"torchao.*dreamwright\[int8\]"):
        make_text_encoder(folder, "cpu", torch.float32, TextConfig(precision="int8", cache=False)).embed(["a chair"])


@pytest.mark.slow
def test_int8_weights_give_nearly_the_same_embeddings(folder: PipelineFolder) -> None:
    """The error of 8-bit rows is at most half a step of 1/127 of the largest weight: 0.4%."""
    if not find_spec("torchao"):
        pytest.skip("torchao is not installed: pip install 'dreamwright[int8]' to test 8-bit text encoders")
    whole = PipelineTextEncoder(folder, "cpu", torch.float32, None).embed(PROMPTS).tensors["hidden"]
    small = separate(folder, int8=True)
    small.dtype = torch.bfloat16
    got = small.embed(PROMPTS).tensors["hidden"].float()
    # 0.4% per weight at most, averaged over the inputs of some ten layers, and 0.2% per rounding of bfloat16: 1%, three
    # times that.
    assert 0 < float((got - whole).norm() / whole.norm()) < 0.03


def test_cache_folder_follows_platform_conventions(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert embedding_cache() == Path(os.environ["DREAMWRIGHT_CACHE"]) / "embeddings"
    monkeypatch.delenv("DREAMWRIGHT_CACHE")
    if sys.platform == "linux":
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
        assert embedding_cache() == tmp_path / "dreamwright" / "embeddings"


def test_cache_entries_depend_on_precision(folder: PipelineFolder, tmp_path: Path) -> None:
    for precision in ("float32", "bfloat16"):
        make_text_encoder(folder, "cpu", torch.float32, TextConfig(precision=precision), cache=tmp_path).embed(
            ["a chair"]
        )
    assert len(list(tmp_path.iterdir())) == 2
    eight = PipelineTextEncoder(folder, "cpu", torch.bfloat16, tmp_path, int8=True)
    assert not eight._path("a chair").is_file()


def test_weight_size_is_read_from_headers(folder: PipelineFolder, tmp_path: Path) -> None:
    from transformers import T5EncoderModel

    encoder = T5EncoderModel.from_pretrained(folder.path / "text_encoder", torch_dtype="float32")
    counted = sum({p.data_ptr(): p.numel() for p in encoder.parameters()}.values())
    assert parameter_count(folder, "text_encoder") == counted
    copy = open_pipeline(shutil.copytree(folder.path, tmp_path / "model"))
    weights = copy.path / "text_encoder"
    shutil.copy(weights / "model.safetensors", weights / "model.fp16.safetensors")
    shutil.copy(weights / "model.safetensors", weights / "model-00001-of-00002.safetensors")
    assert [f.name for f in loaded_weights(copy, "text_encoder", torch.float32)] == ["model.safetensors"]
    assert [f.name for f in loaded_weights(copy, "text_encoder", torch.float16)] == ["model.fp16.safetensors"]
    (weights / "model.safetensors").write_bytes(b"\xff" * 64)
    with pytest.raises(ModelError, match="header"):
        parameter_count(copy, "text_encoder")
