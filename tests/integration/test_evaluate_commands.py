# SPDX-License-Identifier: GPL-3.0-or-later
"""`dreamwright evaluate` with a tiny model: tables, contact sheets, resuming and bad arguments."""

from __future__ import annotations

import json

import pytest
from PIL import Image

from dreamwright.backend.cli.main import main
from dreamwright.backend.errors import StoppedError
from dreamwright.backend.evaluation import baselines, samplers
from dreamwright.backend.evaluation.samples import true_prop
from dreamwright.backend.io.mesh_export import export_mesh
from tests.testing.tiny_model import QUICK, save_tiny_model

JOB = ("--steps", "2", "--models", "classifier", "--device", "cpu")
FAST = [
    word
    for name in (*QUICK, "render.coarse_resolution=0", "mesh.threshold=0.5", "mesh.resolution=16")
    if not name.startswith("run.steps")
    for word in ("--set", name)
]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return str(save_tiny_model(tmp_path_factory.mktemp("model") / "tiny"))


@pytest.fixture
def made(monkeypatch):
    """Records the jobs that run. After `made.stop_at` jobs the next one stops, as on Ctrl-C."""

    class Made(list):
        stop_at = 1000

    jobs, real = Made(), baselines.run_experiment

    def counted(job, *rest):
        if len(jobs) >= jobs.stop_at:
            raise StoppedError("stopped at step 1")
        jobs.append(job)
        return real(job, *rest)

    monkeypatch.setattr(baselines, "run_experiment", counted)
    return jobs


def size_of(path) -> tuple[int, int]:
    with Image.open(path) as image:
        return image.size


def table_rows(text: str) -> list[str]:
    return [line.split("|")[1].strip() for line in text.splitlines() if line.startswith("|") and "---" not in line]


@pytest.mark.slow
def test_ablation_continues_and_reports_every_stage(model, made, tmp_path, capsys):
    out = tmp_path / "out"
    words = ["evaluate", "ablation", "--prompts", "1", "--model", model, "--out", str(out), *JOB, *FAST]
    made.stop_at = 2
    assert main(words) == 130 and len(made) == 2 and not (out / "ablation.json").exists()
    assert "2 of 5 jobs are kept, and the same command continues" in capsys.readouterr().err
    made.stop_at = 1000
    assert main(words) == 0 and len(made) == 5
    assert [job.config.guidance.view_dependent for job in made] == [False, False, True, True, True]
    table = capsys.readouterr().out
    stages = ["base", "+ViewAug", "+ViewDep", "+Lighting", "+Textureless"]
    assert table_rows(table) == ["stage", "reference props", *stages, "stage", *stages[1:], "all stages"]
    assert (
        "By chance: albedo 0.8, shaded 0.8, textureless 6.2." in table
        and f"Model {model}: text_encoder/model.safetensors" in table
    )
    assert (out / "ablation.md").read_text() == table
    record = json.loads((out / "ablation.json").read_text())
    assert [row["row"] for row in record["rows"]] == ["reference props", *stages] and len(record["jobs"]) == 5
    assert (
        record["fixed"]["+Lighting"] == {"shading.textureless_probability": 0.0}
        and record["fixed"]["+Textureless"] == {}
    )
    assert size_of(out / "ablation.png")[0] > 128
    assert main(words) == 0 and len(made) == 5 and capsys.readouterr().out == table
    assert main([*words, "--steps", "3"]) == 2
    assert "settings.run.steps was 2, is 3" in capsys.readouterr().err and len(made) == 5


@pytest.mark.slow
def test_sweep_adds_weights(model, made, tmp_path, capsys):
    out = tmp_path / "out"
    words = [
        "evaluate",
        "sweep",
        "--prompts",
        "a red mug",
        "--model",
        model,
        "--out",
        str(out),
        *JOB,
        *FAST,
        "--weights",
    ]
    assert main([*words, "30"]) == 0
    assert main([*words, "30", "3", "--seeds", "2"]) == 0
    assert [(job.config.guidance.omega, job.config.run.seed) for job in made] == [(30, 0), (3, 0), (3, 1), (30, 1)]
    table = capsys.readouterr().out.split("R-Precision in per cent")[-1]
    assert table_rows(table) == ["omega", "3", "30"] and "distance of seeds" in table
    record = json.loads((out / "sweep.json").read_text())
    assert record["omegas"] == [3.0, 30.0] and record["rows"][0]["values"]["distance of seeds"]["mean"] > 0
    assert size_of(out / "sweep.png")[1] > 2 * 128


