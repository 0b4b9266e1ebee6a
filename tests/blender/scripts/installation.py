# SPDX-License-Identifier: GPL-3.0-or-later
"""Inside a Blender: what the enabled add-on brings, and what is left of it when disabled. Prints one line of JSON."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Callable

import addon_utils

ADDON: str  # given by run_installed.py
BEFORE: dict[str, list[str]]
registered: Callable[[], dict[str, list[str]]]


def less(after: dict[str, list[str]], before: dict[str, list[str]]) -> dict[str, list[str]]:
    """What is there after and was not before."""
    return {kind: sorted(set(names) - set(before[kind])) for kind, names in after.items()}


def main() -> None:
    """Look, disable and look again; then enable, disable and enable once more, as a person changing their mind."""
    libraries = {name: importlib.import_module(name) for name in ("zmq", "msgpack", "numpy")}
    codec = importlib.import_module(f"{ADDON}.shared")
    everything = registered()
    left, again = {}, []
    for time in ("once", "twice"):
        addon_utils.disable(ADDON, default_set=True)
        left[time] = less(registered(), BEFORE)
        again.append(addon_utils.enable(ADDON, default_set=True) is not None)
    report = {
        "addon": ADDON,
        "python": sys.version.split()[0],
        "versions": {
            name: library.__version__ if name != "msgpack" else ".".join(map(str, library.version[:3]))
            for name, library in libraries.items()
        },
        "files": {name: library.__file__ for name, library in libraries.items()},
        "curve": bool(libraries["zmq"].has("curve")),
        "shared": codec.__version__,
        "brings": less(everything, BEFORE),
        "leaves": left,
        "enables_again": all(again),
        "top_level": [name for name in ("shared", "backend", "dreamwright.backend") if name in sys.modules],
    }
    print("REPORT " + json.dumps(report))


main()
