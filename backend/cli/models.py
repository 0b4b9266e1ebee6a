# SPDX-License-Identifier: GPL-3.0-or-later
"""`dreamwright models`: list the models; `download` fetches one, `import` makes one of a file, `verify` checks one."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from dreamwright.shared.numbers import number_text

from .signals import INTERRUPTED

if TYPE_CHECKING:
    from ..models.local import ModelStatus


def add_arguments(subparsers: Any) -> argparse.ArgumentParser:
    """Define the command and its subcommands; without one it lists the models."""
    parser = subparsers.add_parser("models", help="list, download, import and verify models", description=__doc__)
    actions = parser.add_subparsers(dest="action", metavar="ACTION")
    get = actions.add_parser(
        "download",
        help="download a model, or continue a download",
        description="This is the only command that needs a network.",
    )
    get.add_argument(
        "name", help='a name that `dreamwright models` lists, or "owner/name" of a model on the Hugging Face hub'
    )
    get.add_argument(
        "--to", metavar="FOLDER", help="where to put it (default: the user's data folder, or DREAMWRIGHT_MODELS)"
    )
    get.add_argument("--revision", help="a branch, tag or commit (default: the registry's, else main)")
    take = actions.add_parser(
        "import",
        help="make a model folder from a checkpoint in a single .safetensors file; needs no network",
        description="Takes Stable Diffusion 1.x, 2.x and XL base. The file is left as it is.",
    )
    take.add_argument("file", type=Path, help="a checkpoint with network, VAE and text encoder")
    place = take.add_mutually_exclusive_group()
    place.add_argument("--name", help="the name that --model finds it by (default: the file's)")
    place.add_argument("--to", type=Path, metavar="FOLDER", help="where to put it; its name is the folder's")
    take.add_argument(
        "--prediction",
        choices=("epsilon", "v"),
        help="what the network predicts, where the file does not say: the noise, or v (Stable Diffusion 2 of 768 "
        "pixels)",
    )
    check = actions.add_parser(
        "verify",
        help="check a model's files; needs no network",
        description="Checks files, sizes, headers and known hashes.",
    )
    check.add_argument("model", help="a name that `dreamwright models` lists, or a folder")
    return parser


def run(options: argparse.Namespace) -> int:
    """Run the chosen action. Raises ModelError."""
    if options.action == "download":
        return _download(options.name, options.to, options.revision)
    if options.action == "import":
        return _import(options)
    return _verify(options.model) if options.action == "verify" else _list()


def _list() -> int:
    from ..models.local import local_models
    from ..models.user_folders import models_root

    for model in local_models():
        print(f"{model.name}: {model.summary}")
        print(
            f"    license: {model.license}; size: {_size(model)}; memory: about {number_text(model.memory_gb)} GB, "
            f"{number_text(model.text_encoder_gb)} GB while encoding the prompt"
        )
        print(f"    here: {model.folder}" if model.available else f"    not here: {model.how_to_get}")
    works = "any folder with a pipeline of a supported class works as well: --model FOLDER"
    print(f"Downloads go to {models_root()}; {works}")
    return 0


def _size(model: ModelStatus) -> str:
    """Its size on the disk, else that of its download."""
    from ..models.disk_use import folder_bytes

    if model.folder is not None:
        size = folder_bytes(model.folder)
        return f"{size / 1e9:.1f} GB on the disk" if size >= 1e9 else f"{size / 1e6:.1f} MB on the disk"
    return f"about {number_text(model.download_gb)} GB to download"


def _download(name: str, to: str | None, revision: str | None) -> int:
    from ..errors import ModelError
    from ..models.local import default_folder, find, registered_model
    from ..models.registry import BY_NAME
    from ..models.remembered_folders import remember_folder

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
    bar = _DownloadBar(f"{model.name}")
    here = folder if to else found.folder or folder
    if _is_whole(model, here, found.folder, revision, bar):
        print(f"{model.name} is here already, whole: {here}")
    else:
        try:
            _fetch(model, folder if not found.folder or to else _writable(found.folder, folder), revision, bar)
        except KeyboardInterrupt:
            print(f"dreamwright: stopped; the same command continues the download to {folder}", file=sys.stderr)
            return INTERRUPTED
        finally:
            bar.end()
    if to:
        remember_folder(model.name, folder)
    return 0


def _writable(found: Path, own: Path) -> Path:
    """Folder to repair a complete but damaged or outdated model in: never the hub's own cache."""
    from ..models.download_record import record_path

    return found if record_path(found).is_file() else own


def _fetch(model: Any, folder: Path, revision: str | None, bar: _DownloadBar) -> None:
    from ..models.download import download

    done = download(model, folder, revision, bar)
    first = model.sources[0]
    mirror = "" if done.source.repo_id == first.repo_id else f", a mirror, since {first.repo_id} could not"
    pinned = "" if revision or done.source.revision else " (the registry knows no expected revision)"
    bar.end()
    print(f"{model.name} is whole: {done.folder}")
    origin = f"served by {done.source.repo_id}{mirror}, revision {done.revision}{pinned}"
    print(f"{origin}; {done.received / 1e6:.1f} MB received")
    print(f"license: {model.license}")


