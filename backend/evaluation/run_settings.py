# SPDX-License-Identifier: GPL-3.0-or-later
"""What a folder of results was made with: written once, and compared before more is added to it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ..config.schema import Config
from ..config.usage import identity_settings
from ..errors import ConfigError
from ..io.output_files import write_output
from ..models.local import resolve_model

FILE = "plan.json"
LARGE = 2**28  # bytes from which a file is known by its size and time, since hashing it takes longer than a cell
SHOWN = 4  # differences named in an error


def record_run_settings(out: Path, plan: Mapping[str, Any]) -> None:
    """Write the plan in a folder without one; in a folder with one, check that it is the same.

    Raises ConfigError naming what differs, for a file that is no plan, and for a place that cannot be written.
    """
    path, wanted = out / FILE, json.loads(json.dumps(plan))
    try:
        there = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(there, dict):
            raise ValueError("it holds no names")
    except FileNotFoundError:
        _write(path, wanted)
        return
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"{path} cannot be read ({error}); give another folder with --out, or remove this one"
        ) from error
    before, now = _flat(there), _flat(wanted)
    differing = [
        f"{name} was {before.get(name, 'unset')}, is {now.get(name, 'unset')}"
        for name in dict.fromkeys((*before, *now))
        if before.get(name, None) != now.get(name, None)
    ]
    if differing:
        more = f" and {len(differing) - SHOWN} more" if len(differing) > SHOWN else ""
        raise ConfigError(
            f"{out} holds results of other settings: {'; '.join(differing[:SHOWN])}{more}; allowed is more of the same; give "
            "another folder with --out, or remove this one"
        )


def result_settings(config: Config) -> dict[str, Any]:
    """What of a configuration decides the props: as a job's fingerprint has it, and the mesh; the seed is a cell's own."""
    settings = identity_settings(config)
    settings["run"].pop("seed")
    settings["mesh"] = asdict(config.mesh)
    return settings


def weight_hashes(model: str) -> dict[str, str]:
    """The first 16 digits of each weight file's SHA-256, by its path in the model's folder. Raises ModelError."""
    folder = resolve_model(model)
    found = {}
    for file in sorted(folder.rglob("*.safetensors")):
        status = file.stat()
        known = f"{status.st_size} bytes of {status.st_mtime_ns}"
        found[file.relative_to(folder).as_posix()] = (
            hashlib.sha256(file.read_bytes()).hexdigest()[:16] if status.st_size < LARGE else known
        )
    return found


def _write(path: Path, plan: Mapping[str, Any]) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(
            f"cannot make the folder {path.parent} ({error.strerror}); give another one with --out"
        ) from error
    write_output(path, (json.dumps(plan, indent=2) + "\n").encode())


def _flat(value: Any, name: str = "") -> dict[str, Any]:
    """{"run": {"steps": 3}} -> {"run.steps": 3}."""
    if not isinstance(value, dict):
        return {name: value}
    return {
        key: found
        for part, inner in value.items()
        for key, found in _flat(inner, f"{name}.{part}" if name else part).items()
    }
