# SPDX-License-Identifier: GPL-3.0-or-later
"""Train one of the starter's image-text models contrastively; an interrupted training can be resumed.

    python -m tools.starter_training.train_image_text guide --data runs/clip-data --held-out runs/held5 \\
        --work runs/clip-guide --out backend/starter/image_text/guide --steps 5000
"""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional
from tqdm import tqdm
from transformers import CLIPModel

from dreamwright.backend.guidance.backgrounds import random_backgrounds
from dreamwright.backend.starter import domain
from dreamwright.backend.starter.image_text import TOWERS, build_model, normalize_images, save_folder, token_ids
from tools.starter_training.captions import Batch, LookConfig, RenderDataset
from tools.starter_training.muon import Muon
from tools.starter_training.train_classifier import augmented

LOOKS = LookConfig(
    untextured=0.2,
    drop_caption=0.0,
    drop_view=1.0,
    color_jitter=0.05,
    background=(0.1, 0.95),
    front_weight=1.3,
    overhead_weight=1.0,
)
# Share of images before noise, checkerboards or Fourier textures, the backgrounds of Dream Fields.
TEXTURED_BACKGROUNDS = 0.35
BATCH = 64  # images per step
PEAK_RATE, WARMUP = 3e-3, 200  # of both optimizers; steps of linear warm-up, then linear decay to a fiftieth
WEIGHT_DECAY = 0.05
SAVE_S = 60.0  # seconds between saved states
CAPTIONS = tuple(domain.caption(prop.name, color, None) for prop in domain.PROPS for color in domain.COLORS)


class TexturedBackgroundDataset(RenderDataset):
    """A dataset in which a share of the images has a textured background."""

    def _backgrounds(self, n: int, generator: torch.Generator) -> Tensor:
        backgrounds = super()._backgrounds(n, generator).repeat(1, 1, 64, 64)
        textured = round(TEXTURED_BACKGROUNDS * n)  # the first ones; the images come in random order
        backgrounds[:textured] = random_backgrounds(textured, 1, 64, generator)[:, 0]
        return backgrounds


def matches(batch: Batch, captions: list[str]) -> Tensor:
    """Which captions (columns) fit which images (rows), (n, n) bool; those of any color fit a textureless image."""
    named = [domain.parse(caption) for caption in captions]
    props = torch.tensor([[prop.name for prop in domain.PROPS].index(prop) for _, prop in named])
    colors = torch.tensor([list(domain.COLORS).index(color) for color, _ in named])
    is_textureless = batch.colors[:, None] < 0
    return (batch.props[:, None] == props) & (is_textureless | (batch.colors[:, None] == colors))


def contrastive_loss(image: Tensor, text: Tensor, scale: Tensor, match: Tensor) -> Tensor:
    """Symmetric InfoNCE (van den Oord et al. 2018; CLIP) of unit embeddings (n, d) with soft targets (n, n).

    Mean of the cross-entropies of images over captions and of captions over images.
    """
    logits, weight = scale * image @ text.T, match.to(image.dtype)
    of_images = weight / weight.sum(1, keepdim=True)
    of_texts = weight.T / weight.T.sum(1, keepdim=True)
    return 0.5 * (functional.cross_entropy(logits, of_images) + functional.cross_entropy(logits.T, of_texts))


def embeddings(model: CLIPModel, images: Tensor, ids: Tensor) -> tuple[Tensor, Tensor]:
    """Unit embeddings (n, d) of images (n, 3, h, w) in [0, 1] and of token ids (n, tokens)."""
    image = model.visual_projection(model.vision_model(pixel_values=normalize_images(images)).pooler_output)
    text = model.text_projection(model.text_model(input_ids=ids).pooler_output)
    return functional.normalize(image, dim=-1), functional.normalize(text, dim=-1)


