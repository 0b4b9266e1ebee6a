# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether this process and its children may use the hub, and whether there is a token of it. Uses no network.

Every command except `models download` forbids the hub to itself. A server's child that downloads a model gets back
what the user set.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

OFFLINE = "HF_HUB_OFFLINE"
_TRUE = {"1", "ON", "YES", "TRUE"}  # as huggingface_hub reads it

_users_choice: list[str | None] = []  # what OFFLINE was before `forbid_hub`; empty until then


def forbid_hub() -> None:
    """Forbid the hub to this process and to those that it starts."""
    if not _users_choice:
        _users_choice.append(os.environ.get(OFFLINE))
    os.environ[OFFLINE] = "1"


def users_environment() -> dict[str, str]:
    """The environment of this process with HF_HUB_OFFLINE as the user set it."""
    environment = dict(os.environ)
    if _users_choice:
        environment.pop(OFFLINE, None)
        if _users_choice[0] is not None:
            environment[OFFLINE] = _users_choice[0]
    return environment


def has_token(environment: Mapping[str, str]) -> bool:
    """Whether the hub's client finds a token: in HF_TOKEN, or in the file of `hf auth login`. It is not returned."""
    from huggingface_hub import constants  # it reads OFFLINE when it is imported, so not before `forbid_hub`

    if any(environment.get(name, "").strip() for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")):
        return True
    try:
        return bool(Path(constants.HF_TOKEN_PATH).read_text(encoding="utf-8", errors="replace").strip())
    except OSError:
        return False


def is_offline(environment: Mapping[str, str]) -> bool:
    """Whether an environment forbids the hub."""
    return (environment.get(OFFLINE) or environment.get("TRANSFORMERS_OFFLINE") or "").upper() in _TRUE
