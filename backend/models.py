# SPDX-License-Identifier: GPL-3.0-or-later
"""The models that have a name, where they are on this machine, and how to get those that are not."""

from __future__ import annotations

import os
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from huggingface_hub import try_to_load_from_cache

from dreamwright.backend.errors import ModelError

STARTER = "starter"


@dataclass(frozen=True)
class ModelInfo:
    """One named model; `folder` is where it is on this machine, None where it is not."""

    name: str
    summary: str
    licence: str
    repo_id: str  # on the Hugging Face hub; "" for the packaged starter
    memory_gb: float  # of device memory that guidance takes once the text encoder is freed, roughly
    text_encoder_gb: float  # of memory while prompts are encoded, roughly
    folder: Path | None
    how_to_get: str

    @property
    def available(self) -> bool:
        return self.folder is not None


def known_models() -> tuple[ModelInfo, ...]:
    """Every named model with what this machine has of it; looks at the disk only."""
    return (
        ModelInfo(
            name=STARTER,
            summary="built in: 64x64 pictures of a few dozen low-poly props in plain colours; runs on any CPU",
            licence="GPL-3.0-or-later",
            repo_id="",
            memory_gb=0.1,
            text_encoder_gb=0.1,
            folder=_complete(_packaged_starter()),
            how_to_get="reinstall dreamwright: its weights are part of the package",
        ),
        _deepfloyd("deepfloyd-if", "IF-I-XL-v1.0", "4.3 G parameters, the best", 10.0),
        _deepfloyd("deepfloyd-if-l", "IF-I-L-v1.0", "0.9 G parameters", 4.0),
        _deepfloyd("deepfloyd-if-m", "IF-I-M-v1.0", "0.4 G parameters, the smallest", 3.0),
    )


def resolve_model(name_or_folder: str | Path) -> Path:
    """The pipeline folder of a named model, or the folder itself.

    Raises ModelError: a named model that is not on this machine (with how to get it), a file, or an unknown name (with
    the known ones).
    """
    given = str(name_or_folder)
    models = known_models()
    named = next((model for model in models if model.name == given), None)
    if named is not None:
        if named.folder is None:
            raise ModelError(f"the model {named.name!r} is not on this machine; {named.how_to_get}")
        return named.folder
    path = Path(given).expanduser()
    if given and path.is_dir():
        return path
    names = ", ".join(model.name for model in models)
    if given and path.exists():
        raise ModelError(f"the model {given!r} is a file; give a diffusers pipeline folder or one of {names}")
    what = "there is no model folder" if os.sep in given or given.startswith((".", "~")) else "unknown model"
    raise ModelError(f"{what} {given!r}; give a diffusers pipeline folder or one of {names}")


def _deepfloyd(name: str, repository: str, summary: str, memory_gb: float) -> ModelInfo:
    repo_id = f"DeepFloyd/{repository}"
    return ModelInfo(
        name=name,
        summary=f"DeepFloyd IF stage I: 64x64 pictures of anything; {summary}; wants a GPU",
        licence="DeepFloyd IF License Agreement (to be accepted on the hub)",
        repo_id=repo_id,
        memory_gb=memory_gb,
        text_encoder_gb=11.0,
        folder=_complete(_hub_snapshot(repo_id)),
        how_to_get=(
            f"accept its licence at https://huggingface.co/{repo_id}, run `hf auth login`, then "
            f'`hf download {repo_id} --include "*.json" --include "*.model" --include "*.fp16*.safetensors"`'
        ),
    )


def _packaged_starter() -> Path:
    """Where the weights lie in the package, there or not."""
    return Path(str(resources.files("dreamwright.backend.starter"))) / "weights"


def _hub_snapshot(repo_id: str) -> Path | None:
    """The newest snapshot in the hub's cache on this disk; asks no network."""
    found = try_to_load_from_cache(repo_id, "model_index.json")
    return Path(found).parent if isinstance(found, str) else None


def _complete(folder: Path | None) -> Path | None:
    """The folder if it holds a pipeline with weights, else None."""
    if folder is None or not (folder / "model_index.json").is_file():
        return None
    parts = (folder / "unet", folder / "text_encoder")
    return folder if all(any(part.glob("*.safetensors")) for part in parts) else None
