# SPDX-License-Identifier: GPL-3.0-or-later
"""Every picture of the documents, what makes it, what that takes, and which documents show it."""

from __future__ import annotations

from pathlib import Path

from .composites import mesh_rows, side_by_side
from .recipe import WORK, Picture, Recipe, Step

STARTER = "backend/starter/weights"
CLASSIFIER = "backend/starter/classifier"
IMAGE_TEXT = "backend/starter/image_text"

GENERATION = (
    "backend/cameras", "backend/fields", "backend/geometry", "backend/guidance", "backend/mesh_rendering",
    "backend/optimizers", "backend/rendering", "backend/runtime/rng.py", "backend/scenes", "backend/text",
    "backend/training",
)  # fmt: skip
EVALUATION = (*GENERATION, "backend/evaluation", "backend/cli/evaluate", "backend/starter")
SAMPLING = ("backend/guidance", "backend/text", "backend/starter")
REFINING = (*GENERATION, "backend/starter/props.py", "backend/starter/solids.py", "tools/docs/composites.py")
BLENDER = (*GENERATION, "backend/server", "blender_addon", "shared")

ONE_THREAD = ("--set", "run.threads=1", "--device", "cpu")
# Enough steps that something is meshed, and not enough for anything to look at.
SMALL_RUNS = (
    "--set", "run.steps=24", "--set", "render.samples=16", "--set", "mesh.resolution=24",
    "--set", "render.coarse_resolution=16",
)  # fmt: skip
# draft with a fifth of its steps, coarse views and grid, and a learning rate that clears fog in so few steps.
SHORT_DRAFT = (
    "--steps", "150", "--set", "run.threads=1", "--set", "render.coarse_share=1", "--set", "mesh.resolution=64",
    "--set", "field.voxel_resolutions=16,32", "--set", "optimizer.learning_rate=0.15",
    "--set", "regularizers.opacity_start=0.016", "--set", "regularizers.opacity_end=0.004",
    "--elevation", "30", "--device", "cpu",
)  # fmt: skip
SHORTER_DRAFT = ("--steps", "24", "--set", "render.samples=16", "--set", "mesh.resolution=24")


def _evaluation(preset: str, minutes: float, pictures: tuple[Picture, ...]) -> Recipe:
    """All prompts of the starter by a preset."""
    return Recipe(
        f"{preset}-evaluation",
        (
            Step(
                ("dreamwright", "evaluate", "starter", "--preset", preset, *ONE_THREAD, "--out", f"{WORK}/out"),
                "out",
                tiny=("--prompts", "a red mushroom", "a blue chair", "a yellow torus", *SMALL_RUNS),
                continues=True,
            ),
        ),
        minutes,
        presets=(preset,),
        weights=(STARTER, CLASSIFIER),
        code=EVALUATION,
        pictures=(
            *pictures,
            Picture(
                f"{preset}-evaluation.png",
                "out/evaluation.png",
                ("README.md", "docs/results/results.md") if preset == "draft" else ("docs/results/results.md",),
            ),
        ),
    )


def _suite(
    name: str,
    arguments: tuple[str, ...],
    tiny: tuple[str, ...],
    minutes: float,
    document: str,
    presets: tuple[str, ...],
) -> Recipe:
    """A suite of `dreamwright evaluate` that writes NAME.json and NAME.png."""
    return Recipe(
        name,
        (
            Step(
                ("dreamwright", "evaluate", name, *arguments, "--out", f"{WORK}/out"), "out", tiny=tiny, continues=True
            ),
        ),
        minutes,
        presets=presets,
        weights=(STARTER, CLASSIFIER, IMAGE_TEXT),
        code=EVALUATION,
        pictures=(Picture(f"{name}.png", f"out/{name}.png", (document,)),),
    )


