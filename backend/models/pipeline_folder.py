# SPDX-License-Identifier: GPL-3.0-or-later
"""A diffusers pipeline folder: checked before a weight is loaded, then loaded part by part.

Weights are safetensors only, nothing is downloaded, and only the classes named in `families` are constructed.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers
from safetensors import SafetensorError

from ..errors import ConfigError, ModelError, is_out_of_memory, one_line
from .clip_files import CONFIG, is_clip
from .config_fields import check_fields
from .families import DISTINCTIVE_PARTS, Family, pipeline_class, supported
from .fingerprint import file_digest
from .json_files import read_object
from .latent_diffusion_names import diffusers_name
from .model_files import INDEX, SCHEDULER, family_of, file_names
from .mvdream_layout import NETWORK as MVDREAM_UNET
from .mvdream_layout import diffusers_config
from .mvdream_network import read_network
from .tokenizer_check import check_tokenizer_files, load_checked_tokenizer, tokenizer_files
from .weight_files import WeightSet, check_weights, choose_weights, read_weight_sets, weight_base

BUFFERS = ("position_ids",)  # older transformers saved them; they are counted anew


@dataclass(frozen=True)
class PipelineFolder:
    """A checked folder: the class of each present part, and the pipeline's own options in model_index.json."""

    path: Path
    pipeline: str
    family: Family
    classes: Mapping[str, str]
    options: Mapping[str, Any]

    def config(self, part: str) -> dict[str, Any]:
        """The part's configuration, in diffusers' terms. Raises ModelError when it is missing or no JSON object."""
        path = self.config_path(part)
        content = read_object(path)
        return diffusers_config(content, str(path)) if self.classes.get(part) == MVDREAM_UNET else content

    def tensor_name(self, part: str, name: str) -> str:
        """Where the loaded part keeps the tensor that its files call `name`."""
        if self.classes.get(part) != MVDREAM_UNET:
            return name
        return diffusers_name(name, int(self.config(part)["layers_per_block"]))

    def config_path(self, part: str) -> Path:
        """Where the part's configuration lies."""
        return self.path / part / (SCHEDULER if part == "scheduler" else CONFIG)

    def weights(self, part: str, dtype: torch.dtype) -> WeightSet:
        """The variant of the part's weights that is loaded in `dtype`. Raises ModelError when none is whole."""
        base = weight_base(part)
        chosen = choose_weights(read_weight_sets(self.path / part, base), half=dtype == torch.float16)
        return check_weights(self.path / part, base, f"the {part} of {self.path}")[0] if chosen is None else chosen

    @property
    def network(self) -> str:
        """The name of the part that denoises."""
        return self.family.network

    @property
    def text_encoders(self) -> tuple[str, ...]:
        """The names of the present text encoders, in the family's order."""
        return tuple(part.encoder for part in self.family.text if part.encoder in self.classes)

    def text_hash(self) -> str:
        """Hex digest of all tokenizers and text encoders, and of how they are used: equal digests, equal embeddings."""
        used = (self.family.name, self.options.get("force_zeros_for_empty_prompt"))
        digest = hashlib.sha256(repr(used).encode())
        for part in self.family.text:
            digest.update(f"{part.encoder} {self.classes.get(part.encoder)}".encode())
            if part.encoder not in self.classes:
                continue
            tokenizer, encoder = self.path / part.tokenizer, self.path / part.encoder
            files = [tokenizer / name for name in tokenizer_files(file_names(tokenizer))] + [encoder / CONFIG]
            sets = read_weight_sets(encoder, weight_base(part.encoder))
            files += [encoder / name for weights in sets for name in weights.files]
            for file in files:
                digest.update(f"{file.name}\0{file_digest(file)}\n".encode())
        return digest.hexdigest()


