# SPDX-License-Identifier: GPL-3.0-or-later
"""How pytest-xdist distributes the tests: file by file, and one Blender's tests of a file together."""

from __future__ import annotations

import re

import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

SLOW_WEIGHT = 20  # a slow test takes about so many times as long as another
# Their slow tests share no fixture and mostly wait, so each goes to whichever process is free.
SEPARATE = (
    "test_graceful_shutdown.py",
    "test_silent_connections.py",
    "test_soak_runs.py",
    "test_vanished_clients.py",
)


def group_of(node: str) -> str:
    """The tests that run one after another in one process: they share the fixtures of their module.

    A file with a test for each Blender is one group a Blender: each starts its own, and none uses what another leaves.
    """
    path = node.split("::")[0]
    if path.endswith(SEPARATE):
        return node
    version = re.search(r"\[(b(?:lender|py)-[\w.]+)", node)
    return f"{path}[{version[1]}]" if version else path


def longest_first(items: list[pytest.Item]) -> None:
    """Sort by group, in place, so that no long group is left for the end, when the other processes have nothing to
    do.
    """
    weights: dict[str, int] = {}
    for item in items:
        group = group_of(item.nodeid)
        weights[group] = weights.get(group, 0) + (SLOW_WEIGHT if item.get_closest_marker("slow") else 1)
    # The name decides between equals; the order within a group stays.
    items.sort(key=lambda item: (-weights[group_of(item.nodeid)], group_of(item.nodeid)))


class GroupScheduling(LoadScopeScheduling):
    """Gives out whole groups, in the order in which `longest_first` left them."""

    def __init__(self, config: pytest.Config, log: Producer | None = None) -> None:
        super().__init__(config, log)
        config.option.loadscopereorder = False  # it would begin with the groups of many tests, however short

    def _split_scope(self, nodeid: str) -> str:
        return group_of(nodeid)