def _is_whole(model: Any, folder: Path, found: Path | None, revision: str | None, bar: _DownloadBar) -> bool:
    """Whether the folder is an intact copy of that model and revision, without asking the network."""
    from ..errors import ModelError
    from ..models.download_record import read_record
    from ..models.verify import verify_folder

    record = read_record(folder)
    # Without a record only the place in the hub's cache identifies a folder.
    if record is None and (folder != found or revision is not None):
        return False
    if record is not None and record.repo_id not in {source.repo_id for source in model.sources}:
        return False
    if record is not None and (not record.complete or revision not in (None, record.revision, record.requested)):
        return False
    try:
        bar.message(f"checking {folder}")
        return verify_folder(folder).sound
    except ModelError:
        return False


def _import(options: argparse.Namespace) -> int:
    from ..models.local import imported_folder
    from ..models.registry import BY_NAME
    from ..models.remembered_folders import remember_folder
    from ..models.single_file_import import import_single_file, name_from_file, named_folder

    to = options.to.expanduser() if options.to else None
    folder = to or named_folder(options.name or name_from_file(options.file))
    bar = _DownloadBar(folder.name)
    try:
        record = import_single_file(options.file.expanduser(), folder, bar, options.prediction)
    except KeyboardInterrupt:
        print(f"dreamwright: stopped; nothing was left in {folder}", file=sys.stderr)
        return INTERRUPTED
    finally:
        bar.end()
    if to and folder.name not in BY_NAME and imported_folder(folder.name) is None:
        remember_folder(folder.name, folder)
    found = imported_folder(folder.name)
    name = folder.name if found is not None and found.resolve() == folder.resolve() else str(folder)
    print(f"{folder} is {record.family}, which predicts {record.prediction}; use it with --model {name}")
    print(f"SHA-256 of {record.source}: {record.sha256}")
    return 0


def _verify(given: str) -> int:
    from ..errors import ModelError
    from ..models.local import find, imported_folder, registered_model
    from ..models.registry import BY_NAME
    from ..models.verify import expected_files, verify_folder

    path, model = Path(given).expanduser(), registered_model(given)
    imported = imported_folder(given)
    folder: Path
    name: str | None
    if os.path.isdir(path) and (os.sep in given or model is None or (path / "model_index.json").is_file()):
        folder, name = path, None
    elif imported is not None:
        folder, name = imported, None
    elif model is not None:
        found = find(model)
        there = found.folder or found.partial
        if there is None:
            raise ModelError(
                f"the model {given!r} is not on this machine; `dreamwright models download {given}` fetches it"
            )
        folder, name = there, model.name
    else:
        raise ModelError(f"there is no model folder {given!r}; give a folder or one of {', '.join(BY_NAME)}")
    bar = _DownloadBar("verifying")
    bar.begin(sum(file.size for file in expected_files(folder).values()), 0)
    try:
        result = verify_folder(folder, bar.advance)
    finally:
        bar.end()
    for fault in result.faults:
        print(fault)
    if not result.sound:
        count = f"{len(result.faults)} fault{'s' if len(result.faults) > 1 else ''}"
        raise ModelError(f"{folder} has {count}; {_repair_advice(folder, name)}")
    known = (
        "all with their hash"
        if result.hashed == result.checked
        else f"{result.hashed} with their hash, the rest by size and header"
    )
    print(f"{folder} is sound: {result.checked} files, {result.size / 1e6:.1f} MB, {known}")
    return 0


def _repair_advice(folder: Path, name: str | None) -> str:
    """How to repair a damaged folder."""
    from ..errors import ModelError
    from ..models.download_record import read_record
    from ..models.import_record import import_record_path
    from ..models.local import default_folder, registered_model
    from ..models.registry import BY_REPO, PACKAGED

    if import_record_path(folder).is_file():
        return "delete the folder and run `dreamwright models import` again"
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
        named = model.name if model else record.repo_id
        return f"`dreamwright models download {named}{elsewhere}` fetches just what is wrong"
    if name is not None:
        return f"`dreamwright models download {name}` fetches a complete copy"
    return "copy or download the model again, whole"


class _DownloadBar:
    """Progress of a download: a bar with rate and remaining time, or without a terminal a line for every tenth."""

    def __init__(self, label: str) -> None:
        self._label = label
        self._bar: tqdm | None = None
        self._total = self._done = self._tenths = 0

    def message(self, line: str) -> None:
        """Print a line above the bar."""
        tqdm.write(line, file=sys.stderr)

    def begin(self, total: int, here: int) -> None:
        """Start a bar of `total` bytes, of which `here` are done."""
        self.end()
        self._total, self._done, self._tenths = total, here, 0
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

    def begin_file(self, path: str, here: int) -> None:
        """Count the bytes that an earlier run received."""
        self.advance(here)

    def advance(self, count: int) -> None:
        """Count more bytes."""
        self._done += count
        if self._bar is not None:
            self._bar.update(count)
        elif self._total and self._done * 10 // self._total > self._tenths:
            self._tenths = self._done * 10 // self._total
            print(f"{self._label}: {self._tenths * 10}% of {self._total / 1e6:.1f} MB", file=sys.stderr, flush=True)

    def end(self) -> None:
        """Close the bar."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None
