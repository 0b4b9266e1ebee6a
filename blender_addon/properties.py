# SPDX-License-Identifier: GPL-3.0-or-later
"""What the artist types and chooses: a PropertyGroup on the WindowManager, where undo cannot revert it."""

import json
import zlib
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

from . import addon_state, labels, preview, server_settings
from .shared import limits

_items: dict[str, list[tuple[str, str, str, int]]] = {}  # kept alive: Blender holds only pointers into the strings
_kept: dict[str, Any] = {}  # over the loading of a file, which empties the WindowManager


def _numbered(kind: str, cards: list[tuple[str, str]], chosen: str) -> list[tuple[str, str, str, int]]:
    """Enum items whose numbers depend on their names only, so that a choice survives another server's order."""
    if chosen and chosen not in [name for name, _ in cards]:
        cards = [*cards, (chosen, "This server does not offer it")]
    made = [(name, labels.short(name, 40), tip.rstrip("."), _number(name)) for name, tip in cards]
    _items[kind] = made or [("NONE", "No server yet", "Connect to a server to see what it offers", 0)]
    return _items[kind]


def _number(name: str) -> int:
    # Blender's menus keep the number of what is pressed in 32-bit floating point, which holds whole numbers of 24 bits.
    return zlib.crc32(name.encode()) & 0xFFFFFF


def _models(self: Any, context: Any) -> list[tuple[str, str, str, int]]:
    offered = addon_state.session().offered
    cards = (
        [(m.name, m.summary if m.ready else f"{m.summary} (not ready: {m.missing})") for m in offered.models]
        if offered
        else []
    )
    return _numbered("model", cards, self.model_name)


def _presets(self: Any, context: Any) -> list[tuple[str, str, str, int]]:
    offered = addon_state.session().offered
    return _numbered("preset", [(p.name, p.summary) for p in offered.presets] if offered else [], self.preset_name)


def _named(kind: str, number: int) -> str:
    return next((item[0] for item in _items.get(kind, ()) if item[3] == number), "") if number else ""


def _set_model(self: Any, number: int) -> None:
    self.model_name = _named("model", number)


def _set_preset(self: Any, number: int) -> None:
    old, self.preset_name = self.preset_name, _named("preset", number)
    server_settings.follow_preset(addon_state.session().offered, old, self.preset_name)


def _settings_text(self: Any) -> str:
    return json.dumps(server_settings.changed(addon_state.session().offered, self.preset_name))


def _set_settings_text(self: Any, text: str) -> None:
    try:
        settings = json.loads(text or "{}")
    except ValueError:
        settings = None
    if isinstance(settings, dict):
        server_settings.apply(addon_state.session().offered, self.preset_name, settings)


def _scrubbed(self: Any, context: Any) -> None:
    preview.show_current()


def _row_chosen(self: Any, context: Any) -> None:
    job = active_job()
    chosen = job.job if job else ""
    if chosen != addon_state.session().watched:
        addon_state.session().watch(chosen)
        self.scrub = 1.0


class DreamwrightJobRow(bpy.types.PropertyGroup):
    """One row of the list; everything about the job itself is in the session."""

    job: StringProperty(name="Job", description="The job's name on the server")
    percent: FloatProperty(
        name="Progress", description="How much of the job is done", min=0, max=100, precision=0, subtype="PERCENTAGE"
    )


