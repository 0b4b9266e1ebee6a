# SPDX-License-Identifier: GPL-3.0-or-later
"""Operators that fine-tune a prop: a job with another prompt starts from its field."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import bpy
from bpy.props import FloatProperty, StringProperty

from . import addon_state, checks, compat, labels, provenance, server_settings
from .job_operators import JobOperator
from .shared import limits
from .shared.job_states import ENDED, JobState
from .shared.messages import JobSummary
from .wording import mark, say

if TYPE_CHECKING:
    from bpy.types import Operator as _Base
else:
    _Base = object  # Blender registers every subclass of Operator, so a mix-in must not be one

LABEL = mark("Fine-Tune with a New Prompt")
SHARE = "run.finetune_share"  # the setting behind the slider
WIDTH = 420  # of the dialog, in pixels
NO_FIELD = mark("The server has not kept the field of this prop; generate it again, then fine-tune that")


@dataclass(frozen=True)
class Parent:
    """The job that is fine-tuned, and its request."""

    job: str
    prompt: str
    negative: str
    model: str
    preset: str
    seed: int
    settings: dict[str, Any]


def parent_of_object(owner: Any) -> Parent | None:
    """The job that made an object, from its custom properties; None when no job generated it."""
    known = provenance.request_of(owner)
    if known is None or not known.job:
        return None
    return Parent(known.job, known.prompt, known.negative, known.model, known.preset, known.seed, known.settings)


def parent_of_job(job: JobSummary) -> Parent:
    """A job of the list, as the one that is fine-tuned."""
    return Parent(job.job, job.prompt, job.negative, job.model, job.preset, job.seed, dict(job.settings))


def object_fault(owner: Any) -> str:
    """Why an object cannot be fine-tuned now, as a sentence; "" when it can."""
    known, session = provenance.request_of(owner), addon_state.session()
    if known is None or not known.job:
        return provenance.NOT_GENERATED
    if fault := checks.offline_fault():
        return fault
    job = session.jobs.get(known.job)
    if job is not None:
        return job_fault(job)
    if known.server != session.address:
        return say("This prop was generated on the server at {server}; connect to that server", server=known.server)
    if len(session.jobs) >= limits.JOBS_LISTED:
        return ""  # a full list leaves out older jobs, which the server may still have
    return say("The server no longer has the job of this prop; generate it again, then fine-tune that")


def job_fault(job: JobSummary) -> str:
    """Why a job cannot be fine-tuned, as a sentence; "" when it can."""
    if JobState(job.state) not in ENDED:
        return say("Only an ended job can be fine-tuned; cancel it, or wait")
    return "" if job.has_field else NO_FIELD


def kept_share(parent: Parent) -> float | None:
    """The share of the run that is kept: the panel's value, else the parent's, else the default.

    None when the server has no such setting.
    """
    capabilities = addon_state.session().capabilities
    setting = server_settings.find_setting(capabilities, SHARE)
    if setting is None:
        return None
    choice = server_settings.Choice(parent.model, parent.preset)
    chosen = server_settings.changed_settings(capabilities, choice).get(SHARE)
    default = server_settings.default_of(capabilities, setting, choice)
    for value in (chosen, parent.settings.get(SHARE), default):
        if isinstance(value, (int, float)):
            return float(value)
    return None


class _FinetuneOperator(_Base):
    """Mix-in with the dialog and the submission."""

    bl_label = LABEL
    bl_options = {"REGISTER"}

    prompt: StringProperty(
        name="Prompt",
        description="What the prop becomes, in words",
        maxlen=limits.PROMPT_CHARACTERS,
        options={"SKIP_SAVE"},
    )
    share: FloatProperty(
        name="Keep",
        description="How much of the prop is kept: the share of steps that is skipped; more is faster and changes less",
        min=0,
        max=0.99,
        default=0.5,
        subtype="FACTOR",
        options={"SKIP_SAVE"},
    )

    def parent(self, context: Any) -> Parent | None:
        """The job to fine-tune."""
        raise NotImplementedError

    def invoke(self, context: Any, event: Any) -> set[str]:
        """Open a dialog with the present prompt."""
        parent = self.parent(context)
        if not self.properties.is_property_set("prompt"):
            self.prompt = parent.prompt if parent else ""
        share = kept_share(parent) if parent else None
        if share is not None and not self.properties.is_property_set("share"):
            self.share = share
        return context.window_manager.invoke_props_dialog(self, width=WIDTH)

    def draw(self, context: Any) -> None:
        """Draw the prompt, and the slider when the server has the setting."""
        parent = self.parent(context)
        compat.text_field(self.layout, self, "prompt", say("what it becomes"), 3)
        if parent is not None and kept_share(parent) is not None:
            self.layout.prop(self, "share", slider=True)

    def finetune(self, parent: Parent) -> set[str]:
        """Submit the job; faults are reported."""
        session, prompt = addon_state.session(), labels.clean_prompt(self.prompt)
        fault = labels.vocabulary_fault(session.capabilities, parent.model, prompt)
        if not prompt:
            fault = say(
                "The prompt is empty; type what the prop becomes, for example: {prompt}, worn", prompt=parent.prompt
            )
        if fault:
            self.report({"ERROR"}, fault)
            return {"CANCELLED"}
        settings, share = dict(parent.settings), kept_share(parent)
        if self.properties.is_property_set("share"):
            share = self.share
        if share is not None:
            settings[SHARE] = round(share, 4)  # a property holds 32 bits
        try:
            session.submit(
                prompt, parent.negative, parent.model, parent.preset, parent.seed, settings, parent_job=parent.job
            )
        except ValueError as error:  # also ProtocolError
            self.report({"ERROR"}, str(error))
            return {"CANCELLED"}
        return {"FINISHED"}


class DREAMWRIGHT_OT_finetune_object(_FinetuneOperator, bpy.types.Operator):
    """Fine-tune the active object's prop."""

    bl_idname = "dreamwright.finetune_object"
    bl_description = "Continue from the active object's prop with another prompt; the result is a new object"

    @classmethod
    def poll(cls, context: Any) -> bool:
        """Only for a generated object whose field the connected server has kept."""
        return checks.allow(cls, object_fault(context.active_object))

    def parent(self, context: Any) -> Parent | None:
        """The active object's job."""
        return parent_of_object(context.active_object)

    def execute(self, context: Any) -> set[str]:
        """Submit a job that starts from the object's field."""
        parent = self.parent(context)
        if parent is None:
            self.report({"ERROR"}, say(provenance.NOT_GENERATED))
            return {"CANCELLED"}
        return self.finetune(parent)


