from __future__ import annotations

import torch
from torch import Tensor

from napari_oneseg.config import PropagationConfig
from napari_oneseg.propagation.sweep import Carried, Leg, PaintedMaps, legs, step, sweep
from tests.engine_fixtures import disc, moving_stack, swept

SHAPE = (32, 32)
CONFIG = PropagationConfig(window=5)


def occupancy(*discs: tuple[tuple[float, float], float]) -> Tensor:
    return torch.stack([torch.from_numpy(disc(SHAPE, centre, radius)).float() for centre, radius in discs])


def painted(maps: Tensor, *anchored: bool) -> PaintedMaps:
    return PaintedMaps(maps, torch.tensor(anchored))


def test_a_step_follows_the_texture() -> None:
    maps = moving_stack(2, SHAPE, shift=(1, -1)).maps.float()
    labels = occupancy(((12, 15), 5))
    arrived, agreement = step(maps[1], maps[0], Carried(labels, torch.ones_like(labels)), 5)
    assert torch.allclose(arrived.labels, occupancy(((13, 14), 5)), atol=1e-2)
    assert float(agreement[0]) > 0.98
    assert float(arrived.reliability.min()) > 0.95


def test_what_does_not_return_is_not_reliable() -> None:
    maps = moving_stack(2, SHAPE).maps.float()
    other = moving_stack(2, SHAPE, seed=9).maps.float()
    labels = occupancy(((12, 15), 3))
    carried = Carried(labels, torch.ones_like(labels))
    _, clear = step(maps[1], maps[0], carried, 5)
    lost, unclear = step(other[1], maps[0], carried, 5)
    assert float(unclear[0]) < float(clear[0]) - 0.2
    assert float(lost.reliability[lost.labels > 0.1].mean()) < 0.85


def test_reliability_multiplies_along_the_way() -> None:
    maps = moving_stack(2, SHAPE).maps.float()
    labels = occupancy(((12, 15), 5))
    full, _ = step(maps[1], maps[0], Carried(labels, torch.ones_like(labels)), 5)
    half, _ = step(maps[1], maps[0], Carried(labels, torch.full_like(labels, 0.5)), 5)
    inside = full.labels > 0.5
    assert torch.allclose(half.reliability[inside], 0.5 * full.reliability[inside], atol=1e-5)


def test_nothing_before_the_first_anchor_and_as_painted_on_anchors() -> None:
    maps = moving_stack(5, SHAPE).maps
    here = occupancy(((12, 15), 5))
    visits = dict(swept(maps, range(5), {2: painted(here, True)}, CONFIG))
    assert list(visits) == [2, 3, 4]
    assert torch.equal(visits[2].labels, here)
    assert (visits[2].reliability == 1).all()


def test_renewed_at_a_further_anchor() -> None:
    maps = moving_stack(5, SHAPE).maps
    small, wide = occupancy(((12, 15), 3)), occupancy(((14, 15), 6))
    visits = dict(swept(maps, range(5), {0: painted(small, True), 2: painted(wide, True)}, CONFIG))
    assert visits[3] is not None
    assert torch.equal(visits[2].labels, wide)
    assert torch.allclose(visits[3].labels, occupancy(((15, 15), 6)), atol=1e-2)


def test_a_label_passes_a_slice_on_which_only_others_are_painted_but_not_their_voxels() -> None:
    maps = moving_stack(4, SHAPE, shift=(0, 0)).maps
    first = occupancy(((10, 10), 4), ((40, 40), 1))
    second = occupancy(((40, 40), 1), ((10, 12), 2))
    visits = dict(swept(maps, range(4), {0: painted(first, True, False), 2: painted(second, False, True)}, CONFIG))
    expected = first[0] * (1 - second[1])
    for index in (2, 3):
        assert torch.allclose(visits[index].labels[0], expected, atol=2e-2)
        assert torch.allclose(visits[index].labels[1], second[1], atol=2e-2)


def test_a_complete_slice_without_a_label_stops_it() -> None:
    maps = moving_stack(4, SHAPE).maps
    nothing = torch.zeros(1, *SHAPE)
    visits = dict(
        swept(maps, range(4), {0: painted(occupancy(((10, 10), 4)), True), 2: painted(nothing, True)}, CONFIG)
    )
    assert visits[1].labels.max() > 0.9
    assert visits[2].labels.max() == 0
    assert visits[3].labels.max() == 0


