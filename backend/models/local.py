# SPDX-License-Identifier: GPL-3.0-or-later
"""Models on this machine: which named models are there, and the folder that a name or path means. Uses no network."""

from __future__ import annotations

import functools
import logging
import os
import re
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from huggingface_hub import constants

from dreamwright.shared.numbers import number_text

from ..errors import ModelError
from .download_record import read_record, record_path
from .import_record import ImportRecord, import_record_path, read_import_record
from .model_files import INDEX, is_clip_folder, missing_files
from .registry import BY_NAME, BY_REPO, MODELS, PACKAGED, Kind, ModelSource, RegisteredModel
from .remembered_folders import remembered_folders
from .unsupported_files import unsupported_file, unsupported_kind
from .user_folders import models_root

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ModelStatus:
    """A named model and its state on this machine; `folder` holds the whole model, None where there is none."""

    name: str
    summary: str
    license: str
    repo_id: str  # its first home on the Hugging Face hub; "" for the packaged starter
    memory_gb: float  # of device memory that guidance takes once the text encoder is freed, roughly
    text_encoder_gb: float  # of memory while prompts are encoded, roughly
    folder: Path | None
    how_to_get: str
    download_gb: float = 0.0
    gated: bool = False
    kind: Kind = "diffusion"

    @property
    def available(self) -> bool:
        return self.folder is not None


@dataclass(frozen=True)
class LocalModel:
    """What this machine has of a model: a whole folder, or a partial one with what it lacks, or neither.

    `resumable` is true for a partial folder of our own downloads, which `dreamwright models download` completes.
    """

    folder: Path | None = None
    partial: Path | None = None
    missing: tuple[str, ...] = ()
    resumable: bool = False


def local_models() -> tuple[ModelStatus, ...]:
    """Every named model with its state on this machine, then those that were imported."""
    return (*(_info(model) for model in MODELS), *_imported_models())


def imported_folder(name: str) -> Path | None:
    """The folder of the model that was imported under that name, None where there is none."""
    if not re.fullmatch(r"[A-Za-z0-9][\w.-]*", name, re.ASCII) or name in BY_NAME:
        return None
    places = (models_root() / name, Path(remembered_folders().get(name, models_root() / name)))
    return next((place for place in places if import_record_path(place).is_file()), None)


def registered_model(name: str) -> RegisteredModel | None:
    """The model of that name or repository; for any other "owner/name" on the hub an entry with that name only."""
    model = BY_NAME.get(name) or BY_REPO.get(name.lower())
    if model is None and HUB_ID.fullmatch(name):
        model = RegisteredModel(
            name=name,
            summary="a model on the hub that is not in the registry",
            license="see its page",
            sources=(ModelSource(name),),
            memory_gb=0.0,
            text_encoder_gb=0.0,
            download_gb=0.0,
        )
    return model


def is_offered(name: str) -> bool:
    """Whether this machine has a model of that name: a registered one, an imported one, or one of the hub's.

    The answer for anything else does not depend on what lies on the disk, as users of a server may ask.
    """
    try:
        if imported_folder(name) is not None:
            return True
        model = registered_model(name)
        # A folder in the working directory would win over the name, in `resolve_model`.
        return model is not None and find(model).folder is not None and not ("/" in name and Path(name).exists())
    except OSError:  # a name that no file can have
        return False


def default_folder(model: RegisteredModel) -> Path:
    """The folder that a model is downloaded to by default."""
    return models_root() / model.name.replace("/", "--")


def download_folder(model: RegisteredModel) -> Path:
    """The folder of a download: that of the unfinished one, which continues, else the default."""
    found = find(model)
    return found.partial if found.resumable and found.partial is not None else default_folder(model)


def find(model: RegisteredModel) -> LocalModel:
    """The model on this disk: our own folder, a folder given to `--to`, or the hub's cache.

    A file that is a link to nothing does not count as there, so a snapshot whose blobs were deleted is partial.
    """
    partial = LocalModel()
    for folder in _candidate_folders(model):
        try:
            missing = missing_files(folder)
        except ModelError:
            continue
        if not missing:
            return LocalModel(folder)
        resumable = record_path(folder).is_file()
        if partial.partial is None or (resumable and not partial.resumable):
            partial = LocalModel(None, folder, tuple(missing), resumable)
    return partial