class DREAMWRIGHT_OT_finetune_job(_FinetuneOperator, JobOperator, bpy.types.Operator):
    """Fine-tune a job's prop."""

    bl_idname = "dreamwright.finetune_job"
    bl_description = "Continue from this job's prop with another prompt; the result is a new job"

    @classmethod
    def fault(cls, job: JobSummary) -> str:
        """Only an ended job has a field."""
        return job_fault(job)

    def parent(self, context: Any) -> Parent | None:
        """The named job, else the selected one."""
        job = self.target()
        return parent_of_job(job) if job is not None else None

    def invoke(self, context: Any, event: Any) -> set[str]:
        """Store the job's id: the selection may change before the dialog is confirmed."""
        selected = self.target()
        self.job = selected.job if selected else self.job
        return super().invoke(context, event)

    def run(self, job: JobSummary) -> set[str]:
        """Submit a job that starts from this one's field."""
        return self.finetune(parent_of_job(job))


def _draw_menu(menu: Any, context: Any) -> None:
    """Add the entry to the object's context menu, for generated objects."""
    if parent_of_object(context.active_object) is not None:
        menu.layout.separator()
        menu.layout.operator(DREAMWRIGHT_OT_finetune_object.bl_idname, icon=compat.icon("GREASEPENCIL", "TEXT"))


_register_classes, _unregister_classes = bpy.utils.register_classes_factory(
    (DREAMWRIGHT_OT_finetune_object, DREAMWRIGHT_OT_finetune_job)
)


def register() -> None:
    """Add the operators and the menu entry."""
    _register_classes()
    bpy.types.VIEW3D_MT_object_context_menu.append(_draw_menu)


def unregister() -> None:
    """Remove them."""
    bpy.types.VIEW3D_MT_object_context_menu.remove(_draw_menu)
    _unregister_classes()
