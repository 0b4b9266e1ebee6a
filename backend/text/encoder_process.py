# SPDX-License-Identifier: GPL-3.0-or-later
"""Text encoders in a subprocess, whose memory is free again before the optimization begins.

    python -m dreamwright.backend.text.encoder_process      (started by the parent; the request is one line on stdin)

The request is JSON; the result is a safetensors file and a JSON file in a private temporary folder. Small encoders run
in the parent, since a process that imports torch and transformers takes seconds to start. Cached prompts need neither.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from .. import errors
from ..config.schema import TextConfig
from ..errors import (
    ConfigError,
    DreamwrightError,
    InsufficientMemoryError,
    OutOfMemoryError,
    RunError,
    StoppedError,
    is_out_of_memory,
    one_line,
)
from ..io.child_process import close_stdin, end_with_parent, start_child
from ..models.lora_files import Lora, lora_text, open_loras
from ..models.memory_estimate import free_bytes, size_text
from ..models.parameter_counts import parameter_count, weight_bytes
from ..models.pipeline_folder import PipelineFolder, open_pipeline
from ..models.user_folders import cache_root
from .conditioning import Conditioning
from .encoder import PipelineTextEncoder

OWN_PROCESS_BYTES = 500_000_000  # of weights; from here on "auto" runs the encoders in a subprocess
POLL_S = 0.1  # between two polls of the subprocess and of `should_stop`
TERMINATE_TIMEOUT_S = 3.0  # between SIGTERM and SIGKILL
RESULT, STATUS = "result.safetensors", "status.json"
ADVICE = "lower text.precision to bfloat16 or int8, or set text.device=cpu, or free some memory"


class SubprocessTextEncoder(PipelineTextEncoder):
    """A `PipelineTextEncoder` whose encoders run in a subprocess; its embeddings are bitwise equal.

    `should_stop` is polled meanwhile; it ends the subprocess and raises StoppedError. `processes_started` counts
    subprocesses.
    """

    def __init__(
        self,
        folder: PipelineFolder,
        device: torch.device | str,
        dtype: torch.dtype,
        cache: str | Path | None,
        int8: bool = False,
        should_stop: Callable[[], bool] = lambda: False,
        loras: Sequence[Lora] = (),
    ) -> None:
        super().__init__(folder, device, dtype, cache, int8, loras)
        self._should_stop = should_stop
        self.child: subprocess.Popen[bytes] | None = None
        self.processes_started = 0

    def encode(self, texts: Sequence[str]) -> list[dict[str, Tensor]]:
        """The tensors of each text from one subprocess.

        Raises the subprocess's own error, OutOfMemoryError when memory ran out or the system killed it, RunError for
        any other end, StoppedError, and InsufficientMemoryError when the weights alone cannot fit.
        """
        needed, free = text_bytes(self.folder, self.dtype, self.int8), free_bytes(self.device)
        if free is not None and needed > free:
            raise InsufficientMemoryError(
                f"the text encoders need {size_text(needed)} on {self.device}, where {size_text(free)} is free; "
                f"{ADVICE}"
            )
        with tempfile.TemporaryDirectory(prefix="dreamwright-text-") as private:  # readable by this user only
            work = Path(private)
            request = {
                "folder": str(self.folder.path.absolute()),
                "device": str(self.device),
                "dtype": str(self.dtype).removeprefix("torch."),
                "int8": self.int8,
                "loras": lora_text(self.loras),
                "threads": torch.get_num_threads(),  # sums depend on it in their last bits
                "prompts": list(texts),
                "work": private,
            }
            status = self._run_process(request, work)
            if (failure := _failure(work, status)) is not None:
                raise failure
            try:
                rows = load_file(work / RESULT)
            except (OSError, SafetensorError) as error:
                raise RunError(
                    f"the text process left no readable result ({error}); free some disk space and try again"
                ) from error
        return [{name: rows[name][i].to(self.device) for name in rows} for i in range(len(texts))]

    def _run_process(self, request: dict[str, Any], work: Path) -> int:
        """Start the subprocess, wait for its end in any case, and return its exit status."""
        self.processes_started += 1
        # In a session of its own Ctrl-C in a terminal reaches the parent only, which then ends the subprocess.
        with open(work / "log", "wb") as log:
            self.child = start_child("dreamwright.backend.text.encoder_process", request, log)
        child = self.child
        try:
            while True:
                try:
                    return child.wait(POLL_S)
                except subprocess.TimeoutExpired:
                    if self._should_stop():
                        raise StoppedError("stopped while the prompt was encoded; no result was made yet") from None
        finally:
            _end(child)
            self.child = None


class PipelinePromptEncoder:
    """Prompt encoder of a pipeline, usable before the denoising network is loaded; implements `PromptEncoder`."""

    def __init__(self, text: PipelineTextEncoder, device: torch.device | str) -> None:
        self._text, self._device = text, device

    def embed(self, prompts: Sequence[str]) -> Conditioning:
        """One row for each prompt, on the run's device."""
        return self._text.embed(prompts).to(self._device)

    def check_prompt(self, prompt: str) -> list[str]:
        """Warnings about a prompt that the model can use. Raises PromptError: empty, or unknown words."""
        return self._text.reader.check(prompt)


