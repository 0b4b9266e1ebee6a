# SPDX-License-Identifier: GPL-3.0-or-later
"""The list of pictures agrees with the documents, every command in it parses, and the manifest is well formed."""

from __future__ import annotations

import re
from importlib.util import find_spec
from pathlib import Path

import pytest

from dreamwright.backend.cli.main import build_parser
from dreamwright.backend.config.parsing import apply_settings
from dreamwright.backend.config.recipes.starter import DRAFT
from tools.docs.figure_blocks import blocks
from tools.docs.figure_tables import FIGURES
from tools.docs.fingerprints import PARTS
from tools.docs.kept_tables import KEPT_TABLES
from tools.docs.manifest import read_manifest
from tools.docs.picture_list import RECIPES
from tools.docs.recipe import PICTURES, ROOT, Step
from tools.docs.staleness import figure_findings

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
IMAGE = re.compile(r"!\[[^\]]*\]\(([^)\s]+)\)")
SHA256 = re.compile(r"[0-9a-f]{64}")
STEPS = [pytest.param(step, id=f"{recipe.name}-{step.folder}") for recipe in RECIPES for step in recipe.steps]


def name_of(page: Path) -> str:
    """Path of a document below the checkout."""
    return page.relative_to(ROOT).as_posix()


def test_documents_show_the_listed_pictures_and_no_others() -> None:
    shown: dict[str, set[str]] = {}
    for page in PAGES:
        for link in IMAGE.findall(page.read_text(encoding="utf-8")):
            path = (page.parent / link).resolve().relative_to(ROOT / PICTURES).as_posix()
            shown.setdefault(path, set()).add(name_of(page))
    listed = [picture for recipe in RECIPES for picture in recipe.pictures]
    assert {picture.path: set(picture.documents) for picture in listed} == shown
    assert len({picture.path for picture in listed}) == len(listed), "two recipes make one picture"


def test_pictures_folder_holds_the_listed_files_and_the_manifest() -> None:
    files = {
        file.relative_to(ROOT / PICTURES).as_posix() for file in (ROOT / PICTURES).rglob("*") if file.is_file()
    } - {"manifest.json"}
    assert files == {picture.path for recipe in RECIPES for picture in recipe.pictures}


def test_every_block_of_figures_is_listed_and_every_listed_one_is_in_its_document() -> None:
    found = {(name_of(page), name) for page in PAGES for name in blocks(page.read_text(encoding="utf-8"))}
    assert found == {(block.document, block.name) for block in FIGURES}
    assert len({block.name for block in FIGURES}) == len(FIGURES)


def test_tables_of_results_are_written_by_the_command_or_kept_for_a_reason() -> None:
    pages = [page for page in PAGES if page.name == "README.md" or page.parent.name == "results"]
    kept = set()
    for page in pages:
        heading, is_written, is_code = "", False, False
        for line in page.read_text(encoding="utf-8").splitlines():
            is_code ^= line.startswith("```")
            if line.startswith("#") and not is_code:
                heading = line.lstrip("# ")
            is_written = line.startswith("<!-- figures") or (is_written and line != "<!-- end -->")
            if line.startswith("| ---") and not is_written:
                kept.add((name_of(page), heading))
    assert kept == set(KEPT_TABLES)


@pytest.mark.parametrize("block", [block for block in FIGURES if not block.recipes], ids=lambda block: block.name)
def test_figures_of_files_that_ship_are_up_to_date(block) -> None:
    assert figure_findings(block, read_manifest(ROOT), ROOT) == []


def test_names_and_inputs_of_recipes_exist() -> None:
    names = [recipe.name for recipe in RECIPES]
    assert len(set(names)) == len(names)
    assert {name for block in FIGURES for name in block.recipes} <= set(names)
    for recipe in RECIPES:
        assert recipe.minutes > 0 and len({step.folder for step in recipe.steps}) == len(recipe.steps)
        assert not [path for path in (*recipe.weights, *recipe.code) if not (ROOT / path).exists()], recipe.name


@pytest.mark.parametrize("tiny", [False, True], ids=["full", "rehearsal"])
@pytest.mark.parametrize("step", STEPS)
def test_command_exists_and_takes_its_arguments(step: Step, tiny: bool, tmp_path: Path) -> None:
    program, *rest = step.words(tiny)
    if program == "dreamwright":
        options = build_parser().parse_args(rest)  # an unknown option ends in SystemExit
        settings = [value for value in getattr(options, "set", []) if not value.startswith("field.voxel")]
        apply_settings(DRAFT, settings)  # an unknown setting, or a value out of range, raises ConfigError
    else:
        assert find_spec(rest[1]) is not None if rest[0] == "-m" else (ROOT / rest[0]).is_file()
    command = step.command(tmp_path, tiny)
    assert not [word for word in command if "{" in word] and str(tmp_path) in " ".join(command)


def test_manifest_is_well_formed() -> None:
    manifest, by_name = read_manifest(ROOT), {recipe.name: recipe for recipe in RECIPES}
    for name, made in manifest.recipes.items():
        assert set(made.pictures) == {picture.path for picture in by_name[name].pictures}
        assert tuple(made.fingerprints) == tuple(sorted(PARTS)) and made.minutes >= 0
        assert all(SHA256.fullmatch(text) for text in (*made.fingerprints.values(), *made.pictures.values()))
    written = {block.name: block for block in FIGURES}
    for name, made in manifest.figures.items():
        assert set(made.recipes) == set(written[name].recipes) <= set(manifest.recipes)
        assert all(SHA256.fullmatch(text) for text in (made.text, *made.recipes.values()))
