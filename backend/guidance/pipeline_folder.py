# SPDX-License-Identifier: GPL-3.0-or-later
"""A diffusers pipeline folder: read and checked before a single weight is loaded, its parts loaded one by one.

Weights are safetensors only, nothing is fetched, and only the component classes named here are ever constructed.
"""

from __future__ import annotations

import contextlib
import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Iterator, Mapping

import diffusers
import torch
import transformers
from safetensors import SafetensorError

from dreamwright.backend.errors import ModelError
from dreamwright.backend.guidance.json_object import one_line, read_object

COMPONENTS: Mapping[str, tuple[str, ...]] = {
    "unet": ("UNet2DConditionModel",),
    "scheduler": (
        "DDPMScheduler",
        "DDIMScheduler",
        "PNDMScheduler",
        "EulerDiscreteScheduler",
        "EulerAncestralDiscreteScheduler",
        "DPMSolverMultistepScheduler",
    ),
    "tokenizer": (
        "T5Tokenizer",
        "T5TokenizerFast",
        "CLIPTokenizer",
        "CLIPTokenizerFast",
        "PreTrainedTokenizerFast",
        "TokenizersBackend",
    ),
    "text_encoder": ("T5EncoderModel", "CLIPTextModel"),
}
LATENT_PARTS = ("vae", "vqvae", "movq", "vae_decoder")
WHOLE_HASH_BYTES = 256 * 2**20  # weights up to this size are hashed whole, larger ones by both ends, size and time


@dataclass(frozen=True)
class PipelineFolder:
    """A checked folder: the class of each part by its name in `COMPONENTS`."""

    path: Path
    pipeline: str
    classes: Mapping[str, str]

    def config(self, part: str) -> dict[str, Any]:
        """The part's configuration. Raises ModelError when it is missing or no JSON object."""
        name = "scheduler_config.json" if part == "scheduler" else "config.json"
        return read_object(self.path / part / name)

    def weight_files(self, part: str) -> list[Path]:
        """The part's safetensors files. Raises ModelError when there are none."""
        folder = self.path / part
        files = sorted(folder.glob("*.safetensors"))
        if files:
            return files
        pickled = sorted([*folder.glob("*.bin"), *folder.glob("*.ckpt"), *folder.glob("*.pt")])
        if pickled:
            raise ModelError(
                f"{folder} holds only pickled weights ({pickled[0].name}); allowed are .safetensors files; "
                "download the model's safetensors or convert them"
            )
        raise ModelError(f"{folder} holds no weights; needed are .safetensors files; download the model again, whole")

    def variant(self, part: str, dtype: torch.dtype) -> str | None:
        """ "fp16" when only half-precision files are there, or both are and `dtype` is float16; else None."""
        names = [file.name for file in self.weight_files(part)]
        half = any(".fp16" in name for name in names)
        whole = any(".fp16" not in name for name in names)
        return "fp16" if half and (not whole or dtype == torch.float16) else None

    def text_hash(self) -> str:
        """Hex digest of the tokenizer and the text encoder: equal digests, equal embeddings."""
        digest = hashlib.sha256(self.classes["text_encoder"].encode())
        small = [*(self.path / "tokenizer").iterdir(), self.path / "text_encoder" / "config.json"]
        for file in sorted(small):
            if file.is_file():
                digest.update(file.name.encode() + b"\0" + hashlib.sha256(file.read_bytes()).digest())
        for file in self.weight_files("text_encoder"):
            digest.update(file.name.encode() + b"\0" + _weights_digest(file))
        return digest.hexdigest()


def open_pipeline(folder: str | Path) -> PipelineFolder:
    """Read model_index.json and check that every part is there and of a supported class.

    Raises ModelError: no folder, no model_index.json, a latent or otherwise unsupported pipeline, a missing part.
    """
    path = Path(folder)
    if not path.is_dir():
        raise ModelError(
            f"there is no model folder {str(path)!r}; give a diffusers pipeline folder or a name that "
            "`dreamwright models` lists"
        )
    if not (path / "model_index.json").is_file():
        raise ModelError(
            f"{path} has no model_index.json, so it is no diffusers pipeline; give the folder that holds that file"
        )
    index = read_object(path / "model_index.json")
    pipeline = str(index.get("_class_name", "without a class name"))
    latent = [part for part in LATENT_PARTS if _class_of(index, part)]
    if latent:
        raise ModelError(
            f"{path} is a {pipeline} with a {latent[0]}, so it works on latents; allowed are pixel-space "
            "text-to-image pipelines such as IFPipeline; choose another model"
        )
    classes = {}
    for part, supported in COMPONENTS.items():
        found = _class_of(index, part)
        if found not in supported:
            raise ModelError(
                f"{path} is a {pipeline} whose {part} is {found or 'missing'}; allowed is {' or '.join(supported)}; "
                "choose a pixel-space text-to-image pipeline such as IFPipeline"
            )
        if not (path / part).is_dir():
            raise ModelError(f"{path} lacks its folder {part!r}; download the model again, whole")
        classes[part] = found
    opened = PipelineFolder(path, pipeline, classes)
    for part in ("unet", "text_encoder"):
        opened.weight_files(part)
    return opened


