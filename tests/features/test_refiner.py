from __future__ import annotations

import torch
from torch import Tensor

from napari_oneseg.features.refiner import FLOOR, Appearance, LabelRefiner, corrected
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
        answer = network(
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
        first = network(labels, labels, ones, features, grey, grey, appearance, torch.ones(1))
        other = Appearance(appearance.inside, -appearance.outside, appearance.grey + 1, appearance.known)
        second = network(labels, labels, ones, features, grey, grey, other, torch.ones(1))
    assert not torch.allclose(first[:, 0], second[:, 0])
    assert torch.equal(first[:, 1], second[:, 1]), "what is not known takes no part"


def test_each_label_is_refined_on_its_own() -> None:
    labels = discs(((10, 12), 5), ((18, 20), 3))
    features, grey = two_tissues(labels)
    network = refiner(trained=True)
    appearance = network.describe(features, grey, labels)
    others, ones = labels.flip(1), torch.ones_like(labels)
    with torch.no_grad():
        both = network(labels, others, ones, features, grey, grey, appearance, torch.full((1,), 4.0))
        for k in (0, 1):
            one = slice(k, k + 1)
            alone = network(
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
