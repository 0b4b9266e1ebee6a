# SPDX-License-Identifier: GPL-3.0-or-later
"""Recipes run step by step, continue after a stop, are published with their fingerprints, and are told stale."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from dreamwright.backend.errors import ConfigError, RunError, StoppedError
from tools.docs import fingerprints as fingerprints_module
from tools.docs import staleness
from tools.docs.figure_blocks import BlockError, blocks, with_block
from tools.docs.figure_tables import Figures
from tools.docs.fingerprints import PARTS, code_digest, fingerprints, joined
from tools.docs.making import is_made, make, publish, recipe_folder, write_figures
from tools.docs.manifest import Manifest, read_manifest, write_manifest
from tools.docs.pictures import Pace, chosen_recipes
from tools.docs.recipe import PICTURES, WORK, Picture, Recipe, Step

WRITE = "import pathlib, sys; path = pathlib.Path(sys.argv[1]); path.parent.mkdir(parents=True, exist_ok=True); "
DOCUMENT = "# Title\n\nBefore.\n\n<!-- figures: speed -->\n\nold\n\n<!-- end -->\n\nAfter.\n"
SPEED = Figures("speed", "docs/page.md", ("drawing",), lambda folders: (folders["drawing"] / "a" / "a.txt").read_text())


def script(code: str, folder: str, **options: bool | str) -> Step:
    """A step that runs Python with the path of FOLDER/FOLDER.txt as its argument."""
    return Step(("python", "-c", WRITE + code, f"{WORK}/{folder}/{folder}.txt"), folder, **options)


def never() -> bool:
    """No signal has come."""
    return False


@pytest.fixture
def recipe() -> Recipe:
    """Two steps: the first writes a picture, the second prints a report."""
    steps = (
        script("path.write_text('one')", "a"),
        script("print('two'); path.write_text('x')", "b", report="report.txt"),
    )
    return Recipe("drawing", steps, 1, ("draft",), (), ("tools/docs/recipe.py",), (Picture("one.png", "a/a.txt", ()),))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Documents with one block."""
    folder = tmp_path / "root"
    (folder / PICTURES).mkdir(parents=True)
    (folder / "docs" / "page.md").write_text(DOCUMENT, encoding="utf-8")
    return folder


@pytest.fixture
def made(recipe: Recipe, root: Path, tmp_path: Path) -> Manifest:
    """The recipe made and published, and its block written."""
    parts = fingerprints(recipe)
    folder, manifest = recipe_folder(tmp_path / "work", recipe, parts), Manifest()
    make(recipe, folder, False, never)
    publish(recipe, folder, parts, root, manifest)
    write_figures(SPEED, {"drawing": folder}, root, manifest)
    return manifest


def test_steps_run_in_order_and_leave_report_and_pictures(recipe: Recipe, tmp_path: Path) -> None:
    assert not is_made(tmp_path, recipe)
    make(recipe, tmp_path, False, never)
    assert is_made(tmp_path, recipe)
    assert (tmp_path / "report.txt").read_text() == "two\n"
    assert set(json.loads((tmp_path / "done.json").read_text())) == {"a", "b"}


def test_failed_step_is_tried_again_and_earlier_ones_are_kept(recipe: Recipe, tmp_path: Path) -> None:
    broken = replace(recipe, steps=(recipe.steps[0], script("path.write_text('half'); sys.exit(3)", "b")))
    with pytest.raises(RunError, match="drawing: .* ended with status 3"):
        make(broken, tmp_path, False, never)
    (tmp_path / "a" / "a.txt").write_text("kept")
    make(recipe, tmp_path, False, never)
    assert (tmp_path / "a" / "a.txt").read_text() == "kept" and is_made(tmp_path, recipe)


@pytest.mark.parametrize("continues", [False, True])
def test_only_a_step_that_continues_finds_what_it_left(recipe: Recipe, continues: bool, tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "left").write_text("")
    step = script("path.write_text(str((path.parent / 'left').exists()))", "a", continues=continues)
    make(replace(recipe, steps=(step,)), tmp_path, False, never)
    assert (tmp_path / "a" / "a.txt").read_text() == str(continues)


def test_stop_interrupts_the_command_once_and_the_step_is_not_done(recipe: Recipe, tmp_path: Path) -> None:
    wait = (
        "import time\nseen = 0\npath.write_text('ready')\n"
        "try:\n    time.sleep(60)\nexcept KeyboardInterrupt:\n    path.write_text('interrupted')\n"
    )
    stopping = replace(recipe, steps=(script(wait, "a"), recipe.steps[1]))

    def is_ready() -> bool:
        return (tmp_path / "a" / "a.txt").is_file() and (tmp_path / "a" / "a.txt").read_text() != ""

    with pytest.raises(StoppedError, match="the same command continues"):
        make(stopping, tmp_path, False, is_ready)
    assert (tmp_path / "a" / "a.txt").read_text() == "interrupted"
    assert not (tmp_path / "done.json").exists() and not (tmp_path / "b").exists()


