# SPDX-License-Identifier: GPL-3.0-or-later
"""The status table shows every number, in a terminal of any size."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dreamwright.backend.cli import status_table
from dreamwright.shared.status import DeviceStatus, JobStatus, ServerStatus, UserStatus
from tests.testing.status_tables import rendered_table

STATUS = ServerStatus(
    "dreamwright 1",
    True,
    False,
    3700.0,
    3,
    123_456_789,
    10**12,
    (
        DeviceStatus("cuda:0", "busy", "abcdef0123456789", "anna", 3.21, 0.4),
        DeviceStatus("cuda:1", "idle", "", "", 0.0, -1.0),
    ),
    (
        JobStatus("abcdef0123456789", "anna", "running", 0, 30, 100, 12.0, "cuda:0", 0, 1),
        JobStatus("bbcdef0123456789", "bert", "queued", 1, 0, 100, -1.0, "", -3, 0),
    ),
    (UserStatus("anna", 1, 0, 0, 1, 2.0), UserStatus("bert", 0, 1, 0, 0, -1.0)),
    2,
    2,
)


def test_table_shows_every_number() -> None:
    words = [line.split() for line in rendered_table(STATUS).splitlines()]
    assert "up 1h01m" in rendered_table(STATUS) and "disk 123.5 MB used, 1.0 TB free" in rendered_table(STATUS)
    assert ["cuda:0", "busy", "abcdef0123456789", "anna", "3.21", "0s"] in words and [
        "cuda:1",
        "idle",
        "-",
        "-",
        "-",
        "-",
    ] in words
    assert ["abcdef0123456789", "anna", "running", "-", "30/100", "12s", "cuda:0", "0"] in words
    assert ["bbcdef0123456789", "bert", "queued", "1", "0/100", "-", "-", "-3"] in words
    assert ["anna", "1", "0", "0", "1", "now"] in words and ["bert", "0", "1", "0", "0", "-"] in words


@given(st.integers(10, 200), st.integers(5, 80), st.text(max_size=30), st.text(max_size=30))
@settings(max_examples=60, deadline=None)
def test_table_draws_any_text_at_any_width(width: int, height: int, name: str, software: str) -> None:
    status = dataclasses.replace(
        STATUS,
        software=software + "\x1b[2J",
        users=(dataclasses.replace(STATUS.users[0], name=name + "\x1b]0;x\x07[bold]"),),
    )
    written = rendered_table(status, width, height)
    assert all(character.isprintable() or character == "\n" for character in written)
    assert all(len(line) <= 2 * width for line in written.splitlines())


@pytest.mark.parametrize(
    ("seconds", "words"), [(-1, "-"), (0, "0s"), (59.4, "59s"), (60, "1m00s"), (3599.6, "1h00m"), (90_000, "1d01h")]
)
def test_times_have_at_most_two_units(seconds: float, words: str) -> None:
    assert status_table.format_duration(seconds) == words
