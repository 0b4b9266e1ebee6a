# SPDX-License-Identifier: GPL-3.0-or-later
"""Several processes for one job, each with its own views: torch.distributed behind a few words; `Alone` is one process.

    torchrun --nproc-per-node 2 -m dreamwright.backend.cli.main generate "a red mushroom" --set run.views_per_step=2

Gradients are averaged on the tensors' device (NCCL on CUDA, gloo on the CPU); everything that ranks agree on goes through
gloo, whose sockets tell at once when a rank dies, before anybody waits in NCCL, which would not notice.
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
from .rng import ViewStream

TIMEOUT_S = 900.0  # of one exchange; longer than a model's loading differs between ranks, or a first compilation
LAUNCHED = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")  # what torchrun tells its processes
FINE, RECOVERABLE, FATAL = 0, 1, 2


class Ranks(Protocol):
    """What the optimization asks of the processes that share a job; `main` previews, checkpoints and writes the mesh."""

    index: int
    count: int
    main: bool

    def rows(self, views: int) -> slice:
        """This rank's views of a step. Raises ConfigError when they do not divide evenly."""
        ...

    def stream(self, views: int, seed: int) -> torch.Generator:
        """A random stream for `views` views a step; all ranks draw alike, `streams.draw_rows` keeps the own ones."""
        ...

    def unanimous(self, recoverable: type[Exception]) -> AbstractContextManager[None]:
        """A block of local work that succeeds everywhere or nowhere.

        When it raises `recoverable` on one rank it does on all; when it fails in another way there, the others raise
        RunError.
        """
        ...

    def average(self, parameters: Iterable[Tensor]) -> None:
        """Replace every gradient by its mean over ranks; one that a rank lacks counts as zero there."""
        ...

    def mean(self, figures: Mapping[str, float]) -> dict[str, float]:
        """Each figure's mean over ranks."""
        ...

    def worst(self, value: int) -> int:
        """The largest value of any rank."""
        ...

    def share(self, tensors: Iterable[Tensor]) -> None:
        """Overwrite the tensors with those of the main rank."""
        ...

    def check_same(self, text: str) -> None:
        """Raise RunError on all ranks unless all gave the same text."""
        ...


class Alone:
    """One process: nothing to agree on, nothing to exchange."""

    index, count, main = 0, 1, True

    def rows(self, views: int) -> slice:
        return slice(0, views)

    def stream(self, views: int, seed: int) -> torch.Generator:
        return torch.Generator().manual_seed(seed)

    @contextmanager
    def unanimous(self, recoverable: type[Exception]) -> Iterator[None]:
        yield

    def average(self, parameters: Iterable[Tensor]) -> None:
        return

    def mean(self, figures: Mapping[str, float]) -> dict[str, float]:
        return dict(figures)

    def worst(self, value: int) -> int:
        return value

    def share(self, tensors: Iterable[Tensor]) -> None:
        return

    def check_same(self, text: str) -> None:
        return


