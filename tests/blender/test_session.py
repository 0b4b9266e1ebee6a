# SPDX-License-Identifier: GPL-3.0-or-later
"""The add-on's core without Blender data: jobs, previews, texts and stored files."""

from __future__ import annotations

import ast
import itertools
import json
import zlib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

pytest.importorskip("bpy")

from dreamwright.shared.codec import pack
from dreamwright.shared.messages import ServerShutdown
from tests.testing.addon_session import SessionBench, addon_module
from tests.testing.blenders import ROOT
from tests.testing.fake_capabilities import OFFER
from tests.testing.fake_props import preview_bytes

WITHOUT_BPY = (
    "addresses", "dream_list", "key_store", "labels", "mesh_downloads", "pending_submissions", "pending_uploads",
    "preview_history", "session",
    "session_events", "storage",
)  # fmt: skip


@pytest.mark.parametrize("name", WITHOUT_BPY)
def test_core_modules_import_no_bpy_or_threads(name: str) -> None:
    tree = ast.parse((ROOT / "blender_addon" / f"{name}.py").read_text(encoding="utf-8"))
    found = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    found |= {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module}
    assert not found & {"bpy", "threading", "asyncio", "multiprocessing", "concurrent.futures"}


def test_addon_source_follows_blenders_rules() -> None:
    for path in (ROOT / "blender_addon").glob("*.py"):
        source = path.read_text(encoding="utf-8")
        assert source.startswith("# SPDX-License-Identifier: GPL-3.0-or-later\n"), path
        for forbidden in (
            "import threading",
            "sys.path",
            "ensurepip",
            "pickle",
            "shell=True",
            "import dreamwright",
            "eval(",
        ):
            assert forbidden not in source, (path, forbidden)


def test_submission_during_an_outage_becomes_one_job(bench: SessionBench) -> None:
    bench.connect()
    bench.server.close()
    for _ in range(6):
        bench.ahead += 1.5
        bench.session.tick()
    assert bench.session.connection_state == "lost"
    bench.session.submit("a red chair", "", "starter", "quick", 1, {})
    for _ in range(30):
        bench.ahead += 1
        bench.session.tick()
    assert len(bench.session.pending) == 1 and not bench.session.notices
    bench.server.open()
    bench.settle(lambda: not bench.session.pending)
    assert len(bench.server.jobs) == 1 and len(bench.session.jobs) == 1


def test_refused_submission_is_not_repeated(bench: SessionBench) -> None:
    bench.connect()
    bench.server.faults.refuse_submit = "the model does not know dragons; try a red chair"
    bench.session.submit("a dragon", "", "starter", "quick", 1, {})
    bench.settle(lambda: bool(bench.session.notices))
    assert "try a red chair" in bench.session.notices[0].text and not bench.session.pending


def test_submission_needs_a_connection(bench: SessionBench) -> None:
    bench.session.submit("a red chair", "", "starter", "quick", 1, {})
    assert not bench.session.pending and "not connected" in bench.session.notices[0].text


def test_jobs_are_newest_first_with_start_and_end_events(bench: SessionBench) -> None:
    bench.connect()
    jobs = [bench.submit() for _ in range(3)]
    assert list(bench.session.jobs) == jobs[::-1]
    bench.server.change(jobs[0], state="running", queue_position=0)
    bench.server.finish(jobs[0], "failed")
    bench.settle(lambda: bench.session.jobs[jobs[0]].state == "failed")
    names = [type(event).__name__ for event in bench.events]
    assert names.count("JobStarted") == 3 and names.count("JobEnded") == 1
    assert "failed" in bench.session.notices[-1].text


