from __future__ import annotations

import pytest
import torch

from napari_oneseg.config import ScreeningConfig
from napari_oneseg.features.extractor import compute_features
from napari_oneseg.screening import representatives
from napari_oneseg.training import pairs
from napari_oneseg.training.pairs import draw_pairs, random_slices, representative_slices
from napari_oneseg.training.scans import WorkingScan
from tests.engine_fixtures import TINY, tiny_network
from tests.training.scan_fixtures import SMALL, make_scan, working_scan


def numbered(slices: int) -> WorkingScan:
    """A scan whose slices hold their own number."""
    scan = working_scan(slices=slices)
    numbers = torch.arange(float(slices)).half()[:, None, None].expand(scan.slices.shape)
    return WorkingScan(numbers, scan.grid, scan.distance)


def test_representatives_are_those_of_the_screening() -> None:
    volume, network, config = make_scan(0, 20), tiny_network(), ScreeningConfig(clusters=4)
    expected = representatives(compute_features(volume, network, SMALL), config, 3)
    assert len(expected) == 4
    assert representative_slices(network, WorkingScan.of(volume, TINY, SMALL), config, 3) == expected


def test_the_network_learns_on_undisturbed() -> None:
    network = tiny_network().train()
    before = {key: value.clone() for key, value in network.state_dict().items()}
    chosen = representative_slices(network, working_scan(slices=12), ScreeningConfig(clusters=3))
    assert network.training
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())
    assert chosen == representative_slices(network.eval(), working_scan(slices=12), ScreeningConfig(clusters=3))


def test_they_follow_what_the_network_has_learned() -> None:
    scan, config = working_scan(slices=30), ScreeningConfig(clusters=5)
    assert representative_slices(tiny_network(0), scan, config) != representative_slices(tiny_network(1), scan, config)


def test_where_one_slice_stands_for_all_the_ends_are_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pairs, "representatives", lambda *_: [3])
    assert representative_slices(tiny_network(), working_scan()) == [0, 7]


def test_random_slices() -> None:
    config = ScreeningConfig(clusters=4)
    drawn = random_slices(20, config, 0)
    assert drawn == sorted(set(drawn))
    assert len(drawn) == 4
    assert drawn == random_slices(20, config, 0)
    assert drawn != random_slices(20, config, 1)
    assert random_slices(3, config, 0) == [0, 1, 2]


def test_pairs_follow_each_other_in_either_direction() -> None:
    chosen = [1, 4, 5, 9]
    batch = draw_pairs(numbered(10), chosen, torch.Generator().manual_seed(0), 200)
    assert batch.slices.shape == (200, 3, 1, 48, 48)
    assert batch.slices.dtype == torch.float32
    assert (batch.slices == batch.slices[..., :1, :1]).all(), "a slice stays whole"
    drawn = {tuple(triple) for triple in batch.slices[:, :, 0, 0, 0].int().tolist()}
    assert drawn == {(4, 1, 4), (1, 4, 5), (4, 5, 9), (5, 4, 1), (9, 5, 4), (5, 9, 5)}


def test_two_slices_make_two_pairs() -> None:
    batch = draw_pairs(numbered(4), [0, 3], torch.Generator().manual_seed(0), 20)
    assert {tuple(t) for t in batch.slices[:, :, 0, 0, 0].int().tolist()} == {(3, 0, 3), (0, 3, 0)}
