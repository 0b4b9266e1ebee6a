# SPDX-License-Identifier: GPL-3.0-or-later
"""The estimate of the renders' score in VSD: a LoRA of the frozen network, which is trained on renders.

As in threestudio's prolificdreamer: low-rank changes of all projections of the attention blocks, an embedding of the
camera that is added to that of time, AdamW (betas 0.9 and 0.99, epsilon 1e-15, weight decay 0.01), t ~ U(0, 1) and one
noise a view, and the loss |prediction - truth|^2 in the network's own kind of prediction. Here the camera's embedding
begins at zero as the LoRA does, so that the estimate begins as the frozen network; the text is that of the view, as the
frozen network's is; and the camera is never left out, which only a guided estimate would need.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from diffusers.models.embeddings import TimestepEmbedding
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.lora import LoraLayer
from torch import Tensor

from ..cameras.poses import POSE_NUMBERS, pose_vectors
from ..config.schema import GuidanceConfig
from ..errors import ConfigError, NonFiniteError
from ..models.lora_targets import LORA_TARGETS
from ..runtime.rng import sample_for_views
from .denoisers.base import DiffusersDenoiser
from .interfaces import CameraAware, Draws
from .prediction import output_from

ADAPTER = "renders"
BETAS, EPSILON, WEIGHT_DECAY = (0.9, 0.99), 1e-15, 0.01  # threestudio's prolificdreamer.yaml; torch's weight decay


class LoraEstimate:
    """A LoRA in the network of a denoiser, active in `predict` and `learn` only. Implements `ScoreEstimate`, `Learner`.

    The network's own weights are frozen and never change; without the LoRA it computes bit by bit what it did before.
    Networks that are given cameras anyway (`CameraAware`) get no further embedding of them, and neither do networks of
    pixel-unshuffled images, whose rows are no views. Raises ConfigError for a network whose attention peft cannot
    change, and for `guidance.lora_recompute` with a network that cannot.
    """

    def __init__(self, denoiser: DiffusersDenoiser, config: GuidanceConfig, seed: int = 0) -> None:
        self.denoiser, self.rank = denoiser, config.lora_rank
        network: Any = denoiser.network
        network.requires_grad_(False)
        before = {name: layer.active_adapters for name, layer in _lora_layers(network)}
        adapter = LoraConfig(r=self.rank, lora_alpha=self.rank, target_modules=list(LORA_TARGETS))
        try:
            with torch.random.fork_rng(devices=[]):  # peft's own initialization, which `reset` replaces
                inject_adapter_in_model(adapter, network, ADAPTER)
        except ValueError as error:
            raise ConfigError(
                f"guidance.rule is vsd, but a {type(network).__name__} has no attention that a LoRA can change; "
                "allowed here are sds, csd and sdi; choose one of them"
            ) from error
        self._layers: list[tuple[LoraLayer, list[str]]] = []  # with the other adapters that are active in it
        weights: dict[str, Tensor] = {}
        for name, layer in _lora_layers(network):
            if ADAPTER in layer.lora_A:
                self._layers.append((layer, before.get(name, [])))
                for part in ("lora_A", "lora_B"):
                    linear = getattr(layer, part)[ADAPTER].float()  # half-precision steps of 1e-4 would be lost
                    weights[f"{name}.{part}"] = linear.weight
        self._camera = _camera_embedding(denoiser)
        if self._camera is not None:
            self._camera.to(denoiser.device)
            weights |= {f"camera.{name}": weight for name, weight in self._camera.named_parameters()}
        self.weights: Mapping[str, Tensor] = weights
        self._poses: Tensor | None = None
        if config.lora_recompute:
            if not getattr(network, "_supports_gradient_checkpointing", False):
                raise ConfigError(
                    f"guidance.lora_recompute is on, but a {type(network).__name__} cannot; allowed is false for this "
                    "model; turn it off"
                )
            network.enable_gradient_checkpointing()
        parameters = list(self.weights.values())
        self.optimizer: torch.optim.Optimizer = torch.optim.AdamW(
            parameters, lr=config.lora_rate, betas=BETAS, eps=EPSILON, weight_decay=WEIGHT_DECAY, fused=True
        )
        self._views = 0  # whose gradients are summed
        self.reset(seed)

    @property
    def learner(self) -> LoraEstimate:
        """Itself."""
        return self

    # --- the estimate

    @torch.no_grad()
    def predict(self, z_t: Tensor, draws: Draws) -> Tensor:
        """See `ScoreEstimate.predict`."""
        with self._active(draws, draws.count):
            return self.denoiser.predict_raw(z_t, draws.t, draws.positive)

    def learn(self, draws: Draws) -> float:
        """See `ScoreEstimate.learn`; the loss is the mean over views and numbers. Raises NonFiniteError."""
        clean, text = draws.clean[: draws.views], draws.positive[: draws.views]
        kind = self.denoiser.prediction_type
        t = sample_for_views(torch.rand, (len(clean),), draws.generator).to(clean.device)
        if isinstance(self.denoiser, CameraAware):
            together = self.denoiser.views_together(text)
            t = t[::together].repeat_interleave(together)
        noise = sample_for_views(torch.randn, tuple(clean.shape), draws.generator).to(clean.device)
        alpha, sigma = (level.to(clean).view(-1, 1, 1, 1) for level in self.denoiser.alpha_sigma(t))
        truth, weights = output_from(kind, clean, noise, alpha, sigma), list(self.weights.values())
        with self._active(draws, 1), torch.enable_grad():
            output = self.denoiser.predict_with_graph(alpha * clean + sigma * noise, t, text)
            error = output.detach() - truth
            # The backward pass begins with a largest entry of 1, so that float16 neither overflows nor underflows.
            gradient = 2 * error / error[0].numel()
            scale = gradient.abs().max().clamp(min=1e-30)
            found = torch.autograd.grad(output, weights, gradient / scale, allow_unused=True)
        loss = float(error.square().mean())
        if not math.isfinite(loss) or not all(bool(torch.isfinite(g).all()) for g in found if g is not None):
            raise NonFiniteError(
                "the LoRA of guidance.rule=vsd has diverged: its loss or gradient is NaN or infinite though the render "
                "was finite; both must be finite; lower guidance.lora_rate or set model.dtype to bfloat16 or float32"
            )
        for weight, g in zip(weights, found, strict=True):
            if g is not None:
                weight.grad = scale * g if weight.grad is None else weight.grad + scale * g
        self._views += len(clean)
        return loss

    # --- its weights

    def reset(self, seed: int) -> None:
        """See `Learner.reset`: A ~ N(0, 1 / rank) and B = 0, as diffusers' LoRA layers begin; the camera adds zero."""
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for name, weight in self.weights.items():
                shape = tuple(weight.shape)
                if name.endswith("lora_A"):
                    weight.copy_(torch.randn(shape, generator=generator) / self.rank)
                elif name == "camera.linear_1.weight":
                    weight.copy_((2 * torch.rand(shape, generator=generator) - 1) / POSE_NUMBERS**0.5)
                else:
                    weight.zero_()
        self.optimizer.state.clear()
        self.discard_gradients()

    def finish_gradients(self) -> list[Tensor]:
        """See `Learner.finish_gradients`."""
        weights = list(self.weights.values())
        for weight in weights:
            if weight.grad is not None:
                weight.grad = weight.grad / max(1, self._views)
        self._views = 0
        return weights

    def discard_gradients(self) -> None:
        """See `Learner.discard_gradients`."""
        self.optimizer.zero_grad(set_to_none=True)
        self._views = 0

    @contextmanager
    def _active(self, draws: Draws, repeats: int) -> Iterator[None]:
        """The LoRA takes part, and the poses of the draws' cameras, where they are known, are added to the time."""
        if self._camera is not None and draws.cameras is not None:
            cameras = draws.cameras
            poses = pose_vectors(cameras.azimuth.float(), cameras.elevation.float())
            self._poses = poses.to(self.denoiser.device).repeat(repeats, 1)
        hook = self._add_camera_hook()
        self._switch(True)
        try:
            yield
        finally:
            self._switch(False)
            self._poses = None
            if hook is not None:
                hook.remove()

    def _switch(self, on: bool) -> None:
        for layer, others in self._layers:
            layer.set_adapter([*others, ADAPTER] if on else others, inference_mode=True)
        for weight in self.weights.values():
            weight.requires_grad_(True)

    def _add_camera_hook(self) -> Any:
        if self._poses is None or self._camera is None:
            return None
        camera, poses = self._camera, self._poses
        return _time_embedding(self.denoiser.network).register_forward_hook(
            lambda module, inputs, output: output + camera(poses).to(output.dtype)
        )


def _lora_layers(network: torch.nn.Module) -> list[tuple[str, LoraLayer]]:
    return [(name, layer) for name, layer in network.named_modules() if isinstance(layer, LoraLayer)]


def _time_embedding(network: Any) -> Any:
    """The module whose output (n, width) is the embedding of time; None for a network without one."""
    return getattr(network, "time_embedding", None) or getattr(network, "time_text_embed", None)


def _camera_embedding(denoiser: DiffusersDenoiser) -> TimestepEmbedding | None:
    """An embedding of poses (n, 16) of the width of the embedding of time, where the network wants one."""
    embedding = _time_embedding(denoiser.network)
    if embedding is None or isinstance(denoiser, CameraAware) or getattr(denoiser, "shuffle", 1) > 1:
        return None
    last = getattr(embedding, "timestep_embedder", embedding).linear_2
    with torch.random.fork_rng(devices=[]):
        return TimestepEmbedding(POSE_NUMBERS, last.out_features)