def make_text_encoder(
    folder: PipelineFolder,
    device: torch.device | str,
    dtype: torch.dtype,
    config: TextConfig = TextConfig(),
    should_stop: Callable[[], bool] = lambda: False,
    cache: Path | None = None,
    loras: Sequence[Lora] = (),
) -> PipelineTextEncoder:
    """The text encoder of a pipeline as configured, for a network in `dtype` on `device`; loads nothing.

    `cache` None means the user's own cache folder, where `config.cache` allows one. Raises ConfigError for a device
    that is not there.
    """
    where, number, int8 = _placement(folder, torch.device(device), dtype, config)
    kept = (embedding_cache() if cache is None else cache) if config.cache else None
    if config.process == "own" or (config.process == "auto" and text_bytes(folder, number, int8) >= OWN_PROCESS_BYTES):
        return SubprocessTextEncoder(folder, where, number, kept, int8, should_stop, loras)
    return PipelineTextEncoder(folder, where, number, kept, int8, loras)


def text_bytes(folder: PipelineFolder, dtype: torch.dtype, int8: bool = False) -> int:
    """Bytes of all text encoders' weights in `dtype`, or about one a number in int8."""
    if int8:
        return sum(parameter_count(folder, part, dtype) for part in folder.text_encoders)
    return sum(weight_bytes(folder, part, dtype) for part in folder.text_encoders)


def embedding_cache() -> Path:
    """The folder that embeddings are cached in."""
    return cache_root() / "embeddings"


def _placement(
    folder: PipelineFolder, device: torch.device, dtype: torch.dtype, config: TextConfig
) -> tuple[torch.device, torch.dtype, bool]:
    """Device, dtype of the computation, and whether weights are int8."""
    if config.device == "cuda" and not torch.cuda.is_available():
        raise ConfigError("text.device is 'cuda', but torch sees no CUDA device; allowed are auto and cpu; choose one")
    int8 = config.precision == "int8"

    def number(where: torch.device) -> torch.dtype:
        if int8:
            return torch.bfloat16  # T5's own precision; float16 overflows in it
        if config.precision == "auto":
            return dtype if where.type == device.type else torch.float32
        return getattr(torch, config.precision)

    if config.device == "cpu" or (device.type != "cuda" and config.device == "auto"):
        where = torch.device("cpu")
    else:
        where = device if device.type == "cuda" else torch.device("cuda")
        free = free_bytes(where)
        if config.device == "auto" and free is not None and text_bytes(folder, number(where), int8) * 1.1 > free:
            where = torch.device("cpu")
    return where, number(where), int8


def _end(child: subprocess.Popen[bytes]) -> None:
    """End the subprocess: SIGTERM, then SIGKILL."""
    close_stdin(child)
    if child.poll() is None:
        child.terminate()
        try:
            child.wait(TERMINATE_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


def _failure(work: Path, status: int) -> DreamwrightError | None:
    """The subprocess's failure as the error that this process would have raised, None for success."""
    try:
        report = json.loads((work / STATUS).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        report = {}
    if status == 0 and report.get("error") == "":
        return None
    message = str(report.get("message", ""))
    if report.get("error") == "OutOfMemoryError":
        return OutOfMemoryError(f"the text encoders ran out of memory ({message}); {ADVICE}")
    kind = getattr(errors, str(report.get("error")), None)
    if isinstance(kind, type) and issubclass(kind, DreamwrightError):
        return kind(message)
    if status == -getattr(signal, "SIGKILL", 9):
        return OutOfMemoryError(f"the system killed the text process, most likely because memory ran out; {ADVICE}")
    if status < 0:
        return RunError(
            f"the text process was ended by signal {-status}; try again, or set text.process=same to see more"
        )
    lines = (work / "log").read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return RunError(
        f"the text process failed with status {status}: {(lines or ['no output'])[-1][:200]} (a fault of Dreamwright; "
        "text.process=same shows all of it)"
    )


def run_request(request: Mapping[str, Any]) -> int:
    """Encode the prompts, write the result or the error to the request's folder, and return the exit status."""
    work, report = Path(request["work"]), {"error": "", "message": ""}
    try:
        torch.set_num_threads(request["threads"])
        folder = open_pipeline(request["folder"])
        dtype = getattr(torch, request["dtype"])
        loras = open_loras(request.get("loras", ""), folder)
        encoder = PipelineTextEncoder(folder, request["device"], dtype, None, request["int8"], loras)
        embedded = encoder.embed(request["prompts"])
        save_file({name: rows.cpu().contiguous() for name, rows in embedded.tensors.items()}, work / RESULT)
    except DreamwrightError as error:
        report = {"error": type(error).__name__, "message": str(error)}
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        report = {"error": "OutOfMemoryError", "message": one_line(error)}
    (work / STATUS).write_text(json.dumps(report), encoding="utf-8")
    return 1 if report["error"] else 0


def main() -> int:
    """Run the request on stdin."""
    request = json.loads(sys.stdin.buffer.readline())
    end_with_parent()
    return run_request(request)


if __name__ == "__main__":
    sys.exit(main())
