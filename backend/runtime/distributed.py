# SPDX-License-Identifier: GPL-3.0-or-later
"""Several processes for one job, each with its own views (torch.distributed).

    torchrun --nproc-per-node 2 -m dreamwright.backend.cli.main generate "a red mushroom" --set run.views_per_step=8

Gradients are averaged on the tensors' device (NCCL on CUDA, gloo on the CPU). Everything else goes through gloo, whose
sockets report a lost process at once, before another one waits in NCCL, which would not notice.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from datetime import timedelta
from typing import Protocol

import torch
from torch import Tensor, distributed

from ..errors import ConfigError, DreamwrightError, RunError, one_line

TIMEOUT_S = 900.0  # of one exchange; longer than a model's loading differs between processes, or a first compilation
TORCHRUN_VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
FINE, RECOVERABLE, FATAL = 0, 1, 2


class ProcessGroup(Protocol):
    """The processes that share a job; the main one previews, checkpoints and writes the mesh."""

    rank: int
    world_size: int
    is_main: bool

    def local_views(self, views: int, setting: str = "run.views_per_step") -> slice:
        """This process's views of a step. Raises ConfigError, naming the setting, when they do not divide evenly."""
        ...

    def raise_on_all(self, recoverable: type[Exception]) -> AbstractContextManager[None]:
        """A block of local work that succeeds in all processes or in none.

        When it raises `recoverable` in one process it does in all; when it fails in another way there, the others raise
        RunError.
        """
        ...

    def average_gradients(self, parameters: Iterable[Tensor]) -> None:
        """Replace every gradient by its mean over processes; one that a process lacks counts as zero there."""
        ...

    def all_reduce_mean(self, figures: Mapping[str, float]) -> dict[str, float]:
        """Each figure's mean over processes."""
        ...

    def all_reduce_max(self, value: int) -> int:
        """The largest value of any process."""
        ...

    def broadcast(self, tensors: Iterable[Tensor]) -> None:
        """Overwrite the tensors with those of the main process."""
        ...

    def check_same(self, text: str) -> None:
        """Raise RunError in all processes unless all gave the same text."""
        ...


class SingleProcess:
    """A group of one process: nothing is exchanged."""

    rank, world_size, is_main = 0, 1, True

    def local_views(self, views: int, setting: str = "run.views_per_step") -> slice:
        return slice(0, views)

    @contextmanager
    def raise_on_all(self, recoverable: type[Exception]) -> Iterator[None]:
        yield

    def average_gradients(self, parameters: Iterable[Tensor]) -> None:
        return

    def all_reduce_mean(self, figures: Mapping[str, float]) -> dict[str, float]:
        return dict(figures)

    def all_reduce_max(self, value: int) -> int:
        return value

    def broadcast(self, tensors: Iterable[Tensor]) -> None:
        return

    def check_same(self, text: str) -> None:
        return


