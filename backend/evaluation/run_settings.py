# SPDX-License-Identifier: GPL-3.0-or-later
"""The plan of a results folder: written once, and compared before results are added."""

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
LARGE = 2**28  # bytes; larger files are identified by size and time, since hashing one takes longer than a result
MAX_DIFFERENCES = 4  # named in an error


def record_run_settings(out: Path, plan: Mapping[str, Any]) -> None:
    """Write the plan to a folder without one; check that it equals the plan of a folder with one.

    Raises ConfigError naming the differences, and for a damaged plan or a folder that cannot be written.
    """
    path, wanted = out / FILE, json.loads(json.dumps(plan))
    try:
        known = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(known, dict):
            raise ValueError("it is not a JSON object")
    except FileNotFoundError:
        make_folder(out)
        write_output(path, (json.dumps(wanted, indent=2) + "\n").encode())
        return
    except NotADirectoryError as error:
        raise _bad_folder(out, error) from error
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"{path} cannot be read ({error}); give another folder with --out, or remove this one"
        ) from error
    before, now = _flatten(known), _flatten(wanted)
    differences = [
        f"{name} was {before.get(name, 'unset')}, is {now.get(name, 'unset')}"
        for name in dict.fromkeys((*before, *now))
        if before.get(name) != now.get(name)
    ]
    if differences:
        more = f" and {len(differences) - MAX_DIFFERENCES} more" if len(differences) > MAX_DIFFERENCES else ""
        raise ConfigError(
            f"{out} holds results of other settings: {'; '.join(differences[:MAX_DIFFERENCES])}{more}; "
            "allowed are the same settings; give another folder with --out, or remove this one"
        )


def result_settings(config: Config) -> dict[str, Any]:
    """The settings that a mesh depends on: those of the job's identity, and of meshing. Without the seed."""
    settings = identity_settings(config)
    settings["run"].pop("seed", None)
    settings["mesh"] = asdict(config.mesh)
    return settings


def weight_hashes(model: str) -> dict[str, str]:
    """First 16 digits of the SHA-256 of each weight file, by its path in the model's folder. Raises ModelError."""
    folder = resolve_model(model)
    found = {}
    for file in sorted(folder.rglob("*.safetensors")):
        status = file.stat()
        known = f"{status.st_size} bytes of {status.st_mtime_ns}"
        found[file.relative_to(folder).as_posix()] = (
            hashlib.sha256(file.read_bytes()).hexdigest()[:16] if status.st_size < LARGE else known
        )
    return found


def make_folder(folder: Path) -> None:
    """Make the folder and its parents. Raises ConfigError."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _bad_folder(folder, error) from error


def _bad_folder(folder: Path, error: OSError) -> ConfigError:
    return ConfigError(f"cannot make the folder {folder} ({error.strerror}); give another one with --out")


def _flatten(value: Any, name: str = "") -> dict[str, Any]:
    """{"run": {"steps": 3}} -> {"run.steps": 3}."""
    if not isinstance(value, dict):
        return {name: value}
    return {
        key: found
        for part, inner in value.items()
        for key, found in _flatten(inner, f"{name}.{part}" if name else part).items()
    }
