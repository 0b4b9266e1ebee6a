# SPDX-License-Identifier: GPL-3.0-or-later
"""A job's place among others and how long it is kept: raise, lower, pin, remove. What the panel shows is what the server answered."""

from typing import Any

import bpy
from bpy.props import BoolProperty

from . import addon_state
from .operators import OnJob
from .shared.job_states import ENDED, JobState
from .shared.limits import PRIORITY_HIGHEST, PRIORITY_LOWEST


class _Priority(OnJob):
    """One step of priority."""

    step = 0

    @classmethod
    def fault_of(cls, job: Any) -> str:
        """Only what has not ended has a place in line, and priorities have bounds."""
        if JobState(job.state) in ENDED:
            return "Only a job that has not ended has a priority"
        if not PRIORITY_LOWEST <= job.priority + cls.step <= PRIORITY_HIGHEST:
            return f"The priority is {job.priority} already; it goes from {PRIORITY_LOWEST} to {PRIORITY_HIGHEST}"
        return ""

    def act(self, job: str) -> None:
        """Ask for it; the server refuses what only an admin may."""
        session = addon_state.session()
        session.prioritize(job, session.jobs[job].priority + self.step)


class DREAMWRIGHT_OT_raise_priority(_Priority, bpy.types.Operator):
    """Let a job go earlier."""

    bl_idname = "dreamwright.raise_priority"
    bl_label = "Raise Priority"
    bl_description = "Let this job go before others of your turn; more than 0 is an admin's to give"
    step = 1


class DREAMWRIGHT_OT_lower_priority(_Priority, bpy.types.Operator):
    """Let a job go later."""

    bl_idname = "dreamwright.lower_priority"
    bl_label = "Lower Priority"
    bl_description = "Let others of your turn go before this job"
    step = -1


class DREAMWRIGHT_OT_pin(OnJob, bpy.types.Operator):
    """Keep a job on the server, or no longer."""

    bl_idname = "dreamwright.pin"
    bl_label = "Pin"
    bl_description = "Have the server keep this job and its mesh until it is unpinned"

    keep: BoolProperty(name="Keep", description="Pin the job; off unpins it", default=True, options={"SKIP_SAVE"})

    @classmethod
    def fits(cls, job: Any) -> bool:
        """Any job may be kept, whatever its state."""
        return True

    def act(self, job: str) -> None:
        """Ask for it; the server refuses more pins than it allows a user."""
        addon_state.session().pin(job, self.keep)


class DREAMWRIGHT_OT_remove(OnJob, bpy.types.Operator):
    """Remove an ended job from the server."""

    bl_idname = "dreamwright.remove"
    bl_label = "Remove"
    bl_description = "Remove the ended job and its files from the server; objects that were imported stay"
    states = tuple(sorted(state.value for state in ENDED))
    refusal = "Only an ended job can be removed; cancel it first"

    def invoke(self, context: Any, event: Any) -> set[str]:
        """Ask first: it cannot be undone."""
        return context.window_manager.invoke_confirm(self, event)

    def act(self, job: str) -> None:
        """Remove it."""
        addon_state.session().forget(job)


register, unregister = bpy.utils.register_classes_factory(
    (DREAMWRIGHT_OT_raise_priority, DREAMWRIGHT_OT_lower_priority, DREAMWRIGHT_OT_pin, DREAMWRIGHT_OT_remove)
)