def test_mesh_is_downloaded_once(bench: SessionBench) -> None:
    bench.connect()
    job = bench.submit()
    with pytest.raises(ValueError, match="no mesh"):
        bench.session.download_mesh(job)
    bench.server.finish(job, "succeeded")
    bench.settle(lambda: bench.session.jobs[job].mesh_bytes > 0)
    bench.session.download_mesh(job)
    bench.session.download_mesh(job)
    bench.settle(
        lambda: not bench.session.downloads and any(type(e).__name__ == "MeshDownloaded" for e in bench.events)
    )
    arrived = [event for event in bench.events if type(event).__name__ == "MeshDownloaded"]
    assert len(arrived) == 1 and len(arrived[0].mesh.faces) > 100 and not arrived[0].is_automatic


def test_invalid_mesh_file_is_reported(bench: SessionBench) -> None:
    bench.connect()
    job = bench.submit()
    bench.server.finish(job, "succeeded")
    bench.server.meshes[job] = b"not a mesh at all"
    bench.server.change(job, mesh_bytes=17)
    bench.settle(lambda: bench.session.jobs[job].mesh_bytes == 17)
    bench.session.download_mesh(job)
    bench.settle(lambda: bool(bench.session.notices))
    assert "cannot be read" in bench.session.notices[0].text


def test_jobs_are_listed_after_reconnecting(bench: SessionBench) -> None:
    bench.connect()
    job = bench.submit()
    bench.session.disconnect()
    bench.server.change(job, step=5)
    bench.session.connect(bench.server.address)
    bench.settle(lambda: job in bench.session.jobs and bench.session.jobs[job].step == 5)


def test_shutdown_message_stays_until_reconnected(
    bench: SessionBench,
) -> None:
    bench.connect()
    bench.settle(lambda: bool(bench.server.peers))
    bench.server.publish(lambda count: ServerShutdown("The server is being stopped; jobs go on when it is back"))
    bench.settle(lambda: bool(bench.session.notices))
    (notice,) = bench.session.notices
    assert "jobs go on when it is back" in notice.text and not notice.is_error and bench.session.is_online
    bench.server.close()
    for _ in range(6):
        bench.ahead += 1.5
        bench.session.tick()
    assert bench.session.connection_state == "lost" and bench.session.reason == notice.text
    bench.server.open()
    bench.settle(lambda: bench.session.is_online)
    bench.server.close()
    for _ in range(6):
        bench.ahead += 1.5
        bench.session.tick()
    assert "no answer" in bench.session.reason, "a later outage is none that was announced"


def test_version_mismatch_is_shown(bench: SessionBench) -> None:
    bench.server.faults.version = 9
    bench.session.connect(bench.server.address)
    bench.settle(lambda: bench.session.connection_state == "incompatible")
    assert f"at {bench.server.address} speaks version 9" in bench.session.reason
    assert "update the add-on, then connect again" in bench.session.reason


# --- pictures


def frame(step: int, size: int = 4, data: bytes | None = None) -> Any:
    kind = addon_module("shared.messages").PreviewFrame
    return kind("j", step, size, size, preview_bytes(step, size) if data is None else data)


def test_history_is_thinned_evenly(installed: Path) -> None:
    ring = addon_module("preview_history").PreviewHistory(max_frames=16)
    for step in range(1000):
        ring.add(frame(step))
    kept = [ring.at(index / (len(ring) - 1)).step for index in range(len(ring))]
    assert kept[0] == 0 and kept[-1] == 999 and len(kept) <= 16
    gaps = [after - before for before, after in itertools.pairwise(kept)]
    assert len(kept) >= 8 and max(gaps) <= 1000 / 4


def test_history_of_a_restarted_job(installed: Path) -> None:
    ring = addon_module("preview_history").PreviewHistory()
    for step in (1, 2, 3, 4, 2):
        ring.add(frame(step))
    assert [ring.at(index / (len(ring) - 1)).step for index in range(len(ring))] == [1, 2]


def test_history_memory_is_bounded(installed: Path) -> None:
    ring = addon_module("preview_history").PreviewHistory(max_bytes=1000)
    for step in range(100):
        ring.add(frame(step, data=bytes(100)))
    assert len(ring) <= 10 and ring.at(1.0).step == 99


