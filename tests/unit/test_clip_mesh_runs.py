# SPDX-License-Identifier: GPL-3.0-or-later
"""Whole clip-mesh runs on a tiny CLIP: progress, resumption, stopping and the written prop."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from dreamwright.backend.cli.main import main
from dreamwright.backend.geometry.topology import (
    Surface,
    is_manifold,
    signed_volume,
)
from dreamwright.backend.training.checkpoints import read_checkpoint, write_checkpoint
from dreamwright.backend.training.events import Checkpoint, Finished, Health, Preview, StepCompleted
from dreamwright.backend.training.job import make_job
from dreamwright.backend.training.pipeline import TextTo3DPipeline
from tests.testing.clip_mesh_runs import PROMPT, QUICK, quick_clip_mesh


@pytest.mark.slow
def test_run_raises_the_cosine_and_resumes_bitwise(clip_folder: Path, tmp_path: Path) -> None:
    job = make_job(
        PROMPT,
        str(clip_folder),
        "clip-mesh",
        quick_clip_mesh("run.steps=30", "run.checkpoint_interval=10", "run.preview_interval=15"),
    )
    whole, cosines, states, events = TextTo3DPipeline(job, "cpu", None, lambda: False), [], {}, []
    for event in whole.events():
        events.append(event)
        if isinstance(event, StepCompleted):
            cosines.append(event.scalars["cosine"])
        if isinstance(event, Checkpoint):
            states[event.state.step] = event.state
    assert np.mean(cosines[-5:]) > np.mean(cosines[:5])
    assert [e.step for e in events if isinstance(e, Preview)] == [15, 30] and any(isinstance(e, Health) for e in events)
    assert events[-1] == Finished(30, True, 0) and sorted(states) == [10, 20, 30]
    write_checkpoint(tmp_path, job, states[10])
    resumed = TextTo3DPipeline(job, "cpu", read_checkpoint(tmp_path, job).state, lambda: False)
    last = [event.state for event in resumed.events() if isinstance(event, Checkpoint)][-1]
    for name, value in states[30].tensors.items():
        assert value.equal(last.tensors[name]), name
    (one, report), (other, _) = whole.mesh(), resumed.mesh()
    assert np.array_equal(one.vertices, other.vertices) and np.array_equal(one.albedo, other.albedo)
    assert is_manifold(one.faces) and report.watertight and report.components == 1 and 0 <= report.folded < 1
    # Vertices are stored in float32.
    assert (
        signed_volume(Surface(one.vertices.astype(float), one.faces)) == pytest.approx(report.volume, rel=1e-3)
        and report.volume > 0
    )
    # Vertices are float32.
    assert float(np.ptp(one.vertices[:, 2])) == pytest.approx(1.0, abs=1e-5), "mesh.height_m"


def test_stopped_run_has_a_mesh(clip_folder: Path) -> None:
    stops: list[bool] = []
    pipeline = TextTo3DPipeline(
        make_job(PROMPT, str(clip_folder), "clip-mesh", quick_clip_mesh()), "cpu", None, lambda: bool(stops)
    )
    events = []
    for event in pipeline.events():
        events.append(event)
        if isinstance(event, StepCompleted) and event.step == 3:
            stops.append(True)
    assert isinstance(events[-2], Checkpoint) and events[-2].state.step == 3 == pipeline.step
    assert events[-1] == Finished(3, False, 0) and len(pipeline.mesh()[0].faces) == 320


def arguments(clip_folder: Path, out: Path, *extra: str) -> list[str]:
    settings = [part for setting in QUICK for part in ("--set", setting)]
    return [
        "generate",
        PROMPT,
        "--method",
        "clip-mesh",
        "--model",
        str(clip_folder),
        "--out",
        str(out),
        "--device",
        "cpu",
        *settings,
        *extra,
    ]


@pytest.mark.parametrize("suffix", [".glb", ".ply", ".obj"])
@pytest.mark.slow
def test_generate_writes_prop_facts_and_turntable(
    suffix: str, clip_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / f"prop{suffix}"
    assert (
        main(arguments(clip_folder, out, "--previews", str(tmp_path / "previews"), "--seed", "3", "--negative", "blue"))
        == 0
    )
    output = capsys.readouterr()
    assert "320 triangles, 162 vertices, watertight" in output.out and "% of the faces folded over" in output.out
    assert "clip-mesh has no use for a negative prompt" in output.err and "a sphere of 162 vertices" in output.err
    assert (tmp_path / "previews" / "turntable.png").is_file() and (tmp_path / "previews" / "step-000003.png").is_file()
    written = out.read_bytes().replace(b" ", b"").replace(b'\\"', b'"')
    assert (b'"method":"clip-mesh"' if suffix == ".glb" else b'method:"clip-mesh"') in written
    assert not out.with_name(out.name + ".work").exists()
