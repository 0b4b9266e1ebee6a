# SPDX-License-Identifier: GPL-3.0-or-later
"""A setting is one line: parsing, range, fingerprint, memory advice, duration, control and docs row follow from it."""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dreamwright.backend.config.parsing import (
    apply_settings,
    config_from_mapping,
    config_to_mapping,
    setting_bounds,
    setting_names,
    validate,
)
from dreamwright.backend.config.presets import PRESETS, REFINE_PRESET
from dreamwright.backend.config.recipes.starter import REFINE
from dreamwright.backend.config.schema import Config, MeshConfig, RenderConfig
from dreamwright.backend.config.setting import Setting, check_section, section_settings, setting, setting_fields
from dreamwright.backend.config.usage import (
    check_settings_used,
    duration_settings,
    identity_settings,
    memory_settings,
    resumable_memory_settings,
    run_kind,
    setting_value,
)
from dreamwright.backend.errors import ConfigError
from dreamwright.backend.server.offered_settings import setting_infos, setting_ranges
from dreamwright.shared.numbers import number_text
from tools.docs.settings_table import PAGE, settings_page

FIELDS = setting_fields(Config)
NUMBERS = [found for found in FIELDS.values() if found.bounds is not None]
RUNS = {"draft": None, "dream-fields": None, "clip-mesh": None, REFINE_PRESET: "mesh"}


@dataclass(frozen=True)
class ExtraRender(RenderConfig):
    tiles: int = setting(3, (2, 9), unit="tiles", label="Ray Tiles", help="Tiles of a view.", panel=True)
    tile_order: Literal["rows", "spiral"] = setting("rows", identity=False, duration=False, help="Order of the tiles.")
    spare: bool = setting(True, identity=False, reduce_memory=(False,), help="Keep a copy.", scenes=("field", "mesh"))


@dataclass(frozen=True)
class ExtraConfig(Config):
    render: ExtraRender = dataclasses.field(default_factory=ExtraRender)


def test_new_setting_is_parsed_and_bounded() -> None:
    config = apply_settings(ExtraConfig(), ["render.tiles=5", "render.tile_order=spiral", "render.spare=false"])
    assert (config.render.tiles, config.render.tile_order, config.render.spare) == (5, "spiral", False)
    assert config_from_mapping(config_to_mapping(config), ExtraConfig()) == config
    assert setting_bounds(ExtraConfig)["render.tiles"] == (2, 9)
    for wrong, words in (
        ("render.tiles=1", "render.tiles is 1; allowed is 2 to 9"),
        ("render.tiles=2.5", "whole number"),
        ("render.tile_order=columns", "allowed are rows, spiral"),
        ("render.spare=perhaps", "allowed are true and false"),
        ("render.tile=3", "did you mean"),
    ):
        with pytest.raises(ConfigError, match=words):
            apply_settings(ExtraConfig(), [wrong])
    with pytest.raises(ConfigError, match="render.tiles is 10"):
        validate(ExtraConfig(render=ExtraRender(tiles=10)))


def test_new_setting_is_in_identity_and_duration_key() -> None:
    plain, tiled = ExtraConfig(), apply_settings(ExtraConfig(), ["render.tiles=5"])
    ordered = apply_settings(ExtraConfig(), ["render.tile_order=spiral"])
    assert identity_settings(plain)["render"]["tiles"] == 3 and identity_settings(tiled) != identity_settings(plain)
    assert identity_settings(ordered) == identity_settings(plain)
    assert duration_settings(tiled)["render.tiles"] == 5 and "render.tile_order" not in duration_settings(ordered)
    assert "render.spare" in duration_settings(plain) and "render.tiles" not in duration_settings(plain, "mesh")


def test_new_setting_is_advised_when_memory_is_short() -> None:
    assert "render.spare=false" in resumable_memory_settings(ExtraConfig)
    assert set(memory_settings(ExtraConfig)) == {*memory_settings(), "render.spare=false"}


def test_new_setting_is_refused_where_it_is_not_read() -> None:
    tiled, spared = (apply_settings(ExtraConfig(), [text]) for text in ("render.tiles=5", "render.spare=false"))
    check_settings_used(tiled)
    check_settings_used(spared, "mesh")
    for config, scene, name in ((tiled, "mesh", "tiles"), (tiled, "sphere", "tiles"), (spared, "sphere", "spare")):
        with pytest.raises(ConfigError, match=f"render.{name} means nothing to"):
            check_settings_used(config, scene)


def test_new_setting_has_a_control_and_a_range() -> None:
    presets = {"draft": ExtraConfig(), "clip-mesh": apply_settings(ExtraConfig(), ["run.method=clip-mesh"])}
    info = next(info for info in setting_infos(ExtraConfig, presets) if info.name == "render.tiles")
    assert (info.label, info.tip, info.kind, info.low, info.high) == ("Ray Tiles", "Tiles of a view.", "integer", 2, 9)
    assert info.defaults == {"draft": 3}, "a sphere scene does not use it"
    names = {info.name for info in setting_infos(ExtraConfig, presets)}
    assert not names & {"render.tile_order", "render.spare"}
    assert {r.name: (r.low, r.high) for r in setting_ranges(ExtraConfig)}["render.tiles"] == (2, 9)


