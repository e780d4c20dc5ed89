from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from napari_oneseg.evaluation.cases import Case
from napari_oneseg.volume import Volume

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def unet(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import unet

    return unet


@pytest.fixture
def case() -> Case:
    """Four organs; slice 3 shows three of them in full, slice 6 the fourth, which is larger than all."""
    reference = np.zeros((8, 32, 32), np.uint8)
    for label in (1, 2, 3):
        reference[2:5, 4 : 4 + 2 * label, 8 * label : 8 * label + 4] = label
        reference[3, 4 : 8 + 2 * label, 8 * label : 8 * label + 4] = label
    reference[6, 16:, :] = 4
    grey = 50.0 * reference + np.random.default_rng(0).normal(size=reference.shape)
    return Case("one", Volume(grey.astype(np.float32), (7.7, 1.25, 1.25)), reference)


def test_one_slice_is_painted_for_2d_and_all_for_3d(unet: ModuleType, case: Case) -> None:
    assert unet.painted_slices(case, unet.DESIGNS["2d"]) == [3]
    assert unet.painted_slices(case, unet.DESIGNS["3d"]) == list(range(8))
    image, labels = unet.patch_source(case, unet.DESIGNS["2d"])
    assert image.shape == labels.shape == (1, 32, 32)
    np.testing.assert_array_equal(labels[0].numpy(), case.reference[3])
    image, labels = unet.patch_source(case, unet.DESIGNS["3d"])
    assert image.shape == labels.shape == (8, 16, 16)
    assert set(labels.unique().tolist()) == {0, 1, 2, 3, 4}


def test_patches_have_one_size_and_labels_follow_the_image(unet: ModuleType, case: Case) -> None:
    design = replace(unet.DESIGNS["3d"], patch=(12, 16, 24), batch=2)
    image = torch.zeros(8, 32, 20)
    image[2:6, 10:20, 5:15] = 1.0
    (grey, labels), *_ = unet.batches(design, [(image, image)], 1, torch.Generator().manual_seed(0))
    assert grey.shape == labels.shape == (2, 1, 12, 16, 24)
    assert set(labels.unique().tolist()) == {0.0, 1.0}
    moved, followed = unet.altered(image, image, torch.Generator().manual_seed(1))
    inside = moved[followed > 0]
    assert inside.mean() > moved[followed == 0].mean() + 0.6
    assert not torch.equal(followed, image)


def test_training_reproduces_and_segments_on_the_scans_own_grid(unet: ModuleType, case: Case) -> None:
    for design in (
        unet.Design((1, 32, 32), 1, 2, (4, 8), (2,)),
        unet.Design((4, 16, 16), 2, 1, (4, 8), (unet.IN_PLANE,)),
    ):
        source = [unet.patch_source(case, design)]
        networks = [unet.train(design, source, 3, seed) for seed in (0, 0, 1)]
        first, again, other = (next(iter(network.parameters())) for network in networks)
        assert torch.equal(first, again)
        assert not torch.equal(first, other)
        result = unet.scored(networks[0], design, case)
        assert [score.label for score in result.scores] == [1, 2, 3, 4]
        labels = unet.segmented(networks[0], design, case)
        assert (labels.shape, labels.dtype) == (case.reference.shape, np.uint8)


def test_a_longer_training_learns(unet: ModuleType, case: Case) -> None:
    design = unet.Design((1, 32, 32), 1, 4, (8, 16), (2,), learning_rate=1e-2)
    losses: list[float] = []
    unet.train(design, [unet.patch_source(case, design)], 25, 0, lambda step, loss: losses.append(loss))
    assert np.mean(losses[-5:]) < 0.8 * np.mean(losses[:5])
