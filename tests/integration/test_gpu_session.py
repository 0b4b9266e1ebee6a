# SPDX-License-Identifier: GPL-3.0-or-later
"""The GPU session: parts keep their limits, later ones follow failed ones, and the section says what was measured."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
import time
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))  # scripts, not a package

import gpu_session
import gpu_wheels
import session_parts
import session_section

REPORT = """<testsuites><testsuite>
<testcase classname="a" name="passes"/><testcase classname="a" name="fails"><failure message="no"/></testcase>
<testcase classname="a" name="skips"><skipped message="no nvcc"/></testcase>
<testcase classname="b" name="skips"><skipped message="no nvcc"/></testcase></testsuite></testsuites>"""


def figures(case: str, model: str, **changes: Any) -> dict[str, Any]:
    """Figures of a case as gpu_step.py writes them; by default every target is met."""
    parts = dict.fromkeys(session_section.HEADS[6:11], 0.01)
    timings = {"forward": 0.1, "step": 0.12, "run": 1199.0, "parts": parts, "peak": int(4.9e9)}
    whole = {"case": case, "model": model, **timings, "views": 1, "rows": 2, "weights": 10**9, "ratio": 1.2}
    return {**whole, **changes}


def verdicts(*steps: dict[str, Any]) -> list[str]:
    return [line.strip("| ").split(" | ")[-1] for line in session_section.bars(steps, False)[2:]]


def test_verdicts_are_those_of_the_targets() -> None:
    good = figures("if-xl", "if-xl"), figures("sd-1.5", "sd-1.5")
    assert verdicts(*good) == ["met", "met", "met"]
    missed = figures("if-xl", "if-xl", ratio=1.26, run=1200.0), figures("sd-1.5", "sd-1.5", peak=int(5.1e9))
    assert verdicts(*missed) == ["**missed**"] * 3
    assert verdicts({"case": "if-xl", "model": "if-xl", "error": "out of memory"}) == ["not measured"] * 3


def test_a_part_over_its_limit_is_ended_with_its_children(tmp_path: Path) -> None:
    """The child would write its file after two seconds; it is ended after half a second."""
    late, child = tmp_path / "late", "import sys, time; time.sleep(2); open(sys.argv[1], 'w')"
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}, {str(late)!r}])"
    outcome = session_parts.run_part("slow", [sys.executable, "-c", parent], 0.5, tmp_path / "log")
    assert outcome.fault == "ended at its limit of 0 s" and outcome.seconds < session_parts.GRACE
    time.sleep(2)
    assert not late.exists()


def test_figures_of_tests_and_training(tmp_path: Path) -> None:
    report = tmp_path / "report.xml"
    assert session_parts.read_tests(report) == session_parts.Counts()
    report.write_text(REPORT)
    assert session_parts.read_tests(report) == session_parts.Counts(1, ("a::fails",), {"no nvcc": 2})
    (tmp_path / "log").write_text(
        "step 100 images 6400 loss 0.5 80.1/s, 1.0 min left\nstep 200 images 9 loss 0.25 90.0/s\n"
    )
    assert session_parts.read_training(tmp_path / "log") == (200, 9, 0.25, 90.0)
    assert session_parts.read_training(tmp_path / "none") is None


def write_json(path: Path, content: object) -> list[str]:
    return [sys.executable, "-c", f"open({str(path)!r}, 'w').write({json.dumps(content)!r})"]


def test_parts_follow_a_failed_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Real processes in place of the parts: tests fail, steps write figures, and there is no data to train on."""
    failing = [sys.executable, "-c", "raise SystemExit(3)"]
    monkeypatch.setattr(gpu_session, "gpu_tests_command", lambda report: failing)
    monkeypatch.setattr(
        gpu_session, "step_command", lambda report, tiny: write_json(report, [figures("sd-1.5", "sd-1.5")])
    )
    monkeypatch.setattr(gpu_session, "starter_command", lambda out, tiny: [sys.executable, "-c", "pass"])
    monkeypatch.setattr(gpu_session, "training_data", lambda options, work: None)
    arguments = ["--tiny", "--out", str(tmp_path / "out"), "--work", str(tmp_path / "work"), "--commit", "abc"]
    monkeypatch.setattr(sys, "argv", ["gpu_session.py", *arguments])
    with pytest.raises(SystemExit) as stopped:
        gpu_session.main()
    assert stopped.value.code == 1
    text = (tmp_path / "out" / "section.md").read_text()
    assert text in capsys.readouterr().out and "commit abc" in text
    results = dict(line.strip("| ").split(" | ")[::2] for line in text.splitlines() if line.startswith(("| t", "| st")))
    assert (results["tests"], results["steps"], results["starter"]) == ("exit status 3", "done", "done")
    assert results["training"].startswith("not run: no images")
    assert "| sd-1.5, 1000 M |" in text
    saved = json.loads((tmp_path / "out" / "figures.json").read_text())
    assert [part["name"] for part in saved["parts"]] == ["tests", "steps", "starter", "training"]


