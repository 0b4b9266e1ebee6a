# SPDX-License-Identifier: GPL-3.0-or-later
"""Actions of a user, for tests in a Blender with the add-on enabled."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import bpy
import pytest

from tests.testing.installed_addon import PACKAGE


class AddonDriver:
    """Blender with the add-on enabled."""

    def __init__(self) -> None:
        self.wait = 10.0

    def module(self, name: str) -> Any:
        return importlib.import_module(f"{PACKAGE}.{name}")

    @property
    def session(self) -> Any:
        return self.module("addon_state").session()

    @property
    def panel(self) -> Any:
        return bpy.context.window_manager.dreamwright

    @property
    def preferences(self) -> Any:
        return bpy.context.preferences.addons[PACKAGE].preferences

    def poll(self, until: Callable[[], bool] = lambda: False, seconds: float | None = None) -> bool:
        return self.module("timer").poll(until, self.wait if seconds is None else seconds)

    def connect(self, address: str) -> None:
        self.preferences.address = address
        assert bpy.ops.dreamwright.connect() == {"FINISHED"}
        assert self.poll(lambda: self.session.is_online and self.session.capabilities is not None), self.session.reason
        self.poll(seconds=0.05)

    def generate(self, prompt: str = "a red mushroom") -> str:
        known = set(self.session.jobs)
        assert bpy.ops.dreamwright.generate(prompt=prompt) == {"FINISHED"}
        # Its event may come before the answer to the request, which makes it the chosen job.
        assert self.poll(lambda: bool(set(self.session.jobs) - known) and not self.session.pending), (
            self.session.notices
        )
        return (set(self.session.jobs) - known).pop()

    def finished(self, prompt: str = "a red mushroom") -> str:
        job = self.generate(prompt)
        assert self.poll(lambda: self.session.jobs[job].state == "succeeded"), self.session.jobs[job]
        return job

    def imported(self, job: str) -> Any:
        before = set(bpy.data.objects)
        assert bpy.ops.dreamwright.import_mesh(job=job) == {"FINISHED"}
        assert self.poll(lambda: len(bpy.data.objects) > len(before)), self.session.notices
        return (set(bpy.data.objects) - before).pop()

    def notices(self) -> str:
        return " ".join(notice.text for notice in self.session.notices)


def why_not(operator: Any) -> str:
    """The reason that Blender gives when a disabled operator is called."""
    with pytest.raises(RuntimeError) as caught:
        operator()
    return str(caught.value)