class ImageTextTraining:
    """Model, its two optimizers and the step counter, saved and restored together."""

    def __init__(self, name: str, seed: int, steps: int) -> None:
        self.seed, self.steps, self.step = seed, steps, 0
        self.model = build_model(seed, TOWERS[name])
        hidden: list[torch.nn.Parameter] = []
        rest: list[torch.nn.Parameter] = []
        for key, parameter in self.model.named_parameters():
            (hidden if parameter.ndim == 2 and "encoder.layers" in key else rest).append(parameter)
        self.optimizers = (
            Muon(hidden, PEAK_RATE, weight_decay=WEIGHT_DECAY),
            torch.optim.AdamW(rest, PEAK_RATE, betas=(0.9, 0.98), weight_decay=0.0),
        )
        table = token_ids(CAPTIONS)
        self._ids = dict(zip(CAPTIONS, table, strict=True))

    def advance(self, dataset: RenderDataset) -> float:
        """One step; returns the loss."""
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.step)
        rate = PEAK_RATE * min((self.step + 1) / WARMUP, max(0.02, 1 - self.step / self.steps))
        batch = dataset.sample(BATCH, 64, generator)
        captions = [caption.removesuffix(", untextured") for caption in batch.captions]
        self.model.train()
        ids = torch.stack([self._ids[caption] for caption in captions])
        image, text = embeddings(self.model, augmented(batch.images, generator), ids)
        loss = contrastive_loss(image, text, self.model.logit_scale.exp(), matches(batch, captions))
        loss.backward()
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = rate
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        with torch.no_grad():
            self.model.logit_scale.clamp_(max=4.6052)  # ln 100, CLIP's limit
        self.step += 1
        return float(loss.detach())

    def save(self, folder: Path) -> None:
        """Write the state atomically."""
        folder.mkdir(parents=True, exist_ok=True)
        tensors = {f"model.{name}": value.contiguous() for name, value in self.model.state_dict().items()}
        for number, optimizer in enumerate(self.optimizers):
            for index, state in optimizer.state_dict()["state"].items():
                tensors |= {f"optimizer.{number}.{index}.{key}": value.contiguous() for key, value in state.items()}
        temporary = folder / "training.safetensors.part"
        save_file(tensors, temporary)
        os.replace(temporary, folder / "training.safetensors")

    def restore(self, folder: Path) -> bool:
        """Load the newest state; False when there is none."""
        path = folder / "training.safetensors"
        if not path.is_file():
            return False
        states: list[dict[int, dict[str, Tensor]]] = [{}, {}]
        weights: dict[str, Tensor] = {}
        for name, value in load_file(path).items():
            kind, _, rest = name.partition(".")
            if kind == "model":
                weights[rest] = value
            else:
                number, index, key = rest.split(".")
                states[int(number)].setdefault(int(index), {})[key] = value
        self.model.load_state_dict(weights)
        for optimizer, state in zip(self.optimizers, states, strict=True):
            optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
        self.step = int(states[1][0]["step"])  # AdamW counts its own steps
        return True


@torch.no_grad()
def retrieval_accuracies(model: CLIPModel, dataset: RenderDataset, count: int, seed: int) -> dict[str, float]:
    """Top-1 retrieval among 16 x 8 captions: caption, prop and color of textured images, prop of textureless ones."""
    generator = torch.Generator().manual_seed(seed)
    model.eval()
    correct = dict.fromkeys(("caption", "prop", "color", "textureless_prop"), 0)
    counted = dict.fromkeys(correct, 0)
    ids = token_ids(CAPTIONS)
    for _ in range(max(1, count // 64)):
        batch = dataset.sample(64, 64, generator)
        image, text = embeddings(model, batch.images, ids)
        best = (image @ text.T).argmax(-1)
        prop, color = best // len(domain.COLORS), best % len(domain.COLORS)
        is_textureless = batch.colors < 0
        props, colors = prop == batch.props, color == batch.colors
        for name, hits in (
            ("caption", (props & colors)[~is_textureless]),
            ("prop", props[~is_textureless]),
            ("color", colors[~is_textureless]),
            ("textureless_prop", props[is_textureless]),
        ):
            correct[name] += int(hits.sum())
            counted[name] += len(hits)
    return {name: correct[name] / max(1, counted[name]) for name in correct}


def main() -> None:
    parser = argparse.ArgumentParser(description="Train an image-text model of the starter domain; resumable.")
    parser.add_argument("name", choices=tuple(TOWERS))
    parser.add_argument(
        "--data", type=Path, required=True, help="records of a seed that neither prior nor classifier was trained on"
    )
    parser.add_argument("--held-out", type=Path, required=True, help="records of another seed, to measure on")
    parser.add_argument("--work", type=Path, required=True, help="folder of the resumable state")
    parser.add_argument("--out", type=Path, required=True, help="folder for the trained model")
    parser.add_argument("--steps", type=int, default=5000)
    parser.add_argument("--seed", type=int, default=2101)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    dataset = TexturedBackgroundDataset(options.data, looks=LOOKS)
    held_out = RenderDataset(options.held_out, looks=LOOKS)
    training = ImageTextTraining(options.name, options.seed, options.steps)
    if training.restore(options.work):
        print(f"resumed at step {training.step}", flush=True)
    saved = time.monotonic()
    with tqdm(total=options.steps, initial=training.step, unit="step", mininterval=15) as bar:
        while training.step < options.steps:
            loss = training.advance(dataset)
            bar.set_postfix(loss=f"{loss:.3f}", refresh=False)
            bar.update()
            if training.step % 500 == 0:
                tqdm.write(f"step {training.step}: {retrieval_accuracies(training.model, held_out, 512, seed=7)}")
            if time.monotonic() - saved > SAVE_S or training.step == options.steps:
                training.save(options.work)
                saved = time.monotonic()
    measured = retrieval_accuracies(training.model, held_out, 4096, seed=7)
    save_folder(training.model, options.out)
    record = {"steps": training.step, "images": training.step * BATCH, "seed": options.seed, "accuracy": measured}
    (options.out / "training.json").write_text(json.dumps(record, indent=2) + "\n")
    print(measured, flush=True)


if __name__ == "__main__":
    main()
