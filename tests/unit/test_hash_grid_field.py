# SPDX-License-Identifier: GPL-3.0-or-later
"""The hash-grid field: networks, normals, levels that are off, checkpoints, and the wiring of tinycudann."""

from __future__ import annotations

import contextlib
import sys
import types
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from dreamwright.backend.config.schema import FieldConfig
from dreamwright.backend.fields import build_field, tinycudann_encoding
from dreamwright.backend.fields.hash_encoding import HashTable, encode
from dreamwright.backend.fields.hash_grid import HashGridField
from dreamwright.backend.fields.hash_levels import hash_levels
from dreamwright.backend.fields.relu_network import ReluNetwork
from tests.testing.rank_scenarios import run_of
from tests.testing.tiny_model import quick_config

HASH = FieldConfig(
    kind="hash-grid",
    bounding_radius=0.6,
    hash_levels=4,
    hash_log2_size=9,
    hash_base_resolution=4,
    hash_growth=1.6,
    hash_hidden_width=16,
    density_activation="softplus",
)


def rough_field(config: FieldConfig, draws: torch.Generator) -> HashGridField:
    """A field in float64 whose table is of size 1, so that its features matter."""
    field = build_field(config, draws).double()
    assert isinstance(field, HashGridField)
    field.table.data = torch.randn(field.table.shape, generator=draws, dtype=torch.float64)
    field.begin_step(0.0)
    return field


@pytest.mark.parametrize("hidden", [[8], [8, 5]], ids=["one layer", "two layers"])
def test_network_and_its_gradients_equal_plain_torch(hidden: list[int], generator: torch.Generator) -> None:
    network = ReluNetwork([6, *hidden, 1], generator).double()
    inputs = torch.randn(6, 5000, generator=generator, dtype=torch.float64, requires_grad=True)  # two pieces

    def plain(values: Tensor) -> Tensor:
        for weight in list(network.weights)[:-1]:
            values = torch.relu(weight @ values)
        return network.weights[-1] @ values

    parameters = [inputs, *network.weights]
    ours, theirs = network(inputs, network.weights[0]), plain(inputs)
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)  # float64, sums of 8 terms
    for mine, reference in zip(
        torch.autograd.grad(ours.square().sum(), parameters),
        torch.autograd.grad(theirs.square().sum(), parameters),
        strict=True,
    ):
        torch.testing.assert_close(mine, reference, rtol=1e-10, atol=1e-10)  # sums of 5,000 terms


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("bias_on", ["raw", "density"])
def test_analytic_normals_are_the_limit_of_differences(bias_on: Any, layers: int, generator: torch.Generator) -> None:
    field = rough_field(replace(HASH, density_bias_on=bias_on, hash_hidden_layers=layers), generator)
    mu = torch.rand(60, 3, generator=generator, dtype=torch.float64) - 0.5
    analytic = field.query(mu, with_normals=True).normal
    field.config = replace(field.config, normals="finite-difference", normal_step=1e-7)
    difference = field.query(mu, with_normals=True).normal
    # Both are of values of size 10 in float64: the difference errs by 1e-15 / 1e-7 = 1e-8 and by second derivatives
    # (some 100) times 1e-7. A point within 1e-7 of a wall or a kink is off: 60 points x 3 axes x 40 walls of width 2e-7
    # are hit with probability 1e-3, and the seed is fixed.
    torch.testing.assert_close(analytic, difference, rtol=0, atol=1e-4)
    steps = 1e-7 * torch.eye(3, dtype=torch.float64)
    of_density = torch.stack([field.density(mu + step) - field.density(mu - step) for step in steps], dim=1)
    torch.testing.assert_close(analytic, -functional.normalize(of_density, dim=1), rtol=0, atol=1e-4)


