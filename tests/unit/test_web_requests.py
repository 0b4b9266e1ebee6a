# SPDX-License-Identifier: GPL-3.0-or-later
"""What the web page refuses: foreign hosts and sites, too many requests, broken frames, bad input."""

from __future__ import annotations

import asyncio
import contextlib
import io
import zlib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("starlette")

from PIL import Image
from starlette.datastructures import Headers
from starlette.responses import Response

from dreamwright.backend.errors import ConfigError
from dreamwright.backend.server.web.actions import ACTIONS, action_request
from dreamwright.backend.server.web.address import LOOPBACK_NAMES, check_web_address
from dreamwright.backend.server.web.channel import Call, FrameReader, SignIn, pack_call, unpack_call
from dreamwright.backend.server.web.previews import preview_png
from dreamwright.backend.server.web.rate_limits import MOST_ADDRESSES, Rate, RateLimiter
from dreamwright.backend.server.web.request_guard import BODY_BYTES, check_request
from dreamwright.backend.server.web.security_headers import HEADERS, SecurityHeaders
from dreamwright.shared.errors import ProtocolError
from dreamwright.shared.messages import CancelJob, PreviewFrame

HOST = "127.0.0.1:47631"
FINE = {
    "host": HOST,
    "origin": f"http://{HOST}",
    "sec-fetch-site": "same-origin",
    "content-type": "application/json",
    "content-length": "20",
}


def status_of(method: str = "POST", path: str = "/api/act", **changes: str | None) -> int:
    headers = {**FINE, **{name.replace("_", "-"): value for name, value in changes.items()}}
    kept = {name: value for name, value in headers.items() if value is not None}
    return check_request(method, path, Headers(kept), LOOPBACK_NAMES, "http")[0]


