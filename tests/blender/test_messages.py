# SPDX-License-Identifier: GPL-3.0-or-later
"""Messages arrive as they were sent, and malformed bytes are refused."""

from __future__ import annotations

import dataclasses
import zlib
from typing import Any

import msgpack
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dreamwright.shared import limits, messages, status
from dreamwright.shared.arrays import decode_array, encode_array
from dreamwright.shared.codec import VersionMismatchError, pack, unpack
from dreamwright.shared.errors import ProtocolError
from dreamwright.shared.job_states import ENDED, TRANSITIONS, JobState, check_transition
from dreamwright.shared.mesh_file import MeshFile, decode_mesh, encode_mesh
from dreamwright.shared.messages import (
    MESSAGES,
    CancelJob,
    Capabilities,
    Chunk,
    FetchChunk,
    Hello,
    JobChanged,
    JobDeleted,
    JobList,
    JobReply,
    JobSummary,
    ListJobs,
    PauseJob,
    PreviewAck,
    PreviewFrame,
    Refusal,
    ResumeJob,
    SubmitJob,
    Subscribe,
    Welcome,
)
from dreamwright.shared.operator_messages import DiskFreed, DrainDevice, FreeDisk, MoveJob
from tests.testing.fake_capabilities import OFFER
from tests.testing.fake_props import ball

JOB = JobSummary(
    "j", "running", "a red mushroom", "fog", "starter", "quick", 5,
    {"mesh.height_m": 0.5, "run.steps": 9, "x": True, "y": "z"},
    3, 40, 1.5, 12.0, 0, "", "", 1.7e9, 0, "", 8,
)  # fmt: skip
STATUS = status.ServerStatus(
    "s", True, False, 7.0, 2, 10, 20,
    (status.DeviceStatus("cpu", "busy", "j", "anna", 3.5, 0.2),
    status.DeviceStatus("cuda:0", "idle", "", "", 0.0, -1.0)),
    (status.JobStatus("j", "anna", "running", 0, 3, 40, 12.0, "cpu", -1, 2),),
    (status.UserStatus("anna", 1, 0, 2, 1, 0.5),), 1, 1,
)  # fmt: skip
DOWNLOAD = messages.ModelDownload("sd-1.5", "running", 10, 20, 2.5, 4.0, "unet/model.safetensors", "from a mirror")
EXAMPLES: tuple[Any, ...] = (
    Hello("c", "test"), messages.GetCapabilities(), messages.GetStatus(), STATUS,
    messages.ServerShutdown("soon back"), SubmitJob("t", "a", "", "m", "p", 0, {}, -1), ListJobs(), CancelJob("j"),
    messages.CancelGroup("g"), messages.DiscardGroup("g", "j"), PauseJob("j"),
    ResumeJob("j"), messages.SetPriority("j", -3), messages.PinJob("j", True), messages.DeleteJob("j"),
    Subscribe("j", "k"), PreviewAck(2), messages.LiveMeshAck(1), FetchChunk("j", "mesh", 0, 10),
    messages.GetPreview("j"), MoveJob("j"), DrainDevice("cpu", True), FreeDisk(), DiskFreed(2, 3000, 1),
    Welcome("s", "e"), OFFER, JobReply(JOB), messages.PreviewReply(PreviewFrame("j", 3, 1, 1, b"zz")),
    JobList((JOB, JOB), 9), Chunk(0, b"\0\xff", 2, "ab"), messages.Done(),
    Refusal("internal", "no"), JobChanged(1, JOB), JobDeleted(2, "j"), PreviewFrame("j", 3, 1, 1, b"zz"),
    messages.LiveMeshFrame("j", 3, 3, 1, b"zz"),
    messages.DownloadModel("sd-1.5"), messages.StopDownload("sd-1.5"), messages.ModelDownloadReply(DOWNLOAD),
    messages.ModelDownloadChanged(3, DOWNLOAD), messages.CapabilitiesChanged(4, 2), JobList((), 1, (DOWNLOAD,), 2),
    messages.UploadChunk("ab" * 32, 9, 3, b"\0\xff"), messages.UploadProgress(5),
    SubmitJob("t", "a", "", "m", "refine", 0, {}, 0, mesh="ab" * 32),
)  # fmt: skip


