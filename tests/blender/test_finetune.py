# SPDX-License-Identifier: GPL-3.0-or-later
"""Fine-tuning from Blender: from an object or from the list of jobs, and why it is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.testing.blender_reports import report_of, run_at_window
from tests.testing.blenders import Blender, run_script
from tests.testing.built_addon import Built

bpy = pytest.importorskip("bpy")

from tests.testing.addon_driver import AddonDriver, why_not

INSIDE = Path(__file__).parent / "scripts"


def new_job(blender: AddonDriver, known: set[str]) -> Any:
    """The one job that came since."""
    assert blender.poll(lambda: len(blender.session.jobs) > len(known) and not blender.session.pending), (
        blender.notices()
    )
    (name,) = set(blender.session.jobs) - known
    return blender.session.jobs[name]


def refuse(operator: Any, **how: Any) -> str:
    """What an operator that was called in vain reports."""
    with pytest.raises(RuntimeError) as caught:
        operator(**how)
    return str(caught.value)


def test_finetune_object_keeps_its_settings(blender: AddonDriver, serve: Any) -> None:
    blender.connect(serve("--pace", "50").address)
    panel = blender.panel
    panel.preset, panel.seed, panel.height_m, panel.triangles, panel.negative = "quick", 5, 0.25, 500, "blue"
    bpy.context.window_manager.dreamwright_settings.guidance__omega = 77
    made = blender.imported(blender.finished("a red chair"))
    panel.preset, panel.seed, panel.height_m, panel.triangles, panel.negative = "standard", 0, 1, 900, ""
    panel.settings_text = "{}"
    known = set(blender.session.jobs)
    assert bpy.ops.dreamwright.finetune_object(prompt="a blue\n chair") == {"FINISHED"}
    job = new_job(blender, known)
    assert (job.parent_job, job.prompt, job.negative, job.model, job.preset, job.seed) == (
        made["dreamwright_job"],
        "a blue chair",
        "blue",
        "starter",
        "quick",
        5,
    )
    assert job.settings == {
        "guidance.omega": 77,
        "mesh.height_m": 0.25,
        "mesh.triangles": 500,
        "run.finetune_share": 0.5,
    }
    assert panel.prompt == "", "the panel is left as it was"


def test_result_is_a_new_object_with_its_parent_job(blender: AddonDriver, serve: Any) -> None:
    blender.connect(serve("--pace", "50").address)
    first = blender.imported(blender.finished())
    assert "dreamwright_parent_job" not in first
    blender.panel.import_when_done = True
    assert bpy.ops.dreamwright.finetune_object(prompt="a blue mushroom") == {"FINISHED"}
    assert blender.poll(lambda: len(bpy.data.objects) == 2), blender.notices()
    second = next(one for one in bpy.data.objects if one != first)
    assert (second["dreamwright_parent_job"], second["dreamwright_prompt"]) == (
        first["dreamwright_job"],
        "a blue mushroom",
    )
    assert bpy.context.view_layer.objects.active == second and first.name in bpy.data.objects


def test_kept_share_from_script_panel_or_object(blender: AddonDriver, serve: Any) -> None:
    blender.connect(serve("--pace", "50").address)
    blender.imported(blender.finished())

    def share(**how: Any) -> float:
        known = set(blender.session.jobs)
        assert bpy.ops.dreamwright.finetune_object(prompt="a blue mushroom", **how) == {"FINISHED"}
        return new_job(blender, known).settings["run.finetune_share"]

    assert share() == 0.5
    assert share(share=0.3) == 0.3, "not 0.300000012, as 32 bits have it"
    bpy.context.window_manager.dreamwright_settings.run__finetune_share = 0.8
    assert share() == 0.8 and share(share=0) == 0
    bpy.context.object["dreamwright_settings"] = json.dumps({"run.finetune_share": 0.1})
    assert share() == 0.8
    bpy.context.window_manager.dreamwright_settings.run__finetune_share = 0.5
    assert share() == 0.1


def test_finetune_button_is_disabled_with_a_reason(blender: AddonDriver, serve: Any) -> None:
    operator = bpy.ops.dreamwright.finetune_object
    server = serve("--pace", "50")
    assert "not made by Dreamwright" in why_not(operator)
    blender.connect(server.address)
    assert "not made by Dreamwright" in why_not(operator)
    made = blender.imported(blender.finished())
    job = made["dreamwright_job"]
    assert operator.poll()
    blender.session.jobs[job] = replace(blender.session.jobs[job], has_field=False)
    assert "has not kept the field" in why_not(operator) and "generate it again" in why_not(operator)
    assert bpy.ops.dreamwright.delete_job(job=job) == {"FINISHED"}
    assert blender.poll(lambda: not blender.session.jobs)
    assert "no longer has the job" in why_not(operator)
    made["dreamwright_server"] = "tcp://192.0.2.1:47630"
    assert "was generated on the server at tcp://192.0.2.1:47630; connect to that server" in why_not(operator)
    bpy.ops.dreamwright.disconnect()
    assert "Not connected to a server" in why_not(operator)
    bpy.ops.mesh.primitive_cube_add()
    assert "not made by Dreamwright" in why_not(operator)


def test_finetune_of_a_job_beyond_the_list(blender: AddonDriver, serve: Any) -> None:
    blender.connect(serve("--pace", "50").address)
    job = blender.imported(blender.finished())["dreamwright_job"]
    summary = blender.session.jobs.pop(job)
    blender.session.jobs.update({f"other {n}": replace(summary, job=f"other {n}") for n in range(500)})
    known = set(blender.session.jobs)
    assert bpy.ops.dreamwright.finetune_object(prompt="a blue mushroom") == {"FINISHED"}
    assert blender.poll(lambda: any(job.parent_job for job in blender.session.jobs.values() if job.job not in known))


def test_empty_prompt_and_unknown_words_are_refused(blender: AddonDriver, serve: Any) -> None:
    blender.connect(serve("--pace", "50").address)
    blender.imported(blender.finished())
    assert "The prompt is empty" in refuse(bpy.ops.dreamwright.finetune_object, prompt=" \n ")
    assert "does not know 'purple'" in refuse(bpy.ops.dreamwright.finetune_object, prompt="a purple mushroom")
    assert len(blender.session.jobs) == 1 and not blender.session.pending


def test_finetune_job_without_its_object(blender: AddonDriver, serve: Any) -> None:
    blender.connect(serve("--pace", "50").address)
    blender.panel.seed = 7
    job = blender.finished()
    known = set(blender.session.jobs)
    assert bpy.ops.dreamwright.finetune_job(job=job, prompt="a blue mushroom", share=0.25) == {"FINISHED"}
    new = new_job(blender, known)
    assert (new.parent_job, new.prompt, new.seed, new.settings["run.finetune_share"]) == (
        job,
        "a blue mushroom",
        7,
        0.25,
    )
    assert blender.poll(lambda: blender.session.jobs[new.job].state == "succeeded")
    assert (
        blender.module("labels").details_text(blender.session.jobs[new.job], "a red mushroom")
        == "Fine-tuned from “a red mushroom”"
    )


def test_finetune_of_a_job_without_field_is_refused(blender: AddonDriver, serve: Any) -> None:
    blender.connect(serve("--steps", "5000").address)
    job = blender.generate()
    assert blender.poll(lambda: blender.session.jobs[job].state == "running")
    assert "Only an ended job" in refuse(bpy.ops.dreamwright.finetune_job, job=job, prompt="a blue mushroom")
    assert "has no job nobody" in refuse(bpy.ops.dreamwright.finetune_job, job="nobody", prompt="a blue mushroom")
    assert bpy.ops.dreamwright.cancel(job=job) == {"FINISHED"} and blender.poll(
        lambda: blender.session.jobs[job].state == "cancelled"
    )
    assert bpy.ops.dreamwright.finetune_job(prompt="a blue mushroom") == {"FINISHED"}, "the chosen one"


@pytest.mark.slow
def test_finetune_in_each_blender(blender_install: Blender, built: Built, serve: Callable[..., Any]) -> None:
    server = serve("--pace", "20")
    done = run_script(
        blender_install, INSIDE / "finetune_object.py", built.universal, {"SERVER": server.address}, timeout=200
    )
    report = report_of(done)
    assert "Traceback" not in done.stdout + done.stderr
    first, second = report["jobs"]
    assert report["refined"] == [
        "a blue mushroom",
        first,
        {"mesh.height_m": 1.0, "mesh.triangles": 20000, "run.finetune_share": 0.25},
    ]
    assert report["objects"] == [[first, None], [second, first]]
    assert "not made by Dreamwright" in report["greyed"]


@pytest.mark.slow
def test_finetune_dialog_in_a_window(built: Built, serve: Callable[..., Any], tmp_path: Path) -> None:
    server = serve("--pace", "20")
    report = run_at_window("finetune_in_window.py", built.universal, "refining", {"SERVER": server.address}).report
    assert report["by object"] == ["a red mushroom", report["first"], 0.5], (
        "the dialog began with the object's own prompt"
    )
    assert report["by job"] == ["a red mushroom", report["first"], 0.5], "so did that of the button beside Import"
