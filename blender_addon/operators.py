# SPDX-License-Identifier: GPL-3.0-or-later
"""What the buttons do. Every operator works from a script as well; a greyed one says why."""

from typing import Any

import bpy
from bpy.props import BoolProperty, IntProperty, StringProperty

from . import addon_state, compat, key_store, labels, preview, properties, server_settings
from .preferences import preferences, user_folder
from .shared.job_states import JobState

PANEL = "dreamwright_panel"  # in the context of buttons in the panel, which act on the chosen job, and of nothing else


def connection_fault() -> str:
    """Why the server of the preferences may not be connected to, in a sentence; "" when it may."""
    address = preferences().address
    fault = labels.address_fault(address)
    if not labels.is_local(address):
        fault = fault or compat.online_fault()
    try:
        return fault or labels.key_fault(
            address, labels.is_local(address) or key_store.server_key(user_folder(), address) is not None
        )
    except ValueError as error:
        return str(error)


def allowed(cls: Any, fault: str) -> bool:
    """What `poll` answers, with the reason for a greyed button."""
    if fault:
        cls.poll_message_set(fault)
    return not fault


def offline_fault() -> str:
    """Why nothing can be asked of a server now, in a sentence; "" when it can."""
    session = addon_state.session()
    return "" if session.is_online else f"Not connected to a server: {session.reason}"


class DREAMWRIGHT_OT_connect(bpy.types.Operator):
    """Connect to the server of the preferences."""

    bl_idname = "dreamwright.connect"
    bl_label = "Connect"
    bl_description = "Connect to the server, and see its jobs"
    bl_options = {"REGISTER"}

    @classmethod
    def poll(cls, context: Any) -> bool:
        """Only where the network may be used."""
        return allowed(cls, connection_fault())

    def execute(self, context: Any) -> set[str]:
        """Begin to connect."""
        try:
            addon_state.session().connect(preferences().address)
        except ImportError as error:
            self.report(
                {"ERROR"},
                f"ZeroMQ or msgpack cannot be loaded ({error}); install the add-on anew from its zip, then restart Blender",
            )
            return {"CANCELLED"}
        except ValueError as error:
            self.report({"ERROR"}, str(error))
            return {"CANCELLED"}
        return {"FINISHED"}


class DREAMWRIGHT_OT_disconnect(bpy.types.Operator):
    """Let go of the server."""

    bl_idname = "dreamwright.disconnect"
    bl_label = "Disconnect"
    bl_description = "Let go of the server; its jobs go on and are back after the next connect"
    bl_options = {"REGISTER"}

    @classmethod
    def poll(cls, context: Any) -> bool:
        """Only while there is a connection."""
        return allowed(cls, "" if addon_state.session().is_open else "There is no connection")

    def execute(self, context: Any) -> set[str]:
        """Disconnect."""
        addon_state.session().disconnect()
        return {"FINISHED"}


class DREAMWRIGHT_OT_generate(bpy.types.Operator):
    """Send the prompt to the server."""

    bl_idname = "dreamwright.generate"
    bl_label = "Generate"
    bl_description = "Dream a prop from the prompt"
    bl_options = {"REGISTER"}

    prompt: StringProperty(
        name="Prompt", description="What to make; the panel's prompt when empty", options={"SKIP_SAVE"}
    )
    again: BoolProperty(
        name="Again",
        description="Take the next seed, for another prop of the same words",
        default=False,
        options={"SKIP_SAVE"},
    )

    @classmethod
    def poll(cls, context: Any) -> bool:
        """Only while a server answers."""
        return allowed(cls, offline_fault())

    def execute(self, context: Any) -> set[str]:
        """Submit a job with the panel's settings."""
        mine = properties.artist()
        prompt = labels.clean_prompt(self.prompt or mine.prompt)
        if not prompt:
            self.report({"ERROR"}, "The prompt is empty; type what to make, for example: a red mushroom")
            return {"CANCELLED"}
        if self.again:
            mine.seed = mine.seed + 1 if mine.seed < 2**31 - 1 else 0
        return {"FINISHED"} if submit(self, prompt) else {"CANCELLED"}