def test_published_pictures_and_figures_are_recorded_and_fresh(recipe: Recipe, root: Path, made: Manifest) -> None:
    write_manifest(root, made)
    assert read_manifest(root) == made
    assert (root / PICTURES / "one.png").read_text() == "one"
    assert staleness.all_findings([recipe], [SPEED], made, root) == []


def test_rest_of_the_document_is_left_alone(root: Path, made: Manifest) -> None:
    assert (root / "docs" / "page.md").read_text() == DOCUMENT.replace("old", "one")


@pytest.mark.parametrize("part", PARTS)
def test_change_of_an_input_is_found_and_code_alone_does_not_fail(
    part: str, recipe: Recipe, root: Path, made: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    present = {**fingerprints(recipe), part: "0" * 64}
    monkeypatch.setattr(staleness, "fingerprints", lambda recipe: present)
    (finding,) = staleness.recipe_findings(recipe, made, root)
    assert part in finding.reason and finding.is_stale == (part != "code")


def test_replaced_missing_and_unmade_pictures_are_found(recipe: Recipe, root: Path, made: Manifest) -> None:
    (root / PICTURES / "one.png").write_text("by hand")
    assert [found.reason for found in staleness.recipe_findings(recipe, made, root)] == [
        "one.png is another file than was made"
    ]
    (root / PICTURES / "one.png").unlink()
    assert [found.reason for found in staleness.recipe_findings(recipe, made, root)] == ["one.png is missing"]
    assert staleness.recipe_findings(recipe, Manifest(), root)[0].is_stale


def test_edited_figures_and_those_of_an_earlier_run_are_found(recipe: Recipe, root: Path, made: Manifest) -> None:
    later = {
        name: replace(run, fingerprints={**run.fingerprints, "weights": "1"}) for name, run in made.recipes.items()
    }
    (finding,) = staleness.figure_findings(SPEED, Manifest(later, made.figures), root)
    assert "another run" in finding.reason
    page = root / "docs" / "page.md"
    page.write_text(page.read_text().replace("\none\n", "\ntwo\n"))
    (finding,) = staleness.figure_findings(SPEED, made, root)
    assert "edited" in finding.reason
    page.write_text("# Title\n")
    (finding,) = staleness.figure_findings(SPEED, made, root)
    assert "no such block" in finding.reason


def test_words_of_a_module_do_not_change_its_digest_and_code_does(tmp_path: Path) -> None:
    module = tmp_path / "package" / "module.py"
    module.parent.mkdir()
    digests = []
    for number, text in enumerate((
        '"""Words."""\n\n\ndef f(x):\n    """More."""\n    return x + 1\n',
        '"""Other words."""\n\n\ndef f(x):\n    """And more."""\n    return x + 1  # a reason\n',
        '"""Words."""\n\n\ndef f(x):\n    """More."""\n    return x + 2\n',
    )):  # fmt: skip
        module.write_text(text)
        fingerprints_module._module_digest.cache_clear()  # a test writes faster than a file's time of change ticks
        digests.append(code_digest(["package"], tmp_path))
        assert number == 0 or (digests[number] == digests[0]) == (number == 1)


def test_folder_depends_on_every_part(recipe: Recipe, tmp_path: Path) -> None:
    parts = dict.fromkeys(PARTS, "0")
    folders = {recipe_folder(tmp_path, recipe, {**parts, name: "1"}) for name in PARTS}
    assert len(folders | {recipe_folder(tmp_path, recipe, parts)}) == len(PARTS) + 1
    assert joined(fingerprints(recipe)) != joined(fingerprints(replace(recipe, presets=("standard",))))


@pytest.mark.parametrize(
    "document",
    [
        "<!-- figures: a -->\nno end\n",
        "<!-- end -->\n",
        "<!-- figures: a -->\n<!-- figures: b -->\n<!-- end -->\n",
        "<!-- figures: a -->\n<!-- end -->\n<!-- figures: a -->\n<!-- end -->\n",
        "<!-- figures: A name -->\nold\n<!-- end -->\n",
    ],
    ids=["no end", "no begin", "nested", "twice", "bad name"],
)
def test_markers_that_do_not_pair_are_refused(document: str) -> None:
    with pytest.raises(BlockError):
        blocks(document)


def test_text_of_a_block_is_taken_literally() -> None:
    text = r"| \1 | \g<name> |"
    assert blocks(with_block(DOCUMENT, "speed", text)) == {"speed": text}
    with pytest.raises(BlockError, match="no block 'size'"):
        with_block(DOCUMENT, "size", text)


def test_remaining_time_follows_the_pace_so_far() -> None:
    pace = Pace({"a": 10, "b": 20, "c": 30})
    assert pace.remaining() == 60
    pace.done("a", 15)  # half as long again as expected
    assert pace.remaining() == 1.5 * 50
    pace.skip("b")
    assert pace.remaining() == 1.5 * 30


def test_unknown_recipe_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ConfigError, match="--only nothing; allowed are .*relit.*choose"):
        chosen_recipes(["nothing"])
    assert [recipe.name for recipe in chosen_recipes(["sweep", "relit"])] == ["relit", "sweep"], "in the list's order"
