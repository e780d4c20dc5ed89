from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from napari_oneseg.config import AnatomyConfig, RefiningConfig
from napari_oneseg.training.anatomy.scene import SceneObject
from napari_oneseg.training.generate import GeneratedVolume
from napari_oneseg.training.rollouts import _draw_objects, connected_regions, rollout_batch

ANATOMY = AnatomyConfig(slices=6, size=48, regions=(3, 5), organs=(2, 3), vessels=(0, 1))
CONFIG = RefiningConfig(steps=2, batch=3, per_volume=2, steps_along=(2, 4), slices=6, objects=3, crop=48)


def test_shapes_and_ranges() -> None:
    lengths = set()
    for seed in range(6):
        batch = rollout_batch(torch.Generator().manual_seed(seed), 2, CONFIG, ANATOMY)
        runs, length, one, *crop = batch.slices.shape
        assert (runs, one, crop) == (3, 1, [48, 48])
        assert 3 <= length <= 5
        lengths.add(length)
        assert batch.labels.shape[:2] == (3, length)
        assert 2 <= batch.labels.shape[2] <= 4
        assert batch.labels.shape[3:] == (24, 24)
        assert torch.allclose(batch.labels.sum(2), torch.ones(()))
        assert batch.distances.shape == (3,)
        assert float(batch.labels[:, 0, 1:].sum()) > 0, "something is painted"
    assert len(lengths) > 1


def test_the_same_generator_gives_the_same_batch() -> None:
    first, again = (rollout_batch(torch.Generator().manual_seed(4), 2, CONFIG, ANATOMY) for _ in range(2))
    assert torch.equal(first.slices, again.slices)
    assert torch.equal(first.labels, again.labels)


def test_parts_that_do_not_touch_are_regions_of_their_own() -> None:
    regions = torch.zeros(3, 8, 8, dtype=torch.int64)
    regions[:, :, 4] = 1  # a wall that parts the background
    regions[1, 2, 1] = 2
    regions[2, 6, 6] = 2
    volume = GeneratedVolume(torch.zeros(3, 8, 8), regions, 3, 2.0)
    parts = connected_regions(volume)
    assert parts.count == 5
    assert len(torch.unique(parts.regions)) == 5
    assert parts.regions[1, 2, 1] != parts.regions[2, 6, 6]
    assert parts.regions[0, 0, 0] != parts.regions[0, 0, 7]
    assert (parts.regions[:, :, 4] == parts.regions[0, 0, 4]).all()
    assert parts.distance == 2.0


def slice_with(*boxes: tuple[int, int, int, int]) -> torch.Tensor:
    painted = torch.zeros(40, 40, dtype=torch.int64)
    for number, (top, left, bottom, right) in enumerate(boxes, start=1):
        painted[top:bottom, left:right] = number
    return painted


def drawn(
    painted: torch.Tensor,
    objects: int,
    merging: float,
    seed: int,
    record: tuple[SceneObject, ...] = (),
    lone: float = 1.0,
    hard_cases: float = 4.0,
) -> torch.Tensor:
    volume = GeneratedVolume(torch.zeros(1, 40, 40), painted[None], 8, 1.0, record)
    config = replace(CONFIG, merging=merging, lone=lone, hard_cases=hard_cases)
    return _draw_objects(painted, volume, objects, config, torch.Generator().manual_seed(seed))


def test_objects_are_drawn_among_those_that_show_enough() -> None:
    painted = slice_with((2, 2, 12, 12), (20, 20, 24, 24))  # the second one has 16 pixels
    for seed in range(20):
        label_of = drawn(painted, 3, 0.0, seed)
        assert label_of[2] == 0
        assert not label_of[3:].any()
        assert set(label_of[:2].tolist()) == {1, 2}


def test_smaller_neighbours_join() -> None:
    painted = slice_with((2, 2, 20, 20), (8, 8, 13, 13))  # one region with another inside it
    joined = [drawn(painted, 1, 1.0, seed) for seed in range(20)]
    assert any(label_of[1] == 1 and label_of[2] == 1 for label_of in joined)
    assert not any(label_of[2] == 1 and label_of[0] == 1 for label_of in joined), "they do not touch"
    apart = [drawn(painted, 1, 0.0, seed) for seed in range(20)]
    assert all(int(label_of.sum()) == 1 for label_of in apart)


ALIKE = slice_with((2, 2, 14, 14), (14, 2, 26, 14), (30, 30, 38, 38))
"""Two organs, 1 and 2, that touch and look alike, and another one, 3."""
TWINS = (SceneObject("alike", (1,), alike=(2,)), SceneObject("alike", (2,), alike=(1,)))


def test_a_neighbour_that_looks_alike_is_not_painted_and_does_not_join() -> None:
    for seed in range(20):
        label_of = drawn(ALIKE, 4, 1.0, seed, TWINS)
        assert label_of[1] == 0 or label_of[2] == 0
    together = [drawn(ALIKE, 4, 1.0, seed, TWINS, lone=0.0) for seed in range(20)]
    assert all(label_of[1] != label_of[2] for label_of in together)
    assert any(label_of[1] > 0 and label_of[2] > 0 for label_of in together)


def test_hard_cases_are_painted_more_often() -> None:
    def share(hard_cases: float) -> float:
        return sum(int(drawn(ALIKE, 1, 0.0, k, TWINS, hard_cases=hard_cases)[1:3].sum()) for k in range(60)) / 60

    assert share(20.0) > share(0.0) + 0.2


def test_things_of_several_regions_are_painted_whole_and_rims_never() -> None:
    painted = slice_with((2, 2, 20, 20), (5, 5, 17, 17), (24, 2, 38, 12))
    record = (SceneObject("hollow", (1, 2)), SceneObject("rim", (3,)))
    labels = [drawn(painted, 3, 1.0, seed, record, hard_cases=20.0) for seed in range(30)]
    assert any(label_of[1] == label_of[2] > 0 for label_of in labels)
    assert not any(label_of[3] for label_of in labels)


def test_the_record_follows_the_parts() -> None:
    regions = torch.zeros(1, 8, 8, dtype=torch.int64)
    regions[0, :5, 2] = 1  # the larger part of region 1, and a smaller one
    regions[0, 7, 7] = 1
    regions[0, 1, 5] = regions[0, 4, 5] = 2
    record = (SceneObject("alike", (1,), alike=(2,)), SceneObject("rim", (2,)))
    parts = connected_regions(GeneratedVolume(torch.zeros(1, 8, 8), regions, 3, 1.0, record))
    organ, rim = parts.objects
    assert organ.regions == (int(parts.regions[0, 0, 2]),)
    assert set(organ.alike) == set(rim.regions) == {int(parts.regions[0, 1, 5]), int(parts.regions[0, 4, 5])}


def test_nothing_to_paint() -> None:
    painted = torch.arange(1600).view(40, 40) % 7  # no region holds together: all touch others everywhere
    assert drawn(torch.full((40, 40), 5), 2, 0.5, 0)[5] == 1
    assert not drawn(painted[:4, :4], 2, 0.5, 0).any()


@pytest.mark.parametrize("gap", [1.0, 2.0])
def test_distances_follow_the_gap(gap: float) -> None:
    config = replace(CONFIG, batch=1, steps_along=(2, 2))
    for seed in range(40):
        batch = rollout_batch(
            torch.Generator().manual_seed(seed), 2, config, replace(ANATOMY, slices_per_size=(0.5, 0.5))
        )
        if float(batch.distances[0]) == pytest.approx(2.0 * gap, rel=1e-3):
            return
    pytest.fail(f"no batch with every {gap:g}th slice")