def open_pipeline(folder: str | Path) -> PipelineFolder:
    """Read model_index.json and check that every part is there and of a supported class.

    Raises ModelError: no folder, no model_index.json, an unsupported pipeline (naming the supported ones), a part that
    is missing, of another class or from another kind of pipeline, a part without weights.
    """
    path = Path(folder)
    if not path.is_dir():
        raise ModelError(
            f"there is no model folder {str(path)!r}; give a diffusers pipeline folder or a name that "
            "`dreamwright models` lists"
        )
    if not (path / INDEX).is_file():
        raise ModelError(_no_index(path))
    index = read_object(path / INDEX)
    pipeline, family = pipeline_class(index), family_of(index, str(path))
    for part in DISTINCTIVE_PARTS:
        if part not in family.parts and _class_of(index, part):
            raise ModelError(
                f"{path} is a {pipeline} with a {part}, which that class does not have; allowed parts are "
                f"{', '.join(family.parts)}; its parts are mixed up, so download the model again, whole"
            )
    classes = {}
    for part, allowed in family.parts.items():
        found = _class_of(index, part)
        if found is None and part in family.optional and part in index:
            continue
        if found not in allowed:
            raise ModelError(
                f"{path} is a {pipeline} whose {part} is {found or 'missing'}; allowed is {' or '.join(allowed)}; "
                f"choose another model, of class {supported()}"
            )
        if not (path / part).is_dir():
            optional = (
                f", or write {part!r}: [null, null] into its model_index.json to do without"
                if part in family.optional
                else ""
            )
            raise ModelError(f"{path} lacks its folder {part!r}; download the model again, whole{optional}")
        classes[part] = found
    for text in family.text:
        if (text.encoder in classes) != (text.tokenizer in classes):
            raise ModelError(
                f"{path} has only one of {text.encoder} and {text.tokenizer}; allowed are both or neither; "
                "download the model again, whole"
            )
    options = {key: value for key, value in index.items() if not isinstance(value, list)}
    opened = PipelineFolder(path, pipeline, family, classes, options)
    check_parts(opened)
    return opened


def check_parts(folder: PipelineFolder) -> None:
    """Check the configuration, the weights' headers and the tokenizers' files of every part; no weight is loaded.

    Raises ModelError naming a file that is missing, empty, cut off or unreadable, or fields that must be stated.
    """
    family = folder.family
    if family.name == "sdxl" and "force_zeros_for_empty_prompt" not in folder.options:
        raise ModelError(
            f"{folder.path / INDEX} lacks force_zeros_for_empty_prompt, which decides the unconditional prompt; "
            "download the model again, whole"
        )
    for part, class_name in folder.classes.items():
        if part.startswith("tokenizer"):
            check_tokenizer_files(folder.path / part)
            continue
        check_fields(folder.config_path(part), class_name, folder.config(part), family.name)
        if part != "scheduler":
            check_weights(folder.path / part, weight_base(part), f"the {part} of {folder.path}")


def load_model(
    folder: PipelineFolder, part: str, dtype: torch.dtype, device: torch.device | str, int8: bool = False
) -> torch.nn.Module:
    """A network, VAE or text encoder in eval mode, frozen, in `dtype` on `device`.

    `int8` keeps a text encoder's matrices as 8-bit integers and computes in `dtype`; raises ConfigError where torchao,
    which does that, is not installed. Raises ModelError as `load_checked`.
    """
    name = folder.classes[part]
    options: dict[str, Any] = {
        "local_files_only": True,
        "use_safetensors": True,
        "variant": folder.weights(part, dtype).variant or None,
        "output_loading_info": True,
    }
    where = folder.path / part

    def load() -> tuple[torch.nn.Module, Mapping[str, Any]]:
        if name == MVDREAM_UNET:
            return read_network(
                folder.config(part), [where / file for file in folder.weights(part, dtype).files], dtype
            )
        if part in (folder.network, "vae"):
            return getattr(diffusers, name).from_pretrained(
                where, torch_dtype=dtype, low_cpu_mem_usage=False, **options
            )
        if int8:
            options["quantization_config"] = _int8_weights()
        return getattr(transformers, name).from_pretrained(where, dtype=dtype, **options)

    return load_checked(part, folder.path, load).to(device).eval().requires_grad_(False)


