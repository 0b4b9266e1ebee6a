# SPDX-License-Identifier: GPL-3.0-or-later
"""One worker for each job: a fencing token (the attempt's number) and a lock that the kernel releases with its process.

The lock makes a second worker on the same machine wait until the first is gone. The token, which also works on shared
storage, tells a worker that its job belongs to a later attempt before it writes anything.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from dreamwright.shared.atomic import write_atomically

from ...runtime.file_lock import file_lock

FENCE_FILE, LOCK_FILE = "fence", "lock"


class SupersededError(Exception):
    """The job belongs to a later attempt; the results of this one must not be written."""


def raise_fence(folder: Path, attempt: int) -> None:
    """Allow only `attempt` to write to the job's folder, which is created if need be. Raises OSError."""
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / FENCE_FILE, f"{attempt}\n".encode("ascii"))


def check_fence(folder: Path, attempt: int) -> None:
    """Raises SupersededError when the job belongs to a later attempt, or is gone."""
    try:
        newest = int((folder / FENCE_FILE).read_text(encoding="ascii"))
    except (OSError, ValueError) as error:
        raise SupersededError(f"the job in {folder} has no readable fence any more") from error
    if newest != attempt:
        raise SupersededError(f"the job in {folder} was given to attempt {newest}; this is attempt {attempt}")


@contextmanager
def lock(folder: Path, attempt: int, give_up: Callable[[], bool]) -> Iterator[bool]:
    """Hold the job's lock while the body runs; yields True.

    While another process holds it, `give_up` is called between tries; when it returns True the body gets False and
    runs without the lock. Raises SupersededError when the job belongs to a later attempt.
    """
    check_fence(folder, attempt)

    def check_and_give_up() -> bool:
        check_fence(folder, attempt)
        return give_up()

    with file_lock(folder / LOCK_FILE, check_and_give_up) as is_held:
        if is_held:
            check_fence(folder, attempt)
        yield is_held
