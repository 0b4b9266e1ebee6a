# SPDX-License-Identifier: GPL-3.0-or-later
"""Refine Selected Mesh: sends the active object's mesh to be moved and colored towards a prompt."""

from typing import Any

import bpy
from bpy.props import EnumProperty, FloatProperty, IntProperty, StringProperty

from . import addon_state, checks, compat, labels, object_mesh, server_settings
from .provenance import REFINE_PRESET
from .shared import limits
from .shared.mesh_file import encode_mesh
from .wording import mark, say

STRENGTH, STEPS = "refine.strength", "run.steps"
NO_CAPABILITIES = mark("The server has not sent its capabilities yet; try again in a moment")


def selected_mesh(context: Any) -> Any:
    """The mesh object to refine; None when there is none."""
    active = getattr(context, "active_object", None)
    return active if active is not None and active.type == "MESH" and active.select_get() else None


def _fault(context: Any) -> str:
    """Why nothing can be refined now, as a sentence; "" when it can."""
    source = selected_mesh(context)
    if source is None:
        return say("Select the mesh object that is to be refined")
    if source.mode != "OBJECT":
        return say("Go to Object Mode first")
    if fault := checks.offline_fault():
        return fault
    if server_settings.find_setting(addon_state.session().capabilities, STRENGTH) is None:
        return say("This server refines no meshes; update the server")
    return ""


class DREAMWRIGHT_OT_refine_mesh(bpy.types.Operator):
    """Send the active mesh for refinement."""

    bl_idname = "dreamwright.refine_mesh"
    bl_label = "Refine Selected Mesh"
    bl_description = (
        "Move and color the vertices of the selected mesh towards a prompt; best when it stands upright and faces -Y"
    )
    bl_options = {"REGISTER"}

    prompt: StringProperty(
        name="Prompt",
        description="What the mesh becomes; empty: the panel's prompt",
        maxlen=limits.PROMPT_CHARACTERS,
    )
    strength: FloatProperty(
        name="Strength",
        description=(
            "How far vertices and colors may go: 0 changes nothing, 1 moves a vertex by up to half the mesh's radius"
        ),
        min=0.0,
        max=1.0,
        default=0.5,
        subtype="FACTOR",
    )
    steps: IntProperty(
        name="Steps",
        description="Optimization steps; more steps change more, within the strength",
        min=1,
        soft_max=2000,
        default=300,
    )
    change: EnumProperty(
        name="Change",
        description="What the refinement may change",
        items=[
            ("BOTH", "Shape and Colors", "Move the vertices and change their colors"),
            ("SHAPE", "Shape", "Move the vertices; the colors stay"),
            ("COLORS", "Colors", "Change the vertices' colors; the shape stays"),
        ],
        default="BOTH",
    )
    result: EnumProperty(
        name="Result as",
        description="What the refined mesh becomes when it is imported",
        items=[
            ("OBJECT", "New Object", "A copy of the object with its modifiers applied; the object itself stays"),
            (
                "SHAPE_KEY",
                "Shape Key",
                "A shape key of the object, and a color attribute in addition to its own, which no material shows yet",
            ),
        ],
        default="OBJECT",
    )

    @classmethod
    def poll(cls, context: Any) -> bool:
        """Only for a mesh in Object Mode while connected to a server that refines meshes."""
        return checks.allow(cls, _fault(context))

    def invoke(self, context: Any, event: Any) -> set[str]:
        """Open the dialog with the last choices and the panel's prompt."""
        capabilities = addon_state.session().capabilities
        setting = server_settings.find_setting(capabilities, STEPS)
        choice = server_settings.Choice(addon_state.properties().model_name, REFINE_PRESET)
        default = None if setting is None else server_settings.default_of(capabilities, setting, choice)
        if isinstance(default, int) and not self.properties.is_property_set("steps"):
            self.steps = default
        self.prompt = addon_state.properties().prompt or self.prompt
        return context.window_manager.invoke_props_dialog(self, width=360)

    def draw(self, context: Any) -> None:
        """Draw the dialog."""
        layout, mine = self.layout, addon_state.properties()
        layout.use_property_split, layout.use_property_decorate = True, False
        layout.prop(self, "prompt")
        prompt = labels.clean_prompt(self.prompt)
        fault = labels.vocabulary_fault(addon_state.session().capabilities, mine.model_name, prompt) if prompt else ""
        for index, line in enumerate(labels.wrapped(fault, 52)):
            layout.label(text=line, icon="ERROR" if index == 0 else "BLANK1")
        layout.prop(self, "strength", slider=True)
        layout.prop(self, "steps")
        layout.prop(self, "change")
        layout.prop(self, "result")
        layout.label(
            text=say("Model {model}, seed {seed}", model=mine.model_name or say("unknown"), seed=mine.seed),
            icon="BLANK1",
        )

    def execute(self, context: Any) -> set[str]:
        """Extract the mesh and submit a job; the upload runs in the background."""
        mine, session = addon_state.properties(), addon_state.session()
        prompt = labels.clean_prompt(self.prompt or mine.prompt)
        fault = "" if mine.model_name else NO_CAPABILITIES
        fault = fault or labels.vocabulary_fault(session.capabilities, mine.model_name, prompt)
        if not prompt:
            fault = "The prompt is empty; type what the mesh becomes, for example: a red mushroom"
        if fault:
            self.report({"ERROR"}, fault)
            return {"CANCELLED"}
        settings: dict[str, Any] = {STRENGTH: round(self.strength, 4), STEPS: self.steps}
        if self.change != "BOTH":
            settings["refine.colors" if self.change == "SHAPE" else "refine.positions"] = False
        settings |= server_settings.lora_settings(session.capabilities, mine)
        negative = labels.clean_prompt(mine.negative)
        try:
            mesh = object_mesh.extract_mesh(context, selected_mesh(context), self.result == "SHAPE_KEY")
            data = encode_mesh(mesh)
            session.submit(prompt, negative, mine.model_name, REFINE_PRESET, mine.seed, settings, mesh=data)
        except ValueError as error:  # also ProtocolError
            self.report({"ERROR"}, str(error))
            return {"CANCELLED"}
        return {"FINISHED"}


def _draw_menu(self: Any, context: Any) -> None:
    self.layout.separator()
    self.layout.operator(DREAMWRIGHT_OT_refine_mesh.bl_idname, icon=compat.icon("BRUSH_DATA"))


_register_classes, _unregister_classes = bpy.utils.register_classes_factory((DREAMWRIGHT_OT_refine_mesh,))


def register() -> None:
    """Add the operator, also to the 3D view's Object menu, where menu search finds it."""
    _register_classes()
    bpy.types.VIEW3D_MT_object.append(_draw_menu)


def unregister() -> None:
    """Remove both."""
    bpy.types.VIEW3D_MT_object.remove(_draw_menu)
    _unregister_classes()
