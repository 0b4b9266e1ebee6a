# SPDX-License-Identifier: GPL-3.0-or-later
"""The add-on speaks the language of Blender's interface, and takes its translations along when it is disabled."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.testing.blender_reports import INSIDE, report_of, run_at_window
from tests.testing.blenders import Blender, run_script
from tests.testing.built_addon import Built

IMPORTED = {
    "de": "„a red mushroom“ importiert",
    "es": "«a red mushroom» importado",
    "fr": "« a red mushroom » importé",
    "ja": "「a red mushroom」をインポートしました",
    "zh": "已导入“a red mushroom”",
}


@pytest.mark.slow
def test_each_language_of_blender(blender_install: Blender, built: Built) -> None:
    """Blender as a module from the package index has no languages; there it stays English."""
    done = run_script(blender_install, INSIDE / "languages.py", built.universal)
    report = report_of(done)
    assert "Traceback" not in done.stdout + done.stderr
    english = ["Imported “a red mushroom”", "Finish Selected Mesh", "Height of the finished prop"]
    assert report["english"][:3] == english and "Not connected to a server" in report["english"][3]
    assert report["left"] == english[1:], "nothing of it is translated once it is disabled"
    if blender_install.kind == "program":
        assert set(report["languages"]) == set(IMPORTED)
    for language, found in report["languages"].items():
        alike = [text for text in found["untranslated"] if " " in text]
        assert alike == [], (language, "only single words, such as Pause, are the same in Blender's own translation")
        assert found["seen"][:2] == [IMPORTED[language], found["catalog"]], language
        assert not set(found["seen"]) & set(report["english"]), language


@pytest.mark.slow
def test_the_tab_in_other_languages(built: Built, serve: Callable[..., Any]) -> None:
    """Messages and times as well; the pictures are to be looked at: no label is cut."""
    server = serve("--pace", "4")
    run = run_at_window("languages_in_window.py", built.universal, "languages", {"SERVER": server.address})
    german, japanese = run.report["de_DE"], run.report["ja_JP"]
    assert german == [IMPORTED["de"], "1 min 15 s"] and japanese == [IMPORTED["ja"], "1 分 15 秒"]
    assert len(run.report["pictures"]) == 2
