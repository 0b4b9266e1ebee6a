# SPDX-License-Identifier: GPL-3.0-or-later
"""Counted work against closed forms, and the time that a device of a made-up speed takes for it."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from dreamwright.backend.runtime.device_speed import DeviceSpeed, device_speed
from dreamwright.backend.runtime.operation_count import Work, count_work

META = torch.device("meta")
small = st.integers(1, 6)


@given(small, small, small, st.integers(3, 8), st.sampled_from([1, 3]))
def test_a_convolution_takes_two_operations_for_each_weight_and_output_pixel(
    batch: int, inputs: int, outputs: int, side: int, kernel: int
) -> None:
    layer = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, device=META)
    images = torch.empty(batch, inputs, side, side, device=META)
    with torch.no_grad():
        work = count_work(lambda: layer(images))
    assert work == Work(2 * batch * side**2 * inputs * outputs * kernel**2, 0, 1)


@given(small, small, small)
def test_a_linear_layer_takes_two_operations_for_each_row_and_weight(rows: int, inputs: int, outputs: int) -> None:
    layer = nn.Linear(inputs, outputs, device=META)
    with torch.no_grad():
        work = count_work(lambda: layer(torch.empty(rows, inputs, device=META)))
    assert (work.flops, work.calls) == (2 * rows * inputs * outputs, 1)


@given(small, small, small, small, small)
def test_attention_is_two_products_for_each_head(batch: int, heads: int, queries: int, keys: int, width: int) -> None:
    query, key = (torch.empty(batch, heads, n, width, device=META) for n in (queries, keys))
    work = count_work(lambda: functional.scaled_dot_product_attention(query, key, key))
    assert work == Work(4 * batch * heads * queries * keys * width, 0, 1)


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_other_operations_move_what_they_read_and_write(device: str) -> None:
    first, second = torch.ones(2, 1000, device=device)
    assert count_work(lambda: first + second) == Work(0, 3 * 4 * 1000, 1)
    assert count_work(first.half) == Work(0, 4 * 1000 + 2 * 1000, 1)
    assert count_work(lambda: first.view(10, 100).T) == Work(), "a view moves nothing"


def test_the_gradient_of_a_frozen_layer_takes_as_much_as_the_layer() -> None:
    layer = nn.Linear(30, 20, bias=False, device=META).requires_grad_(False)
    rows = torch.empty(7, 30, device=META, requires_grad=True)
    assert count_work(lambda: layer(rows).sum().backward()).flops == 2 * (2 * 7 * 30 * 20)


def test_a_product_that_is_added_in_place_counts_as_one() -> None:
    total, left, right = torch.zeros(4, 5), torch.ones(4, 3), torch.ones(3, 5)
    assert count_work(lambda: total.addmm_(left, right)).flops == 2 * 4 * 3 * 5


def test_larger_arrays_take_no_more_calls_and_repeated_work_does() -> None:
    work = Work(10, 20, 3) + Work(1, 2, 1)
    assert work.larger(2) == Work(22, 44, 4)
    assert work.times(2) == Work(22, 44, 8)


def test_the_time_of_a_made_up_device_is_the_sum_of_its_parts() -> None:
    speed = DeviceSpeed(flops_s=2e9, bytes_s=5e8, call_s=1e-3)
    assert speed.seconds(Work(flops=4e9, moved=1e9, calls=500)) == pytest.approx(2 + 2 + 0.5)
    assert str(speed) == "2 GFLOP/s, 500 MB/s"


def test_the_measured_speed_is_positive_and_measured_once() -> None:
    first = device_speed("cpu", torch.float32)
    assert min(first.flops_s, first.bytes_s, first.call_s) > 0
    assert device_speed("cpu", torch.float32) is first
