# SPDX-License-Identifier: GPL-3.0-or-later
"""Fixtures of the integration tests."""

from __future__ import annotations

from tests.testing.hub_downloads import big, env, here, hub, tiny
from tests.testing.sphere_runs import oracle

__all__ = ["big", "env", "here", "hub", "oracle", "tiny"]
