# SPDX-License-Identifier: GPL-3.0-or-later
"""Import cycles: module-level imports form a directed acyclic graph in every package."""

from __future__ import annotations

import ast
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("backend", "shared", "blender_addon")


def module_files(root: Path, package: str) -> dict[str, Path]:
    """Files by module name, without the add-on's symlink to `shared`."""
    found = {}
    for path in sorted((root / package).rglob("*.py")):
        parts = list(path.relative_to(root).with_suffix("").parts)
        if parts[:2] == ["blender_addon", "shared"]:
            continue
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def is_type_checking(node: ast.If) -> bool:
    return any(getattr(one, "id", getattr(one, "attr", "")) == "TYPE_CHECKING" for one in ast.walk(node.test))


def top_level_imports(body: list[ast.stmt]) -> list[ast.ImportFrom]:
    """Relative imports at module level, without those in functions or under TYPE_CHECKING."""
    found: list[ast.ImportFrom] = []
    for node in body:
        if isinstance(node, ast.ImportFrom) and node.level:
            found.append(node)
        elif isinstance(node, ast.If):
            found += top_level_imports(node.orelse if is_type_checking(node) else node.body + node.orelse)
        elif isinstance(node, ast.Try):
            handlers = [statement for handler in node.handlers for statement in handler.body]
            found += top_level_imports(node.body + handlers + node.orelse + node.finalbody)
        elif isinstance(node, (ast.With, ast.ClassDef)):
            found += top_level_imports(node.body)
    return found


def import_graph(root: Path, package: str) -> dict[str, set[str]]:
    """Modules imported at module level, by module. `from . import name` counts as the module `name` where it is one."""
    files = module_files(root, package)
    graph: dict[str, set[str]] = {}
    for name, path in files.items():
        base = name.split(".") if path.name == "__init__.py" else name.split(".")[:-1]
        targets = set()
        for node in top_level_imports(ast.parse(path.read_text(encoding="utf-8")).body):
            parent = ".".join([*base[: len(base) - node.level + 1], *([node.module] if node.module else [])])
            for alias in node.names:
                child = f"{parent}.{alias.name}"
                targets.add(child if child in files else parent)
        graph[name] = {target for target in targets if target in files and target != name}
    return graph


def find_cycle(graph: dict[str, set[str]]) -> list[str]:
    """Modules of one import cycle; [] if there is none."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


@pytest.mark.parametrize("package", PACKAGES)
def test_package_has_no_import_cycle(package: str) -> None:
    graph = import_graph(ROOT, package)
    assert len(graph) > 10 and sum(map(len, graph.values())) > 10, "the graph has imports"
    assert find_cycle(graph) == []


@pytest.mark.parametrize(
    ("a", "b", "is_circle"),
    [
        ("from .b import x", "from .a import y", True),
        ("from . import b", "from . import a", True),
        ("from .b import x", "from .sub.c import y", True),
        ("from .b import x", "", False),
        ("from .b import x", "def f():\n    from .a import y", False),
        ("from .b import x", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from .a import y", False),
        ("from .b import x", "try:\n    from .a import y\nexcept ImportError:\n    y = None", True),
        ("from .b import x", "if True:\n    from .a import y", True),
    ],
)
def test_cycle_detection(tmp_path: Path, a: str, b: str, is_circle: bool) -> None:
    package = tmp_path / "package"
    (package / "sub").mkdir(parents=True)
    files = {"__init__": "", "a": a, "b": b, "sub/__init__": "", "sub/c": "from ..a import z"}
    for name, source in files.items():
        (package / f"{name}.py").write_text(source + "\n")
    assert bool(find_cycle(import_graph(tmp_path, "package"))) == is_circle
