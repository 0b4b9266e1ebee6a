# SPDX-License-Identifier: GPL-3.0-or-later
"""`dreamwright models`: the models by name and which are here; `download` brings one, `verify` checks one."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import Any

from dreamwright.shared.numbers import number_text

from .signals import INTERRUPTED


def add_arguments(subparsers: Any) -> argparse.ArgumentParser:
    """Define the command and its two subcommands; without one it lists the models."""
    parser = subparsers.add_parser("models", help="list, download and verify models", description=__doc__)
    actions = parser.add_subparsers(dest="action", metavar="ACTION")
    get = actions.add_parser(
        "download",
        help="bring a model to this machine, or go on with it",
        description="Needs a network; nothing else does.",
    )
    get.add_argument(
        "name", help='a name that `dreamwright models` lists, or "owner/name" of a model on the Hugging Face hub'
    )
    get.add_argument(
        "--to", metavar="FOLDER", help="where to put it (default: the user's data folder, or DREAMWRIGHT_MODELS)"
    )
    get.add_argument("--revision", help="a branch, tag or commit (default: the registry's, else main)")
    check = actions.add_parser(
        "verify",
        help="check a model's files; needs no network",
        description="Checks files, sizes, headers and known hashes.",
    )
    check.add_argument("model", help="a name that `dreamwright models` lists, or a folder")
    return parser


def run(options: argparse.Namespace) -> int:
    """Do what was asked. Raises ModelError."""
    if options.action == "download":
        return _download(options.name, options.to, options.revision)
    return _verify(options.model) if options.action == "verify" else _list()


def _list() -> int:
    from ..models.local import local_models
    from ..models.user_folders import models_root

    for model in local_models():
        print(f"{model.name}: {model.summary}")
        print(
            f"    licence: {model.licence}; memory: about {number_text(model.memory_gb)} GB, "
            f"{number_text(model.text_encoder_gb)} GB while encoding the prompt"
        )
        print(f"    here: {model.folder}" if model.available else f"    not here: {model.how_to_get}")
    print(
        f"Downloads go to {models_root()}; any folder with a pipeline of a supported class works as well: --model FOLDER"
    )
    return 0


def _download(name: str, to: str | None, revision: str | None) -> int:
    from ..errors import ModelError
    from ..models.local import default_folder, find, registered_model, remember_folder
    from ..models.registry import BY_NAME

    model = registered_model(name)
    if model is None:
        raise ModelError(
            f'unknown model {name!r}; allowed are {", ".join(BY_NAME)}, or "owner/name" of a model on the hub'
        )
    if not model.sources:
        print(f"{model.name} is part of the package; there is nothing to download")
        return 0
    found = find(model)
    folder = Path(to).expanduser() if to else (found.partial if found.resumable else None) or default_folder(model)
    bar = _Bar(f"{model.name}")
    here = folder if to else found.folder or folder
    if _is_whole(model, here, found.folder, revision, bar):
        print(f"{model.name} is here already, whole: {here}")
    else:
        try:
            _fetch(model, folder if not found.folder or to else _writable(found.folder, folder), revision, bar)
        except KeyboardInterrupt:
            print(f"dreamwright: stopped; the same command goes on from here ({folder})", file=sys.stderr)
            return INTERRUPTED
        finally:
            bar.end()
    if to:
        remember_folder(model.name, folder)
    return 0


def _writable(found: Path, own: Path) -> Path:
    """Where a model that is here in full, but damaged or of another revision, is mended: never in the hub's own cache."""
    from ..models.download_record import record_path

    return found if record_path(found).is_file() else own


def _fetch(model: Any, folder: Path, revision: str | None, bar: _Bar) -> None:
    from ..models.download import download

    done = download(model, folder, revision, bar)
    first = model.sources[0]
    mirror = "" if done.home.repo_id == first.repo_id else f", a mirror, since {first.repo_id} could not"
    pinned = "" if revision or done.home.revision else " (the registry knows no expected revision)"
    bar.end()
    print(f"{model.name} is whole: {done.folder}")
    print(
        f"served by {done.home.repo_id}{mirror}, revision {done.revision}{pinned}; {done.received / 1e6:.1f} MB received"
    )
    print(f"licence: {model.licence}")


