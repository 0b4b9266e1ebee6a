# SPDX-License-Identifier: GPL-3.0-or-later
"""Documents: what they name exists, their tables agree with the server, and the site builds without a warning."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from dreamwright.backend.cli.main import build_parser
from dreamwright.backend.config.parsing import GUIDANCE_SCALE
from dreamwright.backend.config.schema import Config
from dreamwright.backend.config.setting import setting_fields
from dreamwright.backend.server.policy import policy_option, policy_settings
from dreamwright.shared.failure_causes import FailureCause
from dreamwright.shared.job_states import TRANSITIONS, JobState
from dreamwright.shared.numbers import number_text

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
LINK = re.compile(r"\]\(([^)\s]+)\)")
NAMED_FILE = re.compile(
    r"`((?:backend|shared|blender_addon|tests|tools|benchmarks|docs)/[\w./-]+\.(?:py|sh|md))(?:::[\w.]+)?`"
)


COMMAND = re.compile(r"^(?:RAY_AUTH_MODE=token |sudo -u \w+ )?(?:[\w./]*/)?dreamwright ((?!\.).+)$", re.MULTILINE)
SETTING = re.compile(r"`([a-z]+)\.([a-z][a-z0-9_]*)(?:=[^`]*)?`")
FILE_ENDINGS = {"py", "sh", "md", "json", "dwm", "glb", "ply", "obj", "png"}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_commands_and_settings_exist(page: Path) -> None:
    """Every command in a shell block parses, and every `section.name` of a known section is a setting."""
    text = page.read_text(encoding="utf-8")
    for block in re.findall(r"```sh\n(.*?)```", text, re.DOTALL):
        for command in COMMAND.findall(block):
            build_parser().parse_args(shlex.split(command, comments=True))  # an unknown option ends in SystemExit
    settings = {*setting_fields(Config), GUIDANCE_SCALE}
    sections = {name.partition(".")[0] for name in settings}
    named = {f"{section}.{key}" for section, key in SETTING.findall(text) if key not in FILE_ENDINGS}
    assert {name for name in named if name.partition(".")[0] in sections} <= settings


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_and_named_files_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    links = [link.partition("#")[0] for link in LINK.findall(text) if not re.match(r"[a-z]+:|#", link)]
    missing = [link for link in links if not (page.parent / link).exists()]
    missing += [name for name in NAMED_FILE.findall(text) if not (ROOT / name).exists()]
    assert not missing


def test_readme_is_short_and_starts_with_two_commands() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(readme.splitlines()) < 120
    first, second = re.findall(r"```sh\n(.*?)```", readme, re.DOTALL)[:2]
    assert first.strip() == "bash setup.sh && .venv/bin/dreamwright demo --out demo"
    assert second.strip() == "bash tests/run.sh"
    assert (ROOT / ".ci" / "run").read_text(encoding="utf-8").rstrip().endswith("exec bash tests/run.sh")


@pytest.mark.skipif(find_spec("material") is None, reason="mkdocs-material is not installed (extra: docs)")
def test_site_builds_without_warnings(tmp_path: Path) -> None:
    """Strict mode turns dead links, missing anchors and pages outside of the navigation into errors."""
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path / "site")]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "site" / "user" / "first-prop" / "index.html").is_file()


def table_rows(page: str) -> list[list[str]]:
    """Cells of all rows of a page's tables."""
    lines = (ROOT / "docs" / page).read_text(encoding="utf-8").splitlines()
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines if line.startswith("| ")]


def test_states_causes_and_limits_are_those_of_the_server() -> None:
    rows = table_rows("operator/jobs.md")
    states = {state.value for state in JobState}
    transitions = {(first, last) for first, to, *_ in rows if first in states for last in re.split(", (?:then )?", to)}
    allowed = {(old.value, new.value) for old, following in TRANSITIONS.items() for new in following}
    # "running: cancelling, then cancelled" is one row for two transitions.
    assert transitions == (allowed - {("cancelling", "cancelled")}) | {("running", "cancelled")}
    causes = {cause for row in rows for cause in re.findall(r"^`([a-z-]+)`|, `([a-z-]+)`$", row[0])}
    assert {"".join(cause) for cause in causes} == {cause.value for cause in FailureCause} - {""}
    options = {policy_option(limit.key): number_text(limit.default) for limit in policy_settings()}
    named = {option.strip("`"): row[1].split()[0] for row in rows for option in row[2:3] if option.startswith("`--")}
    assert named and named.items() <= options.items()


def test_metrics_exist() -> None:
    source = (ROOT / "backend" / "server" / "monitoring" / "metrics.py").read_text(encoding="utf-8")
    text = (ROOT / "docs" / "operator" / "operations.md").read_text(encoding="utf-8")
    text += (ROOT / "docs" / "operator" / "examples" / "dreamwright_alerts.yml").read_text(encoding="utf-8")
    found = re.findall(r"dreamwright_([a-z_]+?)(?:_total|_info)?\b(?!\.yml|\.json)", text)
    names = set(found) - {"alerts", "dashboard"}
    assert names and not {name for name in names if f'"{name}"' not in source and f'"dreamwright_{name}"' not in source}