class TorchProcessGroup:
    """torch's default process group. All processes call each method but `local_views`, or the others hang."""

    def __init__(self, timeout_s: float) -> None:
        self.rank, self.world_size = distributed.get_rank(), distributed.get_world_size()
        self.is_main = self.rank == 0
        self.timeout_s = timeout_s

    def local_views(self, views: int, setting: str = "run.views_per_step") -> slice:
        if views % self.world_size:
            raise ConfigError(
                f"{setting} is {views}; allowed with {self.world_size} ranks are multiples of {self.world_size}, as it "
                f"counts the views of all ranks; change it with --set {setting}="
                f"{self.world_size * (views // self.world_size + 1)}"
            )
        own = views // self.world_size
        return slice(self.rank * own, (self.rank + 1) * own)

    @contextmanager
    def raise_on_all(self, recoverable: type[Exception]) -> Iterator[None]:
        try:
            yield
        except recoverable:
            if self.all_reduce_max(RECOVERABLE) == FATAL:
                raise self._lost("another rank failed") from None
            raise
        except BaseException:
            self._report_fatal()
            raise
        outcome = self.all_reduce_max(FINE)
        if outcome == FATAL:
            raise self._lost("another rank failed")
        if outcome == RECOVERABLE:
            raise recoverable("another rank's part of the step holds NaN or infinity")

    def _report_fatal(self) -> None:
        """Tell the other processes, if they are still there, that this one ends."""
        try:
            self.all_reduce_max(FATAL)
        except DreamwrightError:
            return  # this process's own error is the one to report

    def average_gradients(self, parameters: Iterable[Tensor]) -> None:
        parameters = list(parameters)
        # One exchange of everything, with a 1 for each gradient that exists: Adam treats none and zero differently.
        parts = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
        present = torch.tensor([float(p.grad is not None) for p in parameters])
        flat = torch.cat([*(part.detach().reshape(-1) for part in parts), present.to(parts[0])])
        self._exchange(lambda: distributed.all_reduce(flat))
        sums = flat.split([p.numel() for p in parameters] + [len(parameters)])
        for p, total, seen in zip(parameters, sums, flat[-len(parameters) :].tolist(), strict=False):
            p.grad = (total / self.world_size).view_as(p) if seen else None

    def all_reduce_mean(self, figures: Mapping[str, float]) -> dict[str, float]:
        values = torch.tensor([float(value) for value in figures.values()], dtype=torch.float64)
        self._exchange(lambda: distributed.all_reduce(values))
        return dict(zip(figures, (values / self.world_size).tolist(), strict=True))

    def all_reduce_max(self, value: int) -> int:
        values = torch.tensor([int(value)])
        self._exchange(lambda: distributed.all_reduce(values, distributed.ReduceOp.MAX))
        return int(values[0])

    def broadcast(self, tensors: Iterable[Tensor]) -> None:
        with torch.no_grad():
            for tensor in tensors:
                sent = tensor.detach().to(torch.uint8) if tensor.dtype == torch.bool else tensor.detach().contiguous()
                self._exchange(lambda sent=sent: distributed.broadcast(sent, 0))  # type: ignore[misc]  # bound now
                tensor.copy_(sent)

    def check_same(self, text: str) -> None:
        number = int.from_bytes(hashlib.sha256(text.encode()).digest()[:7], "big")
        if self.all_reduce_max(number) != -self.all_reduce_max(-number):
            raise RunError(
                "the ranks were not given one and the same job or checkpoint; allowed is the same command, code and "
                "work folder for all; "
                "start them with one torchrun, and with a work folder that all machines see"
            )

    def _exchange(self, collective: Callable[[], object]) -> None:
        """Run it. Raises RunError, in one line, when another process is lost."""
        try:
            collective()
        except RuntimeError as error:
            raise self._lost(
                f"another rank ended, or was silent for {self.timeout_s:.0f} s ({one_line(error)})"
            ) from error

    def _lost(self, what: str) -> RunError:
        return RunError(
            f"rank {self.rank}: {what}; all {self.world_size} must go on together; see that rank's own message, then "
            "continue "
            "with --resume"
        )


def is_distributed() -> bool:
    """Whether torchrun, or another launcher with its variables, started this process as one of several."""
    return all(name in os.environ for name in TORCHRUN_VARIABLES) and os.environ["WORLD_SIZE"] not in ("", "1")


def is_main_process() -> bool:
    """Whether this process is, or will be, the main one of its group."""
    return not is_distributed() or os.environ["RANK"] == "0"


def rank_device(device: torch.device) -> torch.device:
    """This rank's own device: "cuda" becomes "cuda:LOCAL_RANK". Raises ConfigError when there are too few."""
    if not is_distributed() or device.type != "cuda":
        return device
    local, there = int(os.environ["LOCAL_RANK"]), torch.cuda.device_count()
    if ":" in str(device) or local >= there:  # an index was given, or there is no device for this process
        raise ConfigError(
            f"device {device} for local rank {local} with {there} CUDA device(s); allowed is cuda with a device for "
            "each rank of a machine; "
            "give --device cuda and a smaller --nproc-per-node"
        )
    torch.cuda.set_device(local)
    return torch.device("cuda", local)


@contextmanager
def process_group(device: torch.device, timeout_s: float = TIMEOUT_S) -> Iterator[ProcessGroup]:
    """The group of the processes that torchrun started, `SingleProcess` without it; waits for all of them.

    Raises RunError when they are not there within `timeout_s`, or when another one is lost.
    """
    if not is_distributed():
        yield SingleProcess()
        return
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    try:
        distributed.init_process_group(backend, timeout=timedelta(seconds=timeout_s))
    except (RuntimeError, ValueError) as error:
        raise RunError(
            f"the {os.environ['WORLD_SIZE']} ranks did not find each other ({one_line(error)}); needed are all of them "
            "within "
            f"{timeout_s:.0f} s; start them with one torchrun command"
        ) from error
    yield TorchProcessGroup(timeout_s)
    # Only after success: after a failure NCCL's own shutdown may wait for the other processes.
    distributed.destroy_process_group()
