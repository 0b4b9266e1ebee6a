# SPDX-License-Identifier: GPL-3.0-or-later
"""Fixtures of the server's tests."""

from __future__ import annotations

from tests.testing.certificates import certificate
from tests.testing.encrypted_server import encrypted_server
from tests.testing.in_memory_server import in_memory_server
from tests.testing.installed_addon import installed
from tests.testing.network_namespaces import networks
from tests.testing.recording_worker import model, report_every_step
from tests.testing.scripted_worker_server import scripted_server

__all__ = [
    "certificate",
    "encrypted_server",
    "in_memory_server",
    "installed",
    "model",
    "networks",
    "report_every_step",
    "scripted_server",
]
