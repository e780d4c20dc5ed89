from __future__ import annotations

import numpy as np
import torch

from napari_oneseg.features.regions import region_share, slice_regions


def test_regions_follow_the_grey_values() -> None:
    grey = np.full((40, 60), -0.5, np.float32)
    grey[10:30, 10:30] = 0.5
    grey += np.random.default_rng(0).normal(0, 0.02, grey.shape).astype(np.float32)
    finest, fine = slice_regions(grey, (1.0, 50.0))
    assert len(np.unique(fine[13:27, 13:27])) == 1
    assert not set(np.unique(fine[12:28, 12:28])) & set(np.unique(fine[:, 34:])), "no region crosses the border"
    assert len(np.unique(finest)) > len(np.unique(fine))


def test_the_share_is_the_mean_over_the_region() -> None:
    generator = torch.Generator().manual_seed(1)
    labels = torch.rand(2, 3, 7, 9, generator=generator, requires_grad=True)
    regions = torch.randint(0, 5, (2, 2, 7, 9), generator=generator)
    share = region_share(labels, regions)
    assert share.shape == (2, 3, 2, 7, 9)
    for sample in range(2):
        for label in range(3):
            for scale in range(2):
                for row in range(7):
                    for column in range(9):
                        same = regions[sample, scale] == regions[sample, scale, row, column]
                        expected = labels[sample, label][same].mean()
                        assert torch.isclose(share[sample, label, scale, row, column], expected, atol=1e-6)
    share.square().sum().backward()
    assert labels.grad is not None
    assert bool((labels.grad != 0).all())