@pytest.mark.parametrize("normals", ["analytic", "finite-difference"])
@pytest.mark.parametrize("bias_on", ["raw", "density"])
def test_normals_of_the_blob_alone_are_radial(normals: Any, bias_on: Any, generator: torch.Generator) -> None:
    """The gradient of eq 9 points to the center."""
    field = rough_field(replace(HASH, normals=normals, density_bias_on=bias_on), generator)
    with torch.no_grad():
        field.table.zero_()
    mu = torch.rand(50, 3, generator=generator, dtype=torch.float64) - 0.5
    # Central differences of step h err by h^2 / 6 times third derivatives, at most 3 / 0.2^2 + (0.87 / 0.2^2)^2 = 550
    # times the first: 0.01^2 x 550 / 6 = 1%. The analytic gradient only rounds, where it is above 1e-12.
    atol = 1e-2 if normals == "finite-difference" else 1e-9
    torch.testing.assert_close(
        field.query(mu, with_normals=True).normal, functional.normalize(mu, dim=1), rtol=0, atol=atol
    )


@pytest.mark.parametrize("bias_on", ["raw", "density"])
def test_gradients_through_analytic_normals(bias_on: Any, generator: torch.Generator) -> None:
    """Second-order terms, written by hand, against torch's gradcheck in float64."""
    field = rough_field(replace(HASH, density_bias_on=bias_on), generator)
    mu = torch.rand(5, 3, generator=generator, dtype=torch.float64) - 0.5

    def normals(table: Tensor, first: Tensor, last: Tensor) -> Tensor:
        given = {"table": table, "density_network.weights.0": first, "density_network.weights.1": last}
        normal: Tensor = torch.func.functional_call(_Normals(field), {f"field.{k}": v for k, v in given.items()}, (mu,))
        return normal

    given = [field.table, *field.density_network.weights]
    assert torch.autograd.gradcheck(normals, [p.detach().requires_grad_() for p in given], fast_mode=True)


class _Normals(nn.Module):
    def __init__(self, field: HashGridField) -> None:
        super().__init__()
        self.field = field

    def forward(self, mu: Tensor) -> Tensor:
        normal = self.field.appearance(mu, True)[1]
        assert normal is not None
        return normal


def test_level_that_is_off_counts_as_zero_and_gets_no_gradient(generator: torch.Generator) -> None:
    config = replace(HASH, hash_start_level=2, hash_level_interval=0.25)
    field = rough_field(config, generator)
    mu = torch.rand(40, 3, generator=generator, dtype=torch.float64) - 0.5
    sample = field.query(mu, with_normals=True)
    (sample.tau.sum() + (sample.rho * sample.normal).sum()).backward()
    third = field.levels[2].offset
    assert field.table.grad[:, third:].abs().max() == 0 < field.table.grad[:, :third].abs().max()
    whole = rough_field(HASH, generator)
    whole.load_state_dict(field.state_dict())
    with torch.no_grad():
        whole.table[:, third:] = 0
    expected = whole.query(mu, with_normals=True)
    for ours, theirs in zip((sample.tau, sample.rho, sample.normal), (expected.tau, expected.rho, expected.normal),
                            strict=True):  # fmt: skip
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)  # float64: sums without the zeros
    seen = []
    for progress in (0.0, 0.25, 0.5, 1.0):
        field.begin_step(progress)
        seen.append(field.active)
    assert seen == [2, 3, 4, 4]


def test_points_beyond_the_cube_are_on_its_face(generator: torch.Generator) -> None:
    """A finite difference may step out; the table has no entries there."""
    field = rough_field(replace(HASH, density_bias_scale=0.0), generator)
    out = field.density(torch.tensor([[0.7, 0.1, -0.2]], dtype=torch.float64))
    torch.testing.assert_close(out, field.density(torch.tensor([[0.6, 0.1, -0.2]], dtype=torch.float64)))