def test_new_setting_has_a_row_in_the_documentation() -> None:
    rows = {line.split("`")[1]: line for line in settings_page(ExtraConfig).splitlines() if line.startswith("| `")}
    assert set(rows) == set(setting_names(ExtraConfig))
    assert rows["render.tiles"] == (
        "| `render.tiles` | `3` | 2 to 9 tiles | Tiles of a view. *Panel.* | dreamfusion, dream-fields | same |"
    )
    assert "| free |" in rows["render.tile_order"] and "*Less memory:* `false`" in rows["render.spare"]


def test_settings_page_is_up_to_date() -> None:
    assert PAGE.read_text(encoding="utf-8") == settings_page(), "run python -m tools.docs.settings_table"


def test_incomplete_field_metadata_is_an_error() -> None:
    @dataclass(frozen=True)
    class Bare:
        steps: int = 3

    with pytest.raises(TypeError, match=r"Bare\.steps has no metadata"):
        section_settings(Bare)
    with pytest.raises(TypeError, match="no bounds"):
        setting(3)


@pytest.mark.parametrize("found", FIELDS.values(), ids=lambda found: found.name)
def test_metadata_is_complete(found: Setting) -> None:
    assert found.help and found.help[-1] in ".)" and found.label[0].isupper() and len(found.label) <= 40
    assert not found.at_most or found.at_most in FIELDS
    assert found.scenes and found.guidance
    for value in found.reduce_memory:
        found.check(setting_value(apply_settings(Config(), [f"{found.name}={value}"]), found.name))
    if found.bounds is not None:
        found.check(found.default)
        assert found.low < found.high


