# SPDX-License-Identifier: GPL-3.0-or-later
"""Stand-ins for packages that a peer imports at its top and does not use in an optimization step.

Their modules import meshing, plotting, logging and CUDA packages that are not installed here. A stand-in lets such a
name be imported, subclassed, subscripted in an annotation and used as a decorator; once `seal` was called, calling one
raises, so a timed step cannot rest on it unnoticed.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import sys
from collections.abc import Sequence
from types import ModuleType
from typing import Any


class StandInUsed(RuntimeError):
    """A stand-in was called after `seal`: the code that is being timed needs the real package."""


class StandIn:
    """Anything that a module may do at import time with a name it does not use afterwards."""

    sealed = False

    def __init__(self, *arguments: Any, **options: Any) -> None:
        if StandIn.sealed:
            raise StandInUsed(
                f"a stand-in was called with {arguments} {options}; the timed code needs the real package; install it"
            )

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        if StandIn.sealed:
            raise StandInUsed("a stand-in was called; the timed code needs the real package; install it")
        return arguments[0] if len(arguments) == 1 and callable(arguments[0]) else self  # as a decorator: nothing done

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return StandIn if name[:1].isupper() else StandIn()

    def __class_getitem__(cls, key: Any) -> Any:
        return Any  # Float[Tensor, "n 3"] in an annotation

    def __getitem__(self, key: Any) -> Any:
        return Any


class StandInModule(ModuleType):
    """A module in which every name exists: capitalised ones are classes, others can be called and decorate."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return StandIn if name[:1].isupper() else StandIn()


class StandInFinder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Serves the named top-level packages and what is inside them, where nothing real was found."""

    def __init__(self, names: Sequence[str]) -> None:
        self.names, self.served = tuple(names), []

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> importlib.machinery.ModuleSpec | None:
        if not any(name == allowed or name.startswith(allowed + ".") for allowed in self.names):
            return None
        return importlib.machinery.ModuleSpec(name, self, is_package=True)

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType:
        self.served.append(spec.name)
        return StandInModule(spec.name)

    def roots(self) -> set[str]:
        """The allowed names that were needed."""
        return {name for name in self.names if name in self.served}

    def exec_module(self, module: ModuleType) -> None:
        """Nothing to run."""


def allow(missing: Sequence[str], replaced: Sequence[str] = ()) -> tuple[StandInFinder, StandInFinder]:
    """Stand in for `missing` packages where they are not installed, and for `replaced` ones even where they are."""
    fallback, override = StandInFinder(missing), StandInFinder(replaced)
    sys.meta_path.append(fallback)
    sys.meta_path.insert(0, override)
    return fallback, override


def seal() -> None:
    """From now on calling a stand-in raises StandInUsed."""
    StandIn.sealed = True
