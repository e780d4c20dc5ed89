"""The GPU kernel, run by Triton's interpreter where there is no GPU."""

from __future__ import annotations

import warnings

import pytest
import torch

from napari_oneseg.propagation import exchange_fused
from napari_oneseg.propagation.attention import tiles_holding
from napari_oneseg.propagation.crossing import Crossing
from napari_oneseg.propagation.exchange import by_tiles
from napari_oneseg.propagation.exchange_fused import by_fused_kernel, gather
from tests.propagation.test_exchange import BRIDGED, random_case, slow_exchange

pytest.importorskip("triton", reason="Triton is not installed: make test installs it on Linux")


@pytest.fixture(autouse=True)
def _hopeful(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exchange_fused, "_given_up", False)


# Few and small: interpreted, a tile takes a good part of a second.
SIZES = [(5, 11, 5), (1, 1, 3), (9, 12, 7)]
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


@pytest.mark.parametrize("null_bias", [None, -1.5])
@pytest.mark.parametrize(("rows", "columns", "window"), SIZES)
@torch.no_grad()
def test_it_agrees_with_the_double_loop(rows: int, columns: int, window: int, null_bias: float | None) -> None:
    q, k, maps = (x.half().float().to(DEVICE) for x in random_case(rows, columns))
    everywhere = torch.ones(rows, columns, dtype=torch.bool, device=DEVICE)
    found = by_fused_kernel(Crossing(q, k, maps, everywhere, window, null_bias, BRIDGED.to(DEVICE)))
    assert found is not None
    expected = slow_exchange(q.cpu(), k.cpu(), maps.cpu(), window, null_bias)
    for ours, theirs in zip(vars(found).values(), vars(expected).values(), strict=True):
        torch.testing.assert_close(ours.cpu(), theirs, atol=2e-5, rtol=0)


@torch.no_grad()
def test_only_the_tiles_of_the_region_are_computed_and_they_hold_what_tiles_give() -> None:
    q, k, maps = (x.half().float().to(DEVICE) for x in random_case(26, 37))
    region = torch.zeros(26, 37, dtype=torch.bool, device=DEVICE)
    region[9:14, 20:30] = True
    maps[:2] *= 0.0
    maps[:2, 10:13, 22:28] = 1.0
    found = by_fused_kernel(Crossing(q, k, maps, region, 5, -1.5, BRIDGED.to(DEVICE)))
    assert found is not None
    expected = by_tiles(Crossing(q, k, maps, region, 5, -1.5, BRIDGED.to(DEVICE)))
    torch.testing.assert_close(found.copied[:, region], expected.copied[:, region], atol=2e-5, rtol=0)
    torch.testing.assert_close(found.matched, expected.matched, atol=2e-5, rtol=0)
    torch.testing.assert_close(found.returned, expected.returned, atol=2e-5, rtol=0)
    assert not found.copied[:, :8].any(), "nothing is computed far from the region"


@torch.no_grad()
def test_similarities_that_would_overflow_elsewhere_are_no_matter() -> None:
    q, k, maps = (x.half().float().to(DEVICE) for x in random_case(9, 9))
    everywhere = torch.ones(9, 9, dtype=torch.bool, device=DEVICE)
    copied, matched = gather(16 * q, 16 * k, maps, tiles_holding(everywhere), 3, -1.0)
    assert torch.isfinite(copied).all()
    assert torch.isfinite(matched).all()
    expected = slow_exchange(16 * q.cpu(), 16 * k.cpu(), maps.cpu(), 3, -1.0)
    torch.testing.assert_close(copied.cpu(), expected.copied, atol=1e-3, rtol=0)


@torch.no_grad()
def test_where_the_kernel_cannot_be_built_that_is_told_once_and_others_are_used(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def broken() -> None:
        raise RuntimeError("no such instruction")

    monkeypatch.setattr(exchange_fused, "_kernel", broken)
    q, k, maps = (x.to(DEVICE) for x in random_case(9, 9))
    everywhere = torch.ones(9, 9, dtype=torch.bool, device=DEVICE)
    crossing = Crossing(q, k, maps, everywhere, 3, None, BRIDGED.to(DEVICE))
    with pytest.warns(UserWarning, match="kernel cannot be used"):
        assert by_fused_kernel(crossing) is None
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert by_fused_kernel(crossing) is None
