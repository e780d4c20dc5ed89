from __future__ import annotations

import torch
from torch import Tensor

from napari_oneseg.features.refiner import FLOOR, Appearance, LabelRefiner, Refinement, corrected
from tests.engine_fixtures import disc

SHAPE = (24, 28)


def refiner(seed: int = 0, trained: bool = False) -> LabelRefiner:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = LabelRefiner(16).eval()
        if trained:  # any answer other than none
            torch.nn.init.normal_(network.out.weight, std=0.5)
        return network


def discs(*places: tuple[tuple[float, float], float]) -> Tensor:
    return torch.stack([torch.from_numpy(disc(SHAPE, *place)).float() for place in places])[None]


def two_tissues(labels: Tensor) -> tuple[Tensor, Tensor]:
    """Features and grey values that differ within and outside of the labels."""
    generator = torch.Generator().manual_seed(3)
    inside, outside = torch.randn(2, 16, 1, 1, generator=generator)
    mask = labels.amax(1, keepdim=True)
    return mask * inside + (1 - mask) * outside, mask * 0.6 - 0.3


def test_it_sets_out_from_the_plain_copy() -> None:
    labels = discs(((10, 12), 5), ((18, 20), 3))
    features, grey = two_tissues(labels)
    network = refiner()
    appearance = network.describe(features, grey, labels)
    with torch.no_grad():
        answer, _ = network(
            labels, labels.flip(1), torch.ones_like(labels), features, grey, grey, appearance, torch.ones(1)
        )
    assert answer.shape == labels.shape
    assert not answer.any()


def test_without_a_correction_the_copy_stays_and_labels_never_exceed_one() -> None:
    copied = discs(((10, 12), 5), ((18, 20), 3)) * 0.7
    assert torch.allclose(corrected(copied, torch.zeros_like(copied), 0.0), copied, atol=1e-6)
    assert torch.allclose(corrected(copied, torch.zeros_like(copied)), copied, atol=3 * FLOOR)
    raised = corrected(copied, torch.full_like(copied, 50.0))
    assert float(raised.sum(1).max()) <= 1.0 + 1e-6
    assert float(corrected(torch.zeros_like(copied), torch.full_like(copied, 8.0)).min()) > 0.4, "new parts can appear"
    assert float(corrected(torch.zeros_like(copied), torch.full_like(copied, 8.0), 0.0).max()) == 0.0


def test_appearance_tells_the_painted_tissue_from_its_surroundings() -> None:
    labels = discs(((10, 12), 5))
    features, grey = two_tissues(labels)
    network = refiner()
    appearance = network.describe(features, grey, labels)
    same = network.describe(features, grey, labels)
    assert torch.equal(appearance.inside, same.inside), "the same painting gives the same samples"
    vectors = torch.nn.functional.normalize(network.appearance(features), dim=1)[0].flatten(1)
    inside = labels[0, 0].flatten() > 0
    assert torch.allclose(appearance.inside[0, 0] @ vectors[:, inside], torch.ones(()), atol=1e-5)
    assert torch.allclose(appearance.outside[0, 0] @ vectors[:, ~inside], torch.ones(()), atol=1e-5)
    bins = appearance.grey.shape[-1]
    at = {value: round((value + 1) / 2 * (bins - 1)) for value in (0.3, -0.3)}
    assert float(appearance.grey[0, 0, 0, at[0.3]]) > 2.0
    assert float(appearance.grey[0, 0, 0, at[-0.3]]) < -2.0


def test_a_label_that_is_not_shown_is_not_known() -> None:
    labels = discs(((10, 12), 5), ((18, 20), 3))
    features, grey = two_tissues(labels)
    network = refiner(trained=True)
    empty = labels.clone()
    empty[:, 1] = 0.0
    appearance = network.describe(features, grey, empty)
    assert appearance.known.tolist() == [[True, False]]
    assert all(bool(torch.isfinite(x).all()) for x in (appearance.inside, appearance.outside, appearance.grey))
    ones = torch.ones_like(labels)
    with torch.no_grad():
        first, _ = network(labels, labels, ones, features, grey, grey, appearance, torch.ones(1))
        other = Appearance(appearance.inside, -appearance.outside, appearance.grey + 1, appearance.known)
        second, _ = network(labels, labels, ones, features, grey, grey, other, torch.ones(1))
    assert not torch.allclose(first[:, 0], second[:, 0])
    assert torch.equal(first[:, 1], second[:, 1]), "what is not known takes no part"