def test_guidance_2d_has_a_row_for_each_weight_and_sampler(model, tmp_path, monkeypatch, capsys):
    drawn, real = [], samplers.run_sampler
    monkeypatch.setattr(samplers, "run_sampler", lambda drawing, *rest: drawn.append(drawing) or real(drawing, *rest))
    words = [
        "evaluate",
        "guidance-2d",
        "--prompts",
        "1",
        "--seeds",
        "2",
        "--steps",
        "2",
        "--ancestral-steps",
        "2",
        "--model",
        model,
        "--out",
        str(tmp_path),
        "--device",
        "cpu",
    ]
    assert main([*words, "--weights", "3"]) == 0 and len(drawn) == 3
    capsys.readouterr()
    assert main([*words, "--weights", "3", "0"]) == 0 and len(drawn) == 6
    kinds = ["ancestral", "sds", "sds-symmetric"]
    assert table_rows(capsys.readouterr().out) == [
        "omega",
        "reference props",
        *(f"{omega}: {kind}" for omega in (0, 3) for kind in kinds),
    ]
    record = json.loads((tmp_path / "guidance-2d.json").read_text())
    assert record["rows"][0]["values"]["prop and color"]["mean"] == 1.0, "the classifier knows the reference chair"
    assert record["settings"]["samples"] == 2 and len(record["specs"]) == 6
    assert size_of(tmp_path / "guidance-2d.png")[1] > 6 * 64
    assert (
        main([*words, "--weights", "3", "--seeds", "3"]) == 2
        and "settings.samples was 2, is 3" in capsys.readouterr().err
    )


@pytest.mark.slow
def test_starter_keeps_every_prompt_and_seed(model, made, tmp_path, capsys):
    """A second call makes the second seed only. A job without a surface is a row as well, and counts as wrong."""
    words = ["evaluate", "starter", "--prompts", "a red mug", "a blue robot", "--model", model, "--device", "cpu"]
    words += ["--out", str(tmp_path), *FAST, "--set", "run.steps=2"]
    assert main(words) == 0 and len(made) == 2
    assert main([*words, "--seeds", "2"]) == 0 and len(made) == 4
    record = json.loads((tmp_path / "evaluation.json").read_text())
    jobs = [("a red mug", 0), ("a blue robot", 0), ("a red mug", 1), ("a blue robot", 1)]
    assert [(row["prompt"], row["seed"]) for row in record["rows"]] == jobs
    assert (record["summary"]["rows"], record["summary"]["seeds"]) == (4, 2)
    assert (tmp_path / "a-blue-robot.1" / "metrics.json").is_file()
    assert table_rows((tmp_path / "evaluation.md").read_text())[1:5] == [prompt for prompt, _ in jobs]
    assert size_of(tmp_path / "evaluation.png") == (2 * 4 + 12 * 64, 4 * (14 + 2 * 64 + 4))
    assert (tmp_path / "evaluation.md").read_text() in capsys.readouterr().out

    assert main([*words, "--set", "mesh.threshold=1e6"]) == 0
    record = json.loads((tmp_path / "evaluation.json").read_text())
    assert record["summary"]["failed"] == 2 and record["summary"]["bars"]["named_color"]["value"] == 0.0