def _refinement(name: str, mesh: str, prompt: str, runs: dict[str, tuple[str, ...]], minutes: float) -> Recipe:
    """A mesh above what `refine` makes of it, one row for each of the runs by file name."""

    def compose(work: Path) -> None:
        mesh_rows([work / "input" / "mesh.ply", *(work / run / "mesh.ply" for run in runs)], work / "rows.png")

    return Recipe(
        name,
        (
            Step(("python", "-m", "tools.docs.composites", mesh, f"{WORK}/input/mesh.ply"), "input"),
            *(
                Step(
                    (
                        "dreamwright", "refine", f"{WORK}/input/mesh.ply", prompt, *arguments, *ONE_THREAD,
                        "--out", f"{WORK}/{run}/mesh.ply",
                    ),
                    run,
                    tiny=("--steps", "8", "--set", "render.coarse_resolution=16"),
                )
                for run, arguments in runs.items()
            ),
        ),
        minutes,
        presets=("refine",),
        weights=(STARTER,),
        code=REFINING,
        pictures=(Picture(f"{name}.png", "rows.png", ("docs/user/refine-mesh.md",)),),
        compose=compose,
    )  # fmt: skip


def _under_two_lights(work: Path) -> None:
    side_by_side([work / "out" / "sun.png", work / "out" / "lamp.png"], work / "relit.jpg")


def _three_lightings(work: Path) -> None:
    side_by_side([work / "out" / f"{name}.png" for name in ("sun", "lamp", "sky")], work / "scene.jpg", 1920)


def _quality(steps: int, tiny_steps: int) -> Step:
    """The classifier's view of ancestral samples."""
    folder = f"{steps}-steps"
    return Step(
        (
            "python", "-m", "tools.starter_training.quality", "--samples", "256", "--steps", str(steps),
            "--threads", "1", "--out", f"{WORK}/{folder}",
        ),
        folder,
        tiny=("--samples", "64", "--steps", str(tiny_steps)),
    )  # fmt: skip


WATCHED = ("early", "middle", "late", "imported")
FIRST_PROP = ("install", "preferences", "start", "prompt", "early", "middle", "late", "ready", "prop")

