# SPDX-License-Identifier: GPL-3.0-or-later
"""The models that a server describes to a user: what they are, what they need, and whether they can be downloaded."""

from __future__ import annotations

from dreamwright.shared import limits
from dreamwright.shared.capabilities import ModelInfo
from dreamwright.shared.prompt_words import PromptVocabulary

from ..errors import ModelError
from ..models.disk_use import folder_bytes, free_bytes, received_bytes
from ..models.hub_access import has_token, is_offline, users_environment
from ..models.local import LocalModel, ModelStatus, default_folder, find, local_models
from ..models.registry import BY_NAME, MODELS, RegisteredModel
from ..models.vocabulary_file import read_vocabulary
from ..training.recipe_choice import family_of_folder

NOT_ALLOWED = "only an admin of this server may download models to it; ask one of them"
OFFLINE = (
    "this server was started with HF_HUB_OFFLINE, so it downloads nothing; start it without, or copy the model's "
    "folder to it"
)


def model_infos(may_manage: bool) -> tuple[ModelInfo, ...]:
    """Every named model, as it is on this machine now, for a user who may download models or may not."""
    return tuple(_model_info(status, may_manage) for status in local_models()[: limits.MODELS])


def models_free_bytes() -> int:
    """Free bytes where models are downloaded to; 0 where the disk does not tell."""
    try:
        return free_bytes(default_folder(MODELS[0]))
    except OSError:
        return 0


def download_fault(model: RegisteredModel, found: LocalModel, may_manage: bool) -> str:
    """Why a user cannot have this server download a model now, as a sentence; "" when they can."""
    if not model.sources:
        return f"the model {model.name} is part of the server's package; there is nothing to download"
    if found.folder is not None:
        return f"the model {model.name} is on the server already"
    if not may_manage:
        return NOT_ALLOWED
    if is_offline(users_environment()):
        return OFFLINE
    return "" if not model.gated or has_token(users_environment()) else how_to_get_access(model)


def how_to_get_access(model: RegisteredModel) -> str:
    """What the server's operator does to make a gated model available."""
    return (
        f"the model {model.name} is gated and the server has no token of the hub: accept the license at "
        f"{model.license_url}, then run `hf auth login` on the server as the user that runs it, or start it with "
        "HF_TOKEN set"
    )


def _model_info(status: ModelStatus, may_manage: bool) -> ModelInfo:
    known, missing = PromptVocabulary(), ""
    if status.folder is None:  # how to get it names folders, which are not for everybody
        missing = status.how_to_get if may_manage else "not on this server; its admins can download it"
    else:
        try:
            known = read_vocabulary(status.folder)
        except ModelError as error:
            missing = str(error)
    model = BY_NAME.get(status.name)
    found = LocalModel(status.folder) if model is None or status.folder is not None else find(model)
    fault = (
        f"the model {status.name} was imported from a file"
        if model is None
        else download_fault(model, found, may_manage)
    )
    return ModelInfo(
        name=status.name,
        family=_family(status),
        summary=status.summary,
        ready=not missing,
        missing=missing,
        examples=known.examples[:20],
        vocabulary=known.words[:500],
        word_kinds=dict(known.kinds),
        synonyms=dict(known.synonyms),
        license=status.license,
        license_url=model.license_url if model is not None else "",
        memory_gb=status.memory_gb,
        text_encoder_gb=status.text_encoder_gb,
        download_bytes=round(1e9 * status.download_gb),
        disk_bytes=_disk_bytes(found),
        gated=status.gated,
        can_download=not fault,
        download_fault=fault,
    )


def _disk_bytes(found: LocalModel) -> int:
    if found.folder is not None:
        return folder_bytes(found.folder)
    return received_bytes(found.partial)[0] if found.resumable and found.partial is not None else 0


def _family(status: ModelStatus) -> str:
    """The family of a model that is here, "" for another: its panel shows the starter's presets."""
    try:
        return "" if status.folder is None else family_of_folder(status.folder)
    except ModelError:
        return ""
