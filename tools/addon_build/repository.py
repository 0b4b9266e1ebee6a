# SPDX-License-Identifier: GPL-3.0-or-later
"""Blender's own extension tool: validates the zips and writes the index of a static repository."""

from __future__ import annotations

import html
import importlib.util
import json
import re
import shutil
import subprocess
import sys
import urllib.parse
from pathlib import Path

from .wheels import PUBLISHED, BuildError

PAGE = """<!DOCTYPE html>
<html lang="en">
<head><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{name} for Blender</title></head>
<body>
<h1>{name} {version} for Blender</h1>
<p>{tagline}</p>
<p>Drag the link of your system into a Blender {oldest} or later. Blender then asks to add this page as a repository and
installs updates from it.</p>
<ul>
{links}
</ul>
<p>Or add it by hand: Preferences, Get Extensions, Repositories, Add Remote Repository, with the address of
<a href="index.json">index.json</a> beside this page.</p>
</body>
</html>
"""


def blender_tool() -> Path | None:
    """Blender's extension tool, a Python program inside the bpy wheel; bpy itself is not imported."""
    spec = importlib.util.find_spec("bpy")
    if spec is None or spec.origin is None:
        return None
    return next(Path(spec.origin).parent.glob("*/scripts/addons_core/bl_pkg/cli/blender_ext.py"), None)


def run_tool(tool: Path, *arguments: str) -> None:
    """Run a command of Blender's tool. Raises BuildError with its message."""
    done = subprocess.run([sys.executable, "-B", str(tool), *arguments], capture_output=True, text=True)
    if done.returncode or re.search(r"^(WARN|ERROR|FATAL_ERROR)", done.stdout, re.MULTILINE):
        raise BuildError(
            f"Blender's extension tool refused `{' '.join(arguments)}`: {(done.stdout + done.stderr).strip()}"
        )


def write_repository(tool: Path, folder: Path, zips: list[Path]) -> None:
    """A static repository: the index of the zips in a fixed order, and a page with links to drag into Blender."""
    folder.mkdir()
    for path in zips:
        shutil.copyfile(path, folder / path.name)
    run_tool(tool, "server-generate", f"--repo-dir={folder}")
    index = json.loads((folder / "index.json").read_text(encoding="utf-8"))
    index["data"].sort(key=lambda entry: entry["archive_url"])
    (folder / "index.json").write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
    links = []
    for entry in index["data"]:
        # Blender reads these parameters when the link is dropped on its window.
        query = {"repository": "./index.json", "blender_version_min": entry["blender_version_min"]}
        query |= {key: ",".join(entry[key]) for key in ("platforms", "python_versions")}
        link = html.escape(f"{entry['archive_url']}?{urllib.parse.urlencode(query)}")
        links.append(
            f'<li><a href="{link}">{PUBLISHED[entry["platforms"][0]]}</a>, {entry["archive_size"] / 1e6:.1f} MB</li>'
        )
    first = {key: html.escape(str(index["data"][0][key])) for key in ("name", "version", "tagline")}
    oldest = index["data"][0]["blender_version_min"].rsplit(".", 1)[0]
    (folder / "index.html").write_text(PAGE.format(**first, oldest=oldest, links="\n".join(links)), encoding="utf-8")
