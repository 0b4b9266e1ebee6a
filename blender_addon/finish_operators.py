# SPDX-License-Identifier: GPL-3.0-or-later
"""Finish Selected Mesh: the active mesh becomes a game-ready asset, by the command `dreamwright` of this computer."""

import contextlib
import shutil
import tempfile
import traceback
from pathlib import Path
from typing import Any

import bpy
from bpy.props import BoolProperty, EnumProperty, FloatProperty, IntProperty

from . import addon_state, checks, compat, finish_run, finish_source, import_finished, import_places
from .shared import limits
from .wording import mark, say

INTERVAL_S, IDLE_S = 0.25, 1.0
STEPS = {
    "pivot": (mark("Pivot and Scale"), mark("Move the origin and scale to the height")),
    "remesh": (mark("Triangle Budget"), mark("Reduce the mesh to the triangle budget")),
    "uv": (mark("UVs"), mark("Unwrap the mesh into one image")),
    "bake": (mark("Bake"), mark("Bake albedo and normals of the given mesh into textures")),
    "lod": (mark("Levels of Detail"), mark("Make coarser levels, with the screen sizes at which they may be shown")),
    "collision": (mark("Collision"), mark("Make convex hulls with UCX_ names")),
}
PRESETS = {
    "game": (
        mark("Game Ready"),
        mark("5,000 triangles, textures of 1024, three more levels, eight hulls"),
        5000,
        1024,
        3,
    ),
    "mobile": (mark("Mobile"), mark("1,500 triangles, textures of 512, two more levels, three hulls"), 1500, 512, 2),
    "close-up": (mark("Close-Up"), mark("20,000 even triangles, textures of 2048, four more levels"), 20000, 2048, 4),
}

_run: finish_run.FinishRun | None = None


def current_run() -> finish_run.FinishRun | None:
    """The run that is in progress."""
    return _run


def finish_fault(context: Any) -> str:
    """Why nothing can be finished now, as a sentence; "" when it can."""
    active = getattr(context, "active_object", None)
    if _run is not None:
        return say("A mesh is being finished; wait for its end or cancel it")
    if active is None or active.type != "MESH" or not active.select_get():
        return say("Select the mesh object that is to be finished")
    if active.mode != "OBJECT":
        return say("Go to Object Mode first")
    return checks.command_fault()


def _choose_preset(operator: Any, context: Any) -> None:
    """The preset's own numbers in the fields below it."""
    _, _, operator.triangles, operator.texture, operator.levels = PRESETS[operator.preset]


