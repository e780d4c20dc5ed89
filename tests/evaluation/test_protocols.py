from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from napari_oneseg.errors import InputError
from napari_oneseg.evaluation.baselines import Propagate, copy_slice
from napari_oneseg.evaluation.cases import Case, CaseFiles
from napari_oneseg.evaluation.metrics import assd
from napari_oneseg.evaluation.painted_places import evenly_spaced, widened_extent
from napari_oneseg.evaluation.protocols import (
    Painting,
    evaluate,
    evaluate_case,
    oneseg_method,
    oneseg_planes,
    oneseg_suggest,
    trials,
)
from napari_oneseg.io import write_image, write_labels
from napari_oneseg.session import OneSegSession
from napari_oneseg.volume import Annotation, Volume
from tests.engine_fixtures import tiny_weights
from tests.evaluation.stand_ins import SHAPE, FakeSession, small_case


@pytest.fixture
def case() -> Case:
    return small_case()


def record(annotations: list[Annotation]) -> Propagate:
    def propagate(
        annotation: Annotation,
        slice_range: tuple[int, int] | None = None,
        across: Mapping[int, Annotation] | None = None,
    ) -> NDArray[np.unsignedinteger]:
        annotations.append(annotation)
        return np.zeros(SHAPE, np.uint8)

    return propagate


def test_largest_slice_is_painted_one_label_at_a_time(case: Case) -> None:
    annotations: list[Annotation] = []
    result = evaluate_case(lambda volume: record(annotations), case)
    assert [annotation.labels for annotation in annotations] == [(2,), (300,)]
    assert [tuple(annotation.slices) for annotation in annotations] == [(9,), (8,)]
    assert not any(annotation.complete for annotation in annotations)
    np.testing.assert_array_equal(annotations[0].slices[9], np.where(case.reference[9] == 2, 2, 0))
    assert result.painted == {2: (9,), 300: (8,)}
    assert [(score.label, score.dice, score.ravd) for score in result.scores] == [(2, 0, 100), (300, 0, 100)]


def test_scores_are_those_of_the_result(case: Case) -> None:
    result = evaluate_case(copy_slice, case, labels=[300])
    (score,) = result.scores
    assert score.extent_dice == 1.0
    assert score.dice == pytest.approx(2 * 2 / (2 + SHAPE[0]))
    assert score.ravd == pytest.approx(100 * (SHAPE[0] - 2) / 2)


def test_distances_are_in_mm_whatever_the_slice_axis(case: Case) -> None:
    turned = Volume(np.moveaxis(case.volume.array, 0, 2), (1.5, 1.0, 4.0))
    scores = evaluate_case(copy_slice, case).scores
    assert scores == evaluate_case(copy_slice, Case("turned", turned, case.reference)).scores
    mask = case.reference == 2
    everywhere = np.broadcast_to(mask[9], mask.shape)
    assert scores[0].assd == pytest.approx(assd(everywhere, mask, (4.0, 1.5, 1.0)))


def test_labels_that_a_case_lacks_are_left_out(case: Case) -> None:
    assert [score.label for score in evaluate_case(copy_slice, case, labels=[7, 2]).scores] == [2]


@pytest.mark.parametrize(("count", "expected"), [(1, (9,)), (2, (6, 11)), (3, (5, 8, 12)), (5, (4, 6, 8, 10, 12))])
def test_slices_are_the_centres_of_equal_parts(case: Case, count: int, expected: tuple[int, ...]) -> None:
    assert evenly_spaced(case.reference == 2, count) == expected  # of slices 4 to 13, the largest being 9


def test_evenly_spaced_slices_always_show_the_organ() -> None:
    mask = np.zeros((30, 4, 4), bool)
    mask[[2, 3, 24, 25, 26], 1:3, 1:3] = True
    assert evenly_spaced(mask, 2) == (3, 24)
    assert evenly_spaced(mask, 9) == (2, 3, 24, 25, 26)


def test_evenly_paints_all_its_slices(case: Case) -> None:
    annotations: list[Annotation] = []
    result = evaluate_case(lambda volume: record(annotations), case, Painting("evenly", 3), [2])
    assert tuple(annotations[0].slices) == result.painted[2] == evenly_spaced(case.reference == 2, 3)