def test_each_label_is_refined_on_its_own() -> None:
    labels = discs(((10, 12), 5), ((18, 20), 3))
    features, grey = two_tissues(labels)
    network = refiner(trained=True)
    appearance = network.describe(features, grey, labels)
    others, ones = labels.flip(1), torch.ones_like(labels)
    with torch.no_grad():
        both, _ = network(labels, others, ones, features, grey, grey, appearance, torch.full((1,), 4.0))
        for k in (0, 1):
            one = slice(k, k + 1)
            alone, _ = network(
                labels[:, one],
                others[:, one],
                ones[:, one],
                features,
                grey,
                grey,
                appearance.only(k),
                torch.full((1,), 4.0),
            )
            assert torch.allclose(alone, both[:, one], atol=1e-5)


def test_where_takes_the_chosen_labels_only() -> None:
    labels = discs(((10, 12), 5), ((18, 20), 3))
    features, grey = two_tissues(labels)
    network = refiner()
    first, second = network.describe(features, grey, labels), network.describe(-features, -grey, labels)
    merged = second.where(torch.tensor([[True, False]]), first)
    assert torch.equal(merged.inside[:, 0], second.inside[:, 0])
    assert torch.equal(merged.inside[:, 1], first.inside[:, 1])
    assert torch.equal(merged.grey[:, 1], first.grey[:, 1])
    assert second.where(torch.tensor([[True, False]]), None).known.tolist() == [[True, False]]


def test_further_maps_tell_the_share_of_the_region_and_the_area() -> None:
    network = LabelRefiner(16, region_scales=(1.0, 2.0))
    copied = torch.zeros(1, 1, 4, 6)
    copied[0, 0, :, :1] = 1.0
    regions = torch.zeros(1, 2, 4, 6, dtype=torch.int64)
    regions[0, 0, :, 2:] = 1  # the first scale has a border behind the second column, the second scale has none
    further = network.further_maps(copied, regions, torch.tensor([[4.0]]))
    assert further is not None
    assert further.shape == (1, 1, 3, 4, 6)
    assert torch.allclose(further[0, 0, 0, :, :2], torch.tensor(0.0)), "one half of the region"
    assert torch.allclose(further[0, 0, 0, :, 2:], torch.tensor(-1.0)), "nothing of it"
    assert torch.allclose(further[0, 0, 1], torch.tensor(2 / 6 - 1.0)), "a sixth of the slice"
    assert torch.allclose(further[0, 0, 2], torch.tensor(0.0)), "as large as it was painted"
    grown = network.further_maps(copied, regions, torch.tensor([[12.0]]))
    assert grown is not None
    assert torch.allclose(grown[0, 0, 2], torch.tensor(0.5).log() / 1.5), "half of what was painted"
    assert LabelRefiner(16).further_maps(copied, None, torch.tensor([[4.0]])) is None


def test_the_regions_of_a_slice_are_found_once() -> None:
    grey = torch.zeros(2, 1, 16, 16)
    grey[1, 0, :, 8:] = 1.0
    refinement = Refinement(LabelRefiner(16, region_scales=(0.5, 1.0)), grey.half(), 3.0)
    regions = refinement.regions(1)
    assert regions is not None
    assert regions.shape == (2, 16, 16)
    assert regions[0, 8, 0] != regions[0, 8, 15]
    assert len(regions[0].unique()) == 2
    found = refinement.regions(0)
    assert found is not None
    assert len(found[0].unique()) == 1
    assert torch.equal(refinement.regions(1), regions)
    assert Refinement(LabelRefiner(16), grey, 3.0).regions(0) is None