RECIPES: tuple[Recipe, ...] = (
    Recipe(
        "first-prop",
        (
            Step(
                ("python", "-m", "tests.blender.record_first_prop", "--out", f"{WORK}/out"),
                "out",
                tiny=("--set", "run.steps=60", "--set", "render.samples=16", "--set", "mesh.resolution=32"),
                report="report.json",
            ),
        ),
        8,
        presets=("draft",),
        weights=(STARTER,),
        code=(*BLENDER, "tests/blender/record_first_prop.py", "tests/blender/scripts/first_prop.py"),
        pictures=tuple(
            Picture(f"first-prop/{place}-{name}.png", f"out/{place}-{name}.png", ("docs/user/first-prop.md",))
            for place, name in enumerate(FIRST_PROP, 1)
        ),
    ),
    Recipe(
        "web-page",
        (Step(("python", "-m", "tests.testing.record_web_page", "--out", f"{WORK}/out"), "out"),),
        1,
        presets=(),
        weights=(),
        code=("backend/server/web", "tests/testing/record_web_page.py", "tests/testing/stepping_worker_server.py"),
        pictures=(Picture("web-page.png", "out/web-page.png", ("docs/operator/web-page.md",)),),
    ),
    Recipe(
        "watch",
        (
            Step(
                (
                    "python", "-m", "tests.blender.record_sequence", "watch", "--prompts", "a red mushroom",
                    "--set", "run.threads=1", "--out", f"{WORK}/out",
                ),
                "out",
                tiny=("--set", "run.steps=60", "--set", "render.samples=16", "--set", "mesh.resolution=32"),
            ),
        ),
        5,
        presets=("draft",),
        weights=(STARTER,),
        code=(*BLENDER, "tests/blender/record_sequence.py", "tests/blender/scripts/watch_in_window.py"),
        pictures=tuple(
            Picture(f"watch/{place}-{name}.png", f"out/{place}-{name}.png", ("docs/user/blender.md",))
            for place, name in enumerate(WATCHED, 1)
        ),
    ),
    Recipe(
        "relit",
        (
            Step(
                ("dreamwright", "demo", "a red mushroom", "--out", f"{WORK}/out"),
                "out",
                tiny=("--size", "64", "--samples", "4", *SMALL_RUNS),
            ),
        ),
        5,
        presets=("draft",),
        weights=(STARTER,),
        code=(*BLENDER, "backend/cli/demo.py", "backend/cli/demo_scene.py"),
        pictures=(Picture("relit.jpg", "relit.jpg", ("docs/user/blender.md",)),),
        compose=_under_two_lights,
    ),
    Recipe(
        "scene",
        (
            Step(
                ("dreamwright", "demo", "--scene", "--out", f"{WORK}/out"),
                "out",
                tiny=("--size", "96", "--samples", "2", *SMALL_RUNS),
                continues=True,
            ),
        ),
        15,
        presets=("draft",),
        weights=(STARTER,),
        code=(*GENERATION, "backend/library", "backend/relighting", "blender_addon/datablocks"),
        pictures=(Picture("scene.jpg", "scene.jpg", ("README.md", "docs/user/relighting.md")),),
        compose=_three_lightings,
    ),
    _evaluation(
        "draft",
        45,
        (Picture("red-mushroom.png", "out/a-red-mushroom.0/turntable.png", ("README.md", "docs/index.md")),),
    ),
    _evaluation("standard", 70, ()),
    _suite(
        "baselines",
        ("--prompts", "3", "--seeds", "1", *ONE_THREAD),
        ("--prompts", "1", "--seeds", "1", "--set", "run.steps=24", "--set", "mesh.resolution=24"),
        45,
        "docs/results/methods.md",
        ("draft", "dream-fields", "clip-mesh"),
    ),
    _suite(
        "ablation",
        ("--prompts", "2", "--seeds", "1", *SHORT_DRAFT),
        ("--prompts", "1", *SHORTER_DRAFT),
        10,
        "docs/results/ablations.md",
        ("draft",),
    ),
    _suite(
        "sweep",
        ("--prompts", "a blue chair", "--weights", "1", "3", "30", "--seeds", "2", *SHORT_DRAFT),
        ("--weights", "3", *SHORTER_DRAFT),
        6,
        "docs/results/ablations.md",
        ("draft",),
    ),
    _suite(
        "guidance-2d",
        (
            "--prompts", "2", "--seeds", "2", "--weights", "1", "3", "10", "30", "--steps", "80",
            "--ancestral-steps", "25", "--threads", "1", "--device", "cpu",
        ),
        ("--prompts", "1", "--weights", "3", "--steps", "4", "--ancestral-steps", "4"),
        6,
        "docs/results/ablations.md",
        (),
    ),
    Recipe(
        "starter-samples",
        (_quality(40, 4), _quality(25, 3)),
        10,
        presets=("draft",),
        weights=(STARTER, CLASSIFIER),
        code=(*SAMPLING, "tools/starter_training/quality.py"),
        pictures=(Picture("starter-samples.png", "40-steps/samples.png", ("docs/results/starter.md",)),),
    ),
    Recipe(
        "step-time",
        (
            Step(
                (
                    "python", "benchmarks/step_time.py", "--steps", "20", "--warm", "150", "--threads", "2",
                    "--json", f"{WORK}/out/step-time.json",
                ),
                "out",
                tiny=("--steps", "1", "--warm", "1"),
            ),
        ),
        4,
        presets=("draft", "standard", "paper"),
        weights=(STARTER,),
        code=(*GENERATION, "benchmarks/step_time.py"),
    ),
    _refinement(
        "refined-mushroom",
        "gray-mushroom",
        "a red mushroom",
        {"half": ("--strength", "0.5", "--steps", "240"), "whole": ("--strength", "1")},
        3,
    ),
    _refinement(
        "refined-duck", "blue-duck", "a yellow duck", {"refined": ("--strength", "0.8", "--steps", "200")}, 2
    ),
)  # fmt: skip
