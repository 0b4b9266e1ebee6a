# SPDX-License-Identifier: GPL-3.0-or-later
"""Pixel-space diffusion models in diffusers' on-disk pipeline format: the starter now, DeepFloyd IF by the same code."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any, Sequence

import diffusers
import torch
import transformers
from torch import Tensor
from torch.nn import functional

from dreamwright.backend.errors import ModelError, PromptError
from dreamwright.backend.guidance.contract import Conditioning
from dreamwright.backend.guidance.prediction import PREDICTION_TYPES, noise_from

TEXT_ENCODERS = ("T5EncoderModel", "CLIPTextModel")
UNETS = ("UNet2DConditionModel",)
COMPONENTS = ("unet", "scheduler", "tokenizer", "text_encoder")


class PixelDiffusion:
    """A frozen U-Net on pixels with its schedule and text encoder; implements `Denoiser`.

    Networks with 3 k^2 input channels see pictures pixel-unshuffled by k. Networks that also predict a variance
    (twice as many outputs) have that half dropped. Diffusion time t in [0, 1] is index round(t (T - 1)).
    """

    def __init__(
        self,
        unet: Any,
        scheduler: Any,
        tokenizer: Any,
        text_encoder: Any,
        known: dict[str, list[str]] | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        channels = unet.config.in_channels
        self.shuffle = math.isqrt(channels // 3) if channels % 3 == 0 else 0
        if 3 * self.shuffle**2 != channels:
            raise ModelError(
                f"the U-Net takes {channels} channels; allowed are pictures of 3 channels, or 12 or 48 pixel-unshuffled "
                "ones; latent and super-resolution models need another guidance"
            )
        self.prediction_type = scheduler.config.get("prediction_type", "epsilon")
        if self.prediction_type not in PREDICTION_TYPES:
            raise ModelError(f"prediction type {self.prediction_type!r}; allowed are {', '.join(PREDICTION_TYPES)}; use another model")
        self.device = torch.device(device)
        self.unet = unet.eval().requires_grad_(False).to(self.device)
        self.text_encoder = text_encoder.eval().requires_grad_(False).to(self.device)
        self.tokenizer = tokenizer
        self.image_size = int(unet.config.sample_size) * self.shuffle
        self.known = known
        alpha_bar = scheduler.alphas_cumprod.to(device=self.device, dtype=torch.float64)
        self._alphas, self._sigmas = alpha_bar.sqrt().float(), (1 - alpha_bar).sqrt().float()
        self._embedded: dict[str, Tensor] = {}

    @classmethod
    def load(cls, folder: Path, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32) -> "PixelDiffusion":
        """Load a pipeline folder, safetensors only, never from the network. Raises ModelError saying what is wrong."""
        index = _read_index(folder)
        parts: dict[str, Any] = {}
        for name in COMPONENTS:
            library, class_name = index.get(name) or (None, None)
            allowed = {"unet": UNETS, "text_encoder": TEXT_ENCODERS}.get(name)
            if class_name is None or (allowed and class_name not in allowed):
                raise ModelError(
                    f"{folder}: component {name} is {class_name or 'missing'}; allowed are "
                    f"{', '.join(allowed or ('any diffusers scheduler or transformers tokenizer',))}; give a pixel-space "
                    "text-to-image pipeline such as DeepFloyd IF stage I"
                )
            owner = {"diffusers": diffusers, "transformers": transformers}.get(library)
            if owner is None or not hasattr(owner, class_name):
                raise ModelError(f"{folder}: component {name} wants {library}.{class_name}, which is not installed; update diffusers and transformers")
            weights = {"torch_dtype": dtype, "use_safetensors": True} if name == "unet" else {}
            if name == "text_encoder":
                weights = {"dtype": dtype, "use_safetensors": True}
            try:
                parts[name] = getattr(owner, class_name).from_pretrained(folder / name, local_files_only=True, **weights)
            except (OSError, ValueError, KeyError, RuntimeError) as error:
                reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
                raise ModelError(f"{folder}: cannot load {name} ({reason}); download the model again") from error
        known_file = folder / "domain.json"
        known = json.loads(known_file.read_text()) if known_file.is_file() else None
        return cls(parts["unet"], parts["scheduler"], parts["tokenizer"], parts["text_encoder"], known, device)

    def check_prompt(self, prompt: str) -> None:
        """Raise PromptError naming the words that the tokenizer does not know, what it knows, and what knows more."""
        unknown_token = getattr(self.tokenizer, "unk_token_id", None)
        if unknown_token is None or self.known is None:
            return  # subword vocabularies know every word
        known = set(self.known["words"])
        words = [word.strip(".,;:!?\"'").lower() for word in prompt.split()]
        unknown = sorted({word for word in words if word and word not in known})
        if unknown:
            raise PromptError(
                f"the starter model does not know {', '.join(repr(word) for word in unknown)}; it knows the props "
                f"{', '.join(self.known['props'])} in {', '.join(self.known['colours'])}; try "
                f"{self.known['examples'][0]!r}, or a model that knows every word (see: dreamwright models)"
            )

    def embed(self, prompts: Sequence[str]) -> Conditioning:
        """Text states (n, tokens, width), padded to the tokenizer's length; each prompt is encoded once."""
        missing = [prompt for prompt in dict.fromkeys(prompts) if prompt not in self._embedded]
        if missing:
            if self.text_encoder is None:
                raise ModelError(f"the text encoder was freed before {missing[0]!r} was encoded; load the model again")
            for prompt in missing:
                self.check_prompt(prompt)
            length = min(int(self.tokenizer.model_max_length), 77)
            tokens = self.tokenizer(missing, padding="max_length", max_length=length, truncation=True, return_tensors="pt")
            with torch.no_grad():
                states = self.text_encoder(
                    input_ids=tokens.input_ids.to(self.device), attention_mask=tokens.attention_mask.to(self.device)
                ).last_hidden_state
            self._embedded |= {prompt: state for prompt, state in zip(missing, states)}
        return Conditioning(torch.stack([self._embedded[prompt] for prompt in prompts]))

    def free_text_encoder(self) -> None:
        """Drop the text encoder; prompts already embedded stay known."""
        self.text_encoder = None

    def _index(self, t: Tensor) -> Tensor:
        return (t.to(self.device) * (len(self._alphas) - 1)).round().long().clamp(0, len(self._alphas) - 1)

    def alpha_sigma(self, t: Tensor) -> tuple[Tensor, Tensor]:
        index = self._index(t)
        return self._alphas[index], self._sigmas[index]

    @torch.no_grad()
    def predict_noise(self, z_t: Tensor, t: Tensor, conditioning: Conditioning) -> Tensor:
        index = self._index(t)
        shuffled = functional.pixel_unshuffle(z_t, self.shuffle) if self.shuffle > 1 else z_t
        prediction = self.unet(
            shuffled.to(self.unet.dtype), index, encoder_hidden_states=conditioning.states.to(self.unet.dtype)
        ).sample[:, : shuffled.shape[1]].to(z_t.dtype)
        if self.shuffle > 1:
            prediction = functional.pixel_shuffle(prediction, self.shuffle)
        alpha, sigma = (value.view(-1, 1, 1, 1) for value in (self._alphas[index], self._sigmas[index]))
        return noise_from(self.prediction_type, prediction, z_t, alpha, sigma)


def _read_index(folder: Path) -> dict[str, Any]:
    path = folder / "model_index.json"
    if not folder.is_dir():
        raise ModelError(f"no model folder at {folder}; give a diffusers pipeline folder or a name from: dreamwright models")
    if not path.is_file():
        raise ModelError(f"{folder} has no model_index.json; give the folder of a whole diffusers pipeline")
    try:
        index = json.loads(path.read_text())
    except json.JSONDecodeError as error:
        raise ModelError(f"{path} is not JSON (line {error.lineno}); download the model again") from error
    if not isinstance(index, dict):
        raise ModelError(f"{path} holds no JSON object; download the model again")
    return index
