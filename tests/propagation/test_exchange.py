from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from napari_oneseg.config import PropagationConfig
from napari_oneseg.features.refiner import LabelRefiner, Refinement
from napari_oneseg.propagation import exchange_fused
from napari_oneseg.propagation import sweep as sweep_module
from napari_oneseg.propagation.crossing import Crossing, Exchange
from napari_oneseg.propagation.exchange import by_tiles, exchange
from napari_oneseg.propagation.exchange_strips import by_strips
from napari_oneseg.propagation.sweep import PaintedMaps
from tests.engine_fixtures import swept
from tests.propagation.test_attention import slow_affinity, slow_readout

SIZES = [(8, 8, 3), (5, 11, 5), (16, 9, 7), (1, 1, 3), (3, 20, 13), (17, 23, 9)]
BRIDGED = torch.tensor([False, True])


def random_case(rows: int, columns: int) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(rows * 100 + columns)
    q, k = (1.5 * torch.randn(6, rows, columns, generator=generator) for _ in range(2))
    return q, k, torch.rand(3, rows, columns, generator=generator)  # two labels and a grey value


def slow_exchange(q: Tensor, k: Tensor, maps: Tensor, window: int, null_bias: float | None) -> Exchange:
    """There and back by the plain double loop."""
    won = slow_affinity(q[None], k[None], window, null_bias).sum((-1, -2))[0]
    copied = slow_readout(slow_affinity(q[None], k[None], window), maps[None])[0]
    arrived = copied[:2] * torch.where(BRIDGED[:, None, None], 1.0, won)
    won_back = slow_affinity(k[None], q[None], window, null_bias).sum((-1, -2))[0]
    returned = slow_readout(slow_affinity(k[None], q[None], window), arrived[None])[0]
    return Exchange(copied, won, returned * torch.where(BRIDGED[:, None, None], 1.0, won_back))


@pytest.mark.parametrize("way", [by_strips, by_tiles])
@pytest.mark.parametrize("null_bias", [None, -1.5])
@pytest.mark.parametrize(("rows", "columns", "window"), SIZES)
@torch.no_grad()
def test_each_way_agrees_with_the_double_loop(
    rows: int, columns: int, window: int, null_bias: float | None, way: Callable[[Crossing], Exchange]
) -> None:
    q, k, maps = random_case(rows, columns)
    everywhere = torch.ones(rows, columns, dtype=torch.bool)
    found = way(Crossing(q, k, maps, everywhere, window, null_bias, BRIDGED))
    expected = slow_exchange(q, k, maps, window, null_bias)
    assert torch.allclose(found.copied, expected.copied, atol=1e-5, rtol=0)
    assert torch.allclose(found.matched, expected.matched, atol=1e-5, rtol=0)
    assert torch.allclose(found.returned, expected.returned, atol=1e-5, rtol=0)


@torch.no_grad()
def test_a_region_holds_what_the_whole_slice_gives_there_and_its_windows_suffice_for_the_way_back() -> None:
    q, k, maps = random_case(30, 41)
    where = slice(9, 20), slice(13, 30)
    region = torch.zeros(30, 41, dtype=torch.bool)
    region[where] = True
    region[:4, 37:] = True
    expected = slow_exchange(q, k, maps, 5, -1.5)
    found = exchange(Crossing(q, k, maps, region, 5, -1.5, BRIDGED))
    assert torch.allclose(found.copied[:, region], expected.copied[:, region], atol=1e-5, rtol=0)
    assert torch.allclose(found.matched[region], expected.matched[region], atol=1e-5, rtol=0)
    within = slice(None), slice(11, 18), slice(15, 28)
    assert torch.allclose(found.returned[within], expected.returned[within], atol=1e-5, rtol=0)
    assert not found.copied[:, 25:].any(), "nothing is computed far from the region"
    nowhere = exchange(Crossing(q, k, maps, torch.zeros_like(region), 5, -1.5, BRIDGED))
    assert not nowhere.copied.any()
    assert not nowhere.returned.any()


def test_similarities_that_would_overflow_are_left_to_the_tiles() -> None:
    q, k, maps = random_case(9, 9)
    region = torch.ones(9, 9, dtype=torch.bool)
    with torch.no_grad():
        assert by_strips(Crossing(q, k, maps, region, 3, None, BRIDGED)) is not None
        for given in ((20 * q, k), (q, 20 * k)):
            assert by_strips(Crossing(*given, maps, region, 3, None, BRIDGED)) is None, "exp would overflow"
            expected = slow_exchange(*given, maps, 3, -1.0)
            found = exchange(Crossing(*given, maps, region, 3, -1.0, BRIDGED))
            assert torch.allclose(found.copied, expected.copied, atol=1e-3, rtol=0)
            assert torch.allclose(found.returned, expected.returned, atol=1e-3, rtol=0)


def test_a_gradient_passes_where_it_is_wanted() -> None:
    q, k, maps = random_case(9, 9)
    q.requires_grad_()
    found = exchange(Crossing(q, k, maps, torch.ones(9, 9, dtype=torch.bool), 3, -1.0, BRIDGED))
    found.returned.sum().backward()
    assert q.grad is not None
    assert q.grad.abs().sum() > 0


@torch.no_grad()
def test_on_a_gpu_the_fused_kernel_is_asked_first(monkeypatch: pytest.MonkeyPatch) -> None:
    class OnGpu(torch.Tensor):
        """A tensor that says it lies on a GPU."""

        device = torch.device("cuda")

    given = random_case(9, 9)
    answer = Exchange(*torch.zeros(3, 1))
    monkeypatch.setattr(exchange_fused, "by_fused_kernel", lambda _: answer)
    target = given[0].as_subclass(OnGpu)
    found = exchange(Crossing(target, *given[1:], torch.ones(9, 9, dtype=torch.bool), 3, None, BRIDGED))
    assert found is answer


@torch.no_grad()
def test_a_refined_sweep_is_the_same_by_either_way(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(0)
    texture, noise = torch.randn(6, 40, 40, generator=generator), torch.randn(5, 6, 40, 40, generator=generator)
    maps = torch.stack([texture.roll((z, -z), (1, 2)) for z in range(5)]) + 0.3 * noise
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        network = LabelRefiner(6).eval()
        torch.nn.init.normal_(network.out.weight, std=0.5)
    refinement = Refinement(network, maps[:, :1].tanh(), 3.0)
    labels = torch.zeros(2, 40, 40)
    labels[0, 10:20, 5:15], labels[1, 25:33, 20:40] = 1.0, 1.0
    painted = {0: PaintedMaps(labels, torch.tensor([True, True]))}
    config = PropagationConfig(window=5)

    def last() -> tuple[Tensor, Tensor]:
        *_, (_, carried) = swept(maps, range(5), painted, config, -1.5, refinement)
        return carried.labels, carried.reliability

    fast = last()
    monkeypatch.setattr(sweep_module, "exchange", by_tiles)
    slow = last()
    assert (slow[0] > 0.5).any()
    for ours, theirs in zip(fast, slow, strict=True):
        assert torch.allclose(ours * (slow[0] > 0), theirs * (slow[0] > 0), atol=1e-4)
