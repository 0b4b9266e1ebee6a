# SPDX-License-Identifier: GPL-3.0-or-later
"""The server's answers: capabilities, refused submissions, lists of jobs in pages, and the limit of previews."""

from __future__ import annotations

import re

import msgpack
import pytest
import zmq

from dreamwright.backend.config.presets import PRESETS
from dreamwright.backend.server.requests import capabilities
from dreamwright.backend.server.workers.worker_protocol import PreviewReport
from dreamwright.shared import limits
from dreamwright.shared.codec import pack, unpack
from dreamwright.shared.connection_state import ConnectionState
from dreamwright.shared.errors import RequestError
from dreamwright.shared.messages import GetCapabilities, Hello, ListJobs, PreviewAck, PreviewFrame
from tests.testing.scripted_worker_server import submit_message


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"prompt": "  "}, "prompt is empty"),
        ({"prompt": "a red gryphon"}, "gryphon.*knows the colors.*props.*mushroom"),
        ({"model": "no-such"}, "unknown model 'no-such'"),
        ({"preset": "best"}, "unknown preset 'best'; allowed are"),
        ({"settings": {"run.stepz": 3}}, "unknown setting 'run.stepz'; did you mean run.steps"),
        ({"settings": {"run.steps": 0}}, "run.steps is 0; allowed is 1"),
    ],
)
def test_invalid_submits_are_refused(scripted_server, changes, words):
    answer = scripted_server.request(submit_message(**changes))
    assert isinstance(answer, RequestError) and answer.code == "bad-input"
    assert re.search(words, answer.message), answer.message
    assert not scripted_server.server.store.records


def test_unacknowledged_previews_are_limited_to_two(scripted_server, monkeypatch):
    name = scripted_server.request(submit_message()).job.job
    scripted_server.wait_until(lambda: scripted_server.runner.given == [name])
    scripted_server.client.subscribe(name)
    scripted_server.step()
    scripted_server.step()
    monkeypatch.setattr("dreamwright.shared.client.PreviewAck", lambda count: GetCapabilities())
    for step in range(1, 7):
        scripted_server.runner.queued = [PreviewReport(PreviewFrame(name, step, 1, 1, b"x"))]
        scripted_server.step()
    for _ in range(20):
        scripted_server.step()
    assert [e.step for e in scripted_server.events if isinstance(e, PreviewFrame)] == [1, 2]
    monkeypatch.undo()
    scripted_server.client._send(PreviewAck(2), 0)
    scripted_server.wait_until(
        lambda: [e.step for e in scripted_server.events if isinstance(e, PreviewFrame)] == [1, 2, 6]
    )


def test_capabilities_describe_models_presets_and_settings(scripted_server):
    able = scripted_server.request(GetCapabilities())
    starter = able.models[0]
    assert starter.name == "starter" and starter.ready and "mushroom" in starter.vocabulary
    assert {preset.name for preset in able.presets} == set(PRESETS)
    assert capabilities(("cpu",)).presets[0].name == "draft", "a new user's first prop takes minutes"
    assert capabilities(("cuda:0", "cpu")).presets[0].name == "standard"
    height = next(card for card in able.settings if card.name == "mesh.height_m")
    assert height.kind == "number" and height.low <= height.defaults["draft"] <= height.high


def test_capabilities_name_the_loras_of_the_operator_s_folder_and_no_path(scripted_server, tmp_path, monkeypatch):
    monkeypatch.setenv("DREAMWRIGHT_LORAS", str(tmp_path))
    assert scripted_server.request(GetCapabilities()).loras == ()
    (tmp_path / "clay.safetensors").write_bytes(b"")
    assert scripted_server.request(GetCapabilities()).loras == ("clay",)


def test_jobs_are_listed_in_pages_newest_first(scripted_server):
    names = [scripted_server.request(submit_message(f"t{number}")).job.job for number in range(5)]
    pages, before = [], 0
    while True:
        page = scripted_server.request(ListJobs(before, 2)).jobs
        if not page:
            break
        pages.append([job.job for job in page])
        assert [job.changed for job in page] == sorted((job.changed for job in page), reverse=True)
        before = page[-1].changed
    assert [len(page) for page in pages] == [2, 2, 1]
    assert sorted(name for page in pages for name in page) == sorted(names)


@pytest.mark.parametrize("version", [0, limits.PROTOCOL_VERSION + 1, "new"])
def test_client_of_another_version_is_answered(scripted_server, version):
    socket = zmq.Context.instance().socket(zmq.DEALER)
    try:
        socket.connect(scripted_server.server.address)
        hello = msgpack.unpackb(pack(Hello("c" * 32, "another"), 7))
        socket.send(msgpack.packb({**hello, "version": version}))
        scripted_server.wait_until(lambda: socket.poll(0))
        number, answer = unpack(socket.recv(), limits.REPLY_BYTES)
    finally:
        socket.close(0)
    assert (number, answer.code) == (7, "version")
    assert (
        f"speaks protocol version {version!r}, this one {limits.PROTOCOL_VERSION}" in answer.message
        and "update the older" in answer.message
    )
    assert scripted_server.client.state is ConnectionState.ONLINE
