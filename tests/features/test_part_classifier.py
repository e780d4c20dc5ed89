from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from napari_oneseg.features.part_classifier import PartClassifier, find_parts, usual_support
from tests.engine_fixtures import disc

SHAPE = (32, 40)


def two_parts_and_one() -> Tensor:
    """A batch of one with two labels: the first has two parts, the second one."""
    discs = [torch.from_numpy(disc(SHAPE, *place)).float() for place in (((10, 9), 5), ((22, 30), 4), ((8, 30), 3))]
    return torch.stack([discs[0] + discs[1], discs[2]])[None] * 0.9


def test_parts_are_numbered_over_all_labels() -> None:
    labels = two_parts_and_one()
    parts = find_parts(labels)
    assert len(parts) == 3
    assert parts.label.tolist() == [0, 0, 1]
    assert parts.sample.tolist() == [0, 0, 0]
    assert parts.area.tolist() == [float(disc(SHAPE, (0, 0), 0).size and disc(SHAPE, *place).sum())
                                   for place in (((10, 9), 5), ((22, 30), 4), ((8, 30), 3))]  # fmt: skip
    assert int(parts.numbers[0, 0, 22, 30]) == 1
    assert int(parts.numbers[0, 1, 8, 30]) == 2
    assert int(parts.numbers[0, 1, 10, 9]) == -1
    assert len(find_parts(labels * 0.5)) == 0, "nothing is above one half"


def test_means_are_those_of_each_part_alone() -> None:
    labels = two_parts_and_one()
    parts = find_parts(labels)
    maps = torch.randn(1, 2, 3, *SHAPE, generator=torch.Generator().manual_seed(0))
    means = parts.mean(maps)
    for part in range(3):
        label = int(parts.label[part])
        inside = parts.numbers[0, label] == part
        for channel in range(3):
            assert torch.isclose(means[part, channel], maps[0, label, channel][inside].mean(), atol=1e-5)


def test_a_part_that_goes_takes_its_rim_along_and_spares_the_others() -> None:
    parts = find_parts(two_parts_and_one())
    keep = parts.without(np.array([True, False, True]))
    assert not keep[0, 0][torch.from_numpy(disc(SHAPE, (22, 30), 5))].any()
    assert bool(keep[0, 0][torch.from_numpy(disc(SHAPE, (10, 9), 5))].all())
    assert bool(keep[0, 1].all()), "the other label is not concerned"


def test_what_is_usual_follows_the_parts_that_stay() -> None:
    parts = find_parts(two_parts_and_one())
    support = torch.tensor([0.9, 0.5, 0.7])
    usual = usual_support(torch.tensor([[0.8, float("nan")]]), parts, support, torch.tensor([True, False, True]))
    assert usual[0].tolist() == pytest.approx([0.7 * 0.8 + 0.3 * 0.9, 0.7])
    none = usual_support(torch.tensor([[0.8, 0.6]]), parts, support, torch.tensor([False, False, False]))
    assert none[0].tolist() == pytest.approx([0.8, 0.6])


def test_it_learns_to_tell_supported_parts_from_others() -> None:
    torch.manual_seed(0)
    labels = two_parts_and_one()
    parts = find_parts(labels)
    classifier = PartClassifier(4, 0)
    seen = torch.zeros(1, 2, 4, *SHAPE)
    copied = labels.clone()
    copied[0, 0][parts.numbers[0, 0] == 1] = 0.4
    given = parts, seen, None, copied, torch.ones_like(copied), torch.tensor([[0.9, 0.9]]), torch.full((1, 2), 80.0)
    odds, support = classifier(*given, torch.ones(1))
    assert (odds > 0).all(), "at first every part stays"
    assert support.tolist() == pytest.approx([0.9, 0.4, 0.9], abs=1e-5)
    optimiser = torch.optim.Adam(classifier.parameters(), 0.02)
    wanted = torch.tensor([1.0, 0.0, 1.0])
    for _ in range(150):
        optimiser.zero_grad()
        torch.nn.functional.binary_cross_entropy_with_logits(classifier(*given, torch.ones(1))[0], wanted).backward()
        optimiser.step()
    assert (classifier(*given, torch.ones(1))[0] > 0).tolist() == [True, False, True]
