from __future__ import annotations

import numpy as np
import pytest
import torch

from napari_oneseg.preprocessing import WorkingGrid
from napari_oneseg.propagation.enlarging import decided_on_source


@pytest.mark.parametrize("source", [(50, 64), (32, 32), (23, 37)], ids=["larger", "same", "smaller"])
def test_the_box_holds_all_that_enlarging_the_whole_slice_gives(source: tuple[int, int]) -> None:
    grid = WorkingGrid(source, (32, 32), 1)
    generator = torch.Generator().manual_seed(0)
    soft = torch.zeros(3, 32, 32)
    soft[0, 4:15, :9] = torch.rand(11, 9, generator=generator)
    soft[2, 10:20, 5:12] = torch.rand(10, 7, generator=generator) * (1 - soft[0, 10:20, 5:12])
    reliability = torch.rand(3, 32, 32, generator=generator)
    places, confidence, presence = decided_on_source(soft, reliability, grid, 0.1)

    whole, trusted = grid.to_source(soft[None])[0], grid.to_source(reliability[None])[0]
    background = (1 - whole.sum(0)).clamp_min(0)
    probabilities = torch.cat([background[None], whole])
    margin = probabilities.topk(2, dim=0).values.diff(dim=0)[0].abs()
    expected = margin * (background + (whole * trusted).sum(0)) / probabilities.sum(0)
    assert (places > 0).any()
    assert (confidence < 1).any()
    np.testing.assert_array_equal(places, probabilities.argmax(0).numpy())
    np.testing.assert_allclose(confidence, expected.numpy(), atol=1e-3)  # half precision
    np.testing.assert_array_equal(presence, (whole.sum(0) > 0.1).numpy())


def test_nothing_has_arrived() -> None:
    nothing = torch.zeros(2, 8, 8)
    places, confidence, presence = decided_on_source(nothing, nothing, WorkingGrid((16, 16), (8, 8), 1), 0.1)
    assert not places.any()
    assert (confidence == 1).all()
    assert not presence.any()