class Group:
    """The ranks of torch's default process group. Every method but `rows` and `stream` is called by all or hangs."""

    def __init__(self, timeout_s: float) -> None:
        self.index, self.count = distributed.get_rank(), distributed.get_world_size()
        self.main = self.index == 0
        self.timeout_s = timeout_s

    def rows(self, views: int) -> slice:
        if views % self.count:
            raise ConfigError(
                f"run.views_per_step is {views}; allowed with {self.count} ranks are multiples of {self.count}, as it counts the views of "
                f"all ranks; change it with --set run.views_per_step={self.count * (views // self.count + 1)}"
            )
        own = views // self.count
        return slice(self.index * own, (self.index + 1) * own)

    def stream(self, views: int, seed: int) -> torch.Generator:
        return ViewStream.of(views, self.rows(views), seed)

    @contextmanager
    def unanimous(self, recoverable: type[Exception]) -> Iterator[None]:
        try:
            yield
        except recoverable:
            if self.worst(RECOVERABLE) == FATAL:
                raise self._gone("another rank failed") from None
            raise
        except BaseException:
            self._say_fatal()
            raise
        outcome = self.worst(FINE)
        if outcome == FATAL:
            raise self._gone("another rank failed")
        if outcome == RECOVERABLE:
            raise recoverable("another rank's part of the step holds NaN or infinity")

    def _say_fatal(self) -> None:
        """Tell the others that this rank is about to leave, if they are still there to hear it."""
        try:
            self.worst(FATAL)
        except DreamwrightError:
            return  # this rank's own error says more

    def average(self, parameters: Iterable[Tensor]) -> None:
        parameters = list(parameters)
        # One exchange of everything, with a 1 for each gradient that exists: Adam treats none and zero differently.
        parts = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
        present = torch.tensor([float(p.grad is not None) for p in parameters])
        flat = torch.cat([*(part.detach().reshape(-1) for part in parts), present.to(parts[0])])
        self._exchange(lambda: distributed.all_reduce(flat))
        for p, mean, seen in zip(
            parameters,
            flat.split([p.numel() for p in parameters] + [len(parameters)]),
            flat[-len(parameters) :].tolist(),
        ):
            p.grad = (mean / self.count).view_as(p) if seen else None

    def mean(self, figures: Mapping[str, float]) -> dict[str, float]:
        values = torch.tensor([float(value) for value in figures.values()], dtype=torch.float64)
        self._exchange(lambda: distributed.all_reduce(values))
        return dict(zip(figures, (values / self.count).tolist()))

    def worst(self, value: int) -> int:
        values = torch.tensor([int(value)])
        self._exchange(lambda: distributed.all_reduce(values, distributed.ReduceOp.MAX))
        return int(values[0])

    def share(self, tensors: Iterable[Tensor]) -> None:
        with torch.no_grad():
            for tensor in tensors:
                sent = tensor.detach().to(torch.uint8) if tensor.dtype == torch.bool else tensor.detach().contiguous()
                self._exchange(lambda: distributed.broadcast(sent, 0))
                tensor.copy_(sent)

    def check_same(self, text: str) -> None:
        number = int.from_bytes(hashlib.sha256(text.encode()).digest()[:7], "big")
        if self.worst(number) != -self.worst(-number):
            raise RunError(
                "the ranks were not given one and the same job or checkpoint; allowed is the same command, code and work folder for all; "
                "start them with one torchrun, and with a work folder that all machines see"
            )

    def _exchange(self, collective: Callable[[], object]) -> None:
        """Do it; what torch says of a lost rank becomes one line. Raises RunError."""
        try:
            collective()
        except RuntimeError as error:
            raise self._gone(
                f"another rank ended, or was silent for {self.timeout_s:.0f} s ({one_line(error)})"
            ) from error

    def _gone(self, what: str) -> RunError:
        return RunError(
            f"rank {self.index}: {what}; all {self.count} must go on together; see that rank's own message, then continue with --resume"
        )


def launched() -> bool:
    """Whether torchrun (or whoever sets its variables) started this process as one of several."""
    return all(name in os.environ for name in LAUNCHED) and os.environ["WORLD_SIZE"] not in ("", "1")


def leads() -> bool:
    """Whether this process is, or will be, the main rank."""
    return not launched() or os.environ["RANK"] == "0"


def rank_device(device: torch.device) -> torch.device:
    """This rank's own device: "cuda" becomes "cuda:LOCAL_RANK". Raises ConfigError when there are too few."""
    if not launched() or device.type != "cuda":
        return device
    local, there = int(os.environ["LOCAL_RANK"]), torch.cuda.device_count()
    if device.index is not None or local >= there:
        raise ConfigError(
            f"device {device} for local rank {local} with {there} CUDA device(s); allowed is cuda with a device for each rank of a machine; "
            "give --device cuda and a smaller --nproc-per-node"
        )
    torch.cuda.set_device(local)
    return torch.device("cuda", local)


@contextmanager
def joined(device: torch.device, timeout_s: float = TIMEOUT_S) -> Iterator[Ranks]:
    """The ranks that were launched with this process, `Alone` without any; waits for all of them to come.

    Raises RunError when they do not come within `timeout_s`, or when another one is lost.
    """
    if not launched():
        yield Alone()
        return
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    try:
        distributed.init_process_group(backend, timeout=timedelta(seconds=timeout_s))
    except (RuntimeError, ValueError) as error:
        raise RunError(
            f"the {os.environ['WORLD_SIZE']} ranks did not find each other ({one_line(error)}); needed are all of them within "
            f"{timeout_s:.0f} s; start them with one torchrun command"
        ) from error
    yield Group(timeout_s)
    # Only after success: a rank that fails has told the others, or its closed sockets will, and NCCL's own farewell may wait for them.
    distributed.destroy_process_group()
