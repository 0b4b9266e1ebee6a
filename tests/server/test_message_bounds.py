# SPDX-License-Identifier: GPL-3.0-or-later
"""Every field and setting at and beyond its bounds, and names that lead elsewhere."""

from __future__ import annotations

import dataclasses
import random
from pathlib import Path

from dreamwright.shared.messages import GetCapabilities
from dreamwright.shared.schema import from_map, rule_of, to_map
from tests.soak import field_bounds
from tests.testing.in_memory_server import InMemoryServer
from tests.testing.message_strategies import PATHS, valid


def test_every_message_field_enforces_and_names_its_bounds() -> None:
    cases = list(field_bounds.field_cases())
    faults = [
        (kind.__name__, name, words, fault)
        for kind, name, words, value, fine in cases
        if (fault := field_bounds.field_fault(kind, name, value, fine))
    ]
    assert faults == []
    named = {(kind, name) for kind, name, *_ in cases}
    assert named == {(kind, field.name) for kind in field_bounds.RECORDS for field in dataclasses.fields(kind)}, (
        "no field without a case"
    )
    numbers = [
        field
        for kind in field_bounds.RECORDS
        for field in dataclasses.fields(kind)
        if rule_of(field).kind in ("integer", "number")
    ]
    assert len(numbers) > 40 and all(field.name for field in numbers)


def test_every_setting_enforces_and_names_its_bounds(tmp_path: Path) -> None:
    in_memory_server = InMemoryServer(tmp_path / "state")
    rng = random.Random(1)
    cases = list(field_bounds.setting_cases())
    drawn = [case for case in cases if not case[3]] + rng.sample(
        [case for case in cases if case[3]], 40
    )  # what is taken is written to disk, which takes its time
    faults = [
        (name, words, fault)
        for name, words, value, fine in drawn
        if (fault := field_bounds.setting_fault(in_memory_server, name, value, fine))
    ]
    assert faults == []


def test_refine_settings_need_a_mesh_and_have_bounds(
    tmp_path: Path,
) -> None:
    in_memory_server = InMemoryServer(tmp_path / "state")
    assert field_bounds.submit_result(in_memory_server, settings={"refine.strength": 0.25}).startswith(
        "bad-input: refine.strength means nothing to dreamfusion"
    )
    bounds = {
        bound.name: (bound.low, bound.high)
        for bound in in_memory_server.request(GetCapabilities()).setting_bounds
        if bound.name.startswith("refine.")
    }
    assert bounds["refine.strength"] == (0, 1) and len(bounds) == 12


def test_path_traversal_names_are_refused(tmp_path: Path) -> None:
    count, faults = field_bounds.name_faults(InMemoryServer(tmp_path / "server" / "state"))
    assert faults == [] and count >= 5 * len(PATHS)


def test_only_local_users_and_admins_may_name_model_folders(tmp_path: Path) -> None:
    """The answer is the same whether the folder exists or not."""
    in_memory_server = InMemoryServer(tmp_path / "state")
    (tmp_path / "present").mkdir()
    there, absent = (
        field_bounds.submit_result(in_memory_server, owner="ada", model=str(tmp_path / name)).replace(name, "X")
        for name in ("present", "missing")
    )
    assert there == absent and "only its admins may name a folder" in there
    for owner, admin in (("local", False), ("admin", True)):
        assert "without model_index.json" in field_bounds.submit_result(
            in_memory_server, owner=owner, admin=admin, model=str(tmp_path / "present")
        )


def test_generated_valid_messages_are_valid() -> None:
    for kind in field_bounds.RECORDS:
        for number in range(20):
            assert from_map(kind, to_map(valid(kind, random.Random(number)))) is not None
