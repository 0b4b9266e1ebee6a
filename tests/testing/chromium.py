# SPDX-License-Identifier: GPL-3.0-or-later
"""A headless Chromium with a new profile, driven by playwright, and what it loaded and complained about."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

ARGUMENTS = (
    "--no-sandbox",  # root has none
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


@dataclass
class Watched:
    """A page, the addresses that it asked for, and the errors of its console."""

    page: Any
    requests: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)


@contextlib.contextmanager
def chromium() -> Iterator[Any]:
    """A browser; skips the test where Chromium or playwright is missing."""
    sync_api = pytest.importorskip("playwright.sync_api")
    executable = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if executable is None:
        pytest.skip("Chromium is missing; install it (Debian: apt-get install chromium)")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=list(ARGUMENTS), timeout=120_000)
        try:
            yield browser
        finally:
            browser.close()


def open_page(browser: Any, **options: Any) -> Watched:
    """A page of a new profile, watched from its first request on."""
    context = browser.new_context(**options)
    context.set_default_timeout(120_000)
    watched = Watched(context.new_page())
    watched.page.on("request", lambda request: watched.requests.append(request.url))
    watched.page.on("pageerror", lambda error: watched.errors.append(str(error)))

    def on_console(message: Any) -> None:
        if message.type in ("error", "warning"):
            watched.errors.append(message.text)

    watched.page.on("console", on_console)
    return watched
