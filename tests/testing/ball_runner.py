# SPDX-License-Identifier: GPL-3.0-or-later
"""A runner in the test process that makes a ball of every job at once, and fails those that the test names."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

from dreamwright.backend.scenes.initial_field import FIELD_FILE
from dreamwright.backend.server.workers.job_executor import MESH_FILE
from dreamwright.backend.server.workers.worker_protocol import JobFinished, ProgressReport, RunJob
from dreamwright.shared.failure_causes import FailureCause
from dreamwright.shared.mesh_file import encode_mesh
from tests.testing.fake_props import ball, texture_of


class BallRunner:
    """Takes the place of `LocalRunner`. A job takes two looks at the reports: one with its steps, one with its end."""

    survives_server, failed_starts = False, 0
    fail_words: tuple[str, ...] = ()  # prompts with one of these words fail
    textured_words: tuple[str, ...] = ()  # prompts with one of these words give a ball with a texture
    made: ClassVar[list[str]] = []  # prompts of all attempts, of all runners
    most_at_work = 0  # the largest number of devices that had a job at the same time

    def __init__(self, context: Any, devices: tuple[str, ...], log_folder: Path) -> None:
        self.devices = devices
        self._at_work: dict[str, RunJob] = {}
        self._stepped: set[str] = set()

    @property
    def socket(self) -> BallRunner:
        return self

    def poll(self, milliseconds: int) -> int:
        return 1

    def reattach(self, running: Mapping[str, int]) -> set[str]:
        return set()

    def idle_devices(self) -> list[str]:
        return [device for device in self.devices if device not in self._at_work]

    def assign(self, device: str, order: RunJob) -> None:
        self._at_work[device] = order
        BallRunner.made.append(order.prompt)
        BallRunner.most_at_work = max(BallRunner.most_at_work, len(self._at_work))

    def stop(self, job: str, mode: str) -> None:
        """Its jobs are over before they could stop."""

    def watch(self, job: str, is_watched: bool) -> None:
        """Its props are made at once."""

    def kill(self, job: str) -> None:
        raise AssertionError(f"{job} hangs")

    def close(self, grace_s: float) -> None:
        self._at_work.clear()

    def reports(self) -> Iterator[Any]:
        for device, order in list(self._at_work.items()):
            if order.job not in self._stepped:
                self._stepped.add(order.job)
                yield ProgressReport(order.job, 3, 6, 1.0, 1.0, order.attempt)
                continue
            del self._at_work[device]
            if any(word in order.prompt for word in self.fail_words):
                cause = FailureCause.RUN_FAILED.value
                yield JobFinished(order.job, "failed", "the density\nis empty", False, order.attempt, cause)
            else:
                self._write(order)
                yield JobFinished(order.job, "succeeded", "", True, order.attempt)

    def _write(self, order: RunJob) -> None:
        facts = {"prompt": order.prompt, "seed": order.seed, "steps": 6, "triangles": 960, "dreamwright": "0.1.0"}
        mesh = replace(ball(height=0.2 + 0.1 * len(order.prompt) / 20), facts=facts)
        if any(word in order.prompt for word in self.textured_words):
            mesh = replace(mesh, texture=texture_of(mesh, 64))
        folder = Path(order.folder)
        (folder / MESH_FILE).write_bytes(encode_mesh(mesh))
        (folder / FIELD_FILE).write_bytes(b"a field")