def test_ranged_gives_the_first_and_the_last_slice(case: Case) -> None:
    session = FakeSession()
    result = evaluate_case(oneseg_method(session), case, Painting("ranged"))
    assert session.propagated_ranges == [(4, 13), (8, 9)]
    assert result.painted == {2: (9,), 300: (8,)}
    # Whatever is copied stays within the organ's slices, so the score is that of the extent.
    assert [score.dice for score in result.scores] == [score.extent_dice for score in result.scores]
    whole = evaluate_case(copy_slice, case)
    assert [score.extent_dice for score in result.scores] == [score.extent_dice for score in whole.scores]
    assert result.scores[1].dice == 1.0 > whole.scores[1].dice


def test_baselines_stay_within_a_range(case: Case) -> None:
    (first, _) = trials(copy_slice, case, Painting("ranged"))
    assert np.flatnonzero(first.result.any(axis=(1, 2))).tolist() == list(range(4, 14))


def test_together_paints_each_label_on_its_own_slices_and_propagates_once(case: Case) -> None:
    session = FakeSession()
    (trial,) = trials(oneseg_method(session), case, Painting(together=True))
    assert trial.labels == (2, 300)
    assert session.seen == [(2, 300)]
    assert list(trial.annotation.slices) == [8, 9]
    # On slice 8, where label 300 is painted, label 2 is seen too, but is not painted.
    np.testing.assert_array_equal(trial.annotation.slices[8], np.where(case.reference[8] == 300, 300, 0))
    np.testing.assert_array_equal(trial.annotation.slices[9], np.where(case.reference[9] == 2, 2, 0))
    assert trial.annotation.anchors(300) == (8,)

    both = evaluate_case(oneseg_method(FakeSession()), case, Painting("evenly", 2, together=True))
    assert both.painted == {2: (6, 11), 300: (8, 9)}
    suggested = evaluate_case(
        oneseg_method(session), case, Painting("suggested", together=True), suggest=oneseg_suggest(session)
    )
    assert suggested.painted == {2: (9,), 300: (9,)}


def test_suggested_asks_within_the_widened_extent(case: Case) -> None:
    session = FakeSession(suggested=6)
    result = evaluate_case(oneseg_method(session), case, Painting("suggested"), suggest=oneseg_suggest(session))
    assert session.ranges == [(3, 14), (7, 10)]  # 4 to 13 and 8 to 9, a tenth and at least one slice wider
    assert session.propagated_ranges == [None], "the rough range is for the suggestion only"
    assert len(session.volumes) == 1, "the features are computed once"
    assert result.painted == {2: (6,), 300: ()}  # slice 6 does not show label 300: there is nothing to paint
    assert result.scores[0].dice > 0.3
    assert (result.scores[1].dice, result.scores[1].ravd) == (0, 100)


def test_a_rough_range_is_a_tenth_wider_and_ends_with_the_scan() -> None:
    mask = np.zeros((60, 2, 2), bool)
    mask[10:40] = True
    assert widened_extent(mask) == (7, 42)
    mask[0:58] = True
    assert widened_extent(mask) == (0, 59)


def test_volume_paints_all_labels_of_one_slice_at_once(case: Case) -> None:
    for suggested, painted in ((9, {2: (9,), 300: (9,)}), (5, {2: (5,), 300: ()}), (0, {2: (), 300: ()})):
        session = FakeSession(suggested)
        result = evaluate_case(oneseg_method(session), case, Painting("volume"), suggest=oneseg_suggest(session))
        assert session.ranges == [None]
        assert result.painted == painted
        assert [score.dice > 0 for score in result.scores] == [bool(slices) for slices in painted.values()]


def test_labels_do_not_reach_each_other_through_the_session(case: Case) -> None:
    session = FakeSession()
    ours = evaluate_case(oneseg_method(session), case)
    assert ours.scores == evaluate_case(copy_slice, case).scores
    assert session.seen == [(2,), (300,)]


def test_cases_are_read_when_their_turn_comes(case: Case, tmp_path: Path) -> None:
    write_image(tmp_path / "scan.nii.gz", np.asarray(case.volume.array), case.volume)
    write_labels(tmp_path / "labels.nii.gz", case.reference, case.volume)
    files = CaseFiles("two", tmp_path / "scan.nii.gz", tmp_path / "labels.nii.gz")
    calls: list[tuple[int, int]] = []
    results = evaluate(copy_slice, [case, files], progress=lambda done, total: calls.append((done, total)))
    assert calls == [(1, 2), (2, 2)]
    assert [result.case for result in results] == ["one", "two"]
    assert results[0].scores == results[1].scores
    assert files.load(slice_axis=2).reference.shape == (SHAPE[2], *SHAPE[:2])


