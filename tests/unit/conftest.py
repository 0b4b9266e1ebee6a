# SPDX-License-Identifier: GPL-3.0-or-later
"""Fixtures of the unit tests."""

from __future__ import annotations

from tests.testing.certificates import certificate
from tests.testing.clip_mesh_runs import clip_folder, clip_model
from tests.testing.family_folders import copy, folders
from tests.testing.local_models import only_packaged_models, pipeline_folder, written_pipeline
from tests.testing.sphere_runs import oracle

__all__ = [
    "certificate",
    "clip_folder",
    "clip_model",
    "copy",
    "folders",
    "only_packaged_models",
    "oracle",
    "pipeline_folder",
    "written_pipeline",
]