def test_bad_arguments_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_session.torch.cuda, "is_available", lambda: False)
    for arguments, message in (([], "--tiny"), (["--minutes", "0"], "--minutes 0"), (["--data", "."], "shard")):
        monkeypatch.setattr(sys, "argv", ["gpu_session.py", *arguments])
        monkeypatch.chdir(tmp_path)
        with pytest.raises(SystemExit, match=message):
            gpu_session.main()


def test_weights_come_back_in_pieces(tmp_path: Path) -> None:
    folder = tmp_path / "trained"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(os.urandom(5000))
    count = gpu_session.split_archive(folder, tmp_path, piece=1024)
    pieces = sorted(tmp_path.glob("weights.tar.*"))
    assert count == len(pieces) > 4 and all(piece.stat().st_size <= 1024 for piece in pieces)
    with tarfile.open(fileobj=BytesIO(b"".join(piece.read_bytes() for piece in pieces))) as archive:
        packed = archive.extractfile("weights/model.safetensors")
        assert packed is not None and packed.read() == (folder / "model.safetensors").read_bytes()


def test_wheels_are_of_all_that_is_needed_but_torch() -> None:
    packages = gpu_wheels.needed("3.12")
    assert {"diffusers", "nerfacc", "trimesh", "hypothesis", "importlib-metadata"} <= set(packages)
    assert "torch" not in packages and not any(name.startswith("nvidia") for name in packages)


def test_rare_wheels_come_first() -> None:
    """numpy is in every image with torch, so it is left out although it alone would fit beside nerfacc."""
    sizes = {"numpy": 5, "nerfacc": 1, "diffusers": 6, "tqdm": 2}
    assert gpu_wheels.chosen(sizes, 9) == ["nerfacc", "diffusers", "tqdm"]
    assert gpu_wheels.chosen(sizes, 6) == ["nerfacc", "tqdm"] and gpu_wheels.chosen(sizes, 0) == []


def test_what_a_machine_has_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    calls: list[list[str]] = []

    def pip(command: list[str]) -> subprocess.CompletedProcess[str]:
        calls.append(command)
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(gpu_wheels.subprocess, "run", pip)
    monkeypatch.setattr(gpu_wheels, "installed", {"numpy": "2.5.2", "diffusers": "0.20", "scipy": "1.15"}.get)
    monkeypatch.setattr(gpu_wheels.importlib.util, "find_spec", lambda name: None)
    for name in ("numpy-1.26.4-py3", "diffusers-0.42.1-py3", "nerfacc-0.5.3-py3", "xatlas-0.0.11-cp27"):
        (tmp_path / f"{name}-none-any.whl").touch()
    (tmp_path / gpu_wheels.LEFT_OUT).write_text("transformers 5.23.0: 12.7 MiB, left out\n")
    target = tmp_path / "site"
    gpu_wheels.install(tmp_path, target)
    (command,) = calls
    brought = [Path(argument).name for argument in command if argument.endswith(".whl")]
    assert brought == ["diffusers-0.42.1-py3-none-any.whl", "nerfacc-0.5.3-py3-none-any.whl"]
    assert "--no-index" in command and "--no-deps" in command
    said = capsys.readouterr().out
    assert "diffusers 0.42.1, instead of 0.20" in said and "xatlas-0.0.11-cp27-none-any.whl is not for" in said
    assert "missing: transformers 5.23.0: 12.7 MiB, left out" in said
    assert (target / "dreamwright" / "backend").resolve() == ROOT / "backend"


@pytest.mark.slow
@pytest.mark.timeout(600)  # the starter's U-Net of 9 million weights, trained for three seconds and loaded again
def test_training_goes_on_from_the_weights_that_ship(tmp_path: Path) -> None:
    """Two records of four views of noise; the exported folder has the layout of the starter's."""
    data = gpu_session.training_data(SimpleNamespace(data=None, tiny=True), tmp_path)
    assert data is not None
    weights, log = tmp_path / "weights", tmp_path / "log"
    command = session_parts.training_command(data, tmp_path / "training", weights, 0.05, tiny=True)
    outcome = session_parts.run_part("training", command, 500, log)
    assert outcome.fault == "", log.read_text()
    assert "started from backend/starter/weights" in log.read_text()
    shipped = ROOT / "backend" / "starter" / "weights"
    kept = {path.relative_to(weights) for path in weights.rglob("*.safetensors")}
    assert kept == {path.relative_to(shipped) for path in shipped.rglob("*.safetensors")}
    assert (tmp_path / "training" / "training.safetensors").is_file()


@pytest.mark.slow
@pytest.mark.timeout(600)  # a job of two steps with the starter's U-Net, and its measurement
def test_starter_part_writes_its_table(tmp_path: Path) -> None:
    log = tmp_path / "log"
    outcome = session_parts.run_part("starter", session_parts.starter_command(tmp_path, tiny=True), 500, log)
    assert outcome.fault == "", log.read_text()
    assert "| a red mushroom | 0 |" in (tmp_path / "evaluation.md").read_text()