@pytest.mark.parametrize("message", EXAMPLES, ids=lambda message: type(message).__name__)
def test_messages_round_trip(message: Any) -> None:
    assert unpack(pack(message, 7), limits.REPLY_BYTES) == (7, message)


def test_samples_cover_all_messages() -> None:
    assert {type(message).__name__ for message in EXAMPLES} == set(MESSAGES)


@given(st.binary(max_size=300))
@settings(max_examples=300)
def test_any_bytes_decode_or_raise_protocol_error(data: bytes) -> None:
    try:
        unpack(data, limits.REQUEST_BYTES)
    except ProtocolError:
        return


PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | st.text(max_size=20)
    | st.binary(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


@given(st.sampled_from(sorted(MESSAGES)), st.data())
@settings(max_examples=300)
def test_any_body_decodes_or_raises_protocol_error(name: str, data: st.DataObject) -> None:
    fields = [field.name for field in dataclasses.fields(MESSAGES[name])]
    body = data.draw(PLAIN | st.fixed_dictionaries(dict.fromkeys(fields, PLAIN)))
    packed = msgpack.packb({"version": limits.PROTOCOL_VERSION, "id": 1, "type": name, "body": body})
    try:
        unpack(packed, limits.REPLY_BYTES)
    except ProtocolError:
        return


@given(st.sampled_from(EXAMPLES), st.data())
@settings(max_examples=200)
def test_flipped_byte_decodes_or_raises_protocol_error(message: Any, data: st.DataObject) -> None:
    packed = bytearray(pack(message, 1))
    packed[data.draw(st.integers(0, len(packed) - 1))] ^= data.draw(st.integers(1, 255))
    try:
        unpack(bytes(packed), limits.REPLY_BYTES)
    except ProtocolError:
        return


def altered(message: Any, **fields: Any) -> bytes:
    envelope = msgpack.unpackb(pack(message, 1))
    envelope["body"].update(fields)
    return msgpack.packb(envelope)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (altered(CancelJob("j"), color="red"), "color"),
        (altered(CancelJob("j"), job=5), "job"),
        (
            altered(JobReply(JOB), job={**msgpack.unpackb(pack(JobReply(JOB)))["body"]["job"], "state": "asleep"}),
            "asleep",
        ),
        (altered(SubmitJob("t", "a", "", "m", "p", 0, {}), seed=True), "seed"),
        (altered(SubmitJob("t", "a", "", "m", "p", 0, {}), settings={"a": float("nan")}), "settings"),
        (altered(SubmitJob("t", "a", "", "m", "p", 0, {}), prompt="x" * (limits.PROMPT_CHARACTERS + 1)), "1000"),
        (altered(FetchChunk("j", "mesh", 0, 10), item="/etc/passwd"), "mesh"),
        (altered(FetchChunk("j", "mesh", 0, 10), size=limits.CHUNK_BYTES + 1), "size"),
        (msgpack.packb({"version": limits.PROTOCOL_VERSION, "id": 1, "type": "Explode", "body": {}}), "Explode"),
        (msgpack.packb({"version": limits.PROTOCOL_VERSION, "id": -1, "type": "GetCapabilities", "body": {}}), "id"),
        (msgpack.packb([1, 2]), "map"),
    ],
)
def test_invalid_field_is_named(data: bytes, words: str) -> None:
    with pytest.raises(ProtocolError, match=words):
        unpack(data, limits.REQUEST_BYTES)


def test_missing_field_is_named() -> None:
    with pytest.raises(ProtocolError, match="job"):
        unpack(msgpack.packb({"version": limits.PROTOCOL_VERSION, "id": 1, "type": "CancelJob", "body": {}}), 1000)


def test_long_message_is_refused() -> None:
    with pytest.raises(ProtocolError, match="allowed are 50"):
        unpack(pack(JobReply(JOB)), 50)


@pytest.mark.parametrize("version", [0, 1, limits.PROTOCOL_VERSION + 1, "2", None, 1.5])
def test_version_mismatch_has_the_request_id(version: Any) -> None:
    with pytest.raises(VersionMismatchError, match="update the older") as caught:
        unpack(msgpack.packb({"version": version, "id": 9, "type": "New", "body": {"any": 1}}), 1000)
    assert caught.value.number == 9


