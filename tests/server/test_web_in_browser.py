# SPDX-License-Identifier: GPL-3.0-or-later
"""The web page in a real Chromium: signing in, a live job, the keyboard, names for screen readers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("starlette")
pytest.importorskip("uvicorn")

from dreamwright.backend.server.transport.authorized_keys import KeyFolder
from tests.testing.chromium import Watched, chromium, open_page
from tests.testing.web_server import WebServer, web_server

pytestmark = pytest.mark.slow

AXE = Path(__file__).parent.parent / "node" / "node_modules" / "axe-core" / "axe.min.js"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def web(tmp_path_factory: pytest.TempPathFactory, browser: Any) -> Iterator[WebServer]:
    with web_server(tmp_path_factory.mktemp("web")) as web:
        yield web


def sign_in(browser: Any, web: WebServer, name: str, **options: Any) -> Watched:
    watched = open_page(browser, **options)
    watched.page.goto(f"{web.url}/sign-in#{web.link(name)}")
    watched.page.keyboard.press("Enter")  # the button has the focus
    watched.page.get_by_role("heading", name="Jobs", exact=True).wait_for()
    return watched


def tab_to(page: Any, name: str) -> None:
    """Press Tab until the element with this accessible name has the focus."""
    for _ in range(60):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.ariaLabel ?? document.activeElement.textContent") == name:
            return
    raise AssertionError(f"the keyboard does not reach {name!r}")


def test_a_job_is_followed_and_cancelled_by_the_keyboard(browser: Any, web: WebServer) -> None:
    watched = sign_in(browser, web, "ada")
    page = watched.page
    assert "#" not in page.url and page.evaluate("history.length") <= 3
    web.submit("ada", "live")
    card = page.get_by_role("listitem", name="a red mushroom")
    card.get_by_text("Step ").wait_for()
    first = card.get_by_text("Step ").inner_text()
    preview = card.get_by_role("img")
    preview.wait_for()
    assert page.evaluate("document.querySelector('.job img').naturalWidth") == 64
    page.wait_for_function("before => !document.body.innerText.includes(before)", arg=first)  # it goes on by itself
    assert card.get_by_role("progressbar", name="Progress of a red mushroom").count() == 1
    tab_to(page, "Cancel: a red mushroom")
    page.keyboard.press("Enter")
    question = page.get_by_role("dialog")
    assert "becomes a mesh" in question.inner_text()
    page.keyboard.press("Escape")  # nothing happens
    question.wait_for(state="hidden")
    assert page.evaluate("document.activeElement.ariaLabel") == "Cancel: a red mushroom"  # the focus comes back
    page.keyboard.press("Enter")
    tab_to(page, "Cancel the job")
    page.keyboard.press("Enter")
    page.get_by_role("status").get_by_text("is cancelled").wait_for()
    ended = page.get_by_role("region", name="Ended jobs").get_by_role("listitem", name="a red mushroom")
    ended.get_by_role("button", name="Delete: a red mushroom").wait_for()
    assert watched.errors == []  # neither scripts nor the content security policy
    assert {url.split("/")[2] for url in watched.requests if not url.startswith("blob:")} == {web.url.split("/")[2]}


def test_every_control_has_a_name_and_the_page_has_structure(browser: Any, web: WebServer) -> None:
    job = web.submit("ada", "named", prompt="a blue chair")
    watched = sign_in(browser, web, "eve")
    page = watched.page
    page.get_by_role("listitem", name="a blue chair").first.wait_for()
    page.get_by_role("table", name="Devices").get_by_role("row", name="cpu").wait_for()
    assert page.get_by_role("table", name="Users").get_by_role("rowheader", name="eve").count() == 1
    assert page.get_by_role("main").count() == 1 and page.get_by_role("heading", level=1).count() == 1
    nameless = page.evaluate(
        "[...document.querySelectorAll('button, a, input, progress, [tabindex]')]"
        ".filter(e => e.checkVisibility() && !(e.ariaLabel || e.textContent || e.labels?.length || e.id === 'jobs'))"
        ".map(e => e.outerHTML)"
    )
    assert nameless == []
    web.signed_in("ada").act(action="cancel", job=job)


@pytest.mark.skipif(not AXE.is_file(), reason="axe-core is missing; run npm ci in tests/node")
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_no_barrier(browser: Any, web: WebServer, scheme: str) -> None:
    web.submit("ada", f"axe-{scheme}", prompt="a blue chair")
    # Its script is injected past the page's policy.
    watched = sign_in(browser, web, "eve", color_scheme=scheme, bypass_csp=True)
    watched.page.get_by_role("listitem", name="a blue chair").first.wait_for()
    watched.page.get_by_role("table", name="Devices").get_by_role("row", name="cpu").wait_for()
    watched.page.add_script_tag(path=str(AXE))
    found = watched.page.evaluate("axe.run()")
    assert [(one["id"], [node["html"] for node in one["nodes"]]) for one in found["violations"]] == []


def test_the_page_fits_a_narrow_screen(browser: Any, web: WebServer) -> None:
    watched = sign_in(browser, web, "eve", viewport={"width": 400, "height": 800})
    watched.page.get_by_role("table", name="Devices").get_by_role("row", name="cpu").wait_for()
    assert watched.page.evaluate("document.documentElement.scrollWidth") <= 400


def test_text_of_users_stays_text(browser: Any, web: WebServer) -> None:
    watched = sign_in(browser, web, "eve")
    page = watched.page
    hostile = "<img src=x onerror=alert(1)><script>alert(1)</script>"
    page.evaluate(
        """async prompt => {
            const rows = await import('/rows.js');
            document.body.append(rows.element('p', 'hostile', prompt));
        }""",
        hostile,
    )
    assert page.locator(".hostile").inner_text() == hostile and page.locator(".hostile *").count() == 0
    for path in ("page.js", "rows.js", "requests.js", "sign-in.js"):
        source = page.request.get(f"{web.url}/{path}").text()
        for way in (
            "innerHTML",
            "outerHTML",
            "insertAdjacentHTML",
            "document.write",
            "eval(",
            "new Function",
            "DOMParser",
        ):
            assert way not in source
    assert (
        page.evaluate("(() => { try { document.body.innerHTML = 'x'; } catch (e) { return e.name; } })()")
        == "TypeError"
    )


def test_a_revoked_user_sees_nothing_any_more(browser: Any, web: WebServer) -> None:
    web.allow("cleo")
    watched = sign_in(browser, web, "cleo")
    page = watched.page
    job = web.submit("cleo", "revoked", prompt="a blue chair")
    page.get_by_role("listitem", name="a blue chair").wait_for()
    web.signed_in("cleo").act(action="cancel", job=job)
    KeyFolder(web.state).revoke("cleo")
    page.get_by_role("link", name="Sign in").wait_for()
    assert "Signed out" in page.get_by_role("status").first.inner_text()
    assert not page.locator("main").is_visible() and page.get_by_text("blue chair").count() == 0
    assert page.evaluate("localStorage.length") == 0
    page.reload()
    page.get_by_role("link", name="Sign in").wait_for()


def test_hidden_pages_close_their_streams(browser: Any, web: WebServer) -> None:
    """So that very many tabs cost the server nothing: a browser shows one tab of a window."""
    watched = sign_in(browser, web, "bob")
    page = watched.page
    page.evaluate(
        """() => {
            Object.defineProperty(document, 'visibilityState', { value: 'hidden', configurable: true });
            document.dispatchEvent(new Event('visibilitychange'));
        }"""
    )
    web.submit("bob", "unseen", prompt="a blue chair")
    bob = web.signed_in("bob")
    with bob.events() as events:  # what a visible page is sent by now
        next(events)
    assert page.get_by_role("listitem", name="a blue chair").count() == 0
    page.evaluate(
        """() => {
            Object.defineProperty(document, 'visibilityState', { value: 'visible', configurable: true });
            document.dispatchEvent(new Event('visibilitychange'));
        }"""
    )
    page.get_by_role("listitem", name="a blue chair").wait_for()


def test_a_killed_server_is_said_and_what_was_shown_stays(browser: Any, tmp_path: Path) -> None:
    with web_server(tmp_path) as web:
        watched = sign_in(browser, web, "ada")
        page = watched.page
        web.submit("ada", "stays", prompt="a blue chair")
        page.get_by_role("listitem", name="a blue chair").wait_for()
        web.server.process.kill()
        page.get_by_role("status").get_by_text("does not answer").wait_for()
        assert page.get_by_role("listitem", name="a blue chair").is_visible()


def test_an_admin_moves_a_job_and_drains_a_device(browser: Any, web: WebServer) -> None:
    web.submit("bob", "moves-0", prompt="a red mushroom")
    first, last = (
        web.submit("bob", "moves-1", prompt="a red mushroom"),
        web.submit("bob", "moves-2", prompt="a yellow torus"),
    )
    watched = sign_in(browser, web, "eve")
    page = watched.page
    device = page.get_by_role("table", name="Devices").get_by_role("row", name="cpu")
    device.wait_for()
    tab_to(page, "Drain: cpu")
    page.keyboard.press("Enter")
    device.get_by_role("button", name="Use again: cpu").wait_for()
    page.get_by_role("status").get_by_text("cpu takes no more jobs.").wait_for()
    eve = web.signed_in("eve")
    with eve.events() as events:
        snapshot = next(events)[1]
    for job in snapshot["jobs"]:  # what runs ends, and nothing starts in its place
        if job["state"] == "running":
            eve.act(action="pause", job=job["job"])
    device.get_by_role("cell", name="drained").wait_for()
    moved = page.locator(f"[data-job='{last}']")
    moved.get_by_role("button", name="Move to front: a yellow torus").click()
    moved.get_by_text("Place 1 in the queue").wait_for()
    assert page.locator(f"[data-job='{first}']").get_by_text("Place").is_visible()
    device.get_by_role("button", name="Use again: cpu").click()
    moved.get_by_text("running").wait_for()
    assert watched.errors == []
