# SPDX-License-Identifier: GPL-3.0-or-later
"""A self-signed certificate for tests, made by openssl."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest


@pytest.fixture
def certificate(tmp_path: Path) -> tuple[Path, Path]:
    """(certificate, key) for 127.0.0.1 and localhost."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is missing; install it (Debian: apt-get install openssl)")
    crt, key = tmp_path / "page.crt", tmp_path / "page.key"
    made = ("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    names = ("-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1")
    subprocess.run([*made, *names, "-days", "2", "-keyout", key, "-out", crt], check=True, capture_output=True)
    return crt, key