def test_a_label_ends_where_its_area_is_small_or_nothing_agrees() -> None:
    same = moving_stack(2, SHAPE).maps
    other = moving_stack(3, SHAPE, seed=5).maps * 0  # every position looks alike: a copy is a mean
    maps = torch.cat([same, other])
    start = {0: painted(occupancy(((12, 15), 2)), True)}
    ends = dict(swept(maps, range(5), start, PropagationConfig(window=13, end_agreement=0.5)))
    goes_on = dict(swept(maps, range(5), start, PropagationConfig(window=13, end_agreement=0.0, end_area=0.0)))
    assert ends[1].labels.max() > 0.9
    assert ends[2].labels.max() == 0
    assert ends[4].labels.max() == 0
    assert goes_on[2].labels.max() > 0
    large = PropagationConfig(window=5, end_agreement=0.0, end_area=1.0)
    shrinking = {0: painted(occupancy(((0, 15), 4)), True)}  # half outside the map, and moving out of it
    out = moving_stack(3, SHAPE, shift=(-1, 0)).maps
    assert dict(swept(out, range(3), shrinking, large))[1].labels.max() == 0


def test_no_end_before_the_last_anchor() -> None:
    maps = torch.cat([moving_stack(1, SHAPE).maps, moving_stack(3, SHAPE, seed=5).maps * 0])
    here = occupancy(((12, 15), 2))
    strict = PropagationConfig(window=13, end_agreement=1.0)
    visits = dict(swept(maps, range(4), {0: painted(here, True), 3: painted(here, True)}, strict))
    assert visits[1].labels.max() > 0
    assert visits[2].labels.max() > 0


def test_new_tissue_becomes_background_with_a_null_match() -> None:
    known, new = moving_stack(2, SHAPE).maps.float(), moving_stack(2, SHAPE, seed=9).maps.float()
    target = known[1].clone()
    target[:, 12:] = new[1][:, 12:]
    labels = occupancy(((12, 15), 8))
    carried = Carried(labels, torch.ones_like(labels))
    without, _ = step(target, known[0], carried, 5)
    arrived, _ = step(target, known[0], carried, 5, null_bias=-8.0)
    moved = occupancy(((13, 15), 8))
    assert torch.allclose(arrived.labels[:, :12], moved[:, :12], atol=0.02), "tissue with a match keeps its label"
    assert float(arrived.labels[:, 12:].mean()) < 0.1 * float(without.labels[:, 12:].mean())
    kept = moved[:, :11] > 0.5
    assert float(arrived.reliability[:, :11][kept].mean()) > 0.8, "what was copied is as reliable as before"


def test_between_two_anchors_that_show_it_a_label_cannot_end() -> None:
    # The middle slice looks like nothing before it, so that the null match would take all of the label there.
    maps = moving_stack(5, SHAPE, shift=(0, 0)).maps.float()
    maps[2] = moving_stack(5, SHAPE, seed=9).maps[2].float()
    here = occupancy(((16, 16), 8))
    nothing = torch.zeros_like(here)

    def arriving(anchors: dict[int, PaintedMaps]) -> Tensor:
        visit = dict(swept(maps, range(5), anchors, CONFIG, -8.0))[2]
        assert visit is not None
        return visit.labels[0]

    one = arriving({0: painted(here, True)})
    both = arriving({0: painted(here, True), 4: painted(here, True)})
    ends = arriving({0: painted(here, True), 4: painted(nothing, True)})
    inside = occupancy(((16, 16), 4))[0] > 0
    assert float(both[inside].min()) > 0.9
    assert float(one[inside].max()) < 0.1
    assert float(ends[inside].max()) < 0.1, "a further anchor that does not show it says that it ends before"


def test_a_sweep_is_cut_where_a_slice_settles_all_labels() -> None:
    """Label 0 has anchors on 1, 3 and 6, label 1 on 3 and 4, where label 0 is not known."""
    maps = moving_stack(9, SHAPE, shift=(0, 1)).maps
    first, second = occupancy(((12, 15), 5), ((0, 0), 0)), occupancy(((0, 0), 0), ((20, 15), 4))
    both = first + second
    anchors = {
        1: painted(first, True, False),
        3: painted(both, True, True),
        4: painted(second, False, True),
        6: painted(first, True, False),
    }
    order = range(9)
    cut = legs(order, anchors)
    assert [list(leg.order) for leg in cut] == [[1, 2], [3, 4, 5, 6, 7, 8]]
    assert [leg.beyond[-1].tolist() for leg in cut] == [[False, False], [True, True]]
    assert [leg.bridged[0].tolist() for leg in cut] == [[True, True], [True, True]]
    back = legs(order[::-1], anchors)
    assert [list(leg.order) for leg in back] == [[6, 5, 4], [3, 2, 1, 0]]
    # It is the same as if it had not been cut.
    uncut = Leg(order[1:], [k for leg in cut for k in leg.beyond], [k for leg in cut for k in leg.bridged])
    whole, parts = dict(sweep(maps, uncut, anchors, CONFIG)), dict(swept(maps, order, anchors, CONFIG))
    assert list(parts) == list(whole) == list(range(1, 9))
    for index, carried in whole.items():
        assert torch.equal(carried.labels, parts[index].labels)
        assert torch.equal(carried.reliability, parts[index].reliability)
