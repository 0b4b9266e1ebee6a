# SPDX-License-Identifier: GPL-3.0-or-later
"""A lock on a file that the kernel releases when its holder ends, however that happens."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

RETRY_S = 0.2  # between two attempts at a lock that another process holds


@contextmanager
def file_lock(path: Path, give_up: Callable[[], bool], retry_s: float = RETRY_S) -> Iterator[bool]:
    """Hold the lock while the body runs; yields True.

    While another process holds it, `give_up` is asked after every `retry_s` seconds (0: at once); when it returns True
    the body runs without the lock, with False. Raises OSError when the file cannot be made.
    """
    lock = FileLock(path)
    while True:
        try:
            lock.acquire(timeout=retry_s)
            break
        except Timeout:
            if give_up():
                yield False
                return
    try:
        yield True
    finally:
        lock.release()
