# SPDX-License-Identifier: GPL-3.0-or-later
"""Text embeddings of a pipeline folder: encoded once, cached by (model, prompt), the encoders loaded only when needed.

DeepFloyd IF's encoder takes more memory than everything else together, so encoders are loaded at the first prompt that
no cache knows and can be freed at any time; a later unknown prompt loads them again.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional

from ..errors import ConfigError
from ..models.lora_files import Lora, add_loras, text_digest
from ..models.pipeline_folder import PipelineFolder, load_model
from .conditioning import Conditioning
from .tokenization import EncoderTokenizer, PromptTokenizer


class PipelineTextEncoder:
    """Prompts -> the tensors that condition a pipeline's network, one row each, in `dtype`, as the pipeline makes them.

    "hidden" (n, tokens, width) for every family; "pooled" (n, width) besides for SDXL and SD3. `int8` keeps the
    encoders' weights as 8-bit integers and computes in `dtype`. `loras` are added to the weights that they change; the
    cache keeps what they make apart. Raises ConfigError for LoRAs on 8-bit weights.
    """

    def __init__(
        self,
        folder: PipelineFolder,
        device: torch.device | str,
        dtype: torch.dtype,
        cache: str | Path | None,
        int8: bool = False,
        loras: Sequence[Lora] = (),
    ) -> None:
        self.folder = folder
        self.device = device
        self.dtype = dtype
        self.int8 = int8
        self.reader = PromptTokenizer(folder)
        self._cache = None if cache is None else Path(cache)
        self.loras = tuple(loras)
        changed = text_digest(loras, folder)
        if changed and int8:
            raise ConfigError(
                "text.precision is 'int8', and a LoRA changes the text encoder; allowed with it are float32, bfloat16 "
                "and float16; choose one of them"
            )
        self._text_hash = "" if cache is None else folder.text_hash() + changed
        self._known: dict[str, dict[str, Tensor]] = {}
        self._encoders: dict[str, torch.nn.Module] = {}

    @property
    def is_loaded(self) -> bool:
        """Whether a text encoder is in memory."""
        return bool(self._encoders)

    def free(self) -> None:
        """Release the text encoders; cached embeddings stay."""
        self._encoders.clear()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def embed(self, prompts: Sequence[str]) -> Conditioning:
        """The conditioning of the prompts, each encoded at most once.

        Raises ModelError when an encoder has to be loaded and cannot be.
        """
        texts = [self.reader.preprocess(prompt) for prompt in prompts]
        unknown = [text for text in dict.fromkeys(texts) if text not in self._known and not self._recall(text)]
        if unknown:
            for text, tensors in zip(unknown, self.encode(unknown), strict=True):
                self._known[text] = tensors
                self._store(text)
        rows = [self._known[text] for text in texts]
        return Conditioning({name: torch.stack([row[name] for row in rows]) for name in rows[0]})

    def encode(self, texts: Sequence[str]) -> Iterable[dict[str, Tensor]]:
        """The tensors of each text, which no cache knows; without the row's dimension.

        One by one: a batched encoding depends on its neighbors in the last bits, so that the cache would change
        results, and a handful of prompts costs little.
        """
        return map(self._encode, texts)

    @torch.no_grad()
    def _encode(self, text: str) -> dict[str, Tensor]:
        outputs = {part.part.encoder: self._run(part, text) for part in self.reader.parts}
        name = self.folder.family.name
        if name == "sdxl":
            tensors = self._sdxl(outputs, text)
        elif name == "flow":
            tensors = self._flow(outputs)
        else:
            tensors = {"hidden": outputs["text_encoder"].last_hidden_state}
        return {key: tensor[0].to(self.dtype) for key, tensor in tensors.items()}

    def _run(self, part: EncoderTokenizer, text: str) -> Any:
        """The encoder's output for one prompt, padded to a fixed length as the pipelines do."""
        name = part.part.encoder
        if name not in self._encoders:
            loaded = load_model(self.folder, name, self.dtype, self.device, self.int8)
            add_loras(loaded, name, self.loras)
            self._encoders[name] = loaded
        encoder = self._encoders[name]
        tokens = part.tokenizer(
            [part.preprocess(text)], padding="max_length", max_length=part.length, truncation=True, return_tensors="pt"
        )
        # In CLIP pipelines the encoder attends to its padding unless its configuration masks it, as does SD3's T5;
        # DeepFloyd IF masks it.
        is_t5 = self.folder.classes[name] == "T5EncoderModel"
        single = len(self.folder.family.text) == 1
        masked = single and (is_t5 or bool(getattr(encoder.config, "use_attention_mask", False)))
        mask = tokens.attention_mask.to(self.device) if masked else None
        return encoder(
            input_ids=tokens.input_ids.to(self.device), attention_mask=mask, output_hidden_states=not (single or is_t5)
        )

    def _sdxl(self, outputs: Mapping[str, Any], text: str) -> dict[str, Tensor]:
        """Penultimate states of both encoders side by side; the second one's pooled text. Unconditional may be zero."""
        first, second = outputs["text_encoder"], outputs["text_encoder_2"]
        tensors = {
            "hidden": torch.cat([first.hidden_states[-2], second.hidden_states[-2]], dim=-1),
            "pooled": second.text_embeds,
        }
        if not text and self.folder.options.get("force_zeros_for_empty_prompt", True):
            return {name: torch.zeros_like(tensor) for name, tensor in tensors.items()}
        return tensors

    def _flow(self, outputs: Mapping[str, Any]) -> dict[str, Tensor]:
        """Both CLIPs' penultimate states side by side, padded to T5's width, then T5's tokens, or zeros without it."""
        clips = [outputs["text_encoder"], outputs["text_encoder_2"]]
        side = torch.cat([clip.hidden_states[-2] for clip in clips], dim=-1)
        width = int(self.folder.config("transformer")["joint_attention_dim"])
        if "text_encoder_3" in outputs:
            t5 = outputs["text_encoder_3"].last_hidden_state
        else:
            t5 = side.new_zeros(len(side), self.folder.family.text[-1].max_tokens, width)
        hidden = torch.cat([functional.pad(side, (0, width - side.shape[-1])), t5], dim=1)
        return {"hidden": hidden, "pooled": torch.cat([clip.text_embeds for clip in clips], dim=-1)}

    def _path(self, text: str) -> Path | None:
        if self._cache is None:
            return None
        lengths = [part.length for part in self.reader.parts]
        key = f"{self._text_hash}\0{lengths}\0{self.dtype}{' int8' if self.int8 else ''}\0{text}"
        return self._cache / f"{hashlib.sha256(key.encode()).hexdigest()}.safetensors"

    def _recall(self, text: str) -> bool:
        path = self._path(text)
        if path is None or not path.is_file():
            return False
        try:
            tensors = load_file(path)
        except (OSError, SafetensorError):
            return False  # a damaged entry is encoded again and overwritten
        hidden = tensors.get("hidden")
        if hidden is None or hidden.ndim != 2 or any(tensor.dtype != self.dtype for tensor in tensors.values()):
            return False
        if ("pooled" in tensors) != (self.folder.family.name in ("sdxl", "flow")):
            return False
        self._known[text] = {name: tensor.to(self.device) for name, tensor in tensors.items()}
        return True

    def _store(self, text: str) -> None:
        path = self._path(text)
        if path is None:
            return
        partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            save_file({name: tensor.cpu().contiguous() for name, tensor in self._known[text].items()}, partial)
            os.replace(partial, path)
        except (OSError, SafetensorError):
            # A cache that cannot be written costs time, never a run.
            partial.unlink(missing_ok=True)
