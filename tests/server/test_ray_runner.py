# SPDX-License-Identifier: GPL-3.0-or-later
"""The parts of the Ray runner that need no cluster: names, mailboxes, what a node must have, and what `--ray` may
be.
"""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as some

from dreamwright.backend.cli import main as command
from dreamwright.backend.errors import ConfigError
from dreamwright.backend.server.workers import ray_runner
from dreamwright.backend.server.workers.fencing import raise_fence
from dreamwright.backend.server.workers.ray_actor import NO_SECRET, Mailbox, job_folder_error, node_error
from dreamwright.backend.server.workers.ray_bridge import actor_name, explain, gpu_devices, parse_name
from dreamwright.backend.server.workers.ray_runner import RayRunner, check_cluster, own_namespace
from dreamwright.backend.server.workers.runner import WorkerExited
from dreamwright.backend.server.workers.worker_protocol import (
    JobFinished,
    PreviewReport,
    ProgressReport,
    StatusReport,
    unpack_order,
)
from dreamwright.shared import __version__
from dreamwright.shared.job_states import JobState
from dreamwright.shared.messages import PreviewFrame
from tests.testing.in_memory_server import InMemoryServer
from tests.testing.ray_jobs import job_order


def reports_after(box: Mailbox, after: int = 0) -> tuple[int, list[Any]]:
    number, reports = box.after(after, 0.0)
    return number, [unpack_order(NO_SECRET, data) for data in reports]


def test_actor_keeps_the_newest_report_of_each_kind() -> None:
    box = Mailbox()
    for step in range(1000):
        box.put(ProgressReport("job", step, 1000, 1.0, 1.0, 1))
        box.put(PreviewReport(PreviewFrame("job", step, 2, 1, b"picture"), 1))
    for report in (
        StatusReport("job", "", "loading", 1),
        StatusReport("job", "fine", "", 1),
        StatusReport("job", "", "making the mesh", 1),
    ):
        box.put(report)
    ended = JobFinished("job", "succeeded", "", True, 1)
    box.put(ended)
    _, reports = reports_after(box)
    assert reports == [
        ProgressReport("job", 999, 1000, 1.0, 1.0, 1),
        PreviewReport(PreviewFrame("job", 999, 2, 1, b"picture"), 1),
        StatusReport("job", "fine", "", 1),
        StatusReport("job", "", "making the mesh", 1),
        ended,
    ]
    assert reports_after(box)[1] == reports, "another server that reads from the start receives the same reports"


def test_each_report_is_delivered_once() -> None:
    box = Mailbox()
    box.put(StatusReport("job", "", "first", 1))
    number, reports = reports_after(box)
    assert len(reports) == 1 and reports_after(box, number) == (number, [])
    later = threading.Timer(0.1, lambda: box.put(StatusReport("job", "", "second", 1)))
    later.start()
    number, reports = box.after(number, 60.0)
    later.join()
    assert [unpack_order(NO_SECRET, data).message for data in reports] == ["second"]


def node(name: str, gpus: float, is_alive: bool = True, key: str = "") -> dict[str, Any]:
    return {
        "Alive": is_alive,
        "NodeName": name,
        "NodeID": key or name * 8,
        "Resources": {"GPU": gpus} if gpus else {"CPU": 1.0},
    }


def test_each_gpu_of_each_node_is_a_device() -> None:
    nodes = [node("b", 2.0), node("a", 1.0), node("head", 0), node("gone", 4.0, is_alive=False)]
    assert gpu_devices(nodes) == {"a/0": "aaaaaaaa", "b/0": "bbbbbbbb", "b/1": "bbbbbbbb"}
    assert list(gpu_devices([node("a", 1.0, key="new" * 8)])) == ["a/0"]
    same_name = gpu_devices([node("a", 1.0, key="1" * 56), node("a", 1.0, key="2" * 56)])
    assert same_name == {"a#11111111/0": "1" * 56, "a#22222222/0": "2" * 56}


@given(some.from_regex("[0-9a-f]{16}", fullmatch=True), some.integers(1, 2**40), some.text("a /#7é", min_size=1))
def test_actor_names_carry_job_and_attempt(job: str, attempt: int, device: str) -> None:
    assert parse_name(actor_name(job, attempt, device)) == (job, attempt, device)


def test_node_without_the_job_folder_names_the_mount(tmp_path: Path) -> None:
    waits: list[float] = []
    message = job_folder_error(tmp_path / "job", 2, 60.0, waits.append)
    assert sum(waits) == 60.0
    for word in (
        str(tmp_path / "job"),
        "No such file",
        "mount the storage that holds the server's --state at the same path on every node",
    ):
        assert word in message
    raise_fence(tmp_path / "job", 1)
    assert "an older state of it" in job_folder_error(tmp_path / "job", 2, 1.0, waits.append)


def test_node_waits_for_its_fence(tmp_path: Path) -> None:
    """NFS shows it late; for a later attempt the fence itself states the reason."""
    assert job_folder_error(tmp_path, 1, 60.0, lambda seconds: raise_fence(tmp_path, 1)) == ""
    raise_fence(tmp_path, 3)
    assert job_folder_error(tmp_path, 2, 0.0) == ""


