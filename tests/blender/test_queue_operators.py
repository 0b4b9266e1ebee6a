# SPDX-License-Identifier: GPL-3.0-or-later
"""Priority, pin and the resumption of a failed job by the panel's buttons, against a fake server."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

bpy = pytest.importorskip("bpy")

from tests.testing.addon_driver import AddonDriver, why_not
from tests.testing.recording_layout import draw_all


def test_priority_changes_with_the_servers_answer(blender: AddonDriver, serve: Any) -> None:
    blender.connect(serve("--steps", "5000").address)
    job = blender.generate()
    assert bpy.ops.dreamwright.lower_priority(job=job) == {"FINISHED"}
    assert blender.session.jobs[job].priority == 0, "not before the server's answer"
    assert blender.poll(lambda: blender.session.jobs[job].priority == -1)
    assert "Priority -1" in draw_all(blender.module("panel"))
    assert bpy.ops.dreamwright.raise_priority() == {"FINISHED"}, "the chosen job"
    assert blender.poll(lambda: blender.session.jobs[job].priority == 0)
    assert not blender.session.notices


def test_admin_only_priority_is_refused(blender: AddonDriver, serve: Any) -> None:
    blender.connect(serve("--steps", "5000").address)
    job = blender.generate()
    assert bpy.ops.dreamwright.raise_priority() == {"FINISHED"}
    assert blender.poll(lambda: "ask an admin" in blender.notices())
    assert blender.session.jobs[job].priority == 0


def test_priority_buttons_are_disabled_with_a_reason(blender: AddonDriver, serve: Any) -> None:
    blender.connect(serve("--pace", "8").address)
    job = blender.finished()
    assert "has not ended" in why_not(lambda: bpy.ops.dreamwright.raise_priority(job=job))
    held = blender.session.jobs[job]
    lower = blender.module("queue_operators").DREAMWRIGHT_OT_lower_priority
    higher = blender.module("queue_operators").DREAMWRIGHT_OT_raise_priority
    assert "allowed are -10 to 10" in lower.fault(replace(held, state="queued", priority=-10))
    assert "allowed are -10 to 10" in higher.fault(replace(held, state="queued", priority=10))
    assert lower.fault(replace(held, state="queued", priority=10)) == ""
    assert bpy.ops.dreamwright.disconnect() == {"FINISHED"}
    for operator in (bpy.ops.dreamwright.raise_priority, bpy.ops.dreamwright.lower_priority, bpy.ops.dreamwright.pin):
        assert "Not connected" in why_not(operator)


def test_pin_and_unpin(blender: AddonDriver, serve: Any) -> None:
    blender.connect(serve("--pace", "8").address)
    job = blender.finished()
    assert bpy.ops.dreamwright.pin() == {"FINISHED"}
    assert not blender.session.jobs[job].pinned, "not before the server's answer"
    assert blender.poll(lambda: blender.session.jobs[job].pinned)
    assert "Kept until unpinned" in draw_all(blender.module("panel"))
    assert bpy.ops.dreamwright.pin(job=job, keep=False) == {"FINISHED"}
    assert blender.poll(lambda: not blender.session.jobs[job].pinned)
    assert "Kept until unpinned" not in draw_all(blender.module("panel"))


def test_failed_job_resumes_from_its_checkpoint(blender: AddonDriver, serve: Any) -> None:
    blender.connect(serve("--pace", "8", "--fail-at", "16").address)
    job = blender.generate()
    assert blender.poll(lambda: blender.session.jobs[job].state == "failed")
    assert any("out of memory; lower something" in text for text in draw_all(blender.module("panel")))
    assert bpy.ops.dreamwright.resume() == {"FINISHED"}
    assert blender.poll(lambda: blender.session.jobs[job].state == "succeeded")
    assert "Only a paused job can be resumed" in why_not(lambda: bpy.ops.dreamwright.resume(job=job))
    fits = blender.module("job_operators").DREAMWRIGHT_OT_resume.applies_to
    assert not fits(replace(blender.session.jobs[job], state="failed")), "one that left nothing to go on from"


def test_restarted_job_shows_the_cause(blender: AddonDriver, serve: Any) -> None:
    blender.connect(serve("--steps", "5000").address)
    job = blender.generate()
    trouble = blender.module("labels").error_text
    held = blender.session.jobs[job]
    assert trouble(held) == "" and trouble(replace(held, cause="hang")) == "Restarted: its worker hung"
    assert trouble(replace(held, state="failed", cause="hang")) == "", "then the sentence says it"
