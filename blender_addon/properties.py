# SPDX-License-Identifier: GPL-3.0-or-later
"""The panel's inputs: a PropertyGroup on WindowManager, which undo does not change."""

import json
from typing import Any

import bpy
from bpy.app.handlers import persistent
from bpy.props import (
    BoolProperty,
    CollectionProperty,
    EnumProperty,
    FloatProperty,
    IntProperty,
    PointerProperty,
    StringProperty,
)

from . import addon_state, import_places, job_groups, labels, offered_items, preview, server_settings
from .newest_previews import MAX_TILES
from .shared import limits

THUMBNAIL_ROWS = 40  # of the list, from its top, that have thumbnails

_saved: dict[str, Any] = {}  # while a file is loaded, which resets WindowManager


def _set_model(self: Any, number: int) -> None:
    old, self.model_name = server_settings.choice_of(self), offered_items.name_of("model", number)
    server_settings.apply_defaults(addon_state.session().capabilities, old, server_settings.choice_of(self))


def _set_preset(self: Any, number: int) -> None:
    old, self.preset_name = server_settings.choice_of(self), offered_items.name_of("preset", number)
    server_settings.apply_defaults(addon_state.session().capabilities, old, server_settings.choice_of(self))


def _get_settings_text(self: Any) -> str:
    return json.dumps(
        server_settings.changed_settings(addon_state.session().capabilities, server_settings.choice_of(self))
    )


def _set_settings_text(self: Any, text: str) -> None:
    try:
        settings = json.loads(text or "{}")
    except ValueError:
        settings = None
    if isinstance(settings, dict):
        server_settings.apply(addon_state.session().capabilities, server_settings.choice_of(self), settings)


def _get_height(self: Any) -> float:
    return float(self.height_m * import_places.units_per_meter(bpy.context.scene))


def _set_height(self: Any, value: float) -> None:
    self.height_m = value / import_places.units_per_meter(bpy.context.scene)


def _on_preview_position(self: Any, context: Any) -> None:
    preview.show_current()


def _on_job_index(self: Any, context: Any) -> None:
    job = addon_state.active_job()
    name = job.job if job else ""
    if group := addon_state.active_group():
        if job is not None:
            addon_state.session().picked[group] = job.job
        _want_thumbnails(group)
    if name != addon_state.session().previewed_job:
        addon_state.session().show_previews_of(name)
        self.preview_position = 1.0


class DreamwrightJobRow(bpy.types.PropertyGroup):
    """One row of the job list; the job's data is in the session."""

    job: StringProperty(name="Job", description="The job's id on the server; empty for a group of variations")
    group: StringProperty(name="Group", description="The id of the group of variations; empty for a single job")
    percent: FloatProperty(
        name="Progress", description="Completed share of the job", min=0, max=100, precision=0, subtype="PERCENTAGE"
    )


class DreamwrightProperties(bpy.types.PropertyGroup):
    """The settings of the next prop, and the selection in the job list."""

    prompt: StringProperty(
        name="Prompt", description="What to generate, in words", maxlen=limits.PROMPT_CHARACTERS, default=""
    )
    negative: StringProperty(
        name="Negative Prompt",
        description="What to avoid, in words",
        maxlen=limits.PROMPT_CHARACTERS,
        default="",
    )
    model_name: StringProperty(name="Model", description="Name of the chosen model", maxlen=limits.NAME_CHARACTERS)
    preset_name: StringProperty(name="Preset", description="Name of the chosen preset", maxlen=limits.NAME_CHARACTERS)
    model: EnumProperty(
        name="Model",
        description="The diffusion model that guides the generation",
        items=offered_items.model_items,
        get=lambda self: offered_items.number_of(self.model_name) if self.model_name else 0,
        set=_set_model,
    )
    preset: EnumProperty(
        name="Preset",
        description="Quality and duration of the generation",
        items=offered_items.preset_items,
        get=lambda self: offered_items.number_of(self.preset_name) if self.preset_name else 0,
        set=_set_preset,
    )
    seed: IntProperty(
        name="Seed",
        description="Another seed gives another prop for the same prompt",
        min=0,
        max=limits.SEED_LARGEST,
        default=0,
    )
    variations: IntProperty(
        name="Variations",
        description="How many props Generate makes of the prompt, with this seed and those after it",
        min=1,
        max=limits.VARIATIONS_LARGEST,
        default=1,
    )
    height_m: FloatProperty(
        name="Height",
        description="Height of the finished prop in meters, whatever the units of the scene",
        min=limits.HEIGHT_M_SMALLEST,
        max=limits.HEIGHT_M_LARGEST,
        soft_min=0.01,
        soft_max=10,
        default=1.0,
    )
    height: FloatProperty(
        name="Height",
        description="Height of the finished prop",
        unit="LENGTH",
        get=_get_height,
        set=_set_height,
    )
    triangles: IntProperty(
        name="Triangles",
        description="Largest number of triangles of the mesh",
        min=limits.TRIANGLES_SMALLEST,
        max=limits.TRIANGLES_LARGEST,
        soft_min=100,
        soft_max=200_000,
        default=20_000,
    )
    color_as: EnumProperty(
        name="Color as",
        description="How the colors of the finished prop are stored",
        items=[
            ("VERTICES", "Vertex Colors", "A color attribute, as fine as the triangles"),
            (
                "IMAGE",
                "Image Texture",
                "An image and a UV map, finer than the triangles, in addition to the color attribute",
            ),
        ],
        default="VERTICES",
    )
    texture_size: IntProperty(
        name="Image Size",
        description="Pixels per side of the image",
        min=limits.TEXTURE_SMALLEST,
        max=limits.TEXTURE_LARGEST,
        default=1024,
        subtype="PIXEL",
    )
    loras: StringProperty(
        name="LoRAs",
        description="LoRAs of the server with their weights, from -10 to 10, for example: clay:0.8; detail:0.4",
        maxlen=limits.VALUE_CHARACTERS,
        default="",
    )
    settings_text: StringProperty(
        name="Settings",
        description="The advanced settings that differ from the preset, as JSON",
        get=_get_settings_text,
        set=_set_settings_text,
    )
    import_when_done: BoolProperty(
        name="Import when Done",
        description="Import a prop that was started in this Blender as soon as it is ready",
        default=False,
    )
    mark_as_asset: BoolProperty(
        name="Mark as Asset",
        description="Add an imported prop to the Asset Browser, with its preview as thumbnail",
        default=False,
    )
    watch_in_view: BoolProperty(
        name="In 3D View",
        description="Show the selected prop while it grows at the 3D cursor, until it is imported; it is no object",
        default=True,
    )
    preview_position: FloatProperty(
        name="Preview",
        description="Which preview of the run is shown; at the right end always the latest",
        min=0,
        max=1,
        default=1,
        subtype="FACTOR",
        update=_on_preview_position,
    )
    job_rows: CollectionProperty(name="Jobs", description="Jobs of the server, newest first", type=DreamwrightJobRow)
    job_index: IntProperty(name="Job", description="The selected job", min=-1, default=-1, update=_on_job_index)


