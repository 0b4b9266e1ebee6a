# SPDX-License-Identifier: GPL-3.0-or-later
"""Write docs/user/settings.md, the table of every setting, from the metadata in backend/config.

python -m tools.docs.settings_table
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dreamwright.backend.config.schema import METHOD_GUIDANCE, METHOD_SCENE, Config
from dreamwright.backend.config.setting import (
    FIELD_KINDS,
    RULES,
    GuidanceKind,
    SceneKind,
    Section,
    Setting,
    section_settings,
)
from dreamwright.shared.numbers import number_text

PAGE = Path(__file__).resolve().parents[2] / "docs" / "user" / "settings.md"
RUNS: dict[str, tuple[SceneKind, GuidanceKind]] = {
    **{method: (METHOD_SCENE[method], METHOD_GUIDANCE[method]) for method in METHOD_SCENE},
    "refine": ("mesh", "diffusion"),
}
INTRODUCTION = """\
# Settings

<!-- Written by `python -m tools.docs.settings_table` from backend/config; edit the metadata there. -->

Every number of a run is a setting. `dreamwright generate` and `dreamwright refine` take `--set section.name=value`, any
number of times. Blender's panel shows the settings marked *panel*. The defaults below are those of the preset `paper`;
other presets change some of them ([method](../method.md)).

- **Used by**: the methods that read the setting, and `refine`, the refinement of a mesh. A setting that a run does not
  read is refused.
- **Resume**: *same* must not change between a run and its continuation with `--resume`. *free* may change.
- *Less memory* lists values that `dreamwright` advises when memory is short.

`guidance.guidance_scale`, the name that diffusers uses, sets `guidance.omega` to one less.
"""


def settings_page(schema: type[Config] = Config) -> str:
    """The page as Markdown."""
    parts = [INTRODUCTION]
    defaults = schema()
    for field in dataclasses.fields(schema):
        section = type(getattr(defaults, field.name))
        common: Section = getattr(section, "SECTION", Section())
        parts += [f"## {field.name}\n", *([f"{common.help}\n"] if common.help else [])]
        parts.append(
            "| Setting | Default | Allowed | Meaning | Used by | Resume |\n| --- | --- | --- | --- | --- | --- |"
        )
        parts += [_row(found) for found in section_settings(section, field.name)]
        parts.append("")
    return "\n".join(parts).rstrip("\n") + "\n"


def _row(found: Setting) -> str:
    meaning = found.help + (f" 0: {found.zero}." if found.zero else "") + (" *Panel.*" if found.panel else "")
    if found.reduce_memory:
        meaning += f" *Less memory:* {', '.join(f'`{value}`' for value in found.reduce_memory)}."
    if found.at_most:
        meaning += f" At most `{found.at_most}`."
    used = [name for name, kind in RUNS.items() if found.applies_to(*kind, found.rules[0], found.fields[0])]
    cells = (
        f"`{found.name}`",
        _value(found.default),
        found.allowed() + (f" {found.unit}" if found.unit else ""),
        meaning,
        ("all" if len(used) == len(RUNS) else ", ".join(used)) + _rules(found),
        "same" if found.identity else "free",
    )
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _rules(found: Setting) -> str:
    return _only("guidance.rule", found.rules, RULES) + _only("field.kind", found.fields, FIELD_KINDS)


def _only(name: str, allowed: tuple[str, ...], every: tuple[str, ...]) -> str:
    return "" if allowed == every else f" with `{name}` {', '.join(allowed)}"


def _value(value: Any) -> str:
    if isinstance(value, tuple):
        return f"`{','.join(map(str, value))}`"
    if isinstance(value, (bool, str)):
        return f"`{str(value).lower() if isinstance(value, bool) else value}`" if value != "" else "empty"
    return f"`{number_text(value) if isinstance(value, int) else f'{value:.6g}'}`"


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the page; returns the exit status."""
    argparse.ArgumentParser(description=__doc__).parse_args(arguments)
    PAGE.write_text(settings_page(), encoding="utf-8")
    print(PAGE)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