def _is_whole(model: Any, folder: Path, found: Path | None, revision: str | None, bar: _Bar) -> bool:
    """Whether the folder is a sound copy of that model and revision, told without the network."""
    from ..errors import ModelError
    from ..models.download_record import read_record
    from ..models.verify import verify_folder

    record = read_record(folder)
    if record is None and (
        folder != found or revision is not None
    ):  # only the hub's cache says without a record what a folder is
        return False
    if record is not None and record.repo_id not in {home.repo_id for home in model.sources}:
        return False
    if record is not None and (not record.complete or revision not in (None, record.revision, record.asked)):
        return False
    try:
        bar.say(f"checking {folder}")
        return verify_folder(folder).sound
    except ModelError:
        return False


def _verify(given: str) -> int:
    from ..errors import ModelError
    from ..models.local import find, registered_model
    from ..models.registry import BY_NAME
    from ..models.verify import expected_files, verify_folder

    path, model = Path(given).expanduser(), registered_model(given)
    if path.is_dir() and (os.sep in given or model is None or (path / "model_index.json").is_file()):
        folder, name = path, None
    elif model is not None:
        found = find(model)
        if found.folder is None and found.partial is None:
            raise ModelError(
                f"the model {given!r} is not on this machine; `dreamwright models download {given}` brings it"
            )
        folder, name = found.folder or found.partial, model.name
    else:
        raise ModelError(f"there is no model folder {given!r}; give a folder or one of {', '.join(BY_NAME)}")
    bar = _Bar("verifying")
    bar.begin(sum(file.size for file in expected_files(folder).values()), 0)
    try:
        verdict = verify_folder(folder, bar.advance)
    finally:
        bar.end()
    for fault in verdict.faults:
        print(fault)
    if not verdict.sound:
        raise ModelError(
            f"{folder} has {len(verdict.faults)} fault{'s' if len(verdict.faults) > 1 else ''}; {_mend(folder, name)}"
        )
    known = (
        "all with their hash"
        if verdict.hashed == verdict.checked
        else f"{verdict.hashed} with their hash, the rest by size and header"
    )
    print(f"{folder} is sound: {verdict.checked} files, {verdict.size / 1e6:.1f} MB, {known}")
    return 0


def _mend(folder: Path, name: str | None) -> str:
    """What to do about a damaged folder."""
    from ..errors import ModelError
    from ..models.download_record import read_record
    from ..models.local import default_folder, registered_model
    from ..models.registry import BY_REPO, PACKAGED

    if name in PACKAGED:
        return "reinstall dreamwright: its weights are part of the package"
    try:
        record = read_record(folder)
    except ModelError:
        record = None
    if record is not None:
        known = BY_REPO.get(record.repo_id.lower())
        model = registered_model(known.name if known else record.repo_id)
        elsewhere = f" --to {folder}" if model is None or folder.resolve() != default_folder(model).resolve() else ""
        return f"`dreamwright models download {model.name if model else record.repo_id}{elsewhere}` fetches just what is wrong"
    if name is not None:
        return f"`dreamwright models download {name}` brings a whole copy"
    return "copy or download the model again, whole"


class _Bar:
    """A download on the terminal: bytes, rate and time left; without a terminal a line now and then."""

    def __init__(self, label: str) -> None:
        self._label, self._bar, self._total, self._done, self._told = label, None, 0, 0, 0

    def say(self, line: str) -> None:
        from tqdm import tqdm

        tqdm.write(line, file=sys.stderr)

    def begin(self, total: int, here: int) -> None:
        from tqdm import tqdm

        self.end()
        self._total, self._done, self._told = total, here, 0
        if sys.stderr.isatty():
            self._bar = tqdm(
                total=total,
                initial=here,
                unit="B",
                unit_scale=True,
                desc=self._label,
                file=sys.stderr,
                dynamic_ncols=True,
            )

    def advance(self, count: int) -> None:
        self._done += count
        if self._bar is not None:
            self._bar.update(count)
        elif self._total and self._done * 10 // self._total > self._told:
            self._told = self._done * 10 // self._total
            print(f"{self._label}: {self._told * 10}% of {self._total / 1e6:.1f} MB", file=sys.stderr, flush=True)

    def end(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None
