# SPDX-License-Identifier: GPL-3.0-or-later
"""docs/developer/conventions.md asserted, and the rules of the tree: imports, packages and the README's promises."""

from __future__ import annotations

import ast
import math
import re
import tomllib
from pathlib import Path

import pytest
import torch

from dreamwright.backend.cameras.poses import orbit_cameras
from dreamwright.backend.config.schema import GuidanceConfig
from dreamwright.backend.guidance.prediction import guided
from dreamwright.backend.guidance.sds import ScoreDistillation
from dreamwright.backend.scenes.field_losses import opacity_entropy, opacity_loss
from dreamwright.backend.scenes.field_scene import FieldScene
from dreamwright.backend.text.prompts import PromptEmbeddings
from tests.testing.oracles import GaussianOracle, KnownImages
from tests.testing.tiny_model import quick_config

ROOT = Path(__file__).resolve().parents[2]
BACKEND = ROOT / "backend"
HOUSE = ("backend", "shared", "blender_addon")
ALL_CODE = (*HOUSE, "tests", "tools", "benchmarks")


def imports_of(path: Path) -> set[str]:
    """Absolute names of all modules that a file imports, including imports inside functions."""
    found: set[str] = set()
    folder = path.relative_to(ROOT).parent.parts
    package = [*folder] if folder[0] == "blender_addon" else ["dreamwright", *folder]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            parts = [*package[: len(package) - node.level + 1]] if node.level else []
            parts += [node.module] if node.module else []
            found |= {".".join(parts), *(".".join([*parts, alias.name]) for alias in node.names)}
    return found


def files_under(*folders: str) -> list[Path]:
    return [p for folder in folders for p in (BACKEND / folder).rglob("*.py")]


LEAVES = {"config", "errors"}
# Packages that each package may import besides itself; one that is not listed may import any.
MAY_IMPORT = {
    "config": {"errors"},
    "runtime": {"errors"},
    "optimizers": LEAVES,
    "cameras": LEAVES,
    "fields": LEAVES | {"cameras"},
    "rendering": LEAVES | {"cameras", "fields", "runtime"},
    "mesh_rendering": LEAVES | {"cameras", "geometry", "rendering"},
    "geometry": LEAVES | {"cameras", "mesh_rendering"},
    "io": LEAVES | {"geometry"},
    "finishing": LEAVES | {"evaluation", "geometry", "io"},
    "models": LEAVES | {"fields", "starter"},
    "text": LEAVES | {"io", "models"},
    "guidance": LEAVES | {"cameras", "models", "runtime", "text"},
    "scenes": LEAVES
    | {"cameras", "fields", "geometry", "guidance", "mesh_rendering", "optimizers", "rendering", "runtime", "text"},
    "training": LEAVES
    | {"cameras", "fields", "geometry", "guidance", "mesh_rendering", "models", "rendering"}
    | {"runtime", "scenes", "text"},
}


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_packages_import_only_lower_layers(package: str) -> None:
    """The renderer uses no network, the guidance no renderer, scenes no training, training no server."""
    allowed = MAY_IMPORT[package] | {package}
    for path in files_under(package):
        for module in imports_of(path):
            parts = module.split(".")
            if parts[:2] == ["dreamwright", "backend"] and len(parts) > 2:
                assert parts[2] in allowed, (path, module)


def test_bpy_and_zmq_imports_stay_in_their_packages() -> None:
    """The add-on imports neither torch nor the backend."""
    users = {p.relative_to(BACKEND).as_posix() for p in BACKEND.rglob("*.py") if "bpy" in imports_of(p)}
    assert users == {
        "cli/demo_scene.py",
        "cli/finish_fbx.py",
        "library/blend_script.py",
        "relighting/blender_lightings.py",
        "relighting/blender_renders.py",
        "relighting/relit_script.py",
    }
    zmq_users = {p.relative_to(BACKEND).as_posix() for p in BACKEND.rglob("*.py") if "zmq" in imports_of(p)}
    assert zmq_users == {
        "server/app.py",
        "server/local_queue.py",
        "server/transport/access_control.py",
        "server/transport/connection_counts.py",
        "server/transport/router_socket.py",
        "server/transport/zap_authenticator.py",
        "server/workers/local_runner.py",
        "server/workers/worker.py",
        "server/workers/worker_endpoint.py",
        "server/workers/runner.py",
        "server/workers/ray_runner.py",
        "server/workers/ray_bridge.py",
    }
    for path in (ROOT / "blender_addon").rglob("*.py"):
        assert not {m.split(".")[0] for m in imports_of(path)} & {"torch", "diffusers", "dreamwright"}, path


def test_addon_and_shared_code_start_no_threads() -> None:
    """Python threads crash Blender."""
    for folder in ("blender_addon", "shared"):
        for path in (ROOT / folder).rglob("*.py"):
            assert not imports_of(path) & {
                "threading",
                "_thread",
                "multiprocessing",
                "concurrent.futures",
                "asyncio",
            }, path


