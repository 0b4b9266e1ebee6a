# SPDX-License-Identifier: GPL-3.0-or-later
"""Provenance in files whose only metadata are comments, and the name of an exported object."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

NAME_BYTES = 60  # of UTF-8; Blender's object names hold 63
MADE_BY = "made by Dreamwright"


def provenance_lines(provenance: Mapping[str, Any]) -> list[str]:
    """One "key: JSON value" line of plain ASCII per entry."""
    return [f"{json.dumps(str(key))[1:-1]}: {json.dumps(value, allow_nan=False)}" for key, value in provenance.items()]


def object_name(provenance: Mapping[str, Any]) -> str:
    """The prompt, cut to `NAME_BYTES` at a whole character, or "prop"."""
    words = " ".join(str(provenance.get("prompt", "")).split())
    return words.encode("utf-8")[:NAME_BYTES].decode("utf-8", errors="ignore").strip() or "prop"
