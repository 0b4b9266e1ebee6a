# SPDX-License-Identifier: GPL-3.0-or-later
"""How fast a device is, by a short measurement, and how long it takes for a counted amount of work."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch.nn import functional

from .operation_count import Work

ENOUGH_S = 0.02  # of timed calls together: much longer than the clock's and the device's latency
TRIES = 3  # of which the fastest counts, as others share the device
CHANNELS, SIDE = 256, 16  # of the timed convolution, as in the middle of a U-Net
BATCH = {"cpu": 1}  # of it; a GPU needs more to be busy
LARGE_BATCH = 64
NUMBERS = {"cpu": 2**20}  # of each array; about those of the samples of a step
MANY_NUMBERS = 2**24
MOST_REPEATS = 10_000


@dataclass(frozen=True)
class DeviceSpeed:
    """flops_s: floating-point operations a second of convolutions and matrix products. bytes_s: bytes a second that
    other operations move. call_s: seconds that the smallest operation takes.
    """

    flops_s: float
    bytes_s: float
    call_s: float

    def seconds(self, work: Work) -> float:
        """flops / flops_s + moved / bytes_s + calls call_s: nothing overlaps."""
        return work.flops / self.flops_s + work.moved / self.bytes_s + work.calls * self.call_s

    def __str__(self) -> str:
        return f"{_text(self.flops_s)}FLOP/s, {_text(self.bytes_s)}B/s"


def device_speed(device: torch.device | str, dtype: torch.dtype) -> DeviceSpeed:
    """The speed of a device with numbers of `dtype`, measured once in a process, in a fraction of a second."""
    return _measured(str(torch.device(device)), dtype, torch.get_num_threads())


@functools.lru_cache(maxsize=16)
def _measured(name: str, dtype: torch.dtype, threads: int) -> DeviceSpeed:
    device = torch.device(name)
    with torch.no_grad():
        tiny = torch.zeros(1, device=device)
        return DeviceSpeed(_flops_s(device, dtype), _bytes_s(device), _seconds(lambda: tiny.add_(1), device))


def _flops_s(device: torch.device, dtype: torch.dtype) -> float:
    """Of a 3 x 3 convolution and a matrix product with as many operations."""
    batch = BATCH.get(device.type, LARGE_BATCH)
    kernel = torch.full((CHANNELS, CHANNELS, 3, 3), 1e-3, dtype=dtype, device=device)
    images = torch.ones(batch, CHANNELS, SIDE, SIDE, dtype=dtype, device=device)
    matrix, rows = kernel.reshape(-1, CHANNELS), images.new_ones(batch * SIDE * SIDE, 9 * CHANNELS)
    seconds = _seconds(lambda: (functional.conv2d(images, kernel, padding=1), rows @ matrix), device)
    return 2 * 2 * rows.numel() * CHANNELS / seconds


def _bytes_s(device: torch.device) -> float:
    """Of a product, a sigmoid and a look-up in random order, as rendering and normalization are made of."""
    count = NUMBERS.get(device.type, MANY_NUMBERS)
    first, second = torch.ones(2, count, device=device)
    order = torch.randperm(count, generator=torch.Generator().manual_seed(0)).to(device)
    moved = (3 + 2 + 2) * first.element_size() + order.element_size()
    return moved * count / _seconds(lambda: torch.sigmoid(first * second)[order], device)


def _seconds(once: Callable[[], object], device: torch.device) -> float:
    """Seconds of one call among many, in the fastest of several tries, after calls that warm up."""
    once()
    repeats, best = 1, float("inf")
    tries = 0
    while tries < TRIES:
        _wait(device)
        begun = time.perf_counter()
        for _ in range(repeats):
            once()
        _wait(device)
        seconds = time.perf_counter() - begun
        if seconds < ENOUGH_S and repeats < MOST_REPEATS:
            repeats = min(MOST_REPEATS, max(2 * repeats, int(repeats * ENOUGH_S / max(seconds, 1e-9))))
            continue
        tries += 1
        best = min(best, seconds / repeats)
    return best


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _text(number: float) -> str:
    """A number with two digits and the prefix of its size, for a unit to follow."""
    for prefix in ("", "k", "M", "G", "T"):
        if number < 1000 or prefix == "T":
            return f"{number:.2g} {prefix}" if number < 100 else f"{number:.0f} {prefix}"
        number /= 1000
    return ""