def test_node_of_another_version_or_without_gpu_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    assert node_error(__version__, "cpu") == ""
    message = node_error("9.9", "cpu")
    assert (
        f"has dreamwright {__version__}, the server has 9.9" in message and "install the same version on all" in message
    )
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert "a GPU that PyTorch does not see" in node_error(__version__, "cuda") and "--num-gpus=0" in node_error(
        __version__, "cuda"
    )
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    assert node_error(__version__, "cuda") == ""


@pytest.mark.parametrize("address", ["", "ray://head:10001", "head", "head:port", "http://head:8265"])
def test_invalid_ray_addresses_are_refused(address: str) -> None:
    with pytest.raises(ConfigError, match="allowed is auto, or HOST:PORT"):
        check_cluster(address)


def test_missing_ray_names_the_install_command(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(ray_runner.importlib.util, "find_spec", lambda name: None)
    assert command.main(["serve", "--ray", "auto", "--state", str(tmp_path), "--address", "tcp://127.0.0.1:*"]) == 2
    assert 'pip install "dreamwright[ray]"' in capsys.readouterr().err


def test_ray_and_device_exclude_each_other(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["serve", "--ray", "127.0.0.1:6379", "--device", "cuda:0", "--state", str(tmp_path)]) == 2
    assert "leave --device out" in capsys.readouterr().err


def test_unreachable_cluster_stops_the_start(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Port 1 takes no connections here; refused within seconds, where Ray alone would try for minutes."""
    for _ in range(2):
        assert (
            command.main(["serve", "--ray", "127.0.0.1:1", "--state", str(tmp_path), "--address", "tcp://127.0.0.1:*"])
            == 2
        )
        error = capsys.readouterr().err
        assert "no Ray cluster answers at 127.0.0.1:1" in error and "ray start --head" in error, (
            "and the folder's lock was released"
        )


def test_version_mismatch_on_the_cluster_is_named() -> None:
    from ray._private.utils import check_version_info

    with pytest.raises(RuntimeError) as caught:
        check_version_info({"ray_version": "1.0.0", "python_version": "3.6.1"}, "this process")
    message = explain("head:6379", caught.value)
    assert (
        "has other versions" in message and "1.0.0" in message and "3.6.1" in message and "install the same" in message
    )


def test_state_folder_keeps_its_namespace(tmp_path: Path) -> None:
    name = own_namespace(tmp_path / "a")
    assert own_namespace(tmp_path / "a") == name != own_namespace(tmp_path / "b")


def test_nodes_receive_the_resolved_shared_path(tmp_path: Path) -> None:
    (tmp_path / "shared" / "job").mkdir(parents=True)
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "jobs").symlink_to(tmp_path / "shared")
    sent: list[Any] = []
    runner = RayRunner.__new__(RayRunner)  # without its envoy
    runner._jobs, runner._send = {}, sent.append
    runner.assign("a/0", job_order(Path("model"), tmp_path / "state" / "jobs" / "job", "job", 1, "a/0"))
    assert sent[0].folder == str(tmp_path / "shared" / "job")


def test_surviving_attempts_are_reattached_and_others_queued(
    in_memory_server: InMemoryServer,
) -> None:
    in_memory_server.runner.devices = in_memory_server.devices = ("a", "b", "c")
    in_memory_server.runner.free = ["a", "b", "c"]
    surviving, dead, stopping = (in_memory_server.submit() for _ in range(3))
    in_memory_server.step()
    in_memory_server.store.transition(stopping, JobState.CANCELLING)
    in_memory_server.living = {surviving: 1, stopping: 1, dead: 7}
    in_memory_server.kill()
    in_memory_server.open()
    assert (
        in_memory_server.job(surviving).state,
        in_memory_server.job(surviving).attempt,
        in_memory_server.job(surviving).device,
    ) == ("running", 1, "a")
    assert in_memory_server.job(dead).state == "queued"
    assert in_memory_server.job(stopping).state == "cancelling" and in_memory_server.runner.stopped == [
        (stopping, "cancel")
    ]
    in_memory_server.runner.free = []
    in_memory_server.runner.queued = [
        ProgressReport(surviving, 7, 10, 1.0, 1.0, 1),
        JobFinished(stopping, "cancelled", "", False, 1),
    ]
    in_memory_server.step()
    assert in_memory_server.job(surviving).step == 7 and in_memory_server.job(stopping).state == "cancelled"


def test_death_of_an_earlier_attempt_is_ignored(in_memory_server: InMemoryServer) -> None:
    name = in_memory_server.submit()
    in_memory_server.step()
    in_memory_server.runner.queued = [WorkerExited(name, -9)]
    in_memory_server.step()
    assert in_memory_server.job(name).attempt == 2
    in_memory_server.service.dispatcher.handle_report(WorkerExited(name, 0, 1, "the cluster's node a was lost"))
    assert in_memory_server.job(name).state == "running" and in_memory_server.store.records[name].attempts == 1
    in_memory_server.service.dispatcher.handle_report(WorkerExited(name, 0, 2, "the cluster's node a was lost"))
    assert in_memory_server.job(name).message == "the cluster's node a was lost; it continues from its checkpoint"