@pytest.mark.slow
def test_starter_measures_given_meshes(tmp_path, capsys):
    """A true prop is named, fits its silhouettes and has one front; a missing prompt is a failed row."""
    meshes, out = tmp_path / "meshes", tmp_path / "out"
    meshes.mkdir()
    for name in ("a-blue-robot.glb", "a-blue-robot.3.glb", "a-peacock.glb"):
        export_mesh(true_prop("a blue robot"), meshes / name, {})
    assert main(["evaluate", "starter", "--meshes", str(meshes), "--out", str(out)]) == 0
    record = json.loads((out / "evaluation.json").read_text())
    assert [(row["prompt"], row["seed"]) for row in record["rows"]] == [("a blue robot", 0), ("a blue robot", 3)]
    for row in record["rows"]:
        # The nearest of the scales that are tried is 1.0062, taking 1.2% of the IoU, and more of thin parts.
        assert row["silhouette_iou"] > 0.97 and row["f_score"] > 0.99 and row["albedo_error"] < 0.01
        assert row["color_right"] and row["geometry_right"] and row["fronts_elsewhere"] == 0
        assert row["seconds"] is None
    words = ["evaluate", "starter", "--meshes", str(meshes), "--out", str(out), "--prompts"]
    assert main([*words, "a blue robot", "a red mug"]) == 0
    record = json.loads((out / "evaluation.json").read_text())
    assert (record["summary"]["rows"], record["summary"]["failed"]) == (3, 1)
    capsys.readouterr()
    assert main([*words, "a red mug"]) == 2
    assert "holds no mesh of these prompts; needed are files like a-red-mushroom.glb" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["ablation", "--prompts", "25"], "--prompts 25; allowed is 1 to 24, or a file"),
        (["ablation", "--prompts", "nowhere.txt"], "cannot read the prompts in nowhere.txt"),
        (["ablation", "--seeds", "0"], "--seeds 0; allowed is 1 to 100"),
        (["ablation", "--preset", "fast"], "unknown preset 'fast'"),
        (["ablation", "--preset", "dream-fields"], "is one of dream-fields; allowed are those of dreamfusion"),
        (["ablation", "--steps", "0"], "run.steps is 0"),
        (["ablation", "--set", "run.seed=3"], "--set run.seed=3: `evaluate ablation` sets run.seed itself"),
        (["ablation", "--set", "shading.textureless_probability=0"], "+Textureless would change nothing"),
        (["ablation", "--model", "nothing"], "nothing"),
        (["ablation", "--models", "nothing"], "nothing"),
        (
            ["sweep", "--weights", "3", "-1"],
            "--weights -1; allowed is 0 to 1000 (omega; diffusers' guidance_scale is 1 + omega)",
        ),
        (["sweep", "--weights", "nan"], "--weights nan"),
        (["sweep", "--weights", "3", "3.0"], "--weights 3 3; allowed is each weight once"),
        (["sweep", "--set", "guidance.omega=5"], "sets guidance.omega itself"),
        (["sweep", "--prompts", "a peacock"], "--prompts holds 1 prompts"),
        (
            ["sweep", "--prompts", "a peacock", "a bulldog", "--models", "classifier"],
            "the classifier knows the starter's captions only",
        ),
        (["ablation", "--elevation", "91"], "--elevation 91.0; allowed are -90 to 90 degrees"),
        (["sweep", "--elevation", "nan"], "--elevation nan; allowed are -90 to 90 degrees"),
        (["baselines", "--elevation", "-100"], "--elevation -100.0; allowed are -90 to 90 degrees"),
        (["baselines", "--prompts", "0"], "--prompts 0; allowed is 1 to 24"),
        (["baselines", "--seeds", "101"], "--seeds 101; allowed is 1 to 100"),
        (["baselines", "--methods", "magic"], "unknown method 'magic'"),
        (["starter", "--seed", "-1"], "0 to 2147483647"),
        (["starter", "--seeds", "0"], "--seeds 0; allowed is 1 to 100"),
        (["starter", "--set", "run.seed=3"], "--set run.seed=3: `evaluate starter` sets run.seed itself"),
        (["starter", "--meshes", "nowhere", "--set", "run.steps=3"], "with --meshes, which generates nothing"),
        (["starter", "--prompts", "a peacock"], "'a peacock'"),
        (["starter", "--preset", "dream-fields"], "is one of dream-fields"),
        (["guidance-2d", "--prompts", "0"], "--prompts 0; allowed is 1 to 24"),
        (["guidance-2d", "--ancestral-steps", "0"], "--ancestral-steps 0; allowed is 1 to"),
        (["guidance-2d", "--threads", "-1"], "--threads -1; allowed is 0 to 1024"),
        (["guidance-2d", "--model", "starter-clip"], "is a CLIP model, which cannot guide dreamfusion"),
        (["guidance-2d", "--device", "tpu"], "--device 'tpu'"),
    ],
    ids=lambda part: " ".join(part) if isinstance(part, list) else "",
)
def test_bad_arguments_are_refused_before_anything_is_made(words, expected, made, tmp_path, capsys):
    out = tmp_path / "out"
    assert main(["evaluate", *words, "--out", str(out)]) == 2
    error = capsys.readouterr().err
    assert expected in error and error.count("\n") == 1
    assert not made and not out.exists()