@pytest.mark.parametrize("found", NUMBERS, ids=lambda found: found.name)
def test_bounds_are_inclusive_and_printed_in_full(found: Setting) -> None:
    step = 1 if found.kind in ("integer", "integers") else 1e-3 * max(1, abs(found.high))
    for value in (found.low, found.high):
        found.check((value,) if found.kind == "integers" else value)
    for value in (found.low - step, found.high + step, float("nan"), float("inf")):
        if value == 0 and found.zero:
            continue
        with pytest.raises(ConfigError) as caught:
            found.check((value,) if found.kind == "integers" else value)
        message = str(caught.value)
        assert message.startswith(f"{found.name} is {number_text(value)}; allowed is ") and "e+" not in message
        assert f"{number_text(found.low)} to {number_text(found.high)}" in message and "\n" not in message


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("run.seed=-1", "run.seed is -1; allowed is 0 to 2147483647;"),
        ("run.seed=2147483648", "run.seed is 2147483648;"),
        ("run.steps=99999999999999999999", "run.steps is 99999999999999999999; allowed is 1 to 1000000;"),
        ("mesh.triangles=5000001", "allowed is 16 to 5000000;"),
        ("regularizers.smoothness=1e10", "is 10000000000; allowed is 0 to 1000000000;"),
        ("mesh.texture=63", "allowed is 64 to 4096, or 0 for vertex colors;"),
        ("guidance.guidance_scale=1234567", "is 1234567; allowed is 1 to 1001;"),
    ],
)
def test_whole_numbers_are_printed_whole(setting: str, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        apply_settings(Config(), [setting])
    assert words in str(caught.value)


@given(st.integers(-(10**15), 10**15))
def test_number_text_of_a_whole_number_has_all_digits(value: int) -> None:
    assert number_text(value) == number_text(float(value)) == str(value)


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_number_text_is_the_number_to_twelve_digits(value: float) -> None:
    """Half a unit of the twelfth digit is at most 5e-12 of the number."""
    assert float(number_text(value)) == pytest.approx(value, rel=5.1e-12, abs=0)


@pytest.mark.parametrize("preset", RUNS)
def test_unread_setting_is_refused_by_name(preset: str) -> None:
    """Settings that a run uses are accepted. Covers every setting and every kind of run."""
    own = REFINE if preset == REFINE_PRESET else PRESETS[preset].config
    kind = run_kind(own, RUNS[preset])
    for name, found in FIELDS.items():
        if name == "run.method":
            continue
        section = name.partition(".")[0]
        changed = dataclasses.replace(
            own, **{section: dataclasses.replace(getattr(own, section), **{found.key: other_value(found, own)})}
        )
        if found.applies_to(*kind):
            check_settings_used(changed, RUNS[preset], own)
            assert found.key in identity_settings(changed, RUNS[preset], True).get(section, {}) or not found.identity
        else:
            with pytest.raises(ConfigError, match=f"^{name} means nothing to .*; leave it out$"):
                check_settings_used(changed, RUNS[preset], own)
            assert found.key not in identity_settings(changed, RUNS[preset], True).get(section, {})


def other_value(found: Setting, config: Config) -> Any:
    """A value of the setting that differs from the configuration's."""
    own = setting_value(config, found.name)
    if found.kind == "switch":
        return not own
    if found.kind == "choice":
        return next(choice for choice in found.choices if choice != own)
    if found.kind == "text":
        return own + "x"
    if found.kind == "integers":
        return (*own, 8)
    return next(bound for bound in (found.low, found.high) if bound != own)


def test_every_preset_uses_only_what_its_method_reads() -> None:
    own = {"dreamfusion": "draft", "dream-fields": "dream-fields", "clip-mesh": "clip-mesh"}
    for preset in PRESETS.values():
        check_settings_used(preset.config, own=PRESETS[own[preset.config.run.method]].config)


def test_settings_that_may_change_on_resume() -> None:
    """The list that docs/operator/memory.md and the server's retries rely on."""
    free = {found.name for found in FIELDS.values() if not found.identity}
    assert free == {
        *(
            f"run.{key}"
            for key in ("checkpoint_interval", "preview_interval", "live_mesh_interval", "max_restarts", "threads")
        ),
        *("run.views_at_once", "run.ignore_memory"),
        *(f"model.{key}" for key in ("dtype", "offload", "attention_slicing", "vae_tiling", "vae_recompute")),
        "guidance.lora_recompute",
        *(name for name in FIELDS if name.startswith(("mesh.", "text."))),
    }
    assert {text.partition("=")[0] for text in resumable_memory_settings()} <= free
    assert "finetune_share" not in identity_settings(Config())["run"]
    assert identity_settings(Config(), initial_field=True)["run"]["finetune_share"] == 0.5


def test_one_section_is_checked_by_the_same_bounds() -> None:
    check_section(MeshConfig(), "mesh")
    for values, name in ((MeshConfig(resolution=15), "resolution"), (MeshConfig(height_m=float("nan")), "height_m")):
        with pytest.raises(ConfigError, match=rf"mesh\.{name} is .*--set mesh\.{name}="):
            check_section(values, "mesh")


def test_settings_page_is_linked() -> None:
    site = Path(PAGE.parents[2] / "mkdocs.yml").read_text(encoding="utf-8")
    assert "user/settings.md" in site


def test_settings_are_typed() -> None:
    config = apply_settings(
        Config(),
        [
            "run.steps=20",
            "guidance.omega=7.5",
            "field.voxel_resolutions=8,16",
            "guidance.view_words=eight",
            "optimizer.kind=adam",
        ],
    )
    assert (config.run.steps, config.guidance.omega, config.field.voxel_resolutions) == (20, 7.5, (8, 16))
    assert (config.guidance.view_words, config.optimizer.kind) == ("eight", "adam")


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("run.steps=-3", ("run.steps", "-3", "1 to")),
        ("run.steps=2.5", ("2.5", "whole number")),
        ("run.stesp=3", ("run.stesp", "run.steps")),
        ("nonsense=3", ("nonsense",)),
        ("run.steps", ("=",)),
        ("guidance.omega=nan", ("guidance.omega", "nan")),
        ("guidance.omega=1e308", ("guidance.omega", "1000")),
        ("guidance.t_min=0.99", ("guidance.t_min", "guidance.t_max")),
        ("field.kind=hash", ("hash", "mip-mlp", "voxels")),
        ("guidance.view_dependent=maybe", ("maybe", "true")),
        ("field.voxel_resolutions=", ("voxel_resolutions",)),
    ],
)
def test_bad_setting_names_the_value_and_what_is_allowed(setting: str, words: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError) as caught:
        apply_settings(Config(), [setting])
    message = str(caught.value)
    assert all(word in message for word in words) and "\n" not in message


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=4,
)


@settings(max_examples=60)
@given(name=st.sampled_from(setting_names()), value=anything)
def test_any_json_value_is_valid_or_a_one_line_error(name: str, value: object) -> None:
    section, key = name.split(".")
    try:
        config = config_from_mapping({section: {key: value}})
    except ConfigError as error:
        assert "\n" not in str(error)
    else:
        hash(config)  # only plain values, so it is hashable and comparable
        assert config_from_mapping(config_to_mapping(config)) == config


@pytest.mark.parametrize(
    "mapping",
    [
        [1],
        None,
        {"run": 3},
        {"run": {"steps": True}},
        {"field": {"voxel_resolutions": 8}},
        {"guidance": {"negative_prompt": None}},
    ],
)
def test_mapping_of_the_wrong_shape_is_refused(mapping: object) -> None:
    with pytest.raises(ConfigError, match="allowed"):
        config_from_mapping(mapping)


def test_messages_print_all_digits() -> None:
    """`:g` turns 2147483647 into 2.14748e+09; `number_text` prints it whole."""
    for folder in ("backend", "shared", "blender_addon"):
        for path in (PAGE.parents[2] / folder).rglob("*.py"):
            assert not re.search(r"[^:]:g\}", path.read_text(encoding="utf-8")), path