@given(
    st.sampled_from(("u1", "<i4", "<u4", "<f4")),
    st.lists(st.integers(0, 5), max_size=4),
    st.booleans(),
)
def test_arrays_round_trip(dtype: str, shape: list[int], packed: bool) -> None:
    array = np.arange(int(np.prod(shape)), dtype=np.float64).reshape(shape).astype(dtype)
    found = decode_array(msgpack.unpackb(msgpack.packb(encode_array(array, packed))), 10_000)
    assert found.dtype == array.dtype and np.array_equal(found, array) and found.shape == array.shape


HEADER = encode_array(np.zeros((2, 3), np.float32))


@pytest.mark.parametrize(
    "change",
    [
        {"dtype": "O"}, {"dtype": "<f8"}, {"dtype": ">f4"}, {"dtype": None}, {"shape": [2, 4]}, {"shape": [-2, -3]},
        {"shape": [2**40, 2**40]}, {"shape": [2.0, 3]}, {"shape": [True, 3]}, {"shape": "23"}, {"shape": [1] * 9},
        {"data": b""}, {"data": "text"}, {"packed": True}, {"packed": 1}, {"extra": 1},
        {"packed": True, "data": zlib.compress(bytes(10**6))}, {"packed": True, "data": zlib.compress(bytes(23))},
        {"packed": True, "data": zlib.compress(bytes(24))[:-3] + b"zzz"},
    ],
    ids=str,
)  # fmt: skip
def test_false_array_header_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ProtocolError):
        decode_array({**HEADER, **change}, 1000)


def test_decompression_is_bounded() -> None:
    bomb = {"dtype": "|u1", "shape": [1000], "data": zlib.compress(bytes(10**7)), "packed": True}
    with pytest.raises(ProtocolError):
        decode_array(bomb, 2000)


def test_meshes_round_trip() -> None:
    mesh = ball()
    found = decode_mesh(encode_mesh(mesh))
    for name in ("vertices", "faces", "normals", "albedo"):
        assert np.array_equal(getattr(found, name), getattr(mesh, name))
    assert found.facts == {"backend": "fake"}


def broken(**arrays: Any) -> bytes:
    whole = ball(4)
    return encode_mesh(dataclasses.replace(whole, **arrays))


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (broken(faces=np.array([[0, 1, 99]], np.int32)), "99"),
        (broken(faces=np.array([[0, 1, -1]], np.int32)), "vertex"),
        (broken(vertices=np.full((26, 3), np.nan, np.float32)), "finite"),
        (broken(albedo=np.zeros((2, 3), np.float32)), "albedo"),
        (broken(normals=np.zeros((26, 2), np.float32)), "normals"),
        (broken(vertices=np.zeros((0,), np.float32)), "vertices"),
        (b"", "mesh"),
        (msgpack.packb({"format": "dreamwright-mesh-9"}), "format"),
        (msgpack.packb([]), "format"),
    ],
)
def test_invalid_mesh_is_refused(data: bytes, words: str) -> None:
    with pytest.raises(ProtocolError, match=words):
        decode_mesh(data)


@given(st.data())
@settings(max_examples=100)
def test_flipped_byte_of_a_mesh_decodes_or_raises_protocol_error(data: st.DataObject) -> None:
    packed = bytearray(encode_mesh(ball(4)))
    packed[data.draw(st.integers(0, len(packed) - 1))] ^= data.draw(st.integers(1, 255))
    try:
        found = decode_mesh(bytes(packed))
    except ProtocolError:
        return
    assert isinstance(found, MeshFile) and found.faces.max(initial=0) < len(found.vertices)


def test_transitions_of_job_states() -> None:
    for state in JobState:
        reachable = {state}
        while True:
            more = reachable | {new for old in reachable for new in TRANSITIONS[old]}
            if more == reachable:
                break
            reachable = more
        assert (state in ENDED - {JobState.FAILED}) == (reachable == {state})
        assert reachable & ENDED
    with pytest.raises(ValueError, match="succeeded"):
        check_transition(JobState.SUCCEEDED, JobState.RUNNING)
    assert TRANSITIONS[JobState.FAILED] == {JobState.QUEUED}, "resumed from its checkpoint"


def test_capabilities_hold_text_and_numbers_only() -> None:
    assert isinstance(unpack(pack(OFFER), limits.REPLY_BYTES)[1], Capabilities)
