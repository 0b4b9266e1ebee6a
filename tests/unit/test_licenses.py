# SPDX-License-Identifier: GPL-3.0-or-later
"""Every installed dependency has a license that is compatible with GPL-3.0-or-later, and is listed."""

from __future__ import annotations

import subprocess
import sys
from email.message import Message
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tools.docs import license_list
from tools.docs.license_list import License, faults, license_of, listed, needed, page

ROOT = Path(__file__).parents[2]


def test_licenses_are_compatible_and_listed() -> None:
    licenses = {name: license_of(name, package) for name, package in needed().items()}
    assert {"torch", "pyzmq", "numpy", "safetensors"} <= set(licenses)
    assert faults(licenses, listed(license_list.PAGE.read_text(encoding="utf-8"))) == []


def package(**fields: Any) -> Any:
    metadata = Message()
    for name, values in fields.items():
        for value in values if isinstance(values, list) else [values]:
            metadata[name.replace("_", "-")] = value
    return SimpleNamespace(metadata=metadata)


@pytest.mark.parametrize(
    ("given", "allowed"),
    [
        (package(License_Expression="MIT"), True),
        (package(License_Expression="MIT OR LicenseRef-Own"), True),
        (package(License_Expression="MIT AND LicenseRef-Own"), False),
        (package(License_Expression="Apache-2.0 WITH LLVM-exception"), True),
        (package(License_Expression="GPL-2.0-only"), False),
        (package(License_Expression="AGPL-3.0-only"), False),
        (package(Classifier=["License :: OSI Approved :: Apache Software License"]), True),
        (package(Classifier=["License :: OSI Approved", "License :: Other/Proprietary License"]), False),
        (package(License="BSD 3-Clause"), True),
        (package(License="Copyright (c) all rights reserved"), False),
        (package(License="CC-BY-NC-4.0"), False),
        (package(License=""), False),
        (package(), False),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_licenses_are_judged_by_the_list(given: Any, allowed: bool) -> None:
    found = license_of("some-package", given)
    assert found.is_allowed is allowed, found
    assert bool(faults({"some-package": found}, {"some-package": found.expression})) is not allowed


def test_a_changed_or_new_license_is_reported_and_the_page_keeps_what_is_not_installed() -> None:
    before = {"old": "MIT", "changed": "MIT"}
    licenses = {name: License(name, "ISC") for name in ("changed", "new")}
    assert [line.partition(" has")[0] for line in faults(licenses, before)] == ["changed", "new"]
    assert listed(page(licenses, before)) == {"changed": "ISC", "new": "ISC", "old": "MIT"}


@pytest.mark.skipif(sys.platform == "win32", reason="a shell script of CI")
def test_the_audit_is_skipped_loudly_without_the_tool_or_the_network(tmp_path: Path) -> None:
    """`false` stands for a pip-audit that is not there; the licenses are left out."""
    fake = tmp_path / "python"
    fake.write_text(f'#!/bin/sh\ncase "$*" in *license_list*) exit 0;; esac\nexec {sys.executable} "$@"\n')
    fake.chmod(0o755)
    ran = subprocess.run([ROOT / "tools/check_dependencies.sh", fake, "false"], capture_output=True, text=True)
    assert ran.returncode == 0 and "pip-audit SKIPPED" in ran.stderr
