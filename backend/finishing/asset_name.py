# SPDX-License-Identifier: GPL-3.0-or-later
"""Names of finished assets: letters, digits and underscores, which every engine and file system takes."""

from __future__ import annotations

import re
import unicodedata

LONGEST = 40  # characters, so that UCX_NAME_LOD0_00 fits Blender's 63 bytes


def asset_name(text: str) -> str:
    """A name of ASCII letters, digits and underscores: "A red mug!" becomes "A_red_mug"; "prop" where nothing stays."""
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    return re.sub(r"[^A-Za-z0-9]+", "_", plain).strip("_")[:LONGEST].strip("_") or "prop"