def load_checked(
    part: str, path: Path, load: Callable[[], tuple[torch.nn.Module, Mapping[str, Any]]]
) -> torch.nn.Module:
    """The model that `load` returns with a library's report of what it found.

    Raises ModelError when the weights are damaged, or do not cover or fit the configuration: libraries would only log
    that and leave random numbers in the gaps.
    """
    try:
        with _no_progress_bar():
            model, report = load()
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
        if isinstance(error, ConfigError) or is_out_of_memory(error):
            raise
        raise ModelError(
            f"cannot load the {part} of {path}: {one_line(error)}; download the model again, whole"
        ) from error
    check_report(part, path, report)
    return model


def check_report(part: str, path: Path, report: Mapping[str, Any]) -> None:
    """Raise ModelError for weights that do not cover or fit the configuration, from a library's report."""
    gaps = [*report.get("missing_keys", ()), *(str(key) for key in report.get("mismatched_keys", ()))]
    if gaps:
        raise ModelError(
            f"the {part} weights of {path} lack or misfit {len(gaps)} tensors ({sorted(gaps)[0]}, ...); "
            "they must match config.json; download the model again, whole"
        )
    # Weights beyond the configuration: the library would run a network with fewer layers than were trained.
    extra = sorted(key for key in report.get("unexpected_keys", ()) if not key.endswith(BUFFERS))
    if extra:
        raise ModelError(
            f"the {part} weights of {path} hold {len(extra)} tensors that config.json has no place for ({extra[0]}, "
            "...); they must match; download the model again, whole"
        )


def load_tokenizer(folder: PipelineFolder, part: str = "tokenizer") -> Any:
    """The tokenizer of that name, proved to be the one that its text encoder was trained with.

    Raises ModelError for files that are missing, empty, unreadable or do not fit the encoder.
    """
    encoder = next(text.encoder for text in folder.family.text if text.tokenizer == part)
    rows = folder.config(encoder).get("vocab_size")
    return load_checked_tokenizer(folder.path / part, folder.classes[part], f"the {part} of {folder.path}", rows)


def load_scheduler(folder: PipelineFolder) -> Any:
    """The scheduler, of which only the noise levels and the prediction type matter. Raises ModelError."""
    folder.config("scheduler")
    try:
        return getattr(diffusers, folder.classes["scheduler"]).from_pretrained(
            folder.path / "scheduler", local_files_only=True
        )
    except (OSError, ValueError, KeyError, TypeError, NotImplementedError) as error:
        raise ModelError(
            f"cannot load the scheduler of {folder.path}: {one_line(error)}; download the model again, whole"
        ) from error


def _no_index(path: Path) -> str:
    """The error for a folder without model_index.json, which may be a part of a pipeline or a CLIP model."""
    if (path.parent / INDEX).is_file():
        return f"{path} is one part of a pipeline; give the whole of it, {path.parent}"
    if (path / CONFIG).is_file() and is_clip(read_object(path / CONFIG)):
        return (
            f"{path} is a CLIP model, which compares images with texts and makes none; give a diffusers pipeline "
            "folder, or run it with --method dream-fields"
        )
    return f"{path} has no model_index.json, so it is no diffusers pipeline; give the folder that holds that file"


def _class_of(index: Mapping[str, Any], part: str) -> str | None:
    """The class name in "part": ["library", "Class"], None where absent or null."""
    entry = index.get(part)
    if isinstance(entry, list) and len(entry) == 2 and isinstance(entry[1], str):
        return entry[1]
    return None


def _int8_weights() -> Any:
    """transformers' configuration of 8-bit weights. Raises ConfigError where torchao is missing or unusable."""
    try:
        from torchao.quantization import Int8WeightOnlyConfig
    except ImportError as error:
        raise ConfigError(
            f"text.precision is 'int8', which needs torchao ({one_line(error)}); allowed without it are float32, "
            "bfloat16 and float16; pip install 'dreamwright[int8]', or choose one of those"
        ) from error
    return transformers.TorchAoConfig(Int8WeightOnlyConfig())


@contextlib.contextmanager
def _no_progress_bar() -> Iterator[None]:
    """Turns off transformers' own progress bar, which would disturb ours, and restores its setting."""
    shown = transformers.utils.logging.is_progress_bar_enabled()
    transformers.utils.logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            transformers.utils.logging.enable_progress_bar()
