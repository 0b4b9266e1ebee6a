# SPDX-License-Identifier: GPL-3.0-or-later
"""Refining a prompt: a prop that was dreamt becomes where a job of another prompt begins, from its object or from the list of jobs."""

from dataclasses import dataclass
from typing import Any

import bpy
from bpy.props import FloatProperty, StringProperty

from . import addon_state, compat, import_mesh, labels, properties, server_settings
from .operators import OnJob, allowed, offline_fault
from .shared import limits
from .shared.job_states import ENDED, JobState

LABEL = "Refine with a New Prompt"
SHARE = "run.finetune_share"  # the setting behind the slider
WIDTH = 420  # of the dialog, pixels
NOT_KEPT = "The server has no field of this prop to begin from; dream it again, then refine that"


@dataclass(frozen=True)
class Base:
    """What is refined: a job, and what it was asked for."""

    job: str
    prompt: str
    negative: str
    model: str
    preset: str
    seed: int
    settings: dict[str, Any]


def base_of_object(owner: Any) -> Base | None:
    """What made an object, by its custom properties; None when it was not dreamt."""
    known = import_mesh.remembered_request(owner)
    return None if known is None else Base(job=str(owner.get(import_mesh.PREFIX + "job", "")), **known)


def object_fault(owner: Any) -> str:
    """Why an object's prompt cannot be refined now, in a sentence; "" when it can."""
    base, session = base_of_object(owner), addon_state.session()
    if base is None or not base.job:
        return "The active object was not made by Dreamwright; select one that was"
    if fault := offline_fault():
        return fault
    job, server = session.jobs.get(base.job), str(owner.get(import_mesh.PREFIX + "server", ""))
    if job is not None:
        return job_fault(job)
    if server != session.address:
        return f"This prop was dreamt on the server at {server}; connect to that one"
    # A full list may leave out older jobs; of those only the server knows.
    return (
        ""
        if len(session.jobs) >= limits.JOBS_LISTED
        else "The server no longer has the job of this prop; dream it again, then refine that"
    )


def job_fault(job: Any) -> str:
    """Why a job's prompt cannot be refined, in a sentence; "" when it can."""
    if JobState(job.state) not in ENDED:
        return "Only an ended job's prompt can be refined; cancel it, or wait"
    return "" if job.has_field else NOT_KEPT


def kept_share(base: Base) -> float | None:
    """How much a refining of it keeps: as the panel says, else as it was asked for, else the server's default; None for a server that has no say."""
    offered = addon_state.session().offered
    card = next((card for card in offered.settings if card.name == SHARE), None) if offered else None
    if card is None:
        return None
    default = server_settings.default_of(card, base.preset)
    for value in (server_settings.changed(offered, base.preset).get(SHARE), base.settings.get(SHARE), default):
        if isinstance(value, (int, float)):
            return float(value)
    return None


class _NewPrompt:
    """The dialog, and what it sends."""

    bl_label = LABEL
    bl_options = {"REGISTER"}

    prompt: StringProperty(
        name="Prompt",
        description="What the prop shall become, in words",
        maxlen=limits.PROMPT_CHARACTERS,
        options={"SKIP_SAVE"},
    )
    share: FloatProperty(
        name="Keep",
        description="How much of the prop is kept: the share of the steps that is left out, so more is quicker and changes less",
        min=0,
        max=0.99,
        default=0.5,
        subtype="FACTOR",
        options={"SKIP_SAVE"},
    )

    def invoke(self, context: Any, event: Any) -> set[str]:
        """Ask for the prompt in a dialog, beginning with the present one."""
        base = self.base(context)
        if not self.properties.is_property_set("prompt"):
            self.prompt = base.prompt if base else ""
        share = kept_share(base) if base else None
        if share is not None and not self.properties.is_property_set("share"):
            self.share = share
        return context.window_manager.invoke_props_dialog(self, width=WIDTH)

    def draw(self, context: Any) -> None:
        """The prompt, and how much is kept where the server lets one choose."""
        base = self.base(context)
        compat.text_field(self.layout, self, "prompt", "what it shall become", 3)
        if base is not None and kept_share(base) is not None:
            self.layout.prop(self, "share", slider=True)

    def refine(self, base: Base) -> set[str]:
        """Ask the server for it; what is wrong is reported."""
        session, prompt = addon_state.session(), labels.clean_prompt(self.prompt)
        if not prompt:
            self.report(
                {"ERROR"}, f"The prompt is empty; type what the prop shall become, for example: {base.prompt}, worn"
            )
            return {"CANCELLED"}
        if fault := labels.vocabulary_fault(session.offered, base.model, prompt):
            self.report({"ERROR"}, fault)
            return {"CANCELLED"}
        settings, share = dict(base.settings), kept_share(base)
        if self.properties.is_property_set("share"):
            share = self.share
        if share is not None:
            settings[SHARE] = round(share, 4)  # a property holds 32 bits
        try:
            session.submit(prompt, base.negative, base.model, base.preset, base.seed, settings, base.job)
        except ValueError as error:  # ProtocolError is one
            self.report({"ERROR"}, str(error))
            return {"CANCELLED"}
        return {"FINISHED"}