def test_the_pages_own_requests_are_handled() -> None:
    assert status_of() == 0
    assert status_of("GET", "/api/events", origin=None, content_type=None, content_length=None) == 0
    assert status_of("GET", "/", origin=None, sec_fetch_site="none") == 0
    assert status_of("GET", "/sign-in", origin=None, sec_fetch_site="cross-site") == 0  # a link in a chat
    assert status_of(host="localhost:80", origin="http://localhost:80") == 0
    assert status_of(host="[::1]:47631", origin="http://[::1]:47631") == 0


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example:1", "127.0.0.2", "", "127.0.0.1:4x", "[::1"])
def test_a_foreign_host_is_refused_on_every_path(host: str) -> None:
    for method, path in (("GET", "/"), ("GET", "/api/events"), ("POST", "/api/act")):
        assert status_of(method, path, host=host) == 421


@pytest.mark.parametrize(
    "change",
    [
        {"origin": "http://evil.example"},
        {"origin": "null"},
        {"origin": None},
        {"origin": "http://127.0.0.1:9999"},  # another server of this machine
        {"origin": f"https://{HOST}"},
        {"sec_fetch_site": "cross-site"},
        {"sec_fetch_site": "same-site"},
        {"sec_fetch_site": "none"},
    ],
)
def test_requests_of_other_sites_and_ports_are_refused(change: dict[str, str | None]) -> None:
    assert status_of(**change) == 403


def test_forms_large_bodies_and_other_methods_are_refused() -> None:
    assert status_of(content_type="application/x-www-form-urlencoded") == 415
    assert status_of(content_type="text/plain") == 415
    assert status_of(content_length=None) == 413
    assert status_of(content_length=str(BODY_BYTES + 1)) == 413
    assert status_of(content_length="-1") == 413
    assert {status_of(method) for method in ("PUT", "DELETE", "OPTIONS", "TRACE", "CONNECT", "get")} == {405}


@given(st.text(), st.text(), st.dictionaries(st.sampled_from(sorted(FINE)), st.text(max_size=30)))
def test_no_header_makes_the_check_fail_otherwise(method: str, path: str, changes: dict[str, str]) -> None:
    status, reason = check_request(method, path, {**FINE, **changes}, LOOPBACK_NAMES, "http")
    assert bool(status) == bool(reason)


def test_a_rate_is_a_burst_and_then_so_many_a_second() -> None:
    now = [0.0]
    limiter = RateLimiter(Rate(3, 2), lambda: now[0])
    assert [limiter.allows("a") for _ in range(4)] == [True, True, True, False]
    assert limiter.allows("b")
    now[0] = 1.0
    assert [limiter.allows("a") for _ in range(3)] == [True, True, False]
    now[0] = -100.0  # a clock that goes back gives nothing
    assert not limiter.allows("a")


def test_the_number_of_remembered_addresses_is_bounded() -> None:
    limiter = RateLimiter(Rate(1, 0), lambda: 0.0)
    for index in range(2 * MOST_ADDRESSES):
        limiter.allows(str(index))
    assert len(limiter._buckets) == MOST_ADDRESSES


def test_every_response_has_the_headers() -> None:
    async def respond(status: int) -> list[Any]:
        async def application(scope: Any, receive: Any, send: Any) -> None:
            headers = {"Cache-Control": "public", "content-security-policy": "default-src *"}
            await Response("x", status, headers)(scope, receive, send)

        sent: list[Any] = []

        async def send(message: Any) -> None:
            sent.append(message)

        await SecurityHeaders(application)({"type": "http", "method": "GET", "headers": []}, None, send)
        return sent[0]["headers"]

    for status in (200, 401, 404, 500):
        headers = asyncio.run(respond(status))
        assert [pair for pair in headers if pair[0] in dict(HEADERS)] == list(HEADERS)
    policy = dict(HEADERS)[b"content-security-policy"].decode()
    assert "default-src 'none'" in policy and "unsafe" not in policy and "http" not in policy and "*" not in policy


@given(st.lists(st.binary(max_size=40)), st.integers(1, 9))
def test_frames_arrive_whatever_the_pieces(bodies: list[bytes], size: int) -> None:
    stream = b"".join(len(body).to_bytes(4, "big") + body for body in bodies)
    reader, found = FrameReader(40), []
    for place in range(0, len(stream), size):
        found += reader.feed(stream[place : place + size])
    assert found == bodies


def test_a_frame_that_is_too_long_is_refused_before_it_arrives() -> None:
    with pytest.raises(ProtocolError, match="a frame of 41 bytes; allowed are 40"):
        FrameReader(40).feed((41).to_bytes(4, "big"))


@given(st.binary(max_size=200))
def test_no_bytes_make_a_call_fail_otherwise(data: bytes) -> None:
    with contextlib.suppress(ProtocolError):
        unpack_call(data)


def test_a_call_survives_the_channel() -> None:
    call = Call(7, "cookie", "key", SignIn("link"))
    assert unpack_call(FrameReader(1000).feed(pack_call(call))[0]) == call


def test_actions_are_checked_before_they_are_sent() -> None:
    assert action_request({"action": "cancel", "job": "abc"}) == CancelJob("abc")
    for body in (
        {},
        {"action": "submit"},
        {"action": "cancel"},
        {"action": "cancel", "job": 5},
        {"action": ["cancel"]},
    ):
        with pytest.raises(ProtocolError):
            action_request(body)
    assert "SubmitJob" not in {kind.__name__ for kind in ACTIONS.values()}


def test_a_preview_becomes_the_same_pixels_as_png() -> None:
    pixels = bytes(range(24))
    image = Image.open(io.BytesIO(preview_png(PreviewFrame("j", 1, 4, 2, zlib.compress(pixels)))))
    assert image.size == (4, 2) and image.tobytes() == pixels


@pytest.mark.parametrize("data", [b"", b"no zlib", zlib.compress(bytes(23)), zlib.compress(bytes(25))])
def test_a_preview_of_other_bytes_is_refused(data: bytes) -> None:
    with pytest.raises(ProtocolError):
        preview_png(PreviewFrame("j", 1, 4, 2, data))


def test_a_preview_that_inflates_to_gigabytes_is_refused() -> None:
    with pytest.raises(ProtocolError, match="allowed are"):
        preview_png(PreviewFrame("j", 1, 4096, 4096, b""))


@pytest.mark.parametrize("address", ["127.0.0.1:0", "localhost:80", "[::1]:8080", "127.9.9.9:1"])
def test_loopback_needs_neither_tls_nor_keys(address: str) -> None:
    assert check_web_address(address, None, None, False).scheme == "http"


@pytest.mark.parametrize("address", ["0.0.0.0:80", "192.168.1.5:80", "[::]:80", "gpu-box:80", "127.0.0.1.nip.io:80"])
def test_other_addresses_need_tls_and_keys(address: str, certificate: tuple[Path, Path]) -> None:
    with pytest.raises(ConfigError, match="unencrypted"):
        check_web_address(address, None, None, True)
    with pytest.raises(ConfigError, match="no users"):
        check_web_address(address, *certificate, False)
    checked = check_web_address(address, *certificate, True, ("gpu-box.example", "10.0.0.5"))
    assert checked.url(443) == "https://gpu-box.example:443"
    assert "evil.example" not in checked.names


@pytest.mark.parametrize("address", ["", "8080", "127.0.0.1", "127.0.0.1:x", "127.0.0.1:70000", ":80"])
def test_a_malformed_address_is_refused(address: str) -> None:
    with pytest.raises(ConfigError, match="allowed is HOST:PORT"):
        check_web_address(address, None, None, True)


def test_half_a_certificate_and_a_broken_one_are_refused(tmp_path: Path, certificate: tuple[Path, Path]) -> None:
    with pytest.raises(ConfigError, match="give both"):
        check_web_address("127.0.0.1:0", certificate[0], None, True)
    (tmp_path / "bad.pem").write_text("no certificate")
    for pair in ((tmp_path / "bad.pem", certificate[1]), (tmp_path / "none.pem", certificate[1])):
        with pytest.raises(ConfigError, match="cannot be used"):
            check_web_address("127.0.0.1:0", *pair, True)
