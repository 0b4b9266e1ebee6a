# SPDX-License-Identifier: GPL-3.0-or-later
"""Train the classifier of starter images on renders of its own seed; an interrupted training can be resumed.

    python -m tools.starter_training.train_classifier --data runs/classifier-data --held-out runs/heldout-data \\
        --work runs/classifier-training --steps 25000 --out backend/starter/classifier

Every draw follows from the step's number, so a resumed training draws the numbers of an uninterrupted one.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch.nn import functional
from tqdm import tqdm

from dreamwright.backend.starter import domain
from dreamwright.backend.starter.classifier import Classification, StarterClassifier
from tools.starter_training.captions import Batch, LookConfig, RenderDataset

# Wider ranges of backgrounds and colors than the prior's training data, from which the classifier is independent.
LOOKS = LookConfig(
    drop_caption=0.0,
    color_jitter=0.05,
    background=(0.1, 0.95),
    any_background=0.2,
    front_weight=2.5,
    overhead_weight=1.0,
)
BATCH = 64  # images per step
PEAK_RATE = 2e-3  # of AdamW, falling linearly to a hundredth of itself
SHIFT = 4  # largest shift in pixels, each way
ZOOM = (0.75, 1.1)  # samples and generated props fill more or less of the image than the training renders
BLUR = (0.4, 1.3)  # pixels, standard deviation of the Gaussian, for half of the images
GAIN = (0.75, 1.35)  # contrast and saturation: guidance raises both, few sampling steps lower both
NOISE = 0.06  # largest standard deviation of the noise added to images in [0, 1]
SAVE_S = 120.0  # seconds between saved states

Degradation = Callable[[torch.Tensor, torch.Generator], torch.Tensor]  # images (n, 3, h, w) -> the same, degraded


def classifier_loss(
    classification: Classification, props: torch.Tensor, colors: torch.Tensor, views: torch.Tensor
) -> torch.Tensor:
    """Sum of the three cross-entropies; colors of -1 (untextured) and views of -1 (no front) are ignored."""
    return (
        functional.nll_loss(classification.prop, props)
        + functional.nll_loss(classification.color, colors, ignore_index=-1)
        + functional.nll_loss(classification.view, views, ignore_index=-1)
    )


@torch.no_grad()
def accuracies(
    classifier: StarterClassifier, dataset: RenderDataset, count: int, seed: int, degrade: Degradation | None = None
) -> dict[str, float]:
    """Accuracy of prop, color and view on `count` fresh draws, degraded by `degrade` if it is given."""
    generator = torch.Generator().manual_seed(seed)
    correct = {"prop": 0, "color": 0, "view_of_props_with_front": 0}
    counted = dict.fromkeys(correct, 0)
    has_front = torch.tensor([prop.has_front for prop in domain.PROPS])
    classifier.eval()
    for _ in range(max(1, count // 64)):
        batch = dataset.sample(64, 64, generator)
        result = classifier(batch.images if degrade is None else degrade(batch.images, generator))
        is_view_correct = result.view.argmax(-1) == batch.views
        textured = batch.colors >= 0
        for name, hits in (
            ("prop", result.prop.argmax(-1) == batch.props),
            ("color", (result.color.argmax(-1) == batch.colors)[textured]),
            ("view_of_props_with_front", is_view_correct[has_front[batch.props]]),
        ):
            correct[name] += int(hits.sum())
            counted[name] += len(hits)
    return {name: correct[name] / max(1, counted[name]) for name in correct}


def view_labels(batch: Batch) -> torch.Tensor:
    """View labels (n,), -1 for props without a front."""
    has_front = torch.tensor([prop.has_front for prop in domain.PROPS])
    return torch.where(has_front[batch.props], batch.views, -1)


def augmented(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Augment images (n, 3, h, w): mirror half of them, which keeps the view's name, then shift, zoom and degrade."""
    n = len(images)
    mirrored = torch.rand(n, generator=generator) < 0.5
    zoom = torch.empty(n).uniform_(*ZOOM, generator=generator)
    shift = SHIFT * 2 / images.shape[-1] * (2 * torch.rand(n, 2, generator=generator) - 1)
    affine = torch.zeros(n, 2, 3)
    affine[:, 0, 0] = torch.where(mirrored, -1.0, 1.0) / zoom
    affine[:, 1, 1] = 1 / zoom
    affine[:, :, 2] = shift
    grid = functional.affine_grid(affine, list(images.shape), align_corners=False)
    moved = functional.grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False)
    return degraded(moved, generator)


