# SPDX-License-Identifier: GPL-3.0-or-later
"""Each end of an attempt has one cause, and one table decides about the retry."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dreamwright.backend.config.parsing import apply_settings
from dreamwright.backend.errors import (
    CheckpointError,
    ConfigError,
    InsufficientMemoryError,
    ModelError,
    NonFiniteError,
    OutOfMemoryError,
    PromptError,
    RunError,
)
from dreamwright.backend.scenes.views import split_views
from dreamwright.backend.server.workers.failure_policy import (
    ADVICE,
    FAILURE_ACTIONS,
    FailureAction,
    FailureCause,
    classify,
    classify_status,
    decide,
    describe,
    memory_notice,
    reduce_memory_settings,
)
from dreamwright.backend.server.workers.oom import oom_kills
from dreamwright.backend.training.job import make_job
from dreamwright.shared.failure_causes import CAUSE_DESCRIPTIONS
from tests.testing.tiny_model import quick_config


class AcceleratorError(RuntimeError):
    """As torch names it from 2.8 on."""


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (MemoryError(), FailureCause.MEMORY),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."), FailureCause.MEMORY),
        (OutOfMemoryError("out of memory after step 2"), FailureCause.MEMORY),
        (InsufficientMemoryError("this run needs about 9 GB"), FailureCause.MEMORY),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"), FailureCause.MEMORY),
        (AcceleratorError("CUDA error: out of memory"), FailureCause.MEMORY),
        (
            RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
            FailureCause.MEMORY,
        ),
        (AcceleratorError("CUDA error: an illegal memory access was encountered"), FailureCause.DEVICE_FAULT),
        (RuntimeError("CUDA error: device-side assert triggered"), FailureCause.DEVICE_FAULT),
        (NonFiniteError("the run went diverged"), FailureCause.NOT_A_NUMBER),
        (RunError("the run went empty"), FailureCause.RUN_FAILED),
        (CheckpointError("cannot write"), FailureCause.RUN_FAILED),
        (ConfigError("run.steps is -1"), FailureCause.BAD_INPUT),
        (PromptError("no such word"), FailureCause.BAD_INPUT),
        (ModelError("no such model"), FailureCause.BAD_INPUT),
        (ValueError("out of memory"), FailureCause.FAULT),
        (RuntimeError("shape mismatch"), FailureCause.FAULT),
    ],
)
def test_each_error_has_one_cause(error: Exception, cause: FailureCause) -> None:
    assert classify(error) is cause
    assert str(error).splitlines()[0:1] == [] or str(error).splitlines()[0] in describe(error, cause)


@pytest.mark.parametrize(
    ("status", "memory_exhausted", "cause", "expected"),
    [
        (-signal.SIGKILL, False, FailureCause.KILLED, "SIGKILL"),
        (-signal.SIGKILL, True, FailureCause.MACHINE_MEMORY, "out of memory"),
        (-signal.SIGTERM, True, FailureCause.KILLED, "SIGTERM"),
        (-signal.SIGSEGV, True, FailureCause.CRASHED, "SIGSEGV"),
        (-signal.SIGABRT, False, FailureCause.CRASHED, "SIGABRT"),
        (-signal.SIGBUS, False, FailureCause.CRASHED, "SIGBUS"),
        (-126, False, FailureCause.KILLED, "signal 126"),
        (1, True, FailureCause.CRASHED, "status 1"),
        (0, False, FailureCause.CRASHED, "status 0"),
    ],
)
def test_each_exit_status_has_one_cause(
    status: int, memory_exhausted: bool, cause: FailureCause, expected: str
) -> None:
    found, words = classify_status(status, memory_exhausted)
    assert found is cause and expected in words


def test_every_cause_has_a_policy_and_advice() -> None:
    assert set(FAILURE_ACTIONS) == set(FailureCause) == set(CAUSE_DESCRIPTIONS)
    assert set(ADVICE) == {cause for cause, remedies in FAILURE_ACTIONS.items() if FailureAction.RETRY in remedies}


@given(st.sampled_from(list(FailureCause)), st.integers(1, 8), st.integers(1, 8), st.booleans())
def test_retries_are_limited_by_cause(cause: FailureCause, attempts: int, limit: int, can_shrink: bool) -> None:
    lower = {"run.views_at_once": "1"} if can_shrink else {}
    verdict = decide(cause, "it broke", attempts, limit, lower, "/logs")
    counted = FailureAction.RETRY in FAILURE_ACTIONS[cause] and attempts < limit
    shrunk = cause in (FailureCause.MEMORY, FailureCause.MACHINE_MEMORY) and can_shrink
    assert verdict.retry == (counted or shrunk) and verdict.settings == (lower if shrunk else {})
    assert verdict.message.startswith("it broke")
    assert ("run.views_at_once=1" in verdict.message) == shrunk
    if not verdict.retry and FailureAction.RETRY in FAILURE_ACTIONS[cause]:
        assert f"{attempts} times" in verdict.message and "{" not in verdict.message


def test_memory_settings_are_reduced_once_each() -> None:
    config = quick_config("run.views_per_step=4")
    lower = reduce_memory_settings(config, has_vae=True)
    assert lower == {"run.views_at_once": "1", "model.vae_recompute": "true"}
    changed = apply_settings(config, [f"{name}={value}" for name, value in lower.items()])
    assert reduce_memory_settings(changed, has_vae=True) == {}, "so there is no third attempt"
    assert make_job("x", "m", "draft", changed).fingerprint() == make_job("x", "m", "draft", config).fingerprint()
    assert reduce_memory_settings(quick_config("run.views_per_step=1"), has_vae=False) == {}
    learning = quick_config("run.views_per_step=1", "guidance.rule=vsd")
    assert reduce_memory_settings(learning, has_vae=False) == {"guidance.lora_recompute": "true"}
    assert reduce_memory_settings(apply_settings(learning, ["guidance.lora_recompute=true"]), has_vae=False) == {}


@pytest.mark.parametrize(
    ("views", "at_once", "smaller"), [(4, 0, False), (8, 0, True), (8, 8, True), (8, 4, False), (8, 6, False)]
)
def test_one_set_of_views_is_not_split(views: int, at_once: int, smaller: bool) -> None:
    """A retry with the same chunks would run out of memory again: no less than four views of a set run at once."""
    config = quick_config("camera.views_per_set=4", f"run.views_per_step={views}", f"run.views_at_once={at_once}")
    assert reduce_memory_settings(config, has_vae=False) == ({"run.views_at_once": "1"} if smaller else {})
    fewest, now = (split_views(slice(0, views), number, 4) for number in (1, at_once))
    assert (fewest != now) == smaller, "as the scene splits them"


def test_reduced_memory_is_reported_with_the_result() -> None:
    assert "run.views_at_once=1" in memory_notice("memory", {"run.views_at_once": "1", "run.steps": "6"})
    assert (
        memory_notice("killed", {"run.views_at_once": "1"})
        == memory_notice("", {"run.views_at_once": "1"})
        == memory_notice("memory", {"run.steps": "6"})
        == ""
    )


def test_oom_count_is_read_from_the_cgroup_or_the_machine(tmp_path: Path) -> None:
    own, cgroups, vmstat = tmp_path / "own", tmp_path / "cgroups", tmp_path / "vmstat"
    assert oom_kills(own, cgroups, vmstat) is None
    vmstat.write_text("pgfault 12\noom_kill 3\n")
    assert oom_kills(own, cgroups, vmstat) == 3
    own.write_text("1:cpu:/x\n0::/service\n")
    assert oom_kills(own, cgroups, vmstat) == 3, "the root cgroup has no such file"
    (cgroups / "service").mkdir(parents=True)
    (cgroups / "service" / "memory.events").write_text("low 0\noom 5\noom_kill 4\n")
    assert oom_kills(own, cgroups, vmstat) == 4
    (cgroups / "service" / "memory.events").write_text("oom_kill\n")
    assert oom_kills(own, cgroups, vmstat) is None
