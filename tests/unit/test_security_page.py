# SPDX-License-Identifier: GPL-3.0-or-later
"""The page on security names tests that exist, every message of the protocol, and every quota with its default."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from dreamwright.backend.server.policy import policy_option, policy_settings
from dreamwright.backend.server.request_audit import AUDITED, NOT_AUDITED
from dreamwright.shared.messages import MESSAGES
from dreamwright.shared.numbers import number_text

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/operator/security.md").read_text(encoding="utf-8")


def section(title: str) -> str:
    return PAGE.partition(f"## {title}\n")[2].partition("\n## ")[0]


def test_every_named_test_exists() -> None:
    named = set(re.findall(r"(tests/[\w/]+\.py)::(\w+)", PAGE))
    assert len(named) > 40
    functions: dict[str, set[str]] = {}
    for file, name in named:
        if file not in functions:
            tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
            functions[file] = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
        assert name in functions[file], f"{file} has no {name}"


def test_every_message_has_one_row() -> None:
    rows = [line for line in section("Messages").splitlines() if line.startswith("| `")]
    named = re.findall(r"`([A-Z]\w+)`", "".join(row.split("|")[1] for row in rows))
    assert sorted(named) == sorted(MESSAGES)


def test_every_claim_of_what_cannot_be_done_has_a_test() -> None:
    rows = [line for line in section("Who can do what").splitlines() if line.startswith("| cannot")]
    assert len(rows) > 20 and all("::test_" in row for row in rows)


def test_quotas_have_their_defaults() -> None:
    rows, found = section("Quotas"), 0
    for limit in policy_settings():
        if f"`{policy_option(limit.key)}`" in rows:
            found += 1
            assert number_text(limit.default) in rows, limit.key
        else:
            assert not limit.key.endswith("_per_user"), f"{limit.key} has no row"
    assert found >= 8


def test_every_request_is_audited_or_said_not_to_be() -> None:
    audited = {kind.__name__ for kind in AUDITED}
    by_server = next(line for line in section("Messages").splitlines() if line.startswith("| `Welcome`"))
    assert audited | NOT_AUDITED == set(MESSAGES) - set(re.findall(r"`([A-Z]\w+)`", by_server))
    assert not audited & NOT_AUDITED
