# SPDX-License-Identifier: GPL-3.0-or-later
"""Imports into scenes as people have them: visible, in editable collections, and without remains when refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.testing.blender_reports import report_of, run_at_window
from tests.testing.blenders import Blender, run_script
from tests.testing.built_addon import Built

SCRIPTS = Path(__file__).parent / "scripts"
VISIBLE = {"editable": True, "visible": True, "selected": True, "active": True}
KEY = "Dreamwright: a red chair"
USABLE = ("plain", "also_in_another_scene")  # active collections that a new object can join and be seen in


@pytest.mark.slow
def test_imports_into_linked_overridden_hidden_and_shared_data(blender_install: Blender, built: Built) -> None:
    report = report_of(run_script(blender_install, SCRIPTS / "import_placement.py", built.universal, timeout=200))
    for name, found in report["active collections"].items():
        expected = "Props" if name in USABLE else report["active collections"]["excluded"]["collections"][0]
        assert found == VISIBLE | {"collections": [expected]}, name
    check_copies(report["copies"])
    check_shape_keys(report["shape keys"])
    check_refusals(report["refusals"])


def check_copies(found: dict[str, Any]) -> None:
    """A copy is stored beside its source only where this scene shows it."""
    for name, copy in found.items():
        assert {key: copy[key] for key in VISIBLE} == VISIBLE, name
        assert copy["text"] == "Imported “a red chair” as a new object" and copy["keys"] == []
    assert found["also_in_another_scene"]["collections"] == ["Props"]


def check_shape_keys(found: dict[str, Any]) -> None:
    """Only the named object is deformed, and the message says when it got a mesh of its own."""
    for count in (0, 1, 3):
        shape_key = found[f"shared by {count}"]
        assert shape_key["keys"] == ["Basis", KEY] and shape_key["others"] == [[]] * count
        assert (shape_key["kept"], shape_key["meshes"]) == (not count, 1 + bool(count))
        assert shape_key["text"].startswith(
            f"“Source” has the shape key “{KEY}”; its colors are in the color attribute"
        )
    assert "shared its mesh" not in found["shared by 0"]["text"], "a fake user is no other object"
    assert "shared its mesh with “Copy 0” and now has a copy" in found["shared by 1"]["text"]
    assert "shared its mesh with 3 other objects and now has a copy" in found["shared by 3"]["text"]
    for name, why in (("linked", "“Library Object” is linked"), ("linked mesh", "The mesh of “Source” is linked")):
        assert found[name]["text"] == f"{why} from another file, so “a red chair” is a new object"
    for name in ("linked", "overridden", "linked mesh"):
        assert found[name]["keys"] == [] and {key: found[name][key] for key in VISIBLE} == VISIBLE, name


def check_refusals(found: dict[str, Any]) -> None:
    """Datablocks, attributes, selection and active object are as before, whatever fails when."""
    for name, refusal in found.items():
        assert refusal["error"], name
        assert refusal["changes"] == {}, name
    assert "texture cannot be decoded" in found["unreadable texture"]["error"]
    assert "mesh is empty" in found["only degenerate faces"]["error"]
    assert "“Library Scene” is linked from another file" in found["linked scene"]["error"]


@pytest.mark.slow
def test_an_import_joins_the_local_view(built: Built) -> None:
    report = run_at_window("local_view_in_window.py", built.universal, "local-view", {}).report
    assert report["local"] and report["joined"] == {"Cube": True, "Light": False, "a red chair": True}
    assert report["visible"] and report["visible after"]


def test_an_empty_mesh_is_refused(blender: Any) -> None:
    from dreamwright.shared.mesh_file import MeshFile
    from tests.blender.test_messages import JOB

    nothing = np.zeros((0, 3), np.float32)
    for vertices, faces in ((nothing, nothing), (np.eye(3), nothing), (np.eye(3), np.array([[0, 0, 1]]))):
        mesh = MeshFile(vertices.astype(np.float32), faces.astype(np.int32), vertices, vertices)
        for module, run in (("import_mesh", "import_mesh"), ("import_refined", "import_refined")):
            with pytest.raises(ValueError, match="another seed"):
                getattr(blender.module(module), run)(JOB, mesh, "x")
