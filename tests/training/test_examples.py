from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from napari_oneseg.config import ScreeningConfig, SelfLearningConfig, TrainingConfig
from napari_oneseg.errors import InputError
from napari_oneseg.training import examples
from napari_oneseg.training.examples import ScanExamples, slabs
from napari_oneseg.training.pairs import PairBatch
from napari_oneseg.training.scans import Scans
from napari_oneseg.training.sequences import SequenceBatch
from tests.engine_fixtures import TINY, tiny_network
from tests.training.scan_fixtures import SMALL, make_scan, open_scans

CONFIG = SelfLearningConfig(epochs=2, epoch_steps=10)
SCREENING = ScreeningConfig(clusters=3)
SEQUENCES = TrainingConfig(batch=2, sequence=3, crop=32)


def examples_of(count: int = 2, slices: int = 8, **changes: object) -> ScanExamples:
    return ScanExamples(open_scans(count, slices), replace(CONFIG, **changes), SEQUENCES, SCREENING)


@pytest.mark.parametrize("count", [2, 31, 32, 33, 64, 65, 100])
def test_slabs_cover_all_slices(count: int) -> None:
    covered = {index for first in slabs(count) for index in range(first, min(count, first + 32))}
    assert covered == set(range(count))
    assert len(slabs(count)) == -(-count // 32)


def test_each_epoch_goes_through_all_scans_a_group_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(examples, "GROUP", 2)
    source, step, visits = examples_of(5, objective="supervoxels"), 0, []
    while step < 20:
        plan = source.plan(tiny_network(), step)
        visits.append((step, [number for number, *_ in plan.content]))
        assert step < plan.until <= 20
        # Whatever the step within its span, the plan is the same.
        assert source.plan(tiny_network(), plan.until - 1).content == plan.content
        step = plan.until
    assert [step for step, _ in visits] == [0, 4, 7, 10, 14, 17]
    epochs = [[number for _, group in visits[k : k + 3] for number in group] for k in (0, 3)]
    assert all(sorted(epoch) == [0, 1, 2, 3, 4] for epoch in epochs)
    assert epochs[0] != epochs[1]


def test_the_next_group_is_read_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[list[int], list[int]]] = []
    monkeypatch.setattr(examples, "GROUP", 2)
    monkeypatch.setattr(Scans, "read_ahead", lambda _, *groups: calls.append(groups))
    source, step = examples_of(5, objective="supervoxels"), 0
    while step < 20:
        step = source.plan(tiny_network(), step).until
    assert len(calls) == 6
    assert [coming for _, coming in calls[:-1]] == [used for used, _ in calls[1:]]
    assert len({tuple(used) for used, _ in calls}) > 3, "they differ"


def test_fewer_steps_than_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(examples, "GROUP", 1)
    source = examples_of(5, objective="supervoxels", epoch_steps=3)
    assert [source.plan(tiny_network(), step).until for step in range(4)] == [1, 2, 3, 4]


def test_the_plan_holds_plain_values_and_what_the_objective_needs() -> None:
    for objective, screening in (("reconstruction", True), ("reconstruction", False), ("supervoxels", True)):
        content = examples_of(objective=objective, screening=screening).plan(tiny_network(), 0).content
        assert json.loads(json.dumps(content)) == content
        for _, chosen, firsts in content:
            assert len(chosen) == (3 if objective == "reconstruction" else 0)
            assert firsts == [0]


def test_without_screening_slices_are_random_and_drawn_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(examples, "representative_slices", lambda *_: pytest.fail("not asked for"))
    source = examples_of(1, 40, screening=False)
    first, second = (source.plan(tiny_network(), step).content[0][1] for step in (0, 10))
    assert first != second
    assert len(first) == len(second) == 3


def test_batches_by_objective() -> None:
    generator = torch.Generator().manual_seed(0)
    for objective, kinds in (
        ("reconstruction", [PairBatch, PairBatch]),
        ("supervoxels", [SequenceBatch, SequenceBatch]),
        ("both", [SequenceBatch, PairBatch]),
    ):
        source = examples_of(objective=objective)
        content = source.plan(tiny_network(), 0).content
        assert [type(source.batch(generator, step, content)) for step in (0, 1)] == kinds


def test_small_scans_get_small_sequences() -> None:
    scans = Scans([make_scan(0, 2, (36, 48))], TINY, SMALL)
    source = ScanExamples(scans, replace(CONFIG, objective="supervoxels"), replace(SEQUENCES, crop=128), SCREENING)
    batch = source.batch(torch.Generator().manual_seed(0), 0, source.plan(tiny_network(), 0).content)
    assert isinstance(batch, SequenceBatch)
    assert batch.slices.shape == (2, 2, 1, *[min(scans[0].grid.working)] * 2)
    assert batch.distances.tolist() == pytest.approx([scans[0].distance] * 2)


def test_supervoxels_are_found_once_for_each_slab(monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[tuple[int, ...]] = []
    find = examples.find_supervoxels
    monkeypatch.setattr(examples, "find_supervoxels", lambda s, d: found.append(s.shape) or find(s, d))
    source = examples_of(2, 40, objective="supervoxels")
    content = source.plan(tiny_network(), 0).content
    generator = torch.Generator().manual_seed(0)
    for step in range(10):
        source.batch(generator, step, content)
    assert found == [(32, 48, 48)] * 4


def test_a_long_scan_is_not_cut_up_all_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(examples, "_SLAB", 4)
    source = examples_of(2, 60, objective="supervoxels")
    seen = [source.plan(tiny_network(), step).content for step in (0, 10)]
    assert all(len(firsts) == 4 for content in seen for *_, firsts in content)
    assert seen[0] != seen[1]


def test_crops_must_fit_the_network() -> None:
    with pytest.raises(InputError, match="multiple of the network's coarsest stride, 8; got 36"):
        ScanExamples(open_scans(1), replace(CONFIG, objective="both"), replace(SEQUENCES, crop=36), SCREENING)


def test_batches_depend_on_nothing_but_the_generator() -> None:
    first, second = (examples_of(objective="both") for _ in range(2))
    content = first.plan(tiny_network(), 0).content
    second.batch(torch.Generator().manual_seed(5), 0, content)
    for step in (0, 1):
        a, b = (source.batch(torch.Generator().manual_seed(1), step, content) for source in (first, second))
        assert torch.equal(a.slices, b.slices)
    assert np.isfinite(a.slices.numpy()).all()