def load_model(folder: PipelineFolder, part: str, dtype: torch.dtype, device: torch.device | str) -> torch.nn.Module:
    """The unet or text encoder in eval mode, frozen, in `dtype` on `device`.

    Raises ModelError when the weights are damaged, or do not cover or fit the configuration: libraries would only log
    that and leave random numbers in the gaps.
    """
    name = folder.classes[part]
    options: dict[str, Any] = dict(
        local_files_only=True,
        use_safetensors=True,
        variant=folder.variant(part, dtype),
        output_loading_info=True,
    )
    where = folder.path / part
    try:
        if part == "unet":
            model, report = getattr(diffusers, name).from_pretrained(
                where, torch_dtype=dtype, low_cpu_mem_usage=False, **options
            )
        else:
            with _no_progress_bar():
                model, report = getattr(transformers, name).from_pretrained(where, dtype=dtype, **options)
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
        raise ModelError(
            f"cannot load the {part} of {folder.path}: {one_line(error)}; download the model again, whole"
        ) from error
    gaps = [*report.get("missing_keys", ()), *(str(key) for key in report.get("mismatched_keys", ()))]
    if gaps:
        raise ModelError(
            f"the {part} weights of {folder.path} lack or misfit {len(gaps)} tensors ({sorted(gaps)[0]}, ...); "
            "they must match config.json; download the model again, whole"
        )
    return model.to(device).eval().requires_grad_(False)


def load_tokenizer(folder: PipelineFolder) -> Any:
    """The tokenizer. Raises ModelError when its files cannot be read."""
    try:
        return getattr(transformers, folder.classes["tokenizer"]).from_pretrained(
            folder.path / "tokenizer", local_files_only=True
        )
    except (OSError, ValueError, KeyError, TypeError, ImportError) as error:
        raise ModelError(
            f"cannot load the tokenizer of {folder.path}: {one_line(error)}; download the model again, whole"
        ) from error


def load_scheduler(folder: PipelineFolder) -> Any:
    """The scheduler, of which only `alphas_cumprod` and `prediction_type` matter. Raises ModelError."""
    folder.config("scheduler")
    try:
        return getattr(diffusers, folder.classes["scheduler"]).from_pretrained(
            folder.path / "scheduler", local_files_only=True
        )
    except (OSError, ValueError, KeyError, TypeError, NotImplementedError) as error:
        raise ModelError(
            f"cannot load the scheduler of {folder.path}: {one_line(error)}; download the model again, whole"
        ) from error


def _class_of(index: Mapping[str, Any], part: str) -> str | None:
    """The class name in "part": ["library", "Class"], None where absent or null."""
    entry = index.get(part)
    if isinstance(entry, list) and len(entry) == 2 and isinstance(entry[1], str):
        return entry[1]
    return None


def _weights_digest(path: Path) -> bytes:
    """Digest of a weight file; a file of many gigabytes is told by its ends, size and modification time."""
    status = path.stat()
    digest = hashlib.sha256()
    with open(path, "rb") as stream:
        if status.st_size <= WHOLE_HASH_BYTES:
            while block := stream.read(2**20):
                digest.update(block)
        else:
            digest.update(f"{status.st_size} {status.st_mtime_ns}".encode())
            digest.update(stream.read(2**20))
            stream.seek(-(2**20), 2)
            digest.update(stream.read())
    return digest.digest()


@contextlib.contextmanager
def _no_progress_bar() -> Iterator[None]:
    """Without transformers' own bar, which would break into ours; its setting is put back."""
    shown = transformers.utils.logging.is_progress_bar_enabled()
    transformers.utils.logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            transformers.utils.logging.enable_progress_bar()