# Kept while a file is loaded, and stored in Blender's presets.
SAVED = (
    "model_name", "preset_name", "prompt", "negative", "seed", "variations", "height_m", "triangles", "color_as",
    "texture_size", "import_when_done", "mark_as_asset", "watch_in_view", "loras", "settings_text",
)  # fmt: skip


def choose_job(job: str) -> None:
    """Select a job in the list."""
    mine = addon_state.properties()
    index = next((i for i, row in enumerate(mine.job_rows) if row.job == job), -1)
    if index >= 0:
        mine.job_index = index


def choose_group(group: str) -> None:
    """Select the heading of a group in the list."""
    mine = addon_state.properties()
    index = next((i for i, row in enumerate(mine.job_rows) if row.group == group), -1)
    if index >= 0:
        mine.job_index = index


def sync_rows() -> None:
    """Update the rows from the session and keep the selected job or group selected."""
    session, mine = addon_state.session(), addon_state.properties()
    wanted = job_groups.list_rows(session.jobs, session.open_groups)
    if [(row.job, row.group) for row in mine.job_rows] != [(row.job, row.group) for row in wanted]:
        active = addon_state.active_job()
        place = job_groups.row_of(wanted, session.jobs, active.job if active else "", addon_state.active_group())
        if place < 0:
            place = job_groups.row_of(wanted, session.jobs, session.previewed_job, "")
        mine.job_rows.clear()
        for row in wanted:
            made = mine.job_rows.add()
            made.job, made.group = row.job, row.group
        mine.job_index = max(place, min(0, len(wanted) - 1))
    groups = session.groups()
    for row in mine.job_rows:
        share = (
            labels.progress_fraction(session.jobs[row.job])
            if row.job
            else job_groups.progress_fraction(groups[row.group])
        )
        if abs(row.percent - 100 * share) > 1e-4:
            row.percent = 100 * share
    _want_thumbnails(addon_state.active_group())


def _want_thumbnails(group: str) -> None:
    """Name the jobs whose thumbnails are wanted: those of the selected group first, then the first of the list."""
    session, mine = addon_state.session(), addon_state.properties()
    groups = session.groups()
    names = [job.job for job in groups.get(group, [])]
    for row in mine.job_rows[:THUMBNAIL_ROWS]:
        names += [row.job] if row.job else [job.job for job in groups.get(row.group, [])]
    session.shown_jobs = list(dict.fromkeys(names))[:MAX_TILES]


def sync_choices() -> None:
    """Choose the server's first model and preset where none is chosen, and build the controls of its settings."""
    session, mine = addon_state.session(), addon_state.properties()
    if session.capabilities is None:
        return
    models, presets = session.capabilities.models, session.capabilities.presets
    if not mine.model_name and models:
        mine.model_name = next((model.name for model in models if model.ready), models[0].name)
    if not mine.preset_name and presets:
        mine.preset_name = presets[0].name
    typed = mine.settings_text if server_settings.holder(bpy.context) else "{}"
    if server_settings.rebuild(session.capabilities, server_settings.choice_of(mine)) and typed != "{}":
        mine.settings_text = typed


@persistent
def _before_load(*_: Any) -> None:
    mine = addon_state.properties()
    _saved.clear()
    _saved.update({name: getattr(mine, name) for name in SAVED})


@persistent
def _after_load(*_: Any) -> None:
    mine = addon_state.properties()
    for name, value in _saved.items():
        setattr(mine, name, value)
    _saved.clear()
    sync_rows()


_register_classes, _unregister_classes = bpy.utils.register_classes_factory((DreamwrightJobRow, DreamwrightProperties))


def register() -> None:
    """Add the properties to WindowManager."""
    _register_classes()
    bpy.types.WindowManager.dreamwright = PointerProperty(type=DreamwrightProperties)
    bpy.app.handlers.load_pre.append(_before_load)
    bpy.app.handlers.load_post.append(_after_load)


def unregister() -> None:
    """Remove them."""
    bpy.app.handlers.load_post.remove(_after_load)
    bpy.app.handlers.load_pre.remove(_before_load)
    server_settings.clear()
    del bpy.types.WindowManager.dreamwright
    _unregister_classes()
    offered_items.forget()
