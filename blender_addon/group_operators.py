# SPDX-License-Identifier: GPL-3.0-or-later
"""Operators on the variations of a prompt: open, pick, import, discard, cancel, and make more like one of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import bpy
from bpy.props import FloatProperty, IntProperty, StringProperty

from . import addon_state, checks, contact_sheet, finetune_operators, job_groups, properties, variations
from .job_operators import NOT_SELECTED, PANEL, JobOperator
from .shared.limits import VARIATIONS_LARGEST
from .shared.messages import JobSummary
from .wording import mark, say

if TYPE_CHECKING:
    from bpy.types import Operator as _Base
else:
    _Base = object  # Blender registers every subclass of Operator, so a mix-in must not be one

NO_GROUP = mark("Select variations in the list first: generate a prompt with Variations above 1")
NOT_PICKED = mark("Pick a variation first: press its number, or select it in the opened list")


class GroupOperator(_Base):
    """Mix-in for an operator on one group: the selected one, or the one that a script names."""

    bl_options = {"REGISTER"}

    group: StringProperty(name="Group", description="Id of the group; empty: the selected one", options={"SKIP_SAVE"})

    @classmethod
    def poll(cls, context: Any) -> bool:
        """In the panel the selected group decides; a script may name any group, which `execute` checks."""
        groups = addon_state.session().groups()
        fault = checks.offline_fault() or ("" if groups else NO_GROUP)
        if not fault and hasattr(context, PANEL):
            selected = addon_state.active_group()
            fault = cls.fault(selected, groups[selected]) if selected in groups else NO_GROUP
        return checks.allow(cls, fault)

    @classmethod
    def fault(cls, group: str, members: list[JobSummary]) -> str:
        """Why the operator cannot run on this group, as a sentence; "" when it can."""
        return ""

    def execute(self, context: Any) -> set[str]:
        """Run on the group, or report why not."""
        groups, group = addon_state.session().groups(), self.group or addon_state.active_group()
        unknown = say("The server has no group {group}; see the list of jobs", group=group) if group else NO_GROUP
        if fault := self.fault(group, groups[group]) if group in groups else unknown:
            self.report({"ERROR"}, fault)
            return {"CANCELLED"}
        return self.run(group, groups[group])

    def run(self, group: str, members: list[JobSummary]) -> set[str]:
        """Run on a group without fault."""
        raise NotImplementedError


def picked_job(group: str, members: list[JobSummary]) -> JobSummary | None:
    """The job of a group that the user picked; None when none is, or it is gone."""
    name = addon_state.session().picked.get(group, "")
    return next((job for job in members if job.job == name), None)


class DREAMWRIGHT_OT_toggle_group(GroupOperator, bpy.types.Operator):
    """Open or close a group in the list."""

    bl_idname = "dreamwright.toggle_group"
    bl_label = "Show Variations"
    bl_description = "Show or hide the single variations in the list"

    @classmethod
    def poll(cls, context: Any) -> bool:
        """Also without a connection."""
        return True

    def run(self, group: str, members: list[JobSummary]) -> set[str]:
        """Open or close it."""
        addon_state.session().open_groups ^= {group}
        properties.sync_rows()
        return {"FINISHED"}


class DREAMWRIGHT_OT_pick_variation(GroupOperator, bpy.types.Operator):
    """Pick a variation by its number."""

    bl_idname = "dreamwright.pick_variation"
    bl_label = "Pick Variation"
    bl_description = "Pick the variation with this number in the contact sheet"

    number: IntProperty(name="Number", description="Its number in the contact sheet, from 1", default=1)

    def run(self, group: str, members: list[JobSummary]) -> set[str]:
        """Remember it, and select it where the group is open."""
        if not 1 <= self.number <= len(members):
            self.report(
                {"ERROR"},
                say(
                    "There is no variation {number}; allowed are 1 to {largest}",
                    number=self.number,
                    largest=len(members),
                ),
            )
            return {"CANCELLED"}
        session, job = addon_state.session(), members[self.number - 1].job
        session.picked[group] = job
        session.revision += 1
        if group in session.open_groups:
            properties.choose_job(job)
        if contact_sheet.is_wanted():
            contact_sheet.update(group)
        return {"FINISHED"}


class DREAMWRIGHT_OT_import_picked(GroupOperator, bpy.types.Operator):
    """Import the picked variation."""

    bl_idname = "dreamwright.import_picked"
    bl_label = "Import Picked"
    bl_description = "Import the picked variation at the 3D cursor; leaves Edit Mode"

    @classmethod
    def fault(cls, group: str, members: list[JobSummary]) -> str:
        """One must be picked, and have a mesh."""
        picked = picked_job(group, members)
        if picked is None:
            return NOT_PICKED
        return "" if picked.mesh_bytes else say("The picked variation has no mesh yet")

    def run(self, group: str, members: list[JobSummary]) -> set[str]:
        """Start the download; a later tick imports the mesh, in one undo step."""
        picked = picked_job(group, members)
        if picked is not None:
            addon_state.session().download_mesh(picked.job)
        return {"FINISHED"}


class DREAMWRIGHT_OT_discard_others(GroupOperator, bpy.types.Operator):
    """Discard all variations but the picked one."""

    bl_idname = "dreamwright.discard_others"
    bl_label = "Discard Others"
    bl_description = (
        "Delete all variations but the picked and the pinned ones on the server; imported objects stay. Undo does not "
        "bring them back"
    )

    @classmethod
    def fault(cls, group: str, members: list[JobSummary]) -> str:
        """One must be picked."""
        return NOT_PICKED if picked_job(group, members) is None else ""

    def invoke(self, context: Any, event: Any) -> set[str]:
        """Ask for confirmation: it cannot be undone."""
        return context.window_manager.invoke_confirm(self, event)

    def run(self, group: str, members: list[JobSummary]) -> set[str]:
        """Request it."""
        picked = picked_job(group, members)
        if picked is not None:
            addon_state.session().discard_group(group, picked.job)
        return {"FINISHED"}


class DREAMWRIGHT_OT_discard_group(GroupOperator, bpy.types.Operator):
    """Discard all variations."""

    bl_idname = "dreamwright.discard_group"
    bl_label = "Discard All"
    bl_description = (
        "Delete all variations but the pinned ones on the server; imported objects stay. Undo does not bring them back"
    )

    def invoke(self, context: Any, event: Any) -> set[str]:
        """Ask for confirmation: it cannot be undone."""
        return context.window_manager.invoke_confirm(self, event)

    def run(self, group: str, members: list[JobSummary]) -> set[str]:
        """Request it."""
        addon_state.session().discard_group(group)
        return {"FINISHED"}


class DREAMWRIGHT_OT_cancel_group(GroupOperator, bpy.types.Operator):
    """Stop all variations."""

    bl_idname = "dreamwright.cancel_group"
    bl_label = "Cancel All"
    bl_description = "Stop all variations within one step; their present state becomes meshes"

    @classmethod
    def fault(cls, group: str, members: list[JobSummary]) -> str:
        """One must be left to stop."""
        return say("All variations have ended") if job_groups.has_ended(members) else ""

    def run(self, group: str, members: list[JobSummary]) -> set[str]:
        """Request it."""
        addon_state.session().cancel_group(group)
        return {"FINISHED"}


class DREAMWRIGHT_OT_show_contact_sheet(GroupOperator, bpy.types.Operator):
    """Show the contact sheet."""

    bl_idname = "dreamwright.show_contact_sheet"
    bl_label = "Show Contact Sheet"
    bl_description = "Show the newest previews of all variations in an Image Editor; pinned images stay"

    @classmethod
    def poll(cls, context: Any) -> bool:
        """Also without a connection."""
        return checks.allow(cls, "" if addon_state.session().groups() else NO_GROUP)

    def run(self, group: str, members: list[JobSummary]) -> set[str]:
        """Reuse or open an Image Editor."""
        if not contact_sheet.open_editor(bpy.context, group):
            self.report(
                {"WARNING"},
                say(
                    "No editor could be opened; choose the image “{image}” in an Image Editor",
                    image=contact_sheet.IMAGE,
                ),
            )
            return {"CANCELLED"}
        return {"FINISHED"}


class DREAMWRIGHT_OT_more_like_this(JobOperator, bpy.types.Operator):
    """Make variations of a finished job."""

    bl_idname = "dreamwright.more_like_this"
    bl_label = "More Like This"
    bl_description = "Go on from this prop with the same prompt and other seeds; the results are new variations"

    count: IntProperty(
        name="Variations",
        description="How many variations",
        default=4,
        soft_min=1,
        soft_max=VARIATIONS_LARGEST,
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

    @classmethod
    def poll(cls, context: Any) -> bool:
        """As for any job; for a group's own row the picked job decides."""
        fault = checks.offline_fault() or ("" if addon_state.session().jobs else say("There is no job yet"))
        if not fault and hasattr(context, PANEL):
            job = selected_or_picked()
            has_group = bool(addon_state.active_group())
            fault = (NOT_PICKED if has_group else NOT_SELECTED) if job is None else cls.fault(job)
        return checks.allow(cls, fault)

    @classmethod
    def fault(cls, job: JobSummary) -> str:
        """Only an ended job has a field."""
        return finetune_operators.job_fault(job)

    def target(self) -> JobSummary | None:
        """The named job, else the selected or picked one."""
        return addon_state.session().jobs.get(self.job) if self.job else selected_or_picked()

    def execute(self, context: Any) -> set[str]:
        """Run on the job, or report why not."""
        if not self.job and addon_state.active_group() and selected_or_picked() is None:
            self.report({"ERROR"}, say(NOT_PICKED))
            return {"CANCELLED"}
        return super().execute(context)

    def invoke(self, context: Any, event: Any) -> set[str]:
        """Open a dialog. Store the job's id: the selection may change before it is confirmed."""
        job = self.target()
        self.job = job.job if job else self.job
        share = finetune_operators.kept_share(finetune_operators.parent_of_job(job)) if job else None
        if share is not None and not self.properties.is_property_set("share"):
            self.share = share
        return context.window_manager.invoke_props_dialog(self, width=finetune_operators.WIDTH)

    def draw(self, context: Any) -> None:
        """Draw the count, and the slider when the server has the setting."""
        job = self.target()
        self.layout.prop(self, "count")
        if job is not None and finetune_operators.kept_share(finetune_operators.parent_of_job(job)) is not None:
            self.layout.prop(self, "share", slider=True)

    def run(self, job: JobSummary) -> set[str]:
        """Submit jobs that start from the field of this one, with the seeds after those of its group."""
        if fault := variations.count_fault(self.count):
            self.report({"ERROR"}, fault)
            return {"CANCELLED"}
        session, parent = addon_state.session(), finetune_operators.parent_of_job(job)
        siblings = session.groups().get(job.group, [job])
        seed = variations.variation_seeds(max(sibling.seed for sibling in siblings), 2)[1]
        settings, share = dict(job.settings), finetune_operators.kept_share(parent)
        if self.properties.is_property_set("share"):
            share = self.share
        if share is not None:
            settings[finetune_operators.SHARE] = round(share, 4)  # a property holds 32 bits
        try:
            variations.submit_variations(
                session, self.count, job.prompt, job.negative, job.model, job.preset, seed, settings, job.job
            )
        except ValueError as error:  # also ProtocolError
            self.report({"ERROR"}, str(error))
            return {"CANCELLED"}
        return {"FINISHED"}


def selected_or_picked() -> JobSummary | None:
    """The selected job; for a group's own row the picked one."""
    group = addon_state.active_group()
    return addon_state.active_job() or picked_job(group, addon_state.session().groups().get(group, []))


register, unregister = bpy.utils.register_classes_factory(
    (
        DREAMWRIGHT_OT_toggle_group,
        DREAMWRIGHT_OT_pick_variation,
        DREAMWRIGHT_OT_import_picked,
        DREAMWRIGHT_OT_discard_others,
        DREAMWRIGHT_OT_discard_group,
        DREAMWRIGHT_OT_cancel_group,
        DREAMWRIGHT_OT_show_contact_sheet,
        DREAMWRIGHT_OT_more_like_this,
    )
)