def degraded(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Degrade images (n, 3, h, w): blur half of them, and vary contrast, saturation and noise of each."""
    n, channels = images.shape[:2]
    reach = torch.arange(-3, 4, dtype=torch.float32)
    sigma = torch.empty(n, 1).uniform_(*BLUR, generator=generator)
    kernel = torch.exp(-0.5 * (reach / sigma).square())
    kernel = (kernel / kernel.sum(-1, keepdim=True)).repeat_interleave(channels, 0)
    flat = functional.pad(images, (3,) * 4, mode="replicate").view(1, n * channels, images.shape[2] + 6, -1)
    flat = functional.conv2d(flat, kernel[:, None, :, None], groups=n * channels)
    blurred = functional.conv2d(flat, kernel[:, None, None, :], groups=n * channels).view(images.shape)
    images = torch.where(torch.rand(n, 1, 1, 1, generator=generator) < 0.5, blurred, images)
    contrast, saturation = torch.empty(2, n, 1, 1, 1).uniform_(*GAIN, generator=generator)
    gray = images.mean(1, keepdim=True)
    images = gray + saturation * (images - gray)
    mean = images.mean((1, 2, 3), keepdim=True)
    images = mean + contrast * (images - mean)
    noise = NOISE * torch.rand(n, 1, 1, 1, generator=generator)
    return (images + noise * torch.randn(images.shape, generator=generator)).clamp(0, 1)


class ClassifierTraining:
    """Classifier, optimizer and step counter, saved and restored together."""

    def __init__(self, seed: int, steps: int) -> None:
        self.seed, self.steps, self.step = seed, steps, 0
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)  # nn.Linear and nn.Conv2d draw from the global generator
            self.classifier = StarterClassifier()
        self.optimizer = torch.optim.AdamW(self.classifier.parameters(), lr=PEAK_RATE, weight_decay=0.02)

    def advance(self, dataset: RenderDataset) -> float:
        """One step; returns the loss."""
        generator = torch.Generator().manual_seed(self.seed + self.step)
        self.optimizer.param_groups[0]["lr"] = PEAK_RATE * max(0.01, 1 - self.step / self.steps)
        batch: Batch = dataset.sample(BATCH, 64, generator)
        self.classifier.train()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed + self.step)  # dropout draws from the global generator
            result = self.classifier(augmented(batch.images, generator))
        loss = classifier_loss(result, batch.props, batch.colors, view_labels(batch))
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()
        self.step += 1
        return float(loss.detach())

    def save(self, folder: Path) -> None:
        """Write the state atomically."""
        folder.mkdir(parents=True, exist_ok=True)
        tensors = {f"classifier.{name}": value for name, value in self.classifier.state_dict().items()}
        for index, state in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{index}.{key}": value for key, value in state.items()}
        temporary = folder / "classifier-training.safetensors.part"
        save_file(tensors, temporary, metadata={"step": str(self.step)})
        os.replace(temporary, folder / "classifier-training.safetensors")

    def restore(self, folder: Path) -> bool:
        """Load the newest state; False when there is none."""
        path = folder / "classifier-training.safetensors"
        if not path.is_file():
            return False
        tensors = load_file(path)
        prefix = "classifier."
        self.classifier.load_state_dict({n[len(prefix) :]: v for n, v in tensors.items() if n.startswith(prefix)})
        states: dict[int, dict[str, torch.Tensor]] = {}
        for name, value in tensors.items():
            if not name.startswith(prefix):
                _, index, key = name.split(".", 2)
                states.setdefault(int(index), {})[key] = value
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": states, "param_groups": groups})
        # AdamW counts its own steps, the same for all parameters.
        self.step = int(next(iter(states.values()))["step"])
        return True


def export(classifier: StarterClassifier, folder: Path, step: int, measured: dict[str, float]) -> None:
    """Write the classifier in half precision, and its accuracy."""
    folder.mkdir(parents=True, exist_ok=True)
    halves = {name: v.half() if v.is_floating_point() else v for name, v in classifier.state_dict().items()}
    save_file(halves, folder / "classifier.safetensors")
    (folder / "classifier.json").write_text(json.dumps({"steps": step, "accuracy": measured}, indent=2) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description="Train the classifier that measures the starter prior; resumable.")
    parser.add_argument("--data", type=Path, required=True, help="records of the classifier's own seed")
    parser.add_argument("--held-out", type=Path, help="records of a third seed, to measure on")
    parser.add_argument("--work", type=Path, required=True, help="folder of the resumable state")
    parser.add_argument("--out", type=Path, required=True, help="folder for the trained classifier")
    parser.add_argument("--steps", type=int, default=25_000)
    parser.add_argument("--seed", type=int, default=1001)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    dataset = RenderDataset(options.data, looks=LOOKS)
    training = ClassifierTraining(options.seed, options.steps)
    if training.restore(options.work):
        print(f"resumed at step {training.step}", flush=True)
    saved = time.monotonic()
    with tqdm(total=options.steps, initial=training.step, unit="step", mininterval=10) as bar:
        while training.step < options.steps:
            bar.set_postfix(loss=f"{training.advance(dataset):.3f}", refresh=False)
            bar.update()
            if time.monotonic() - saved > SAVE_S or training.step == options.steps:
                training.save(options.work)
                saved = time.monotonic()
    held_out = RenderDataset(options.held_out or options.data, looks=LOOKS)
    measured = accuracies(training.classifier, held_out, 2048, seed=7)
    measured |= {
        f"{label}_of_degraded": accuracy
        for label, accuracy in accuracies(training.classifier, held_out, 2048, seed=7, degrade=degraded).items()
    }
    export(training.classifier, options.out, training.step, measured)
    print(measured, flush=True)


if __name__ == "__main__":
    main()
