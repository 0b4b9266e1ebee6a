# SPDX-License-Identifier: GPL-3.0-or-later
"""The optimizers that settings choose, against torch's own, and the learning rates of a field's parts."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from dreamwright.backend.config.parsing import apply_settings
from dreamwright.backend.config.schema import Config
from dreamwright.backend.errors import ConfigError
from dreamwright.backend.fields import build_field
from dreamwright.backend.optimizers.factory import build_optimizer, set_learning_rate

ADAM = ("optimizer.kind=adam", "optimizer.learning_rate=0.01", "optimizer.beta2=0.99", "optimizer.epsilon=1e-15")
HASHED = ("field.kind=hash-grid", "field.hash_levels=3", "field.hash_log2_size=8", "field.hash_hidden_width=8")


def gradients(shape: tuple[int, ...]) -> Iterator[torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    while True:
        yield torch.randn(shape, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("decay", [0.0, 0.01, 0.3])
def test_adam_with_a_weight_decay_is_torch_s_adamw(decay: float) -> None:
    config = apply_settings(Config(), [*ADAM, f"optimizer.weight_decay={decay}"]).optimizer
    start = torch.linspace(-1, 1, 12, dtype=torch.float64).reshape(3, 4)
    ours, theirs = (start.clone().requires_grad_() for _ in range(2))
    optimizer = build_optimizer(config, [{"params": [ours], "rate_multiplier": 1.0}])
    reference = torch.optim.AdamW(
        [theirs], lr=0.01, betas=(config.beta1, config.beta2), eps=config.epsilon, weight_decay=decay, foreach=False
    )
    for _, gradient in zip(range(7), gradients((3, 4)), strict=False):
        ours.grad, theirs.grad = gradient.clone(), gradient.clone()
        set_learning_rate(optimizer, 0.01)
        optimizer.step()
        reference.step()
    # Two implementations of the same float64 formula, in another order of operations.
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)


def test_a_decay_scales_weights_down_by_the_rate_of_their_group() -> None:
    """Where the gradient is zero, a step multiplies weights with 1 - rate decay."""
    config = apply_settings(Config(), [*ADAM, "optimizer.weight_decay=0.5"]).optimizer
    weights = [torch.ones(2, dtype=torch.float64, requires_grad=True) for _ in range(2)]
    groups = [{"params": [w], "rate_multiplier": factor} for w, factor in zip(weights, (1.0, 0.1), strict=True)]
    optimizer = build_optimizer(config, groups)
    set_learning_rate(optimizer, 0.2)
    for weight in weights:
        weight.grad = torch.zeros_like(weight)
    optimizer.step()
    assert weights[0].tolist() == pytest.approx([1 - 0.2 * 0.5] * 2)
    assert weights[1].tolist() == pytest.approx([1 - 0.02 * 0.5] * 2)


def test_shampoo_has_no_weight_decay() -> None:
    with pytest.raises(ConfigError, match=r"weight_decay is 0\.01 and optimizer\.kind is shampoo.*set optimizer\.kind"):
        apply_settings(Config(), ["optimizer.weight_decay=0.01"])


def test_rates_of_a_hash_grid_s_table_and_networks() -> None:
    settings = (*ADAM, *HASHED, "optimizer.network_rate_multiplier=0.1", "optimizer.color_rate_multiplier=0.2")
    config = apply_settings(Config(), settings)
    field = build_field(config.field, torch.Generator().manual_seed(0))
    optimizer = build_optimizer(config.optimizer, field.parameter_groups(config.optimizer))
    set_learning_rate(optimizer, 1.0)
    rates = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    named = {name: rates[id(parameter)] for name, parameter in field.named_parameters()}
    assert {name.split(".")[0]: rate for name, rate in named.items()} == {
        "table": 1.0, "density_network": 0.1, "albedo_network": 0.2,
    }  # fmt: skip
