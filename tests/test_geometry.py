"""Other programs find labels where they were painted; ``make bench-geometry`` tries as many cases as one likes."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
import geometry
from geometry_cases import KINDS, OTHER_READER, make_case, write_scan

from napari_oneseg import orientation
from napari_oneseg.io import read_volume
from napari_oneseg.plugin import export
from napari_oneseg.volume import Volume

CASES = 60


@pytest.fixture(scope="module")
def found() -> dict[str, geometry.Tally]:
    return geometry.run(CASES)


@pytest.mark.parametrize("kind", KINDS)
def test_labels_are_found_where_they_were_painted(found: dict[str, geometry.Tally], kind: str) -> None:
    tally = found[kind]
    assert tally.mismatches == []
    assert tally.cases == CASES // len(KINDS)
    assert tally.files == 2 * tally.cases
    # Labels have travelled, and yet do not fill the scans.
    assert tally.painted < tally.labelled < 0.9 * tally.compared / 3


@pytest.mark.parametrize("number", [242, 805, 1345], ids=["three slices", "four slices", "half a turn"])
def test_scans_that_could_not_be_opened_once(number: int) -> None:
    """napari took few sagittal slices for colours; rounding in a quaternion was taken for a contradiction."""
    tally = geometry.run(1, number)[make_case(number).kind]
    assert (tally.cases, tally.mismatches) == (1, [])


def test_cases_are_of_every_sort() -> None:
    cases = [make_case(number) for number in range(600)]
    sizes = {size for case in cases for size in case.array.shape}
    assert (min(sizes), max(sizes)) == (3, 40)
    frames = [case.frame[:3, :3] for case in cases]
    spacings = np.array([np.linalg.norm(frame, axis=0) for frame in frames])
    assert spacings.min() < 0.35
    assert spacings.max() > 7
    order = {tuple(np.abs(frame / np.linalg.norm(frame, axis=0)).argmax(0)) for frame in frames}
    assert len(order) >= 6, "every order of the axes"
    assert {bool(np.linalg.det(frame) > 0) for frame in frames} == {True, False}, "right-handed and left-handed"
    assert {case.slice_axis for case in cases} == {None, 0, 1, 2}
    assert {case.export for case in cases} == {".nii.gz", ".nii", ".nrrd", ".mha", ".seg.dcm"}


def test_a_case_can_be_repeated(tmp_path: Path) -> None:
    first, again, other = (make_case(number) for number in (12, 12, 24))
    assert np.array_equal(first.array, again.array)
    assert np.array_equal(first.frame, again.frame)
    assert first.kind == other.kind
    assert not np.array_equal(first.frame, other.frame)
    for number, case in enumerate((first, again)):
        (tmp_path / str(number)).mkdir()
        write_scan(case, tmp_path / str(number))
    paths = [next((tmp_path / name).iterdir()) for name in "01"]
    assert paths[0].read_bytes() == paths[1].read_bytes()


# What would be wrong is seen -------------------------------------------------------------------------------------


def of_kind(kind: str) -> int:
    """The number of a case that is exported in a format of its own."""
    return next(n for n in range(KINDS.index(kind), 999, len(KINDS)) if make_case(n).export in (".nrrd", ".seg.dcm"))


def moved(path: Path, *arguments: Any, **options: Any) -> Volume:
    """Read a scan half a voxel beside where it lies."""
    volume = read_volume(path, *arguments, **options)
    step = np.asarray(volume.direction)[:, 0] * volume.spacing[0] / 2
    x, y, z = np.asarray(volume.origin) + step
    return replace(volume, origin=(x, y, z), header={})


def mirrored(self: orientation.Orientation, array: np.ndarray) -> np.ndarray:
    """Turn an array with one axis the wrong way round."""
    return apply(orientation.Orientation(self.axes, (not self.flips[0], *self.flips[1:])), array)


def one_further(path: Path, labels: np.ndarray, *arguments: Any) -> None:
    """Write labels one voxel beside where they belong."""
    write_labels(path, np.roll(labels, 1, axis=2), *arguments)


apply = orientation.Orientation.apply
write_labels = export.write_labels


@pytest.mark.parametrize("kind", ["NIfTI, both forms", "DICOM series"])
@pytest.mark.parametrize(
    ("where", "name", "wrong"),
    [
        (geometry, "read_volume", moved),
        (orientation.Orientation, "apply", mirrored),
        (geometry, "write_labels", one_further),
    ],
    ids=["half a voxel", "mirrored", "one voxel"],
)
def test_wrong_places_are_seen(
    monkeypatch: pytest.MonkeyPatch, kind: str, where: object, name: str, wrong: Callable[..., object]
) -> None:
    number = of_kind(kind)
    monkeypatch.setattr(where, name, wrong)
    mismatches = geometry.run(1, number)[kind].mismatches
    assert mismatches
    assert all(sentence.startswith(f"case {number}: ") for sentence in mismatches)


def test_the_widget_s_own_export_is_what_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export, "write_labels", one_further)
    mismatches = geometry.run(1, of_kind(OTHER_READER))[OTHER_READER].mismatches
    assert any("differ from what was painted" in sentence for sentence in mismatches)


def test_painting_that_a_propagation_changes_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    class Careless(geometry.OneSegSession):
        def propagate(self, *arguments: Any, **options: Any) -> Any:
            result = super().propagate(*arguments, **options)
            return replace(result, labels=np.where(result.labels > 1, 1, result.labels))

    monkeypatch.setattr(geometry, "OneSegSession", Careless)
    mismatches = geometry.run(1, of_kind("NRRD"))["NRRD"].mismatches
    assert any("propagation has changed what was painted" in sentence for sentence in mismatches)
