from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from napari_oneseg.propagation.attention import LocalAffinity, local_affinity, readout, tiles_within_reach

SIZES = [(8, 8, 3), (5, 11, 5), (16, 9, 7), (1, 1, 3), (3, 20, 13), (17, 23, 9)]


def slow_affinity(query: Tensor, key: Tensor, window: int, null_bias: float | None = None) -> Tensor:
    """The plain double loop: (batch, rows, columns, P, P), 0 outside the map."""
    batch, channels, rows, columns = query.shape
    reach = window // 2
    out = []
    for i in range(rows):
        for j in range(columns):
            top, left = max(0, i - reach), max(0, j - reach)
            near = key[:, :, top : i + reach + 1, left : j + reach + 1]
            logits = (query[:, :, i, j, None, None] * near).sum(1) / math.sqrt(channels)
            flat = logits.flatten(1)
            if null_bias is not None:
                null = query[:, :, i, j].square().sum(1, keepdim=True) / math.sqrt(channels) + null_bias
                flat = torch.cat([flat, null], 1)
            weights = flat.softmax(1)[:, : logits[0].numel()].view_as(logits)
            u, v = top - i + reach, left - j + reach
            pad = (v, window - v - weights.shape[2], u, window - u - weights.shape[1])
            out.append(torch.nn.functional.pad(weights, pad))
    return torch.stack(out, 1).view(batch, rows, columns, window, window)


def slow_readout(dense: Tensor, values: Tensor) -> Tensor:
    _batch, rows, columns, window, _ = dense.shape
    reach = window // 2
    padded = torch.nn.functional.pad(values, (reach,) * 4)
    out = torch.zeros(values.shape, dtype=dense.dtype)
    for i in range(rows):
        for j in range(columns):
            near = padded[:, :, i : i + window, j : j + window]
            out[:, :, i, j] = (near * dense[:, None, i, j]).sum((2, 3))
    return out


def random_case(rows: int, columns: int, batch: int = 2, dtype: torch.dtype = torch.float32) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(rows * 100 + columns)
    shapes = [(batch, 6, rows, columns), (batch, 6, rows, columns), (batch, 3, rows, columns)]
    q, k, y = (torch.randn(shape, generator=generator, dtype=dtype) for shape in shapes)
    return 2 * q, 2 * k, y


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("rows", "columns", "window"), SIZES)
def test_tiles_agree_with_the_double_loop(rows: int, columns: int, window: int, dtype: torch.dtype) -> None:
    q, k, y = random_case(rows, columns, dtype=dtype)
    affinity = local_affinity(q, k, window)
    expected = slow_affinity(q, k, window)
    tolerance = 1e-5 if dtype == torch.float32 else 1e-12
    assert affinity.weights.dtype == dtype
    assert torch.allclose(affinity.dense(), expected, atol=tolerance, rtol=0)
    assert torch.allclose(readout(affinity, y), slow_readout(expected, y), atol=4 * tolerance, rtol=0)


@pytest.mark.parametrize(("rows", "columns", "window"), SIZES)
def test_the_null_match_competes_with_the_window(rows: int, columns: int, window: int) -> None:
    q, k, y = random_case(rows, columns, dtype=torch.float64)
    affinity = local_affinity(q, k, window, null_bias=-1.5)
    expected = slow_affinity(q, k, window, null_bias=-1.5)
    assert torch.allclose(affinity.dense(), expected, atol=1e-12, rtol=0)
    assert torch.allclose(readout(affinity, y), slow_readout(expected, y), atol=1e-11, rtol=0)
    assert expected.sum((-1, -2)).max() < 1, "what the null match wins copies nothing"


def test_the_null_match_has_gradients() -> None:
    q, k, y = random_case(3, 9, batch=1, dtype=torch.float64)
    bias = torch.tensor(-1.0, dtype=torch.float64, requires_grad=True)
    q.requires_grad_()
    assert torch.autograd.gradcheck(lambda q, b: readout(local_affinity(q, k, 3, null_bias=b), y), (q, bias))


@settings(max_examples=15, deadline=None)
@given(rows=st.integers(1, 19), columns=st.integers(1, 19), reach=st.integers(1, 8))
def test_any_size_and_any_odd_window(rows: int, columns: int, reach: int) -> None:
    window = 2 * reach + 1
    q, k, y = random_case(rows, columns, batch=1)
    copied = readout(local_affinity(q, k, window), y)
    assert torch.allclose(copied, slow_readout(slow_affinity(q, k, window), y), atol=1e-4, rtol=0)


@pytest.mark.parametrize(("rows", "columns", "window"), SIZES)
def test_weights_are_a_distribution_over_the_window_inside_the_map(rows: int, columns: int, window: int) -> None:
    q, k, _ = random_case(rows, columns)
    dense = local_affinity(q, k, window).dense()
    assert torch.allclose(dense.sum((3, 4)), torch.ones(2, rows, columns), atol=1e-5)
    assert (dense >= 0).all()
    reach = window // 2
    i = torch.arange(rows)[:, None] + torch.arange(window)[None] - reach  # reference row by position and offset
    j = torch.arange(columns)[:, None] + torch.arange(window)[None] - reach
    inside = ((i >= 0) & (i < rows))[:, None, :, None] & ((j >= 0) & (j < columns))[None, :, None, :]
    assert (dense[:, ~inside] == 0).all()


