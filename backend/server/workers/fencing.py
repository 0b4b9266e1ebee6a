# SPDX-License-Identifier: GPL-3.0-or-later
"""One worker a job: a number that grows with each attempt, and a lock that the kernel lets go of when its holder dies.

The lock keeps a second worker of this machine waiting until the first is gone; the number, on shared storage too, tells
a worker that its job was given to another one, before it writes anything.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

FENCE_FILE, LOCK_FILE = "fence", "lock"
LOOK_S = 0.2  # between two looks at a lock that somebody holds


class SupersededError(Exception):
    """The job belongs to a later attempt; whatever this one has is not wanted."""


def raise_fence(folder: Path, attempt: int) -> None:
    """From now on only this attempt may write to the job's folder, which is made if need be. Raises OSError."""
    folder.mkdir(parents=True, exist_ok=True)
    temporary = folder / f"{FENCE_FILE}.part"
    temporary.write_text(f"{attempt}\n", encoding="ascii")
    os.replace(temporary, folder / FENCE_FILE)


def check_fence(folder: Path, attempt: int) -> None:
    """Raises SupersededError when the job was given to a later attempt, or is gone."""
    try:
        newest = int((folder / FENCE_FILE).read_text(encoding="ascii"))
    except (OSError, ValueError) as error:
        raise SupersededError(f"the job in {folder} has no readable fence any more") from error
    if newest != attempt:
        raise SupersededError(f"the job in {folder} was given to attempt {newest}; this is attempt {attempt}")


@contextmanager
def held(folder: Path, attempt: int, waiting: Callable[[], bool]) -> Iterator[bool]:
    """Hold the job while the body runs; `waiting` is asked between looks, and may give up by True: then yields False.

    Raises SupersededError when a later attempt came meanwhile.
    """
    lock = FileLock(folder / LOCK_FILE)
    while True:
        check_fence(folder, attempt)
        try:
            lock.acquire(timeout=LOOK_S)
            break
        except Timeout:
            if waiting():
                yield False
                return
    try:
        check_fence(folder, attempt)
        yield True
    finally:
        lock.release()
