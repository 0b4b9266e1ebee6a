# SPDX-License-Identifier: GPL-3.0-or-later
"""Refine Selected Mesh: the active object's vertices and colors are sent to be moved towards a prompt."""

from typing import Any

import bpy
from bpy.props import EnumProperty, FloatProperty, IntProperty, StringProperty

from . import addon_state, compat, labels, object_mesh, properties
from .import_mesh import REFINE
from .shared import limits
from .shared.mesh_file import encode_mesh

STRENGTH, STEPS = "refine.strength", "run.steps"


def subject(context: Any) -> Any:
    """The mesh object that would be refined; None when there is none."""
    active = getattr(context, "active_object", None)
    return active if active is not None and active.type == "MESH" and active.select_get() else None


def _fault(context: Any) -> str:
    """Why nothing can be refined now, in a sentence; "" when it can."""
    session, source = addon_state.session(), subject(context)
    if source is None:
        return "Select the mesh object that is to be refined"
    if source.mode != "OBJECT":
        return "Go to Object Mode first"
    if not session.is_online:
        return f"Not connected to a server: {session.reason}"
    if _card(STRENGTH) is None:
        return "This server refines no meshes; update the server"
    return ""


def _card(name: str) -> Any:
    offered = addon_state.session().offered
    return next((card for card in offered.settings if card.name == name), None) if offered else None


class DREAMWRIGHT_OT_refine_mesh(bpy.types.Operator):
    """Send the active mesh to be refined."""

    bl_idname = "dreamwright.refine_mesh"
    bl_label = "Refine Selected Mesh"
    bl_description = (
        "Move and color the vertices of the selected mesh towards a prompt; best when it stands upright and faces -Y"
    )
    bl_options = {"REGISTER"}

    prompt: StringProperty(
        name="Prompt",
        description="What the mesh should become; the panel's prompt when empty",
        maxlen=limits.PROMPT_CHARACTERS,
    )
    strength: FloatProperty(
        name="Strength",
        description="How far vertices and colors may go: 0 changes nothing, 1 moves a vertex by up to half the mesh's radius",
        min=0.0,
        max=1.0,
        default=0.5,
        subtype="FACTOR",
    )
    steps: IntProperty(
        name="Steps",
        description="Optimization steps: more change more, within the strength",
        min=1,
        soft_max=2000,
        default=300,
    )
    change: EnumProperty(
        name="Change",
        description="What the prompt may change",
        items=[
            ("BOTH", "Shape and Colors", "Move the vertices and change their colors"),
            ("SHAPE", "Shape", "Move the vertices; their colors stay"),
            ("COLORS", "Colors", "Change the vertices' colors; the shape stays"),
        ],
        default="BOTH",
    )
    result: EnumProperty(
        name="Result as",
        description="What the refined mesh becomes when it is imported",
        items=[
            (
                "OBJECT",
                "New Object",
                "A copy of the object as it is seen, with its modifiers applied; the object itself stays as it is",
            ),
            ("SHAPE_KEY", "Shape Key", "A shape key of the object, and a color attribute beside its own"),
        ],
        default="OBJECT",
    )

    @classmethod
    def poll(cls, context: Any) -> bool:
        """Only for a mesh in Object Mode while a server that refines answers."""
        fault = _fault(context)
        if fault:
            cls.poll_message_set(fault)
        return not fault

    def invoke(self, context: Any, event: Any) -> set[str]:
        """Ask for prompt and strength; what was chosen the last time is filled in."""
        card = _card(STEPS)
        known = card.defaults.get(REFINE) if card is not None else None
        if isinstance(known, int) and not self.properties.is_property_set("steps"):
            self.steps = known
        self.prompt = properties.artist().prompt or self.prompt
        return context.window_manager.invoke_props_dialog(self, width=360)

    def draw(self, context: Any) -> None:
        """The dialog."""
        layout, mine = self.layout, properties.artist()
        layout.use_property_split, layout.use_property_decorate = True, False
        layout.prop(self, "prompt")
        fault = labels.vocabulary_fault(
            addon_state.session().offered, mine.model_name, labels.clean_prompt(self.prompt)
        )
        for index, line in enumerate(labels.wrapped(fault, 52)):
            layout.label(text=line, icon="ERROR" if index == 0 else "BLANK1")
        layout.prop(self, "strength", slider=True)
        layout.prop(self, "steps")
        layout.prop(self, "change")
        layout.prop(self, "result")
        layout.label(text=f"By {mine.model_name or 'no model'}, seed {mine.seed}", icon="BLANK1")

    def execute(self, context: Any) -> set[str]:
        """Take the mesh and submit a job; it is sent while the artist goes on working."""
        mine, session = properties.artist(), addon_state.session()
        prompt = labels.clean_prompt(self.prompt or mine.prompt)
        fault = "" if prompt else "The prompt is empty; type what the mesh should become, for example: a red mushroom"
        fault = fault or (
            "" if mine.model_name else "The server has not said what it offers yet; try again in a moment"
        )
        fault = fault or labels.vocabulary_fault(session.offered, mine.model_name, prompt)
        if fault:
            self.report({"ERROR"}, fault)
            return {"CANCELLED"}
        settings = {STRENGTH: round(self.strength, 4), STEPS: self.steps}
        if self.change != "BOTH":
            settings["refine.colors" if self.change == "SHAPE" else "refine.positions"] = False
        try:
            data = encode_mesh(object_mesh.mesh_of(context, subject(context), self.result == "SHAPE_KEY"))
            session.submit(
                prompt, labels.clean_prompt(mine.negative), mine.model_name, REFINE, mine.seed, settings, mesh=data
            )
        except ValueError as error:  # ProtocolError is one
            self.report({"ERROR"}, str(error))
            return {"CANCELLED"}
        return {"FINISHED"}


def _in_menu(self: Any, context: Any) -> None:
    self.layout.separator()
    self.layout.operator(DREAMWRIGHT_OT_refine_mesh.bl_idname, icon=compat.icon("BRUSH_DATA"))


_register_classes, _unregister_classes = bpy.utils.register_classes_factory((DREAMWRIGHT_OT_refine_mesh,))


def register() -> None:
    """Add the operator, also to the menu Object of the 3D view, where searching finds it."""
    _register_classes()
    bpy.types.VIEW3D_MT_object.append(_in_menu)


def unregister() -> None:
    """Take both away."""
    bpy.types.VIEW3D_MT_object.remove(_in_menu)
    _unregister_classes()
