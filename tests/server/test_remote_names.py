# SPDX-License-Identifier: GPL-3.0-or-later
"""Remote users may name models and LoRAs that the server has, and learn nothing about its disk from the refusals."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.soak.field_bounds import submit_result
from tests.testing.in_memory_server import InMemoryServer

LONG = "\N{LATIN SMALL LETTER E WITH ACUTE}" * 190  # 380 bytes: more than a file name may have


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory of the server with a private folder and a private file in it."""
    (tmp_path / "work" / "private" / "diary").mkdir(parents=True)
    (tmp_path / "work" / "private" / "letter").write_text("dear")
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path


@pytest.mark.parametrize("setting", ["model", "surface.model"])
def test_two_part_names_do_not_tell_what_is_in_the_working_directory(elsewhere: Path, setting: str) -> None:
    """owner/name of the hub has the form of a path."""
    server = InMemoryServer(elsewhere / "state")

    def answer(name: str, **who: object) -> str:
        given = {"model": name} if setting == "model" else {"settings": {setting: name}, "preset": "standard"}
        return submit_result(server, **given, **who).replace(repr(name), "X")

    absent = answer("private/absent", owner="ada")
    assert absent.startswith("bad-input: the model X is none that this server has")
    for name in ("private/diary", "private/letter", "private/" + LONG[:150], "../private", "private", ".", "~", "/"):
        assert answer(name, owner="ada") == absent, name


def test_two_part_names_of_the_hub_are_found_in_its_cache_alone(
    elsewhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dreamwright.backend.models import local

    assert not local.is_offered("someone/their-model")
    model = elsewhere / "cache"
    model.mkdir()
    monkeypatch.setattr(local, "find", lambda known: local.LocalModel(model))
    assert local.is_offered("someone/their-model") and not local.is_offered("private/diary")
    assert not local.is_offered("private/letter")


def test_loras_are_files_of_one_folder(elsewhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loras = elsewhere / "loras"
    loras.mkdir()
    (loras / "sub").mkdir()
    (loras / "sub" / "hidden.safetensors").touch()
    monkeypatch.setenv("DREAMWRIGHT_LORAS", str(loras))
    server = InMemoryServer(elsewhere / "state")
    for name in ("sub/hidden", "../work/private/letter", str(loras / "sub" / "hidden.safetensors"), "~", "..", LONG):
        refusal = submit_result(server, owner="ada", settings={"model.loras": name})
        assert refusal.startswith("bad-input: there is no LoRA "), refusal
        assert str(elsewhere) not in refusal.replace(repr(name), "X")
