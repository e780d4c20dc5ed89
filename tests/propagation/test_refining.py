from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from napari_oneseg.config import PropagationConfig
from napari_oneseg.features.refiner import Appearance, LabelRefiner, Refinement
from napari_oneseg.propagation.refining import Refining
from napari_oneseg.propagation.sweep import Carried, PaintedMaps
from tests.engine_fixtures import disc, moving_stack, swept

SHAPE = (32, 40)
# Without the check of support: the corrections here are wilder than a refiner's.
CONFIG = PropagationConfig(window=5, support=0.0, least_support=0.0)


class Fixed(LabelRefiner):
    """A refiner that answers everywhere with the same correction, and remembers what it was shown."""

    def __init__(self, correction: float) -> None:
        super().__init__(32)
        self.correction = correction
        self.shown: list[tuple[Tensor, ...]] = []

    def forward(
        self,
        copied: Tensor,
        others: Tensor,
        matched: Tensor,
        features: Tensor,
        grey: Tensor,
        copied_grey: Tensor,
        appearance: Appearance,
        distance: Tensor,
        further: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        assert further is None, "it has no region scales"
        assert appearance.inside.shape[1] == 1
        self.shown.append((copied, others, matched, features, grey, copied_grey, distance))
        return torch.full_like(copied, self.correction), copied[:, :, None]


def refinement(correction: float, count: int = 4) -> Refinement:
    ramp = torch.linspace(-1, 1, SHAPE[1]).expand(count, 1, *SHAPE)
    return Refinement(Fixed(correction), ramp.half(), 2.5)


def labels(*places: tuple[tuple[float, float], float]) -> Tensor:
    return torch.stack([torch.from_numpy(disc(SHAPE, *place)).float() for place in places])


def run(correction: float, painted: Tensor, count: int = 4) -> tuple[dict[int, Carried], Fixed]:
    stack = moving_stack(count, SHAPE, shift=(0, 0))
    refine = refinement(correction, count)
    anchors = {0: PaintedMaps(painted, torch.ones(len(painted), dtype=torch.bool))}
    visits = dict(swept(stack.maps, range(count), anchors, CONFIG, None, refine))
    assert isinstance(refine.network, Fixed)
    return visits, refine.network


def test_corrections_are_applied_after_each_step() -> None:
    painted = labels(((12, 15), 5)) * 0.6
    up, _ = run(1.0, painted)
    down, _ = run(-1.0, painted)
    plain, _ = run(0.0, painted)
    middle = (0, 12, 15)
    assert float(up[1].labels[middle]) > float(plain[1].labels[middle]) > float(down[1].labels[middle])
    assert float(up[2].labels[middle]) > float(up[1].labels[middle]), "the next step sets out from it"
    assert float(down[3].labels[middle]) < 0.1


def test_a_label_grows_no_farther_than_the_window_reaches() -> None:
    visits, _ = run(12.0, labels(((12, 15), 3)), count=2)
    grown = visits[1].labels[0] > 0.5
    rows, columns = grown.any(1).nonzero().flatten(), grown.any(0).nonzero().flatten()
    # Two positions of reach; the box begins at an even position.
    assert 12 - 3 - 2 - 1 <= int(rows[0]) <= 12 - 3 - 2
    assert int(rows[-1]) == 12 + 3 + 2
    assert int(columns[-1]) == 15 + 3 + 2


def test_what_is_next_to_nothing_is_not_carried_on() -> None:
    visits, _ = run(-12.0, labels(((12, 15), 5)))
    assert not visits[1].labels.any()
    assert all(not visits[k].labels.any() for k in (2, 3))


def test_the_refiner_sees_each_label_in_its_box() -> None:
    _, network = run(0.0, labels(((10, 10), 4), ((22, 30), 3)), count=2)
    assert len(network.shown) == 2
    copied, others, matched, features, grey, copied_grey, distance = network.shown[0]
    size = copied.shape[2:]
    assert all(maps.shape[2:] == size for maps in (others, matched, features, grey, copied_grey))
    assert size[0] < 16
    assert size[1] < 16
    assert distance.tolist() == [2.5]
    assert float(copied.max()) > 0.95
    assert float(others.max()) < 0.05, "the other label is far away"
    # The texture stands still, so each grey value is copied from its own place.
    assert torch.allclose(copied_grey, grey, atol=0.02)


def test_appearance_is_learned_anew_at_each_anchor() -> None:
    stack = moving_stack(3, SHAPE)
    refining = Refining(refinement(0.0, 3), CONFIG)
    with pytest.raises(ValueError, match="anchor"):
        refining.between(0, 1)
    both = labels(((10, 10), 4), ((22, 30), 3))
    refining.learn(0, stack.maps[0].float(), both, torch.tensor([True, True]))
    first = refining.appearance
    refining.learn(2, stack.maps[2].float(), both, torch.tensor([True, False]))
    second = refining.appearance
    assert first is not None
    assert second is not None
    assert not torch.equal(first.inside[:, 0], second.inside[:, 0])
    assert torch.equal(first.inside[:, 1], second.inside[:, 1])
    empty = torch.zeros_like(both)
    refining.learn(2, stack.maps[2].float(), empty, torch.tensor([True, True]))
    third = refining.appearance
    assert third is not None
    assert torch.equal(second.inside, third.inside), "an empty slice shows nothing of a label"


def test_a_part_that_jumped_over_is_dropped() -> None:
    checked = PropagationConfig(window=5)
    stack = moving_stack(2, SHAPE, shift=(0, 0))
    painted = labels(((12, 12), 5))
    refining = Refining(refinement(0.0, 2), checked)
    refining.learn(0, stack.maps[0].float(), painted, torch.tensor([True]))
    refining.usual_support[:] = 0.9
    stray = labels(((12, 30), 4))
    step = refining.between(0, 1)
    copied = 0.95 * painted + 0.6 * stray
    before = painted + stray
    left = step(stack.maps[1].float(), before, copied, torch.ones_like(copied), step.grey)
    assert float(left[0, 12, 12]) > 0.9
    assert not (left * stray).any()
    refining.learn(1, stack.maps[1].float(), painted, torch.tensor([True]))
    assert np.isnan(refining.usual_support).all(), "an anchor forgets what was usual"


def test_labels_give_way_to_those_that_stay_where_they_are() -> None:
    stack = moving_stack(2, SHAPE, shift=(0, 0))
    painted = labels(((12, 12), 5))
    occupied = torch.zeros(SHAPE)
    occupied[:, 13:] = 1.0
    found = []
    for beside in (None, lambda index: occupied * float(index == 1)):
        network = refinement(0.0, 2)
        refining = Refining(network, CONFIG, beside)
        refining.learn(0, stack.maps[0].float(), painted, torch.tensor([True]))
        step = refining.between(0, 1)
        copied = 0.9 * painted
        found.append(step(stack.maps[1].float(), painted, copied, torch.ones_like(copied), step.grey))
        others = network.network.shown[0][1]  # type: ignore[union-attr, operator, index]
        assert float(others.max()) == pytest.approx(1.0 if beside else 0.0, abs=1e-6)
    alone, crowded = found
    assert float(alone[0, 12, 15]) > 0.85
    assert float(crowded[0, 12, 15]) < 0.5
    assert torch.allclose(alone[:, :, :13], crowded[:, :, :13]), "elsewhere nothing changes"


def test_reliability_is_how_certain_the_copy_was() -> None:
    stack = moving_stack(2, SHAPE, shift=(0, 0))
    painted = labels(((12, 15), 5)) * 0.8
    anchors = {0: PaintedMaps(painted, torch.tensor([True]))}
    sharp = dict(swept(stack.maps, range(2), anchors, CONFIG, None, refinement(6.0, 2)))[1]
    assert sharp is not None
    assert float(sharp.labels[0, 12, 15]) > 0.95
    assert float(sharp.reliability[0, 12, 15]) == pytest.approx(0.6, abs=0.05)
    assert float(sharp.reliability[0, 2, 2]) > 0.95, "nothing came near"
