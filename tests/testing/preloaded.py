# SPDX-License-Identifier: GPL-3.0-or-later
"""Child processes with torch and Dreamwright already imported: forks of one server process."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from typing import Any

PROCESSES = multiprocessing.get_context("forkserver")
# Importing torch, diffusers and transformers takes seconds of CPU time per process.
PROCESSES.set_forkserver_preload(["tests.testing.rank_scenarios", "tests.testing.recording_worker"])


def run_in_child(target: Callable[..., None], *arguments: Any, timeout_s: float = 120.0) -> int:
    """Run `target` in a preloaded process; returns its exit code, which is -N after signal N."""
    process = PROCESSES.Process(target=target, args=arguments)
    process.start()
    try:
        process.join(timeout_s)
        if process.exitcode is None:
            raise TimeoutError(f"{target.__name__} still runs after {timeout_s} s")
        return process.exitcode
    finally:
        process.kill()
        process.join()
