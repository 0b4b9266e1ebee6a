# SPDX-License-Identifier: GPL-3.0-or-later
"""Signals that ask a command to stop: Ctrl-C (SIGINT), SIGTERM, and SIGHUP when the terminal closes."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

INTERRUPTED = 130  # exit code of an interrupted command, as shells have it for SIGINT
NAMES = ("SIGINT", "SIGTERM", "SIGHUP")  # Windows has no SIGHUP

Handler = Any  # what signal.signal takes and returns


class StopSignal:
    """Context manager: the first signal makes the object true when called, the second raises KeyboardInterrupt.

    A loop asks it after each step, so that the step is finished and the results so far are kept.
    """

    def __init__(self, message: str = "") -> None:
        """`message` is printed at the first signal, unless it is empty."""
        self._requested, self._message = False, message
        self._before: dict[int, Handler] = {}

    def __enter__(self) -> StopSignal:
        self._before = install_handlers(self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        restore_handlers(self._before)

    def __call__(self) -> bool:
        """Whether a signal has come."""
        return self._requested

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self._requested:
            raise KeyboardInterrupt
        self._requested = True
        if self._message:
            print(f"\n{self._message}", file=sys.stderr)


@contextmanager
def interrupt_on_signals() -> Iterator[None]:
    """Raise KeyboardInterrupt for SIGTERM and SIGHUP as Python does for SIGINT, so that `finally` blocks run."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = install_handlers(interrupt, NAMES[1:])
    try:
        yield
    finally:
        restore_handlers(before)


def install_handlers(handler: Handler, names: tuple[str, ...] = NAMES) -> dict[int, Handler]:
    """Set the handler; returns the handlers before. Python allows it in the main thread only; others change nothing."""
    if threading.current_thread() is not threading.main_thread():
        return {}
    before: dict[int, Handler] = {}
    for name in names:
        number = getattr(signal, name, None)
        # nohup starts a command with SIGHUP ignored, so that it outlives its terminal.
        if number is not None and not (name == "SIGHUP" and signal.getsignal(number) is signal.SIG_IGN):
            before[number] = signal.signal(number, handler)
    return before


def restore_handlers(before: dict[int, Handler]) -> None:
    """Undo `install_handlers`."""
    for number, handler in before.items():
        signal.signal(number, handler if handler is not None else signal.SIG_DFL)
