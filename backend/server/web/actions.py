# SPDX-License-Identifier: GPL-3.0-or-later
"""What the page's buttons do, as requests of the protocol; whether a user may is the server's decision."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dreamwright.shared.errors import ProtocolError
from dreamwright.shared.messages import CancelJob, DeleteJob, PauseJob, PinJob, ResumeJob, SetPriority
from dreamwright.shared.operator_messages import DrainDevice, FreeDisk, MoveJob
from dreamwright.shared.schema import from_map, short_repr

ACTIONS: Mapping[str, type[Any]] = {
    "cancel": CancelJob,
    "pause": PauseJob,
    "resume": ResumeJob,
    "priority": SetPriority,
    "pin": PinJob,
    "delete": DeleteJob,
    "move": MoveJob,
    "drain": DrainDevice,
    "free": FreeDisk,
}


def action_request(body: Mapping[str, Any]) -> Any:
    """The request of {"action": NAME, ...its fields}. Raises ProtocolError, before anything is sent."""
    name = body.get("action")
    kind = ACTIONS.get(name) if isinstance(name, str) else None
    if kind is None:
        raise ProtocolError(f"the action is {short_repr(name)}; allowed is one of {', '.join(ACTIONS)}")
    return from_map(kind, {key: value for key, value in body.items() if key != "action"})
