# SPDX-License-Identifier: GPL-3.0-or-later
"""Take the picture of the web page: an admin sees the jobs of two users, made by simulated workers.

python -m tests.testing.record_web_page --out FOLDER
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from tests.testing.chromium import chromium, open_page
from tests.testing.web_server import web_server

PICTURE = "web-page.png"
JOBS = (("ada", "a red mushroom"), ("bob", "a blue chair"), ("ada", "a yellow torus"), ("bob", "a green tree"))


def record(out: Path) -> None:
    """Write PICTURE into a folder."""
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder, chromium() as browser, web_server(Path(folder)) as web:
        watched = open_page(browser, viewport={"width": 1000, "height": 900})
        page = watched.page
        page.goto(f"{web.url}/sign-in#{web.link('eve')}")
        page.keyboard.press("Enter")
        jobs = [web.submit(user, prompt, prompt=prompt) for user, prompt in JOBS]
        page.get_by_role("listitem", name=JOBS[0][1]).get_by_text("Step ").wait_for()
        page.wait_for_function("() => document.querySelector('#jobs img').naturalWidth > 0")
        page.wait_for_timeout(5000)  # some steps, for a larger ball
        web.signed_in("eve").act(action="cancel", job=jobs[0])
        ended = page.get_by_role("region", name="Ended jobs").get_by_role("listitem", name=JOBS[0][1])
        ended.get_by_role("button", name=f"Delete: {JOBS[0][1]}").wait_for()
        page.wait_for_function("() => document.querySelector('#jobs img').naturalWidth > 0")
        page.wait_for_timeout(5000)
        page.screenshot(path=out / PICTURE, full_page=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    record(parser.parse_args().out)