@pytest.mark.parametrize(
    ("painting", "message"),
    [
        ({"protocol": "largest", "slices": 2}, "evenly protocol for several"),
        ({"protocol": "evenly", "slices": 0}, "at least one slice"),
        ({"protocol": "random"}, "must be one of largest, ranged"),
        ({"protocol": "ranged", "together": True}, "its own range"),
        ({"protocol": "two-planes", "together": True}, "its own planes"),
        ({"protocol": "two-planes", "slices": 2}, "paints one slice|several slices"),
    ],
)
def test_unusable_protocols_are_refused(painting: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Painting(**painting)


@pytest.mark.parametrize("protocol", ["suggested", "volume"])
def test_suggestions_need_a_source(case: Case, protocol: str) -> None:
    with pytest.raises(InputError, match="source of suggested slices"):
        evaluate_case(copy_slice, case, Painting(protocol))


@pytest.mark.parametrize("protocol", ["best-plane", "two-planes"])
def test_planes_need_a_source_and_a_method_that_knows_them(case: Case, protocol: str) -> None:
    with pytest.raises(InputError, match="source of suggested planes"):
        evaluate_case(copy_slice, case, Painting(protocol))
    with pytest.raises(InputError, match="own slices only"):
        evaluate_case(copy_slice, case, Painting(protocol), planes=lambda volume: lambda voxel: (1, 2, 0))


@pytest.mark.parametrize("ranked", [(0, 1, 2), (1, 0, 2), (2, 1, 0)])
def test_the_largest_slice_of_each_suggested_plane_is_painted(case: Case, ranked: tuple[int, ...]) -> None:
    voxels: list[tuple[int, int, int]] = []

    def planes(voxel: tuple[int, int, int]) -> Sequence[int]:
        voxels.append(voxel)
        return ranked

    for protocol, count in (("best-plane", 1), ("two-planes", 2)):
        painting = Painting(protocol)
        (trial,) = trials(lambda volume: record([]), case, painting, [2], planes=lambda volume: planes)
        result = evaluate_case(lambda volume: record([]), case, painting, [2], planes=lambda volume: planes)
        painted = {0: trial.annotation, **trial.across}
        assert {axis for axis, annotation in painted.items() if annotation.slices} == set(ranked[:count])
        for axis in ranked[:count]:
            mask = np.moveaxis(case.reference == 2, axis, 0)
            ((index, image),) = painted[axis].slices.items()
            assert np.count_nonzero(mask[index]) == np.count_nonzero(mask, axis=(1, 2)).max()
            np.testing.assert_array_equal(image, 2 * mask[index])
            assert (result.painted[2] if axis == 0 else result.across[2][axis]) == (index,)
    assert len(set(voxels)) == 1
    inside, outside = (np.argwhere(place) * case.volume.spacing for place in (case.reference == 2, case.reference != 2))
    depths = [np.linalg.norm(outside - place, axis=1).min() for place in inside]
    clicked = inside.tolist().index((np.array(voxels[0]) * case.volume.spacing).tolist())
    assert depths[clicked] == max(depths) > min(depths)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_session_carries_slices_of_all_planes(case: Case, axis: int) -> None:
    array = np.moveaxis(case.volume.slices, 0, axis)
    spacing = np.insert([1.5, 1.0], axis, 4.0).tolist()
    turned = Case("turned", Volume(array, tuple(spacing), slice_axis=axis), case.reference)
    session, other = OneSegSession(tiny_weights(), "cpu"), OneSegSession(tiny_weights(), "cpu")
    method, planes = oneseg_method(session), oneseg_planes(session)
    for _ in range(2):  # what was painted before is taken back
        (trial,) = trials(method, turned, Painting("two-planes"), [2], planes=planes)
    other.set_volume(turned.volume)
    labels = np.moveaxis(np.where(case.reference == 2, 2, 0), 0, axis)
    painted = {plane: tuple(annotation.slices) for plane, annotation in session.painted_planes.items()}
    assert len(painted) == 2
    for plane, (index,) in painted.items():
        other.annotate(index, np.moveaxis(labels, plane, 0)[index].astype(np.uint8), plane=plane)
    np.testing.assert_array_equal(trial.result, other.propagate().labels)
    assert trial.result.any()