class DreamwrightArtist(bpy.types.PropertyGroup):
    """The next prop, and what of the list is chosen."""

    prompt: StringProperty(
        name="Prompt", description="What to make, in words", maxlen=limits.PROMPT_CHARACTERS, default=""
    )
    negative: StringProperty(
        name="Negative Prompt",
        description="What to keep away from, in words",
        maxlen=limits.PROMPT_CHARACTERS,
        default="",
    )
    model_name: StringProperty(name="Model", description="The chosen model's name", maxlen=limits.NAME_CHARACTERS)
    preset_name: StringProperty(name="Preset", description="The chosen preset's name", maxlen=limits.NAME_CHARACTERS)
    model: EnumProperty(
        name="Model",
        description="The diffusion model that judges what the prop looks like",
        items=_models,
        get=lambda self: _number(self.model_name) if self.model_name else 0,
        set=_set_model,
    )
    preset: EnumProperty(
        name="Preset",
        description="How long and how carefully to dream",
        items=_presets,
        get=lambda self: _number(self.preset_name) if self.preset_name else 0,
        set=_set_preset,
    )
    seed: IntProperty(
        name="Seed", description="Another seed gives another prop for the same words", min=0, max=limits.SEED_LARGEST, default=0
    )
    height_m: FloatProperty(
        name="Height",
        description="How tall the finished prop is",
        min=limits.HEIGHT_M_SMALLEST,
        max=limits.HEIGHT_M_LARGEST,
        soft_min=0.01,
        soft_max=10,
        default=1.0,
        unit="LENGTH",
    )
    triangles: IntProperty(
        name="Triangles",
        description="The largest number of triangles that the mesh may have",
        min=limits.TRIANGLES_SMALLEST,
        max=limits.TRIANGLES_LARGEST,
        soft_min=100,
        soft_max=200_000,
        default=20_000,
    )
    color_as: EnumProperty(
        name="Color as",
        description="What the finished prop's colors are kept in",
        items=[
            ("VERTICES", "Vertex Colors", "A color attribute, as fine as the triangles"),
            (
                "IMAGE",
                "Image Texture",
                "An image and a UV map, finer than the triangles, with the color attribute beside it",
            ),
        ],
        default="VERTICES",
    )
    texture_size: IntProperty(
        name="Image Size",
        description="How many pixels a side the image has",
        min=limits.TEXTURE_SMALLEST,
        max=limits.TEXTURE_LARGEST,
        default=1024,
        subtype="PIXEL",
    )
    settings_text: StringProperty(
        name="Settings",
        description="The advanced settings that differ from the preset, as JSON",
        get=_settings_text,
        set=_set_settings_text,
    )
    import_when_done: BoolProperty(
        name="Import when Done",
        description="Bring a prop that was started here into the scene as soon as it is ready",
        default=False,
    )
    mark_as_asset: BoolProperty(
        name="Mark as Asset",
        description="Put an imported prop into the Asset Browser with its preview as thumbnail",
        default=False,
    )
    scrub: FloatProperty(
        name="Look Back",
        description="Which of the pictures so far is shown; at the right end the newest one, live",
        min=0,
        max=1,
        default=1,
        subtype="FACTOR",
        update=_scrubbed,
    )
    rows: CollectionProperty(name="Jobs", description="The jobs of the server, newest first", type=DreamwrightJobRow)
    row_index: IntProperty(name="Job", description="The chosen job", min=-1, default=-1, update=_row_chosen)


# What survives the loading of a file, and what a preset of Blender's own system holds.
TYPED = (
    "model_name", "preset_name", "prompt", "negative", "seed", "height_m", "triangles", "color_as", "texture_size",
    "import_when_done", "mark_as_asset", "settings_text",
)  # fmt: skip


def artist() -> DreamwrightArtist:
    """The artist's settings, fetched anew: a loaded file replaces the WindowManager."""
    return bpy.context.window_manager.dreamwright


def active_job() -> Any:
    """The chosen job's summary, or None."""
    mine = artist()
    if not 0 <= mine.row_index < len(mine.rows):
        return None
    return addon_state.session().jobs.get(mine.rows[mine.row_index].job)


def choose_job(job: str) -> None:
    """Make a job's row the chosen one."""
    mine = artist()
    index = next((i for i, row in enumerate(mine.rows) if row.job == job), -1)
    if index >= 0:
        mine.row_index = index


def sync_rows() -> None:
    """Make the rows those of the session, keeping the chosen job chosen."""
    session, mine = addon_state.session(), artist()
    wanted = list(session.jobs)
    if [row.job for row in mine.rows] != wanted:
        chosen = active_job()
        watched = chosen.job if chosen else session.watched
        mine.rows.clear()
        for job in wanted:
            mine.rows.add().job = job
        mine.row_index = wanted.index(watched) if watched in wanted else min(0, len(wanted) - 1)
    for row in mine.rows:
        percent = 100 * labels.share_done(session.jobs[row.job])
        if abs(row.percent - percent) > 1e-4:
            row.percent = percent


def sync_choices() -> None:
    """Choose a model and preset where none is chosen, the first that the server names, and make the server's controls."""
    session, mine = addon_state.session(), artist()
    if session.offered is None:
        return
    if not mine.model_name and session.offered.models:
        ready = [model.name for model in session.offered.models if model.ready]
        mine.model_name = (ready or [session.offered.models[0].name])[0]
    if not mine.preset_name and session.offered.presets:
        mine.preset_name = session.offered.presets[0].name
    typed = mine.settings_text if server_settings.holder(bpy.context) else "{}"
    if server_settings.rebuild(session.offered, mine.preset_name) and typed != "{}":
        mine.settings_text = typed


@persistent
def _before_load(*_: Any) -> None:
    mine = artist()
    _kept.clear()
    _kept.update({name: getattr(mine, name) for name in TYPED})


@persistent
def _after_load(*_: Any) -> None:
    mine = artist()
    for name, value in _kept.items():
        setattr(mine, name, value)
    _kept.clear()
    sync_rows()


_register_classes, _unregister_classes = bpy.utils.register_classes_factory((DreamwrightJobRow, DreamwrightArtist))


def register() -> None:
    """Put the settings on the WindowManager."""
    _register_classes()
    bpy.types.WindowManager.dreamwright = PointerProperty(type=DreamwrightArtist)
    bpy.app.handlers.load_pre.append(_before_load)
    bpy.app.handlers.load_post.append(_after_load)


def unregister() -> None:
    """Take them off again."""
    bpy.app.handlers.load_post.remove(_after_load)
    bpy.app.handlers.load_pre.remove(_before_load)
    server_settings.clear()
    del bpy.types.WindowManager.dreamwright
    _unregister_classes()
    _items.clear()
