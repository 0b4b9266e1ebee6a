# SPDX-License-Identifier: GPL-3.0-or-later
"""Catalogs of Blender's Asset Browser: paths, ids that follow from the path, and the file that lists them.

The file blender_assets.cats.txt lies in the root folder of an asset library. Each line is UUID:path:simple-name
(docs.blender.org, Asset Catalogs).
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable

FILE_NAME = "blender_assets.cats.txt"
PART_BYTES, PATH_BYTES = 63, 255
# Ids of version 5 in a namespace of ours: every machine gives the same catalog the same id.
NAMESPACE = uuid.uuid5(uuid.NAMESPACE_URL, "https://github.com/dreamwright/dreamwright#asset-catalogs")
HEADER = (
    "# This is an Asset Catalog Definition file for Blender.\n"
    "#\n"
    "# Empty lines and lines starting with `#` will be ignored.\n"
    "# The first non-ignored line should be the version indicator.\n"
    '# Other lines are of the format "UUID:catalog/path/for/assets:simple catalog name"\n'
    "\n"
    "VERSION 1\n"
)


def catalog_path(text: str) -> str:
    """The path in Blender's form: parts without blanks at their ends, "/" between them; "" for none.

    Raises ValueError with a clause for a colon, which separates the file's fields, a backslash, and what is too long.
    """
    parts = [part for part in (" ".join(part.split()) for part in text.split("/")) if part]
    path = "/".join(parts)
    if ":" in path or "\\" in path:
        raise ValueError(f"has the catalog {path[:60]!r}; allowed are parts with / between them, without : and \\")
    longest = max((len(part.encode()) for part in parts), default=0)
    if longest > PART_BYTES or len(path.encode()) > PATH_BYTES:
        raise ValueError(
            f"has a catalog of {len(path.encode())} bytes; allowed are {PATH_BYTES}, and {PART_BYTES} for each part"
        )
    return path


def catalog_id(path: str) -> str:
    """The id of a catalog: uuid5 of its path."""
    return str(uuid.uuid5(NAMESPACE, path))


def with_parents(paths: Iterable[str]) -> list[str]:
    """Every path and the paths above it, each once, parents first."""
    found = set()
    for path in paths:
        parts = path.split("/")
        found |= {"/".join(parts[: count + 1]) for count in range(len(parts))}
    return sorted(found - {""})


def merged_catalogs(existing: str, paths: Iterable[str]) -> str:
    """The text of the catalog file with these paths added.

    Lines that are there stay as they are: a user may have renamed or moved a catalog, which keeps its id. An empty or
    foreign text is replaced.
    """
    lines = existing.splitlines()
    if "VERSION 1" not in (line.strip() for line in lines):
        lines = HEADER.splitlines()
    known = {line.partition(":")[0].strip().lower() for line in lines}
    named = {line.split(":")[1].strip() for line in lines if line.count(":") >= 2 and not line.startswith("#")}
    for path in with_parents(paths):
        if catalog_id(path) not in known and path not in named:
            lines.append(f"{catalog_id(path)}:{path}:{path.replace('/', '-')}")
    return "\n".join(lines) + "\n"


def catalog_ids(text: str) -> dict[str, str]:
    """The id of each path in the text of a catalog file."""
    found = {}
    for line in text.splitlines():
        if line.count(":") >= 2 and not line.startswith("#"):
            identifier, path = line.split(":")[:2]
            found[path.strip()] = identifier.strip()
    return found
