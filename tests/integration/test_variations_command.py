# SPDX-License-Identifier: GPL-3.0-or-later
"""`dreamwright generate --variations` and `--like`: files, one loaded model, resuming, and one-line refusals."""

from __future__ import annotations

import json
import os
import shutil
import signal
from pathlib import Path

import pytest
from PIL import Image

from dreamwright.backend.cli.main import main
from dreamwright.backend.cli.variations import finished_folder
from dreamwright.backend.errors import CheckpointError
from dreamwright.backend.guidance.denoisers import loading
from dreamwright.backend.scenes.field_scene import FieldScene
from dreamwright.backend.scenes.initial_field import FIELD_FILE, read_initial_field
from dreamwright.backend.training import guidance_loading
from tests.testing.tiny_model import QUICK, save_tiny_model

SETTINGS = [part for setting in QUICK for part in ("--set", setting)]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(save_tiny_model(tmp_path_factory.mktemp("model")))


@pytest.fixture(scope="module")
def pair(model: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two finished variations, with the seeds 4 and 5."""
    out = tmp_path_factory.mktemp("group") / "mushrooms"
    assert generate(model, out, "--variations", "2", "--seed", "4") == 0
    return out


def generate(model: str, out: Path, *extra: str, prompt: tuple[str, ...] = ("a red mushroom",)) -> int:
    return main(["generate", *prompt, "--model", model, "--out", str(out), *SETTINGS, *extra])


def extras(path: Path) -> dict[str, object]:
    """The provenance in a .glb."""
    data = path.read_bytes()
    return json.loads(data[20 : 20 + int.from_bytes(data[12:16], "little")])["asset"]["extras"]


@pytest.fixture
def steps_taken(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The seed of each step that a field takes."""
    taken: list[int] = []
    plain = FieldScene.train_step

    def train_step(self: FieldScene) -> dict[str, float]:
        taken.append(self.seed)
        return plain(self)

    monkeypatch.setattr(FieldScene, "train_step", train_step)
    return taken


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The models that are loaded."""
    found: list[Path] = []

    def load(path: Path, *options: object, **named: object) -> object:
        found.append(path)
        return loading.load_denoiser(path, *options, **named)

    monkeypatch.setattr(guidance_loading, "load_denoiser", load)
    return found


def test_each_variation_has_its_files_and_the_sheet_shows_all(pair: Path) -> None:
    assert sorted(path.name for path in pair.iterdir()) == [
        "contact-sheet.png", "seed-4", "seed-4.glb", "seed-5", "seed-5.glb",
    ]  # fmt: skip
    assert [extras(pair / f"seed-{seed}.glb")["seed"] for seed in (4, 5)] == [4, 5]
    assert (pair / "seed-4.glb").read_bytes() != (pair / "seed-5.glb").read_bytes()
    assert sorted(path.name for path in (pair / "seed-4").iterdir()) == [FIELD_FILE, "finished.json", "views.png"]
    with Image.open(pair / "contact-sheet.png") as sheet, Image.open(pair / "seed-4" / "views.png") as views:
        assert sheet.width > 2 * views.width and sheet.height > views.height
        rows = sheet.convert("RGB").load()
        assert rows is not None
        places = [(4, 14), (4 + views.width + 4, 14)]  # the gap before a tile, the line of its label
        for seed, place in zip((4, 5), places, strict=True):
            with Image.open(pair / f"seed-{seed}" / "views.png") as own:
                box = (*place, place[0] + own.width, place[1] + own.height)
                assert sheet.convert("RGB").crop(box).tobytes() == own.convert("RGB").tobytes()


def test_a_variation_is_what_its_seed_alone_makes(model: str, pair: Path, tmp_path: Path) -> None:
    """The second one, which shares the loaded model with the first: no state is carried over."""
    assert generate(model, tmp_path / "prop.glb", "--seed", "5") == 0
    assert (tmp_path / "prop.glb").read_bytes() == (pair / "seed-5.glb").read_bytes()


def test_finished_ones_are_not_made_again_and_the_model_is_loaded_once(
    model: str, pair: Path, tmp_path: Path, steps_taken: list[int], loaded: list[Path]
) -> None:
    out = tmp_path / "copy"
    shutil.copytree(pair, out)
    before = (out / "seed-4.glb").stat().st_mtime_ns
    assert generate(model, out, "--variations", "4", "--seed", "4") == 0
    assert set(steps_taken) == {6, 7} and len(loaded) == 1
    assert (out / "seed-4.glb").stat().st_mtime_ns == before
    steps_taken.clear()
    loaded.clear()
    assert generate(model, out, "--variations", "4", "--seed", "4") == 0
    assert not steps_taken and not loaded
    (out / "seed-5.glb").unlink()  # discarded, and asked for again
    assert generate(model, out, "--variations", "2", "--seed", "4") == 0
    assert set(steps_taken) == {5}


def test_ctrl_c_stops_within_a_step_and_the_same_command_continues(
    model: str, pair: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    plain, stopped = FieldScene.train_step, []

    def train_step(self: FieldScene) -> dict[str, float]:
        scalars = plain(self)
        if (self.seed, self.step) == (5, 3) and not stopped:
            stopped.append(self.seed)
            os.kill(os.getpid(), signal.SIGINT)
        return scalars

    monkeypatch.setattr(FieldScene, "train_step", train_step)
    out = tmp_path / "group"
    assert generate(model, out, "--variations", "2", "--seed", "4") == 130
    assert "stopped at step 3; the same command continues it" in capsys.readouterr().err
    assert (out / "seed-4" / "finished.json").is_file() and not (out / "seed-5" / "finished.json").exists()
    assert generate(model, out, "--variations", "2", "--seed", "4") == 0
    assert "resuming at step 3" in capsys.readouterr().err
    assert (out / "seed-5.glb").read_bytes() == (pair / "seed-5.glb").read_bytes(), "as if it had not been stopped"
    assert not (out / "seed-5" / "checkpoint.safetensors").exists()


def test_files_of_another_prompt_are_refused_before_the_work(
    model: str, pair: Path, steps_taken: list[int], capsys: pytest.CaptureFixture[str]
) -> None:
    before = (pair / "seed-4.glb").read_bytes()
    for extra, prompt in (((), "a blue chair"), (("--set", "mesh.triangles=300"), "a red mushroom")):
        assert generate(model, pair, "--variations", "2", "--seed", "4", *extra, prompt=(prompt,)) == 2
        assert "seed-4 holds a variation of another prompt, model or other settings" in capsys.readouterr().err
    assert not steps_taken and (pair / "seed-4.glb").read_bytes() == before


def test_like_goes_on_from_the_picked_field_with_other_seeds(
    model: str, pair: Path, tmp_path: Path, steps_taken: list[int]
) -> None:
    out = tmp_path / "more"
    assert generate(model, out, "--like", str(pair / "seed-4.glb"), "--variations", "2", prompt=()) == 0
    assert steps_taken == [5] * 3 + [6] * 3, "half of the six steps are skipped"
    found = extras(out / "seed-5.glb")
    assert (found["prompt"], found["finetuned_from"]) == ("a red mushroom", "a red mushroom")
    assert (out / "seed-5.glb").read_bytes() != (pair / "seed-5.glb").read_bytes()
    assert read_initial_field(out / "seed-5").seed == 5, "it can be gone on from as well"


def test_like_takes_a_mesh_a_folder_or_a_group_of_one(pair: Path, tmp_path: Path) -> None:
    assert finished_folder(pair / "seed-5.glb") == finished_folder(pair / "seed-5") == pair / "seed-5"
    with pytest.raises(CheckpointError, match=r"holds several variations \(seed-4, seed-5\); give one of them"):
        finished_folder(pair)
    shutil.copytree(pair / "seed-5", tmp_path / "seed-5")
    assert finished_folder(tmp_path) == tmp_path / "seed-5"
    assert finished_folder(tmp_path / "nowhere") == tmp_path / "nowhere", "which is then refused as a field"


@pytest.mark.parametrize(
    ("extra", "words"),
    [
        (["--variations", "0"], "--variations is 0; allowed are 1 to 16"),
        (["--variations", "1000"], "--variations is 1000; allowed are 1 to 16"),
        (["--variations", "2", "--seed", str(2**31 - 1)], "run.seed"),
        (["--variations", "2", "--work", "elsewhere"], "leave --work out"),
        (["--like", "a", "--from", "b"], "leave one of them out"),
        (["--like", "nowhere.glb"], "no field in nowhere"),
        (["--variations", "2", "--out", "file.txt"], "it is a file"),
    ],
)
def test_bad_input_is_one_line_before_any_work(
    extra: list[str], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("file.txt").write_text("precious")
    assert main(["generate", "a red mushroom", *extra]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert words in line
    assert [path.name for path in tmp_path.iterdir()] == ["file.txt"]


def test_no_prompt_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["generate", "--out", str(tmp_path / "prop.glb")]) == 2
    assert "there is no prompt" in capsys.readouterr().err