def resolve_model(name_or_folder: str | Path) -> Path:
    """The pipeline folder of a model: a folder that is there, else a model by name or by its "owner/name" on the hub.

    A local path always wins. A bare word means a folder in the working directory only where that folder holds a
    pipeline, since a folder of that name with other things in it is no model; where it hides a named model, that is
    said once. Raises ModelError: a model that is not on this machine or only in part (with how to get it), a file, a
    folder of something else, or an unknown name (with the known ones).
    """
    given = str(name_or_folder)
    names = ", ".join(BY_NAME)
    try:
        path = Path(given).expanduser()
        if given and path.is_dir() and (_is_path(given) or (path / INDEX).is_file() or is_clip_folder(path)):
            return _own_folder(given, path)
        model = registered_model(given)
        if model is not None and model.name in BY_NAME:
            info = _info(model)
            if info.folder is None:
                raise ModelError(f"the model {info.name!r} is not on this machine; {info.how_to_get}")
            return info.folder
        imported = imported_folder(given)
        if imported is not None:
            return imported
        if given and path.is_dir():
            return _own_folder(given, path)
        if given and path.exists():
            raise ModelError(
                f"the model {given!r} {unsupported_file(path)}; give a diffusers pipeline folder or one of {names}"
            )
    except RuntimeError as error:
        raise ModelError(
            f"the model {given[:80]!r} cannot be found: no user of that name has a home folder on this machine; "
            "give the whole path"
        ) from error
    except OSError as error:  # a name that no file can have
        raise ModelError(
            f"the model {given[:80]!r} cannot be read ({error.strerror}); give a diffusers pipeline folder or one of "
            f"{names}"
        ) from error
    if model is not None:
        return _hub_model(model, given)
    what = "there is no model folder" if _is_path(given) else "unknown model"
    raise ModelError(f"{what} {given!r}; give a diffusers pipeline folder or one of {names}")


def _is_path(given: str) -> bool:
    """Whether the text has the form of a path."""
    return os.sep in given or "/" in given or given.startswith((".", "~"))


def _own_folder(given: str, path: Path) -> Path:
    """The folder itself. Raises ModelError when it holds something else, or an unfinished download."""
    if given in BY_NAME:
        _warn_hidden(given, str(path.resolve()))
    if not (path / INDEX).is_file() and not is_clip_folder(path):
        kind = unsupported_kind(file.name for file in path.iterdir())
        if kind:
            raise ModelError(f"{path} {kind}; give a diffusers pipeline folder or one of {', '.join(BY_NAME)}")
    if record_path(path).is_file() and (missing := missing_files(path)):
        raise ModelError(f"{path} is only half downloaded ({_some(missing)} missing); {_go_on(path)}")
    return path


def _go_on(folder: Path) -> str:
    """The command that continues the unfinished download in a folder."""
    record = read_record(folder)
    name = (
        "NAME"
        if record is None
        else BY_REPO[record.repo_id.lower()].name
        if record.repo_id.lower() in BY_REPO
        else record.repo_id
    )
    return f"`dreamwright models download {name} --to {folder}` goes on with it"


@functools.cache
def _warn_hidden(name: str, folder: str) -> None:
    log.warning(
        "note: the folder %s is used, not the model named %r; start the command elsewhere to use that model",
        folder,
        name,
    )


def _hub_model(model: RegisteredModel, given: str) -> Path:
    """An unregistered "owner/name" that was downloaded. Raises ModelError with the command that does."""
    found = find(model)
    if found.folder is not None:
        return found.folder
    if found.partial is not None:
        raise ModelError(
            f"the model {given!r} is only partly here: {found.partial} lacks {_some(found.missing)}; "
            f"`dreamwright models download {given}` completes it"
        )
    raise ModelError(
        f"there is no model folder {given!r}, nor a downloaded model of that name on the hub; give a diffusers "
        f"pipeline folder, one of {', '.join(BY_NAME)}, or run `dreamwright models download {given}`"
    )


