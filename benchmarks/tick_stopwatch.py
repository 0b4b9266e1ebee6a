# SPDX-License-Identifier: GPL-3.0-or-later
"""Inside a Blender: stopwatches around the add-on's ticks, and a benchmark's steps between them."""

from __future__ import annotations

import functools
import time
import traceback
from collections.abc import Callable, Iterator
from typing import Any

import bpy

ticks: list[dict[str, float]] = []  # milliseconds, by part
cpu_ticks: list[dict[str, float]] = []  # the same without the time in which other programs ran
parts: dict[str, float] = {}
cpu: dict[str, float] = {}


def timed(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, with its time added to the tick's part of this name."""

    @functools.wraps(function)
    def wrapper(*arguments: Any, **options: Any) -> Any:
        started, worked = time.perf_counter(), time.thread_time()
        try:
            return function(*arguments, **options)
        finally:
            parts[name] = parts.get(name, 0.0) + 1000 * (time.perf_counter() - started)
            cpu[name] = cpu.get(name, 0.0) + 1000 * (time.thread_time() - worked)

    return wrapper


def watch_ticks(timer: Any) -> None:
    """Put a stopwatch around every tick of the add-on's module `timer`."""
    tick = timed("tick", timer.tick)

    def whole() -> None:
        parts.clear()
        cpu.clear()
        tick()
        ticks.append(dict(parts))
        cpu_ticks.append(dict(cpu))

    timer.tick = whole


def until(session: Any, happened: Callable[[], bool], what: str, seconds: float = 60.0) -> Iterator[float]:
    """Wait for something."""
    end = time.monotonic() + seconds
    while not happened():
        if time.monotonic() > end:
            raise TimeoutError(f"{what} did not happen in {seconds:.0f} s; {session.reason}; {session.notices}")
        yield 0.05


def pause(seconds: float) -> Iterator[float]:
    """Let ticks happen."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        yield 0.05


def perform(steps: Iterator[float], timer: Any, finish: Callable[[int], None]) -> None:
    """Take the steps. With a window Blender fires the timers; without one they are called as it would."""

    def turn() -> float | None:
        try:
            return next(steps)
        except StopIteration:
            finish(0)
        except Exception:
            traceback.print_exc()
            finish(1)
        return None

    if not bpy.app.background:
        bpy.app.timers.register(turn, first_interval=1.0)
        return
    due = 0.0
    for wait in steps:
        end = time.monotonic() + wait
        while time.monotonic() < end:
            if time.monotonic() >= due:
                due = time.monotonic() + timer._on_timer()
            time.sleep(0.005)