@pytest.mark.parametrize(
    "data", [b"", b"junk", zlib.compress(bytes(47)), zlib.compress(bytes(49)), zlib.compress(bytes(10**7))], ids=len
)
def test_frame_with_false_size_is_refused(installed: Path, data: bytes) -> None:
    with pytest.raises(addon_module("shared.errors").ProtocolError):
        addon_module("preview_history").decode_frame(frame(1, 4, data))


# --- words and memory


def test_durations_and_progress_texts(installed: Path) -> None:
    duration = addon_module("labels").duration
    assert [duration(t) for t in (-1, 0.4, 59, 61, 3600, 7322)] == [
        "unknown",
        "0 s",
        "59 s",
        "1 min 01 s",
        "1 h 00 min",
        "2 h 02 min",
    ]


@pytest.mark.parametrize(
    ("address", "local"),
    [
        ("tcp://127.0.0.1:1", True), ("tcp://127.5.0.9:1", True), ("tcp://localhost:1", True),
        ("tcp://[::1]:1", True), ("ipc://x", True),
        ("tcp://127.evil.org:1", False), ("tcp://10.0.0.1:1", False), ("tcp://localhost.evil.org:1", False),
        ("tcp://:1", False),
        ("", False), ("tcp://[::1:1", False), ("tcp://127.0.0.1.evil.org:1", False),
        ("tcp://127.0.0.1@evil.org:1", False),
    ],
)  # fmt: skip
def test_local_addresses(installed: Path, address: str, local: bool) -> None:
    assert addon_module("addresses").is_local(address) is local


@given(st.text(max_size=60))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_address_is_valid_or_has_a_fault(installed: Path, text: str) -> None:
    fault = addon_module("addresses").address_fault(text)
    assert fault == "" or fault.startswith("The server address")
    addon_module("addresses").is_local(text)


def test_job_states_have_icon_and_label(installed: Path) -> None:
    states = addon_module("shared.job_states").JobState
    looks = addon_module("labels").STATE_LABELS
    assert set(looks) == {state.value for state in states}
    assert len({icon for icon, _ in looks.values()}) == len({word for _, word in looks.values()}) == len(states)


def test_capabilities_are_cached_and_damage_is_ignored(installed: Path, tmp_path: Path) -> None:
    remembered = addon_module("storage")
    offered = addon_module("shared.codec").unpack(pack(OFFER, 1), 10**6)[1]
    remembered.save_capabilities(tmp_path, "tcp://a:1", offered)
    assert remembered.load_capabilities(tmp_path, "tcp://a:1") == offered
    assert remembered.load_capabilities(tmp_path, "tcp://b:1") is None
    for number in range(40):
        remembered.save_capabilities(tmp_path, f"tcp://c:{number}", offered)
    assert remembered.load_capabilities(tmp_path, "tcp://a:1") is None
    for damage in ("", "[]", "{", json.dumps({"tcp://a:1": {"models": 5}})):
        (tmp_path / "capabilities.json").write_text(damage)
        assert remembered.load_capabilities(tmp_path, "tcp://a:1") is None


def test_client_id_is_stable(installed: Path, tmp_path: Path) -> None:
    remembered = addon_module("storage")
    assert remembered.client_id(tmp_path) == remembered.client_id(tmp_path)
    (tmp_path / "file").write_text("")
    assert len(remembered.client_id(tmp_path / "file")) == 32


def test_deleting_a_deleted_job_is_no_error(bench: SessionBench) -> None:
    """A repeated DeleteJob finds no job, which is its goal; other refusals are reported."""
    bench.connect()
    bench.session.delete("0123456789abcdef")
    running = bench.submit()
    bench.server.change(running, state="running", queue_position=0)
    bench.session.delete(running)
    bench.settle(lambda: bool(bench.session.notices))
    assert ["not deleted" in notice.text for notice in bench.session.notices] == [True]
    assert "no job" not in bench.session.notices[0].text