def submit(operator: Any, prompt: str) -> bool:
    """Send a prompt with the panel's settings; a fault is reported by the operator."""
    mine, session = properties.artist(), addon_state.session()
    if not mine.model_name or not mine.preset_name:
        operator.report({"ERROR"}, "The server has not said what it offers yet; try again in a moment")
        return False
    if fault := labels.vocabulary_fault(session.offered, mine.model_name, prompt):
        operator.report({"ERROR"}, fault)
        return False
    try:
        settings = server_settings.asked_for(session.offered, mine)
        session.submit(
            prompt, labels.clean_prompt(mine.negative), mine.model_name, mine.preset_name, mine.seed, settings
        )
    except ValueError as error:  # ProtocolError is one
        operator.report({"ERROR"}, str(error))
        return False
    return True


class OnJob:
    """An operator on one job: the chosen one, or the one that a script names."""

    bl_options = {"REGISTER"}
    states: tuple[str, ...] = ()
    refusal = ""

    job: StringProperty(
        name="Job", description="The job's name on the server; the chosen one when empty", options={"SKIP_SAVE"}
    )

    @classmethod
    def poll(cls, context: Any) -> bool:
        """In the panel only for a chosen job in a fitting state; a script may name any job, which `execute` looks at."""
        jobs = addon_state.session().jobs
        fault = offline_fault() or ("" if jobs else "There is no job yet")
        if not fault and hasattr(context, PANEL):
            chosen = properties.active_job()
            fault = "Choose a job in the list first" if chosen is None else cls.fault_of(chosen)
        return allowed(cls, fault)

    @classmethod
    def fits(cls, job: Any) -> bool:
        """Whether the operator means anything for this job."""
        return job.state in cls.states

    @classmethod
    def fault_of(cls, job: Any) -> str:
        """Why it cannot be done to this job, in a sentence; "" when it can."""
        return "" if cls.fits(job) else cls.refusal

    def execute(self, context: Any) -> set[str]:
        """Do it, or say why not."""
        job = addon_state.session().jobs.get(self.job) if self.job else properties.active_job()
        if job is None:
            self.report(
                {"ERROR"},
                f"The server has no job {self.job}; look at the list of jobs"
                if self.job
                else "Choose a job in the list first",
            )
            return {"CANCELLED"}
        if fault := self.fault_of(job):
            self.report({"ERROR"}, fault)
            return {"CANCELLED"}
        self.act(job.job)
        return {"FINISHED"}


class DREAMWRIGHT_OT_cancel(OnJob, bpy.types.Operator):
    """Stop a job."""

    bl_idname = "dreamwright.cancel"
    bl_label = "Cancel"
    bl_description = "Stop the job within a step; what it has so far becomes a mesh"
    states = (JobState.QUEUED.value, JobState.RUNNING.value, JobState.PAUSED.value)
    refusal = "Only a job that has not ended can be cancelled"

    def act(self, job: str) -> None:
        """Cancel it."""
        addon_state.session().cancel(job)


class DREAMWRIGHT_OT_pause(OnJob, bpy.types.Operator):
    """Stop a job for now."""

    bl_idname = "dreamwright.pause"
    bl_label = "Pause"
    bl_description = "Stop the job within a step, to go on from there later"
    states = (JobState.QUEUED.value, JobState.RUNNING.value)
    refusal = "Only a queued or running job can be paused"

    def act(self, job: str) -> None:
        """Pause it."""
        addon_state.session().pause(job)


class DREAMWRIGHT_OT_resume(OnJob, bpy.types.Operator):
    """Go on with a paused or failed job."""

    bl_idname = "dreamwright.resume"
    bl_label = "Resume"
    bl_description = "Put the paused or failed job back into the queue; it goes on where it stopped"
    refusal = "Only a paused job can be resumed, or a failed one of which the server has a checkpoint"

    @classmethod
    def fits(cls, job: Any) -> bool:
        """A failed job may have left nothing to go on from."""
        return job.state == JobState.PAUSED.value or job.resumable

    def act(self, job: str) -> None:
        """Resume it."""
        addon_state.session().resume(job)