def test_no_unpickling_and_no_swallowed_errors() -> None:
    for path in [p for top in HOUSE for p in (ROOT / top).rglob("*.py")]:
        text = path.read_text()
        assert not imports_of(path) & {"pickle", "dill", "marshal", "shelve"}, path
        assert not re.search(
            r"torch\.load\(|except:|except Exception:\s*pass|np\.load\([^)]*allow_pickle=True", text
        ), path
        assert not [n for n in ast.walk(ast.parse(text)) if isinstance(n, ast.Assert)], path


def test_every_file_has_its_license_and_a_readable_size() -> None:
    for path in [p for top in ALL_CODE for p in (ROOT / top).rglob("*.py") if "node_modules" not in p.parts]:
        lines = path.read_text().splitlines()
        assert lines[0] == "# SPDX-License-Identifier: GPL-3.0-or-later", path
        assert len(lines) <= 350, path


def test_every_package_folder_is_installed() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    packages = set(project["tool"]["setuptools"]["packages"])
    folders = {
        "dreamwright." + p.parent.relative_to(ROOT).as_posix().replace("/", ".")
        for top in ("backend", "shared")
        for p in (ROOT / top).rglob("__init__.py")
    }
    # A Blender that writes an asset library runs these modules of the add-on.
    assert packages == folders | {"dreamwright.blender_addon.datablocks"}
    assert project["tool"]["setuptools"]["dynamic"]["version"] == {"attr": "dreamwright.shared.__version__"}


def test_cfg_form_of_omega() -> None:
    """eps = (1 + omega) eps_c - omega eps_u, so diffusers' guidance_scale is 1 + omega."""
    assert float(guided(torch.tensor(3.0), torch.tensor(1.0), 20.0)) == 21 * 3 - 20 * 1


def test_guidance_gradient_is_summed_over_pixels() -> None:
    """Four times as many equal pixels give the same gradient per pixel: the sum is not divided by their number."""
    norms = []
    for size in (8, 16):
        oracle = GaussianOracle(torch.full((3, size, size), 0.5), 0.0)
        config = GuidanceConfig(omega=0.0, t_min=0.5, t_max=0.5, t_max_end=0.5, view_dependent=False)
        conditioning = PromptEmbeddings(oracle, "x", config).for_cameras([0.0], [0.0])
        image = torch.full((1, 3, size, size), 0.5)
        result = ScoreDistillation(oracle, config).gradient(
            image, None, conditioning, torch.Generator().manual_seed(0), 0.0
        )
        norms.append(float(result.gradient.mean()))
    # x = 0, mean = .5: 2 w (eps_hat - eps) = 2 sigma^2 (alpha / sigma) (0 - .5) = -sigma alpha = -1/2 at t = 1/2
    # Float32: some ten roundings of 6e-8 of noise of up to 4, divided by sigma = 0.7, are 3e-6.
    assert norms == pytest.approx([-0.5, -0.5], abs=1e-5)


def test_step_averages_over_views() -> None:
    """Two views with the same image give the update of one."""
    oracle = KnownImages(lambda cameras: torch.full((len(cameras), 3, 16, 16), 0.2), 16)
    gradients = []
    for views in (1, 2):
        config = quick_config(f"run.views_per_step={views}", "guidance.omega=0", "camera.stratified_azimuth=false")
        run = FieldScene(
            config, ScoreDistillation(oracle, config.guidance), PromptEmbeddings(oracle, "x", config.guidance), 0
        )
        run.field.begin_step(0.0)
        cameras = orbit_cameras([0.0] * views, 0.0, 1.9, 1.4)
        from dreamwright.backend.rendering.shading import Shading

        background = torch.full((views, 256, 3), 0.5)
        image = run.renderer.render(run.field, background, cameras, [Shading()] * views, torch.ones(views, 3), 16).image
        ((image - 0.2) * image.detach()).sum().div(views).backward()
        gradients.append(run.field.raw_density[0].grad.clone())
    # Sums over the rays of one or two views in float32, in another order: 512 x 6e-8 = 3e-5 of the largest at most.
    torch.testing.assert_close(gradients[0], gradients[1], rtol=0, atol=3e-5 * float(gradients[0].abs().max()))


def test_penalties_are_summed_over_rays_and_averaged_over_views() -> None:
    opacity = torch.full((2, 1, 4, 4), 0.5)
    # Sums of 16 equal float32 values: 16 roundings of 6e-8 at most.
    assert float(opacity_loss(opacity)) == pytest.approx(16 * (0.26**0.5), rel=4e-6)
    assert float(opacity_entropy(opacity)) == pytest.approx(16 * math.log(2), rel=4e-6)


def test_readme_commands_and_ci_command() -> None:
    readme = (ROOT / "README.md").read_text()
    first, second = re.findall(r"```sh\n(.*?)```", readme, re.S)[:2]
    assert first.strip() == "bash setup.sh && .venv/bin/dreamwright demo --out demo"
    assert second.strip() == "bash tests/run.sh"
    assert (ROOT / ".ci" / "run").read_text().rstrip().endswith("exec bash tests/run.sh")
    for image_path in re.findall(r"!\[[^\]]*\]\(([^)]+)\)", readme):
        assert (ROOT / image_path).is_file(), image_path