def _info(model: RegisteredModel) -> ModelStatus:
    found = find(model)
    return ModelStatus(
        name=model.name,
        summary=model.summary,
        license=model.license,
        repo_id=model.sources[0].repo_id if model.sources else "",
        memory_gb=model.memory_gb,
        text_encoder_gb=model.text_encoder_gb,
        folder=found.folder,
        how_to_get=_how_to_get(model, found),
        download_gb=model.download_gb,
        gated=model.gated,
        kind=model.kind,
    )


def _imported_models() -> tuple[ModelStatus, ...]:
    """The models that were imported from single files, by name."""
    root = models_root()
    here = [folder.name for folder in root.iterdir()] if root.is_dir() else []
    found = []
    for name in sorted({*here, *remembered_folders()}):
        folder = imported_folder(name)
        try:
            record = None if folder is None else read_import_record(folder)
        except ModelError as error:
            log.warning("%s", error)
            continue
        if folder is not None and record is not None:
            found.append(_imported_status(name, folder, record))
    return tuple(found)


def _imported_status(name: str, folder: Path, record: ImportRecord) -> ModelStatus:
    like = BY_NAME.get(record.like)
    return ModelStatus(
        name=name,
        summary=f"imported from {record.source}: {record.family}, predicts {record.prediction}",
        license="that of the file",
        repo_id="",
        memory_gb=like.memory_gb if like else 0.0,
        text_encoder_gb=like.text_encoder_gb if like else 0.0,
        folder=folder,
        how_to_get="",
    )


def _how_to_get(model: RegisteredModel, found: LocalModel) -> str:
    if not model.sources:
        return "reinstall dreamwright: its weights are part of the package"
    if found.resumable:
        elsewhere = "" if found.partial == default_folder(model) else f" --to {found.partial}"
        return (
            f"half downloaded ({_some(found.missing)} missing): "
            f"`dreamwright models download {model.name}{elsewhere}` goes on"
        )
    if found.partial is not None:
        return (
            f"not whole: {found.partial} lacks {_some(found.missing)}; `dreamwright models download {model.name}` "
            f"(about {number_text(model.download_gb)} GB) brings a whole copy"
        )
    command = f"`dreamwright models download {model.name}` (about {number_text(model.download_gb)} GB)"
    return (
        f"accept its license at {model.sources[0].url}, run `hf auth login`, then {command}" if model.gated else command
    )


def _some(missing: tuple[str, ...] | list[str]) -> str:
    """The missing files in short."""
    return missing[0] if len(missing) == 1 else f"{missing[0]} and {len(missing) - 1} more"


def _candidate_folders(model: RegisteredModel) -> list[Path]:
    """Existing folders that may hold the model, the likeliest first."""
    if model.name in PACKAGED:
        return [Path(str(resources.files("dreamwright.backend.starter"))) / PACKAGED[model.name]]
    places = [default_folder(model)]
    if remembered := remembered_folders().get(model.name):
        places.insert(0, Path(remembered))
    for home in model.sources:
        places += _hub_snapshots(home)
    return [place for place in places if place.is_dir()]


def _hub_snapshots(home: ModelSource) -> list[Path]:
    """A repository's snapshots in the hub's cache: the expected revision, then `main`, then others, newest first."""
    cache = Path(constants.HF_HUB_CACHE) / f"models--{home.repo_id.replace('/', '--')}"
    wanted = [home.revision or ""]
    try:
        wanted.append((cache / "refs" / "main").read_text(encoding="ascii").strip())
    except (OSError, ValueError):
        wanted.append("")  # never downloaded by branch; the folders below still tell
    try:
        others = sorted((cache / "snapshots").iterdir(), key=lambda folder: -folder.stat().st_mtime)
    except OSError:
        return []
    return sorted(others, key=lambda folder: wanted.index(folder.name) if folder.name in wanted else len(wanted))
