# SPDX-License-Identifier: GPL-3.0-or-later
"""Inside a second Blender: the add-on that an earlier one installed is there, with its libraries."""

from __future__ import annotations

import importlib
import json

ADDON: str  # given by run_installed.py

files = {name: importlib.import_module(name).__file__ for name in ("zmq", "msgpack")}
print("REPORT " + json.dumps({"shared": importlib.import_module(f"{ADDON}.shared").__version__, "files": files}))