def test_run_resumes_exactly() -> None:
    """Two steps, and one step, a saved state, a fresh scene and one step."""
    config = quick_config()
    small = replace(HASH, density_bias_scale=10.0, density_bias="linear", density_bias_width=0.5, hash_start_level=2)
    config = replace(config, field=small, optimizer=replace(config.optimizer, learning_rate=0.01))
    whole, first, second = (run_of(config).scene for _ in range(3))
    whole.train_step()
    whole.train_step()
    first.train_step()
    second.load(first.state())
    second.train_step()
    for name, tensor in whole.state().tensors.items():
        torch.testing.assert_close(second.state().tensors[name], tensor, rtol=0, atol=0)
    assert not whole.field.table.equal(run_of(config).scene.field.table)


class FakeEncoding(nn.Module):
    """tinycudann.Encoding's contract: a flat table, all features of an entry together; points (m, 3) -> (m, L F)."""

    def __init__(self, dims: int, settings: dict[str, Any], dtype: torch.dtype) -> None:
        super().__init__()
        assert (dims, dtype, settings["otype"], settings["type"]) == (3, torch.float32, "Grid", "Hash")
        names = {
            "hash_levels": "n_levels", "hash_features": "n_features_per_level", "hash_log2_size": "log2_hashmap_size",
            "hash_base_resolution": "base_resolution", "hash_growth": "per_level_scale",
        }  # fmt: skip
        self.config = replace(HASH, **{ours: settings[theirs] for ours, theirs in names.items()})
        last = hash_levels(self.config)[-1]
        self.params = nn.Parameter(torch.rand((last.offset + last.size) * self.config.hash_features))

    def forward(self, where: Tensor) -> Tensor:
        table = self.params.view(-1, self.config.hash_features).T
        layout = HashTable(hash_levels(self.config), where.device, where.dtype)
        return encode(table, where.T.contiguous(), layout, self.config.hash_levels).permute(2, 1, 0).flatten(1)


def test_tinycudann_reads_the_same_table(monkeypatch: pytest.MonkeyPatch, generator: torch.Generator) -> None:
    config = replace(HASH, hash_start_level=3)
    mu = torch.rand(30, 3, generator=generator) - 0.5
    results = []
    for kernels in (False, True):
        if kernels:
            monkeypatch.setitem(sys.modules, "tinycudann", types.SimpleNamespace(Encoding=FakeEncoding))
            monkeypatch.setattr(tinycudann_encoding, "missing_for_tinycudann", lambda device: "")
            monkeypatch.setattr(torch.cuda, "device", lambda device: contextlib.nullcontext())
        field = build_field(config, torch.Generator().manual_seed(3))
        field.begin_step(0.0)
        sample = field.query(mu, with_normals=True)
        assert (field._kernels is not None) == kernels
        (sample.tau.sum() + (sample.rho * sample.normal).sum()).backward()
        results.append([sample.tau, sample.rho, sample.normal, *(p.grad for p in field.parameters())])
        assert list(field.state_dict()) == list(build_field(config, generator).state_dict())
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(theirs, ours, rtol=1e-5, atol=1e-6)  # float32, the same sums


def test_tinycudann_of_another_layout_is_refused(monkeypatch: pytest.MonkeyPatch, generator: torch.Generator) -> None:
    def larger(dims: int, settings: dict[str, Any], dtype: torch.dtype) -> FakeEncoding:
        return FakeEncoding(dims, settings | {"log2_hashmap_size": 10}, dtype)

    monkeypatch.setitem(sys.modules, "tinycudann", types.SimpleNamespace(Encoding=larger))
    monkeypatch.setattr(tinycudann_encoding, "missing_for_tinycudann", lambda device: "")
    monkeypatch.setattr(torch.cuda, "device", lambda device: contextlib.nullcontext())
    with pytest.raises(RuntimeError, match="uninstall tinycudann"):
        build_field(HASH, generator).density(torch.zeros(1, 3))


def test_cpu_takes_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    assert tinycudann_encoding.missing_for_tinycudann("cpu") == "the field is not on a CUDA device"
    monkeypatch.setattr(tinycudann_encoding.importlib.util, "find_spec", lambda name: None)
    assert tinycudann_encoding.missing_for_tinycudann("cuda") == "the package tinycudann is not installed"
