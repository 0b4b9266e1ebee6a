# SPDX-License-Identifier: GPL-3.0-or-later
"""Fixtures of the unit tests."""

from __future__ import annotations

from tests.testing.family_folders import copy, folders
from tests.testing.sphere_runs import oracle

__all__ = ["copy", "folders", "oracle"]