class DREAMWRIGHT_OT_finish_mesh(bpy.types.Operator):
    """Finish the active mesh."""

    bl_idname = "dreamwright.finish_mesh"
    bl_label = "Finish Selected Mesh"
    bl_description = (
        "Make a game-ready asset of the selected mesh: triangle budget, UVs, baked textures, levels of detail and "
        "collision hulls. The mesh itself stays. Runs on this computer, in the background"
    )
    bl_options = {"REGISTER"}

    preset: EnumProperty(
        name="Preset",
        description="What the asset is for; choosing one sets the numbers below",
        items=[(name, text[0], text[1]) for name, text in PRESETS.items()],
        default="game",
        update=_choose_preset,
    )
    steps: EnumProperty(
        name="Steps",
        description="What is done; Bake needs UVs and makes them",
        items=[(name, label, tip) for name, (label, tip) in STEPS.items()],
        options={"ENUM_FLAG"},
        default=set(STEPS),
    )
    triangles: IntProperty(
        name="Triangles",
        description="Triangle budget of the finest level",
        min=limits.TRIANGLES_SMALLEST,
        max=limits.TRIANGLES_LARGEST,
        soft_max=100_000,
        default=5000,
    )
    layout_kind: EnumProperty(
        name="Layout",
        description="How the triangles lie",
        items=[
            ("decimated", "Decimated", "Few triangles where the surface is flat"),
            ("even", "Even", "Triangles of equal size, which deform better; sharp edges stay"),
        ],
        default="decimated",
    )
    texture: IntProperty(
        name="Texture",
        description="Texels a side of the textures; each coarser level has half of it",
        min=limits.TEXTURE_SMALLEST,
        max=limits.TEXTURE_LARGEST,
        default=1024,
    )
    normal_map: BoolProperty(name="Normal Map", description="Bake the shape that the budget loses", default=True)
    levels: IntProperty(name="Coarser Levels", description="Levels of detail after the finest", min=0, max=7, default=3)
    quads: BoolProperty(
        name="Quads",
        description="Join pairs of triangles where shape and textures stay as they are, for subdivision and edge "
        "loops; most with the even layout. Game engines make triangles of them again",
        default=False,
    )
    pivot: EnumProperty(
        name="Pivot",
        description="Where the origin of the finished objects is",
        items=[
            ("base", "Base", "The middle of the base"),
            ("center", "Center", "The middle of the bounding box"),
            ("keep", "Keep", "Where the object's origin is"),
        ],
        default="base",
    )
    height_m: FloatProperty(
        name="Height",
        description="Height of the asset; 0 keeps the size that it has",
        min=0.0,
        max=limits.HEIGHT_M_LARGEST,
        default=0.0,
        subtype="DISTANCE",
        unit="LENGTH",
    )
    roughness: FloatProperty(
        name="Roughness", description="Roughness of the material", min=0.0, max=1.0, default=0.8, subtype="FACTOR"
    )
    metallic: FloatProperty(
        name="Metallic", description="Metalness of the material", min=0.0, max=1.0, default=0.0, subtype="FACTOR"
    )

    @classmethod
    def poll(cls, context: Any) -> bool:
        """Only for a mesh in Object Mode, with the command installed and no other run in progress."""
        return checks.allow(cls, finish_fault(context))

    def invoke(self, context: Any, event: Any) -> set[str]:
        """Open the dialog with the last choices."""
        return context.window_manager.invoke_props_dialog(self, width=360)

    def draw(self, context: Any) -> None:
        """Draw the dialog."""
        layout = self.layout
        layout.use_property_split, layout.use_property_decorate = True, False
        layout.prop(self, "preset")
        layout.column().prop(self, "steps")
        column = layout.column()
        column.prop(self, "triangles")
        column.prop(self, "layout_kind")
        column.prop(self, "quads")
        column.prop(self, "texture")
        column.prop(self, "normal_map")
        column.prop(self, "levels")
        column = layout.column()
        column.prop(self, "pivot")
        column.prop(self, "height_m")
        column = layout.column()
        column.prop(self, "roughness", slider=True)
        column.prop(self, "metallic", slider=True)

    def execute(self, context: Any) -> set[str]:
        """Write the mesh to a file and start the command."""
        global _run
        source, folder = context.active_object, None
        if not self.steps:
            self.report({"ERROR"}, say("No step is chosen; choose at least one"))
            return {"CANCELLED"}
        if 0.0 < self.height_m < limits.HEIGHT_M_SMALLEST:
            self.report(
                {"ERROR"},
                say("The height is less than {smallest} m; 0 keeps the size", smallest=limits.HEIGHT_M_SMALLEST),
            )
            return {"CANCELLED"}
        try:
            base = addon_state.user_folder() / "finish"
            base.mkdir(parents=True, exist_ok=True)
            folder = Path(tempfile.mkdtemp(prefix="run-", dir=base))
            facts = finish_source.write_source(context, source, folder / finish_run.SOURCE)
            facts["pivot"] = self.pivot if "pivot" in self.steps else "keep"
            facts["place"], facts["quads"] = import_places.here(), self.quads
            units = import_places.units_per_meter(context.scene)
            _run = finish_run.start(
                checks.command_path(), folder, import_finished.asset_name(source.name), self._options(units), facts
            )
        except (OSError, ValueError) as error:
            if folder is not None:
                shutil.rmtree(folder, ignore_errors=True)
            reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
            self.report({"ERROR"}, say("“{object}” cannot be finished: {reason}", object=source.name, reason=reason))
            return {"CANCELLED"}
        _redraw()
        return {"FINISHED"}

    def _options(self, units_per_meter: float) -> list[str]:
        # The file that is finished is in Blender's units.
        settings = {
            "triangles": self.triangles, "layout": self.layout_kind, "texture": self.texture,
            "normal_map": str(self.normal_map).lower(), "levels": self.levels, "pivot": self.pivot,
            "height_m": round(self.height_m * units_per_meter, 6), "roughness": round(self.roughness, 4),
            "metallic": round(self.metallic, 4),
        }  # fmt: skip
        options = ["--preset", self.preset]
        for name, value in settings.items():
            options += ["--set", f"finish.{name}={value}"]
        for step in STEPS:
            if step in self.steps and set(self.steps) != set(STEPS):
                options += ["--only", step]
        return options


