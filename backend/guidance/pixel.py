# SPDX-License-Identifier: GPL-3.0-or-later
"""Any pixel-space diffusers pipeline as a denoiser: DeepFloyd IF, the built-in starter, yours.

The continuous time t in [0, 1] means the scheduler's index nearest to t (T - 1), with T training steps (ties go up);
alpha_t^2 is the scheduler's alphas_cumprod at that index.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Mapping, Sequence

import torch
from tokenizers import models as tokenizer_models
from torch import Tensor
from torch.nn import functional

from dreamwright.backend.errors import ModelError, PromptError
from dreamwright.backend.guidance.contract import Conditioning
from dreamwright.backend.guidance.embeddings import TextEmbedder
from dreamwright.backend.guidance.pipeline_folder import PipelineFolder, load_model, load_scheduler, open_pipeline
from dreamwright.backend.guidance.prediction import PredictionType, noise_from
from dreamwright.backend.guidance.vocabulary import read_vocabulary, split_words, unknown_message

SHUFFLE_FACTORS = (1, 2, 4)  # pixel-unshuffle factors k: the U-Net sees 3 k^2 channels
PREDICTIONS: tuple[PredictionType, ...] = ("epsilon", "sample", "v_prediction")


class PixelDiffusion:
    """A frozen U-Net with its text encoder and noise schedule; implements `NativeDenoiser`.

    `image_size` is in pixels a side, `prediction_type` is what `predict` returns.
    """

    def __init__(
        self,
        unet: torch.nn.Module,
        alphas_cumprod: Tensor,
        prediction_type: PredictionType,
        embedder: TextEmbedder,
        known: Mapping[str, Any] | None = None,
    ) -> None:
        self.unet = unet
        self.prediction_type: PredictionType = prediction_type
        self.shuffle = _shuffle_factor(int(unet.config.in_channels))
        self.image_size = int(unet.config.sample_size) * self.shuffle
        self.device = embedder.device
        self.dtype = embedder.dtype
        self._embedder = embedder
        self._known = known
        self._alpha = alphas_cumprod.sqrt().to(self.device, torch.float32)
        self._sigma = (1 - alphas_cumprod).sqrt().to(self.device, torch.float32)

    @staticmethod
    def load(
        folder: str | Path,
        device: torch.device | str = "cpu",
        dtype: torch.dtype | None = None,
        cache: str | Path | None = None,
    ) -> PixelDiffusion:
        """Load a pipeline folder from disk, never from a network; `dtype` None means float32.

        `cache` is a folder for text embeddings (None: none on disk). The text encoder's weights are loaded by the
        first `embed` that needs them. Raises ModelError naming what is wrong and what is supported.
        """
        opened = open_pipeline(folder)
        dtype = torch.float32 if dtype is None else dtype
        _check_unet(opened)
        scheduler = load_scheduler(opened)
        kind = scheduler.config.get("prediction_type", "epsilon")
        if kind not in PREDICTIONS:
            raise ModelError(
                f"{opened.path} predicts {kind!r}; allowed are {', '.join(PREDICTIONS)}; choose another model"
            )
        embedder = TextEmbedder(opened, device, dtype, cache)
        unet = load_model(opened, "unet", dtype, device)
        return PixelDiffusion(unet, scheduler.alphas_cumprod.double(), kind, embedder, read_vocabulary(opened.path))

    def time_index(self, t: Tensor) -> Tensor:
        """Index (n,) in 0..T-1 nearest to t (T - 1), for t (n,) in [0, 1]."""
        last = len(self._alpha) - 1
        return torch.floor(t.double() * last + 0.5).long().clamp(0, last).to(self.device)

    def alpha_sigma(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """alpha_t, sigma_t, each (n,) float32, of the nearest training step."""
        index = self.time_index(t)
        return self._alpha[index], self._sigma[index]

    def embed(self, prompts: Sequence[str]) -> Conditioning:
        """Text states of the prompts; each is encoded once. Raises ModelError when the encoder cannot be loaded."""
        return Conditioning({"hidden": self._embedder.embed(prompts)})

    def free_text_encoder(self) -> None:
        """Drop the text encoder from memory; known prompts stay known, an unknown one loads it again."""
        self._embedder.free()

    @torch.no_grad()
    def predict(self, z_t: Tensor, t: Tensor, conditioning: Conditioning) -> Tensor:
        """The U-Net's own prediction for z_t (n, 3, h, w) in the model's space, float32, pixel-unshuffled and back."""
        z = functional.pixel_unshuffle(z_t.detach().to(self.device, self.dtype), self.shuffle)
        output = self.unet(
            z, self.time_index(t), encoder_hidden_states=conditioning.tensors["hidden"], return_dict=False
        )[0]
        # DeepFloyd IF also learns the variance, in the second half of its channels.
        return functional.pixel_shuffle(output[:, : z.shape[1]].float(), self.shuffle)

    def predict_noise(self, z_t: Tensor, t: Tensor, conditioning: Conditioning) -> Tensor:
        """eps_phi(z_t; y, t) (n, 3, h, w), float32, without gradient, whatever the model predicts."""
        alpha, sigma = (c.view(-1, 1, 1, 1) for c in self.alpha_sigma(t))
        return noise_from(self.prediction_type, self.predict(z_t, t, conditioning), z_t.detach(), alpha, sigma)

    def check_prompt(self, prompt: str) -> list[str]:
        """Warnings about a prompt that the model can take. Raises PromptError: empty, or words that it does not know."""
        text = self._embedder.preprocess(prompt)
        if not text:
            raise PromptError("the prompt is empty; describe an object, such as 'a red mushroom'")
        unknown = self._unknown_words(text)
        if unknown:
            raise PromptError(unknown_message(unknown, self._known))
        tokens = self._embedder.token_count(prompt)
        if tokens > self._embedder.length:
            return [f"the prompt has {tokens} tokens, the model reads the first {self._embedder.length}: {prompt!r}"]
        return []

    def _unknown_words(self, text: str) -> list[str]:
        """Words that become the unk token; only word-level tokenizers have such, others spell a word out."""
        tokenizer = self._embedder.tokenizer
        backend = getattr(tokenizer, "backend_tokenizer", None)
        if backend is None or not isinstance(backend.model, tokenizer_models.WordLevel):
            return []
        words = dict.fromkeys(split_words(text))
        return [w for w in words if tokenizer.unk_token_id in tokenizer(w, add_special_tokens=False).input_ids]


def _shuffle_factor(channels: int) -> int:
    """k for 3 k^2 channels, 0 where no supported k fits."""
    return next((k for k in SHUFFLE_FACTORS if channels == 3 * k * k), 0)


def _check_unet(folder: PipelineFolder) -> None:
    """Raise ModelError for a U-Net that wants other inputs than z_t, t and text, or a text encoder of another width."""
    config = folder.config("unet")
    inputs, outputs = config.get("in_channels"), config.get("out_channels")
    allowed = [3 * k * k for k in SHUFFLE_FACTORS]
    if inputs not in allowed or outputs not in (inputs, 2 * inputs):
        raise ModelError(
            f"the unet of {folder.path} has {inputs} input and {outputs} output channels; allowed are "
            f"{', '.join(map(str, allowed))} in and as many or twice as many out; choose a text-to-image model (stage I)"
        )
    if not isinstance(config.get("sample_size"), int):
        raise ModelError(
            f"the unet of {folder.path} has sample_size {config.get('sample_size')!r}; needed is one number; "
            "choose a model of square images"
        )
    for key, fine in (("class_embed_type", (None,)), ("addition_embed_type", (None, "text")), ("num_class_embeds", (None,))):
        if config.get(key) not in fine:
            raise ModelError(
                f"the unet of {folder.path} has {key} {config[key]!r}, an input that text-to-image guidance lacks; "
                f"allowed are {', '.join(map(repr, fine))}; choose a text-to-image model (stage I)"
            )
    text = folder.config("text_encoder")
    width = text.get("d_model", text.get("hidden_size"))
    wanted = config.get("encoder_hid_dim") or config.get("cross_attention_dim")
    if isinstance(wanted, int) and isinstance(width, int) and wanted != width:
        raise ModelError(
            f"the text encoder of {folder.path} has width {width}, its unet wants {wanted}; they must match; "
            "download the model again, whole"
        )
