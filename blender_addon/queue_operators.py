# SPDX-License-Identifier: GPL-3.0-or-later
"""Operators on a job's priority and storage: raise, lower, pin, delete. The panel shows what the server answers."""

from typing import Any

import bpy
from bpy.props import BoolProperty

from . import addon_state
from .job_operators import JobOperator, JobRequestOperator
from .session import Session
from .shared.job_states import ENDED, JobState
from .shared.limits import PRIORITY_HIGHEST, PRIORITY_LOWEST
from .shared.messages import JobSummary
from .wording import say


class _PriorityOperator(JobOperator):
    """Change a job's priority by `step`."""

    step = 0

    @classmethod
    def fault(cls, job: JobSummary) -> str:
        """Jobs that have ended have no priority, and priorities are bounded."""
        if JobState(job.state) in ENDED:
            return say("Only a job that has not ended has a priority")
        if not PRIORITY_LOWEST <= job.priority + cls.step <= PRIORITY_HIGHEST:
            return say(
                "The priority is already {priority}; allowed are {lowest} to {highest}",
                priority=job.priority,
                lowest=PRIORITY_LOWEST,
                highest=PRIORITY_HIGHEST,
            )
        return ""

    def run(self, job: JobSummary) -> set[str]:
        """Request it; the server refuses what only admins may do."""
        addon_state.session().set_priority(job.job, job.priority + self.step)
        return {"FINISHED"}


class DREAMWRIGHT_OT_raise_priority(_PriorityOperator, bpy.types.Operator):
    """Raise a job's priority."""

    bl_idname = "dreamwright.raise_priority"
    bl_label = "Raise Priority"
    bl_description = "Run this job before your others; priorities above 0 are for admins"
    step = 1


class DREAMWRIGHT_OT_lower_priority(_PriorityOperator, bpy.types.Operator):
    """Lower a job's priority."""

    bl_idname = "dreamwright.lower_priority"
    bl_label = "Lower Priority"
    bl_description = "Run your other jobs before this one"
    step = -1


class DREAMWRIGHT_OT_pin(JobOperator, bpy.types.Operator):
    """Pin or unpin a job."""

    bl_idname = "dreamwright.pin"
    bl_label = "Pin"
    bl_description = "Keep this job and its mesh on the server until it is unpinned"

    keep: BoolProperty(name="Keep", description="Pin the job; off unpins it", default=True, options={"SKIP_SAVE"})

    @classmethod
    def applies_to(cls, job: JobSummary) -> bool:
        """Jobs in any state can be pinned."""
        return True

    def run(self, job: JobSummary) -> set[str]:
        """Request it; the server limits the pins of a user."""
        addon_state.session().pin(job.job, self.keep)
        return {"FINISHED"}


class DREAMWRIGHT_OT_delete_job(JobRequestOperator, bpy.types.Operator):
    """Delete an ended job on the server."""

    bl_idname = "dreamwright.delete_job"
    bl_label = "Delete"
    bl_description = "Delete the ended job and its files on the server; imported objects stay"
    states = tuple(sorted(state.value for state in ENDED))
    refusal = "Only an ended job can be deleted; cancel it first"
    send = staticmethod(Session.delete)

    def invoke(self, context: Any, event: Any) -> set[str]:
        """Ask for confirmation: it cannot be undone."""
        return context.window_manager.invoke_confirm(self, event)


register, unregister = bpy.utils.register_classes_factory(
    (
        DREAMWRIGHT_OT_raise_priority,
        DREAMWRIGHT_OT_lower_priority,
        DREAMWRIGHT_OT_pin,
        DREAMWRIGHT_OT_delete_job,
    )
)
