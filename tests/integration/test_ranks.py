# SPDX-License-Identifier: GPL-3.0-or-later
"""Several ranks of one job (gloo, two processes): equal to one process, and never waiting for an exited rank."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from dreamwright.backend.errors import ConfigError
from dreamwright.backend.runtime.distributed import (
    TorchProcessGroup,
    is_distributed,
    is_main_process,
    process_group,
    rank_device,
)
from dreamwright.backend.runtime.rng import PerViewGenerator, sample_for_views
from dreamwright.backend.training.checkpoints import NEWEST, read_checkpoint, write_checkpoint
from dreamwright.backend.training.events import Checkpoint, StepCompleted
from tests.testing.rank_scenarios import busy_job, free_port, ranks_run, run_of
from tests.testing.tiny_model import QUICK, save_tiny_model


def steps_of(records: dict) -> list[int]:
    return [step for name, step, _ in records["events"] if name == "StepCompleted"]


def names_of(records: dict) -> list[str]:
    return [name for name, _, _ in records["events"]]


def assert_identical(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> None:
    """All tensors of two states are bitwise equal."""
    assert a.keys() == b.keys()
    assert [name for name in a if not torch.equal(a[name], b[name])] == []


def run_alone(*settings: str, **options: Any) -> dict[str, torch.Tensor]:
    """The final state of one process with the same job."""
    run = run_of(busy_job(*settings).config, **options)
    for _ in run:
        pass
    return run.scene.state().tensors


# One view at a time has the kernels, shapes and order of sums of two ranks with one view each: (g1 + g2) / 2 both
# times. Halving is exact, so states agree to the bit on any processor, whatever an optimizer makes of rounding.
# (Shampoo's root of A + epsilon |A| enlarges a relative error d of A to d / (2 epsilon): half a million times at its
# epsilon of 1e-6.)
SINGLY = "run.views_at_once=1"
TIMEOUT_S = 60.0  # of the process group in `one_rank`; a failure that is noticed ends the others before it


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", ["adam", "shampoo"])
def test_two_ranks_equal_one_process(optimizer: str, tmp_path: Path) -> None:
    """Weights, optimizer state, occupancy and random streams after six steps, and the figures of each step."""
    settings = (f"optimizer.kind={optimizer}", SINGLY)
    records = ranks_run(tmp_path, *settings)
    assert [t["error"] for t in records] == ["", ""]
    run = run_of(busy_job(*settings).config)
    figures = [event.scalars for event in run if isinstance(event, StepCompleted)]
    for rank in range(2):
        assert_identical(load_file(tmp_path / f"{rank}.safetensors"), run.scene.state().tensors)
    theirs = [detail["scalars"] for name, _, detail in records[0]["events"] if name == "StepCompleted"]
    for ours, other in zip(figures, theirs, strict=True):
        for name in ("t", "gradient_norm", "opacity", "samples"):
            # Means of two float32 figures, taken in another order: a few roundings of 6e-8.
            assert other[name] == pytest.approx(ours[name], rel=1e-6), name


@pytest.mark.parametrize("noises", [1, 3])
def test_gradient_is_independent_of_view_grouping(noises: int, tmp_path: Path) -> None:
    """Four views: two ranks with two each, rendered singly, against one process that renders all four together.

    After one step Adam's exp_avg is (1 - beta1) times the gradient. An entry is a float32 sum of at most 4 views x 16 x
    16 pixels x 16 samples = 16,384 terms, so the order of the sum changes it by at most 16,384 x 6e-8 = 1e-3 of the
    largest.
    """
    settings = ("run.views_per_step=4", "run.steps=1", "optimizer.kind=adam", f"guidance.noises={noises}")
    records = ranks_run(tmp_path, *settings, SINGLY)
    assert [t["error"] for t in records] == ["", ""]
    together, singly = run_alone(*settings), load_file(tmp_path / "1.safetensors")
    names = [name for name in together if name.endswith(".exp_avg")]
    assert len(names) > 4
    for name in names:
        assert float((singly[name] - together[name]).abs().max()) <= 1e-3 * float(together[name].abs().max()), name
    for name in ("cameras", "looks", "noise", "jitter"):
        assert torch.equal(singly[f"stream.{name}"], together[f"stream.{name}"]), name


def test_ranks_stop_together_and_resume_in_one_process(tmp_path: Path) -> None:
    """Also the reverse. The final state is bitwise equal to that of an uninterrupted run."""
    settings = ("run.checkpoint_interval=100", SINGLY)
    records = ranks_run(tmp_path, *settings, stop=(3, 1))  # the rank that requests the stop is not the main one
    assert [steps_of(t) for t in records] == [[1, 2, 3]] * 2
    assert [t["events"][-1] for t in records] == [["Finished", 3, {"complete": False}]] * 2
    assert "Checkpoint" in names_of(records[0]) and "Checkpoint" not in names_of(records[1])
    job = busy_job(*settings)
    expected = run_alone(*settings)
    assert_identical(run_alone(*settings, resume=read_checkpoint(tmp_path / "work", job).state), expected)

    half = run_of(job.config, should_stop=lambda: half.scene.step == 2)
    for event in half:
        if isinstance(event, Checkpoint):
            write_checkpoint(tmp_path / "work", job, event.state)
    records = ranks_run(tmp_path, *settings, resume=True)
    assert [(t["error"], steps_of(t)) for t in records] == [("", [3, 4, 5, 6])] * 2
    assert_identical(load_file(tmp_path / "1.safetensors"), expected)


def test_ranks_share_the_stage_after_the_field(tmp_path: Path) -> None:
    """The main rank makes mesh and texture for both; they end alike to the bit, and as one process does up to rounding.

    The stage's first step has a rate of 0, so the gradients of both its steps are taken at one and the same mesh. One
    entry is a float32 sum over at most 2 views x 32 x 32 samples = 2,048 terms, taken in another order: 2,048 x 6e-8 =
    1.2e-4 of the largest entry, which the largest also divides.
    """
    settings = ("surface.steps=2", "surface.color_rate=0.1", "surface.texture_rate=0.1", "mesh.texture=64", SINGLY)
    records = ranks_run(tmp_path, *settings)
    assert [(t["error"], steps_of(t)) for t in records] == [("", list(range(1, 9)))] * 2
    first, second = (load_file(tmp_path / f"{rank}.safetensors") for rank in range(2))
    assert_identical(first, second)
    alone = run_alone(*settings)
    for name in ("vertices", "uv", "corners", "texels"):
        assert torch.equal(first[f"surface.mesh.{name}"], alone[f"surface.mesh.{name}"])
    moments = (f"optimizer.{index}.exp_avg" for index in range(3))
    for name in ("vertex_offsets", "color_offsets", "texel_offsets", *moments):
        expected = alone[f"surface.{name}"]
        largest = float(expected.abs().max())
        assert largest > 0 and float((first[f"surface.{name}"] - expected).abs().max()) <= 1e-3 * largest, name


def test_only_the_main_rank_previews_and_checkpoints(tmp_path: Path) -> None:
    first, second = ranks_run(tmp_path)
    assert {"Preview", "Checkpoint", "Health"} <= set(names_of(first))
    assert set(names_of(second)) == {"StepCompleted", "Health", "Finished"}
    verdicts = [[d["verdict"] for name, _, d in t["events"] if name == "Health"] for t in (first, second)]
    assert verdicts[0] == verdicts[1] != []


def test_nan_on_one_rank_restarts_all(tmp_path: Path) -> None:
    """After steps 1 to 4 the other rank gets a NaN gradient."""
    records = ranks_run(tmp_path, fault=("nan", 5, 1))
    seeds = [[d["new_seed"] for name, _, d in t["events"] if name == "Restarted"] for t in records]
    assert seeds[0] == seeds[1] and len(seeds[0]) == 1
    assert [steps_of(t) for t in records] == [[1, 2, 3, 4, 1, 2, 3, 4, 5, 6]] * 2
    first, second = (load_file(tmp_path / f"{rank}.safetensors") for rank in range(2))
    assert all(torch.equal(first[name], second[name]) and bool(first[name].isfinite().all()) for name in first)


@pytest.mark.parametrize("broken", [0, 1])
def test_failure_of_one_rank_ends_the_others(broken: int, tmp_path: Path) -> None:
    records = ranks_run(tmp_path, fault=("error", 3, broken))
    assert records[broken]["error"] == "RunError: injected fault"
    assert "another rank failed" in records[1 - broken]["error"] and "--resume" in records[1 - broken]["error"]
    assert steps_of(records[1 - broken]) == [1, 2] and records[1 - broken]["seconds"] < TIMEOUT_S


def test_death_of_one_rank_ends_the_others(tmp_path: Path) -> None:
    records = ranks_run(tmp_path, fault=("death", 3, 1))
    assert records[1] == {} and "another rank ended" in records[0]["error"] and "\n" not in records[0]["error"]
    assert records[0]["seconds"] < TIMEOUT_S


def test_unresponsive_rank_times_out(tmp_path: Path) -> None:
    records = ranks_run(tmp_path, fault=("silence", 2, 1), timeout=4.0)
    assert "silent for 4 s" in records[0]["error"] and records[0]["seconds"] < TIMEOUT_S


def test_ranks_with_different_jobs_are_refused(tmp_path: Path) -> None:
    records = ranks_run(tmp_path, **{"settings of 1": ("guidance.omega=7",)})
    assert all("not given one and the same job" in t["error"] and t["events"] == [] for t in records)


def test_views_that_do_not_divide_are_refused(tmp_path: Path) -> None:
    records = ranks_run(tmp_path, "run.views_per_step=3")
    assert all(
        t["error"].startswith("ConfigError: run.views_per_step is 3") and "run.views_per_step=4" in t["error"]
        for t in records
    )


def test_generator_draws_the_rows_of_its_views() -> None:
    whole = torch.Generator().manual_seed(5)
    halves = [PerViewGenerator.of(4, slice(2 * rank, 2 * rank + 2), 5) for rank in range(2)]
    for sample, shape in ((torch.rand, ()), (torch.randn, (3, 5)), (torch.rand, (2,))):
        parts = [sample_for_views(sample, (2, *shape), half) for half in halves]
        assert torch.equal(torch.cat(parts), sample_for_views(sample, (4, *shape), whole))
    with pytest.raises(ValueError, match="3 rows"):
        sample_for_views(torch.rand, (3,), halves[0])


def test_average_gradients_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    """The second rank, simulated by the all-reduce, has gradients of 3 for a and c, none for b and d."""
    from torch import distributed

    group = TorchProcessGroup.__new__(TorchProcessGroup)
    group.rank, group.world_size, group.is_main, group.timeout_s = 0, 2, True, 1.0
    a, b, c, d = (torch.nn.Parameter(torch.zeros(2)) for _ in range(4))
    a.grad, b.grad = torch.tensor([1.0, 2.0]), torch.tensor([4.0, 6.0])
    other = torch.tensor([3.0, 3, 0, 0, 3, 3, 0, 0, 1, 0, 1, 0])
    monkeypatch.setattr(distributed, "all_reduce", lambda flat: flat.add_(other))
    group.average_gradients([a, b, c, d])
    assert (
        a.grad.tolist() == [2.0, 2.5]
        and b.grad.tolist() == [2.0, 3.0]
        and c.grad.tolist() == [1.5, 1.5]
        and d.grad is None
    )


def test_process_without_torchrun_is_single(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("WORLD_SIZE", "4")  # as set by some clusters
    assert not is_distributed() and is_main_process()
    assert rank_device(torch.device("cuda")) == torch.device("cuda")
    with process_group(torch.device("cpu")) as group:
        assert group.world_size == 1 and group.local_views(7) == slice(0, 7)


def test_each_rank_takes_its_own_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (
        ("RANK", "3"),
        ("WORLD_SIZE", "4"),
        ("LOCAL_RANK", "3"),
        ("MASTER_ADDR", "x"),
        ("MASTER_PORT", "1"),
    ):
        monkeypatch.setenv(name, value)
    chosen: list[int] = []
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    assert rank_device(torch.device("cuda")) == torch.device("cuda:3") and chosen == [3] and not is_main_process()
    assert rank_device(torch.device("cpu")) == torch.device("cpu")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(ConfigError, match="nproc-per-node"):
        rank_device(torch.device("cuda"))


@pytest.mark.slow
def test_ctrl_c_on_torchrun_keeps_checkpoint_and_mesh(tmp_path: Path) -> None:
    """The documented command with a tiny model. The terminal's signal goes to torchrun only."""
    model, out = save_tiny_model(tmp_path / "tiny"), tmp_path / "prop.glb"
    endless = [setting for setting in QUICK if not setting.startswith(("run.steps", "run.checkpoint_interval"))]
    settings = [f"--set={setting}" for setting in (*endless, "run.views_per_step=2", "run.preview_interval=2")]
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--nproc-per-node",
        "2",
        "--master-port",
        str(free_port()),
        "-m",
        "dreamwright.backend.cli.main",
        "generate",
        "a red mushroom",
        "--model",
        str(model),
        "--out",
        str(out),
        "--previews",
        str(tmp_path / "seen"),
        "--steps",
        "100000",
        *settings,
    ]
    with (
        (tmp_path / "log").open("w") as log,
        subprocess.Popen(command, stdout=log, stderr=log, env={**os.environ, "OMP_NUM_THREADS": "1"}) as torchrun,
    ):
        deadline = time.monotonic() + 200
        while not (tmp_path / "seen" / "step-000002.png").is_file():
            assert torchrun.poll() is None and time.monotonic() < deadline, (tmp_path / "log").read_text()[-2000:]
            time.sleep(0.2)
        torchrun.send_signal(signal.SIGINT)
        torchrun.wait(60)
    text = (tmp_path / "log").read_text()
    assert text.count("stopping after this step") == 1 and "continue with the same command and --resume" in text, text[
        -2000:
    ]
    assert out.is_file() and (tmp_path / "prop.glb.work" / NEWEST).is_file()