class DREAMWRIGHT_OT_cancel_finish(bpy.types.Operator):
    """Stop the finishing."""

    bl_idname = "dreamwright.cancel_finish"
    bl_label = "Cancel Finishing"
    bl_description = "Stop finishing the mesh; nothing is imported"
    bl_options = {"REGISTER"}

    @classmethod
    def poll(cls, context: Any) -> bool:
        """Only while a mesh is being finished."""
        return checks.allow(cls, "" if _run is not None else say("No mesh is being finished"))

    def execute(self, context: Any) -> set[str]:
        """Ask the process to stop."""
        if _run is not None:
            _run.stop()
        return {"FINISHED"}


def step() -> bool:
    """Follow the run, and import its asset once it has ended; whether one is still in progress."""
    global _run
    run = _run
    if run is None:
        return False
    code = run.poll()
    if code is None:
        _redraw()
        return True
    if not code and not run.stopped_at and import_places.delay():
        return True  # imported once Blender can take it
    _run = None
    session = addon_state.session()
    try:
        if finish_run.was_stopped(run):
            session.notify(say("Finishing “{object}” was cancelled", object=run.source["object"]), is_error=False)
        elif code:
            session.notify(
                say("“{object}” was not finished: {reason}", object=run.source["object"], reason=run.fault())
            )
        else:
            _import(run)
    except (OSError, ValueError, RuntimeError) as error:
        session.notify(
            say("“{object}” was not imported: {reason}", object=run.source["object"], reason=str(error).strip())
        )
    finally:
        run.remove()
        _redraw()
    return False


def _import(run: finish_run.FinishRun) -> None:
    place, session = run.source["place"], addon_state.session()
    if not place.is_open:
        session.notify(
            say(
                "“{object}” was finished, but another file is open now; finish it again there",
                object=run.source["object"],
            )
        )
        return
    with import_places.entered(place) as (stage, scene_clause):
        done = import_finished.import_finished(run.made, run.name, run.source, stage)
    done += f"; {scene_clause}" if scene_clause else ""
    session.notify(". ".join([done, *run.warnings()]), is_error=False)


def _redraw() -> None:
    for window in bpy.context.window_manager.windows:
        for area in window.screen.areas:
            if area.type == "VIEW_3D":
                area.tag_redraw()


def _on_timer() -> float:
    try:
        return INTERVAL_S if step() else IDLE_S
    except Exception as error:  # Blender would drop the timer for ever
        traceback.print_exc()
        addon_state.session().notify(
            say("Finishing had an internal error: {kind}: {error}", kind=type(error).__name__, error=error)
        )
        return IDLE_S


def _draw_menu(self: Any, context: Any) -> None:
    self.layout.operator(DREAMWRIGHT_OT_finish_mesh.bl_idname, icon=compat.icon("MOD_REMESH", "MESH_DATA"))


_register_classes, _unregister_classes = bpy.utils.register_classes_factory(
    (DREAMWRIGHT_OT_finish_mesh, DREAMWRIGHT_OT_cancel_finish)
)


def register() -> None:
    """Add operators, menu entry and timer."""
    _register_classes()
    bpy.types.VIEW3D_MT_object.append(_draw_menu)
    bpy.app.timers.register(_on_timer, first_interval=IDLE_S, persistent=True)


def unregister() -> None:
    """Remove them, and end a run in progress."""
    global _run
    if bpy.app.timers.is_registered(_on_timer):
        bpy.app.timers.unregister(_on_timer)
    if _run is not None:
        with contextlib.suppress(OSError):
            _run.remove()
        _run = None
    bpy.types.VIEW3D_MT_object.remove(_draw_menu)
    _unregister_classes()