def test_copied_values_stay_within_the_range_of_the_values() -> None:
    q, k, y = random_case(13, 10)
    copied = readout(local_affinity(q, k, 5), y)
    assert copied.max() <= y.max() + 1e-5
    assert copied.min() >= y.min() - 1e-5


@pytest.mark.parametrize(("rows", "columns"), [(24, 24), (21, 19)])
def test_a_subset_of_tiles_has_the_same_values_and_the_rest_is_filled(rows: int, columns: int) -> None:
    q, k, y = random_case(rows, columns)
    tiles = torch.zeros(3, 3, dtype=torch.bool)
    tiles[0, 1] = tiles[2, 2] = tiles[1, 0] = True
    chosen = tiles.repeat_interleave(8, 0).repeat_interleave(8, 1)[:rows, :columns]
    part, whole = local_affinity(q, k, 7, tiles), local_affinity(q, k, 7)
    fill = torch.tensor([[1.0], [2.0], [3.0]])[..., None]
    copied = readout(part, y, fill)
    assert torch.equal(copied[..., chosen], readout(whole, y)[..., chosen])
    assert torch.equal(copied[..., ~chosen], fill.expand(2, 3, rows, columns)[..., ~chosen])
    assert torch.equal(readout(part, y)[..., ~chosen], torch.zeros(2, 3, int((~chosen).sum())))
    assert torch.equal(part.dense()[:, chosen], whole.dense()[:, chosen])
    assert (part.dense()[:, ~chosen] == 0).all()


def test_no_tile_at_all_gives_the_fill() -> None:
    q, k, y = random_case(16, 16)
    none = local_affinity(q, k, 5, torch.zeros(2, 2, dtype=torch.bool))
    assert torch.equal(readout(none, y, fill=0.5), torch.full_like(y, 0.5))


@pytest.mark.parametrize(("rows", "columns", "window"), [(8, 8, 3), (3, 5, 5), (9, 4, 3), (2, 10, 5)])
def test_gradients_are_those_of_the_double_loop(rows: int, columns: int, window: int) -> None:
    q, k, y = (x[:1].requires_grad_() for x in random_case(rows, columns, dtype=torch.float64))
    generator = torch.Generator().manual_seed(1)
    weight = torch.randn(y.shape, generator=generator, dtype=torch.float64)
    fast = torch.autograd.grad((readout(local_affinity(q, k, window), y) * weight).sum(), (q, k, y))
    slow = torch.autograd.grad((slow_readout(slow_affinity(q, k, window), y) * weight).sum(), (q, k, y))
    for ours, expected in zip(fast, slow, strict=True):
        assert torch.isfinite(ours).all()
        assert torch.allclose(ours, expected, atol=1e-10, rtol=0)


def test_gradcheck() -> None:
    q, k, y = (x[:1, :2].requires_grad_() for x in random_case(3, 4, dtype=torch.float64))
    assert torch.autograd.gradcheck(lambda q, k, y: readout(local_affinity(q, k, 3), y), (q, k, y), fast_mode=True)


def test_training_after_propagation_in_one_process() -> None:
    """The window's mask is kept between calls; made under inference mode it must still serve training."""
    q, k, y = random_case(9, 9)
    with torch.inference_mode():
        local_affinity(q, k, 11)
    q.requires_grad_()
    readout(local_affinity(q, k, 11), y).sum().backward()
    assert q.grad is not None


@settings(max_examples=40, deadline=None)
@given(
    rows=st.integers(1, 30),
    columns=st.integers(1, 30),
    reach=st.integers(1, 10),
    places=st.lists(st.tuples(st.integers(0, 29), st.integers(0, 29)), max_size=4),
)
def test_no_tile_within_reach_is_missed(rows: int, columns: int, reach: int, places: list[tuple[int, int]]) -> None:
    mask = torch.zeros(rows, columns, dtype=torch.bool)
    for i, j in places:
        mask[i % rows, j % columns] = True
    tiles = tiles_within_reach(mask, 2 * reach + 1)
    assert tiles.shape == (-(-rows // 8), -(-columns // 8))
    near = torch.nn.functional.max_pool2d(mask[None].float(), 2 * reach + 1, 1, reach)[0] > 0
    for i, j in near.nonzero().tolist():
        assert tiles[i // 8, j // 8]
    if not mask.any():
        assert not tiles.any()


def test_far_tiles_are_left_out() -> None:
    mask = torch.zeros(64, 64, dtype=torch.bool)
    mask[4, 4] = True
    assert tiles_within_reach(mask, 5).nonzero().tolist() == [[0, 0]]
    assert tiles_within_reach(mask, 13).nonzero().tolist() == [[0, 0], [0, 1], [1, 0], [1, 1]]


def test_wrong_input_is_refused() -> None:
    q, k, _ = random_case(8, 8)
    with pytest.raises(ValueError, match="odd"):
        local_affinity(q, k, 4)
    with pytest.raises(ValueError, match="share a shape"):
        local_affinity(q, k[..., :7], 3)
    assert isinstance(local_affinity(q, k, 3), LocalAffinity)