class DREAMWRIGHT_OT_refine_prompt(_NewPrompt, bpy.types.Operator):
    """Refine the active object's prompt."""

    bl_idname = "dreamwright.refine_prompt"
    bl_description = "Dream on from the active object's prop with another prompt; the result is a new object"

    @classmethod
    def poll(cls, context: Any) -> bool:
        """Only for an object that was dreamt, on the server that is connected and still has its field."""
        return allowed(cls, object_fault(context.active_object))

    def base(self, context: Any) -> Base | None:
        """The active object's."""
        return base_of_object(context.active_object)

    def execute(self, context: Any) -> set[str]:
        """Submit a job that begins from the object's field."""
        return self.refine(self.base(context))


class DREAMWRIGHT_OT_refine_job(_NewPrompt, OnJob, bpy.types.Operator):
    """Refine a job's prompt."""

    bl_idname = "dreamwright.refine_job"
    bl_description = "Dream on from this job's prop with another prompt; the result is a new job"

    @classmethod
    def fault_of(cls, job: Any) -> str:
        """Only an ended job may have left its field."""
        return job_fault(job)

    def base(self, context: Any) -> Base | None:
        """The named job's, or the chosen one's."""
        job = addon_state.session().jobs.get(self.job) if self.job else properties.active_job()
        return (
            None
            if job is None
            else Base(job.job, job.prompt, job.negative, job.model, job.preset, job.seed, job.settings)
        )

    def invoke(self, context: Any, event: Any) -> set[str]:
        """Name the job: another one may be chosen by the time that the dialog is confirmed."""
        chosen = self.base(context)
        self.job = chosen.job if chosen else self.job
        return super().invoke(context, event)

    def execute(self, context: Any) -> set[str]:
        """Submit a job that begins from this one's field, or say why not."""
        base = self.base(context)
        job = addon_state.session().jobs.get(base.job) if base else None
        if job is None:
            return super().execute(context)
        if fault := self.fault_of(job):
            self.report({"ERROR"}, fault)
            return {"CANCELLED"}
        return self.refine(base)


def _in_menu(menu: Any, context: Any) -> None:
    """In the menu of a right click, for what was dreamt."""
    if base_of_object(context.active_object) is not None:
        menu.layout.separator()
        menu.layout.operator(DREAMWRIGHT_OT_refine_prompt.bl_idname, icon=compat.icon("GREASEPENCIL", "TEXT"))


_register_classes, _unregister_classes = bpy.utils.register_classes_factory(
    (DREAMWRIGHT_OT_refine_prompt, DREAMWRIGHT_OT_refine_job)
)


def register() -> None:
    """Add the operators and the entry of the object's menu."""
    _register_classes()
    bpy.types.VIEW3D_MT_object_context_menu.append(_in_menu)


def unregister() -> None:
    """Take them away."""
    bpy.types.VIEW3D_MT_object_context_menu.remove(_in_menu)
    _unregister_classes()
