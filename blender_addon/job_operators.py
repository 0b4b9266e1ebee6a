# SPDX-License-Identifier: GPL-3.0-or-later
"""Operators on one job of the list: cancel, pause, resume, import; and on submissions that wait for the server."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import bpy
from bpy.props import StringProperty

from . import addon_state, checks
from .session import Session
from .shared.job_states import JobState
from .shared.messages import JobSummary
from .wording import mark, say

if TYPE_CHECKING:
    from bpy.types import Operator as _Base
else:
    _Base = object  # Blender registers every subclass of Operator, so a mix-in must not be one

PANEL = "dreamwright_panel"  # in the context of the panel's buttons only, which act on the selected job
NOT_SELECTED = mark("Select a job in the list first")


class JobOperator(_Base):
    """Mix-in for an operator on one job: the selected one, or the one that a script names."""

    bl_options = {"REGISTER"}
    states: tuple[str, ...] = ()  # in which the operator applies
    refusal = ""  # shown for a job in another state

    job: StringProperty(name="Job", description="Id of the job; empty: the selected one", options={"SKIP_SAVE"})

    @classmethod
    def poll(cls, context: Any) -> bool:
        """In the panel the selected job decides; a script may name any job, which `execute` checks."""
        fault = checks.offline_fault() or ("" if addon_state.session().jobs else say("There is no job yet"))
        if not fault and hasattr(context, PANEL):
            selected = addon_state.active_job()
            fault = NOT_SELECTED if selected is None else cls.fault(selected)
        return checks.allow(cls, fault)

    @classmethod
    def applies_to(cls, job: JobSummary) -> bool:
        """Whether the job is in a state in which the operator applies."""
        return job.state in cls.states

    @classmethod
    def fault(cls, job: JobSummary) -> str:
        """Why the operator cannot run on this job, as a sentence; "" when it can."""
        return "" if cls.applies_to(job) else say(cls.refusal)

    def target(self) -> JobSummary | None:
        """The named job, else the selected one."""
        return addon_state.session().jobs.get(self.job) if self.job else addon_state.active_job()

    def execute(self, context: Any) -> set[str]:
        """Run on the job, or report why not."""
        job = self.target()
        if job is None:
            unknown = say("The server has no job {job}; see the list of jobs", job=self.job)
            self.report({"ERROR"}, unknown if self.job else say(NOT_SELECTED))
            return {"CANCELLED"}
        if fault := self.fault(job):
            self.report({"ERROR"}, fault)
            return {"CANCELLED"}
        return self.run(job)

    def run(self, job: JobSummary) -> set[str]:
        """Run on a job without fault."""
        raise NotImplementedError


class JobRequestOperator(JobOperator):
    """Mix-in for an operator that only sends one request about the job."""

    send: Callable[[Session, str], None]  # a method of the session, with the job's id; wrapped in `staticmethod`

    def run(self, job: JobSummary) -> set[str]:
        """Send the request."""
        self.send(addon_state.session(), job.job)
        return {"FINISHED"}


class DREAMWRIGHT_OT_cancel(JobRequestOperator, bpy.types.Operator):
    """Stop a job."""

    bl_idname = "dreamwright.cancel"
    bl_label = "Cancel"
    bl_description = "Stop the job within one step; its present state becomes a mesh"
    states = (JobState.QUEUED.value, JobState.RUNNING.value, JobState.PAUSED.value)
    refusal = "Only a job that has not ended can be cancelled"
    send = staticmethod(Session.cancel)


class DREAMWRIGHT_OT_pause(JobRequestOperator, bpy.types.Operator):
    """Pause a job."""

    bl_idname = "dreamwright.pause"
    bl_label = "Pause"
    bl_description = "Stop the job within one step, to resume it later"
    states = (JobState.QUEUED.value, JobState.RUNNING.value)
    refusal = "Only a queued or running job can be paused"
    send = staticmethod(Session.pause)


class DREAMWRIGHT_OT_resume(JobRequestOperator, bpy.types.Operator):
    """Resume a paused or failed job."""

    bl_idname = "dreamwright.resume"
    bl_label = "Resume"
    bl_description = "Put the paused or failed job back into the queue; it continues where it stopped"
    refusal = "Only a paused job can be resumed, or a failed one with a checkpoint on the server"
    send = staticmethod(Session.resume)

    @classmethod
    def applies_to(cls, job: JobSummary) -> bool:
        """A failed job may have left no checkpoint."""
        return job.state == JobState.PAUSED.value or job.resumable


class DREAMWRIGHT_OT_import(JobOperator, bpy.types.Operator):
    """Import a job's mesh."""

    bl_idname = "dreamwright.import_mesh"
    bl_label = "Import"
    bl_description = "Import the prop at the 3D cursor; leaves Edit Mode"
    refusal = "This job has no mesh yet"

    @classmethod
    def applies_to(cls, job: JobSummary) -> bool:
        """A cancelled job may have a mesh as well."""
        return job.mesh_bytes > 0

    def run(self, job: JobSummary) -> set[str]:
        """Start the download; a later tick imports the mesh."""
        try:
            addon_state.session().download_mesh(job.job)
        except ValueError as error:
            self.report({"ERROR"}, str(error))
            return {"CANCELLED"}
        return {"FINISHED"}


class DREAMWRIGHT_OT_cancel_pending(bpy.types.Operator):
    """Remove a submission that the server has not answered."""

    bl_idname = "dreamwright.cancel_pending"
    bl_label = "Cancel Submission"
    bl_description = "Stop sending this submission to the server"
    bl_options = {"REGISTER"}

    ticket: StringProperty(
        name="Ticket", description="Ticket of the submission; empty: all that wait", options={"SKIP_SAVE"}
    )
    group: StringProperty(
        name="Group", description="Id of a group, whose submissions are all removed", options={"SKIP_SAVE"}
    )

    @classmethod
    def poll(cls, context: Any) -> bool:
        """Only while a submission waits."""
        return checks.allow(cls, "" if addon_state.session().pending else say("No submission waits for the server"))

    def execute(self, context: Any) -> set[str]:
        """Remove it."""
        session = addon_state.session()
        for ticket, request in list(session.pending.items()):
            if self.ticket in ("", ticket) and self.group in ("", request.group):
                session.cancel_pending(ticket)
        return {"FINISHED"}


register, unregister = bpy.utils.register_classes_factory(
    (
        DREAMWRIGHT_OT_cancel,
        DREAMWRIGHT_OT_pause,
        DREAMWRIGHT_OT_resume,
        DREAMWRIGHT_OT_import,
        DREAMWRIGHT_OT_cancel_pending,
    )
)
