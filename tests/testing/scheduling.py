# SPDX-License-Identifier: GPL-3.0-or-later
"""Test distribution for pytest-xdist: by file, and by Blender version within a file."""

from __future__ import annotations

import re

import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

SLOW_WEIGHT = 20  # assumed ratio of the durations of slow and other tests
# Their slow tests share no fixture and mostly wait, so each goes to whichever process is free.
SEPARATE = (
    "test_graceful_shutdown.py",
    "test_silent_connections.py",
    "test_soak_runs.py",
    "test_vanished_clients.py",
)


def group_of(node: str) -> str:
    """The tests that run one after another in one process: they share the fixtures of their module.

    A file with tests for each Blender has one group per Blender, as these share nothing.
    """
    path = node.split("::")[0]
    if path.endswith(SEPARATE):
        return node
    version = re.search(r"\[(b(?:lender|py)-[\w.]+)", node)
    return f"{path}[{version[1]}]" if version else path


def longest_first(items: list[pytest.Item]) -> None:
    """Sort by group, in place, longest first, so that no process waits for a long group at the end."""
    weights: dict[str, int] = {}
    for item in items:
        group = group_of(item.nodeid)
        weights[group] = weights.get(group, 0) + (SLOW_WEIGHT if item.get_closest_marker("slow") else 1)
    # Ties are ordered by name; the order within a group is kept.
    items.sort(key=lambda item: (-weights[group_of(item.nodeid)], group_of(item.nodeid)))


class GroupScheduling(LoadScopeScheduling):
    """Assigns whole groups, in the order of `longest_first`."""

    def __init__(self, config: pytest.Config, log: Producer | None = None) -> None:
        super().__init__(config, log)
        config.option.loadscopereorder = (
            False  # xdist would start with the groups of most tests, regardless of duration
        )

    def _split_scope(self, nodeid: str) -> str:
        return group_of(nodeid)