class DREAMWRIGHT_OT_import(OnJob, bpy.types.Operator):
    """Bring a finished prop into the scene."""

    bl_idname = "dreamwright.import_mesh"
    bl_label = "Import"
    bl_description = "Bring the prop into the scene at the 3D cursor; leaves Edit Mode"
    refusal = "This job has no mesh yet"

    @classmethod
    def fits(cls, job: Any) -> bool:
        """Also a cancelled job may have a mesh."""
        return job.mesh_bytes > 0

    def act(self, job: str) -> None:
        """Fetch it; the next ticks bring it into the scene."""
        addon_state.session().fetch(job)


class DREAMWRIGHT_OT_withdraw(bpy.types.Operator):
    """Ask no longer for a prop that the server has not answered for."""

    bl_idname = "dreamwright.withdraw"
    bl_label = "Withdraw"
    bl_description = "Do not ask the server for this prop any more"
    bl_options = {"REGISTER"}

    ticket: StringProperty(
        name="Ticket", description="The request's name; all that wait when empty", options={"SKIP_SAVE"}
    )

    @classmethod
    def poll(cls, context: Any) -> bool:
        """Only while something waits."""
        return allowed(cls, "" if addon_state.session().outbox else "Nothing waits for the server")

    def execute(self, context: Any) -> set[str]:
        """Forget it."""
        for ticket in [self.ticket] if self.ticket else list(addon_state.session().outbox):
            addon_state.session().withdraw(ticket)
        return {"FINISHED"}


class DREAMWRIGHT_OT_show_preview(bpy.types.Operator):
    """Show the preview."""

    bl_idname = "dreamwright.show_preview"
    bl_label = "Show Preview"
    bl_description = "Show the live preview in an Image Editor; one with a pinned picture is left alone"
    bl_options = {"REGISTER"}

    def execute(self, context: Any) -> set[str]:
        """Open or reuse an Image Editor."""
        preview.show_current()
        if not preview.open_editor(context):
            self.report(
                {"WARNING"}, f"No editor could be opened; choose the image “{preview.IMAGE}” in an Image Editor"
            )
            return {"CANCELLED"}
        return {"FINISHED"}


class DREAMWRIGHT_OT_look(bpy.types.Operator):
    """Step through the pictures so far."""

    bl_idname = "dreamwright.look"
    bl_label = "Step Preview"
    bl_description = "Show an earlier or later picture of this job"
    bl_options = {"REGISTER"}

    offset: IntProperty(
        name="Offset",
        description="How many pictures further; 0 goes to the newest, live",
        default=0,
        options={"SKIP_SAVE"},
    )

    @classmethod
    def poll(cls, context: Any) -> bool:
        """Only when there are pictures."""
        return allowed(cls, "" if preview.current_frame() else "No preview of this job has arrived in this session")

    def execute(self, context: Any) -> set[str]:
        """Move the slider."""
        mine, job = properties.artist(), properties.active_job()
        ring = addon_state.session().frames[job.job]
        mine.scrub = ring.neighbor(mine.scrub, self.offset) if self.offset else 1.0
        return {"FINISHED"}


class DREAMWRIGHT_OT_dismiss(bpy.types.Operator):
    """Take messages away."""

    bl_idname = "dreamwright.dismiss"
    bl_label = "Dismiss"
    bl_description = "Take the messages away"
    bl_options = {"REGISTER"}

    def execute(self, context: Any) -> set[str]:
        """Forget all notices."""
        addon_state.session().notices.clear()
        return {"FINISHED"}


register, unregister = bpy.utils.register_classes_factory(
    (
        DREAMWRIGHT_OT_connect,
        DREAMWRIGHT_OT_disconnect,
        DREAMWRIGHT_OT_generate,
        DREAMWRIGHT_OT_cancel,
        DREAMWRIGHT_OT_pause,
        DREAMWRIGHT_OT_resume,
        DREAMWRIGHT_OT_import,
        DREAMWRIGHT_OT_withdraw,
        DREAMWRIGHT_OT_show_preview,
        DREAMWRIGHT_OT_look,
        DREAMWRIGHT_OT_dismiss,
    )
)
