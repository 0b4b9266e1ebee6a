# SPDX-License-Identifier: GPL-3.0-or-later
"""Fixtures of the integration tests."""

from __future__ import annotations

from tests.testing.hub_downloads import big, env, hub, run_in_process, tiny
from tests.testing.sphere_runs import oracle
from tests.testing.textured_meshes import textured_torus

__all__ = ["big", "env", "hub", "oracle", "run_in_process", "textured_torus", "tiny"]
