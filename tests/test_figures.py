from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from napari_oneseg import figures
from napari_oneseg.figures import contact_sheet, outline_sheet, sheet_slices, suggestion_figure
from napari_oneseg.volume import Volume


def labels_on(first: int, last: int, count: int = 30) -> NDArray[np.uint8]:
    labels = np.zeros((count, 24, 32), np.uint8)
    labels[first : last + 1, 8:14, 10:20] = 2
    return labels


def scan(spacing: tuple[float, float, float] = (5.0, 1.0, 1.0)) -> Volume:
    grey = np.random.default_rng(0).normal(size=(30, 24, 32)).astype(np.float32)
    return Volume(grey, spacing)


def test_slices_are_spread_over_the_labelled_extent() -> None:
    assert sheet_slices(labels_on(4, 26), [], 12) == [4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26]
    assert sheet_slices(labels_on(4, 7), [], 12) == [4, 5, 6, 7]


def test_painted_slices_are_always_among_them() -> None:
    shown = sheet_slices(labels_on(4, 26), [15, 17], 12)
    assert {4, 15, 17, 26} <= set(shown)
    assert len(shown) == 12
    # More painted slices than pictures: as many of them as there is room for.
    assert set(sheet_slices(labels_on(4, 26), list(range(4, 27)), 5)) <= set(range(4, 27))


def test_without_labels_the_painted_slice_or_the_middle_is_shown() -> None:
    empty = np.zeros((30, 24, 32), np.uint8)
    assert sheet_slices(empty, [3], 12) == [3]
    assert sheet_slices(empty, [], 12) == [15]


@pytest.mark.parametrize(
    ("axis", "direction", "flipped"),
    [
        (0, np.eye(3)[:, ::-1], (False, False)),  # axial, x to the left and y to the back: as it is shown
        (0, np.diag([-1.0, -1, 1])[:, ::-1], (True, True)),  # x to the right and y to the front
        (1, np.eye(3)[:, ::-1], (True, False)),  # coronal: rows begin at the feet
        (2, np.diag([1.0, -1, -1])[:, ::-1], (False, True)),  # sagittal: rows begin at the head, columns at the back
    ],
)
def test_slices_are_shown_upright(axis: int, direction: NDArray[np.float64], flipped: tuple[bool, bool]) -> None:
    volume = Volume(np.arange(24).reshape(2, 3, 4), direction=direction, slice_axis=axis)
    image = np.arange(6).reshape(2, 3)
    expected = image[:: -1 if flipped[0] else 1, :: -1 if flipped[1] else 1]
    np.testing.assert_array_equal(figures._upright(volume, image), expected)


def test_the_window_holds_all_labels_with_a_margin() -> None:
    labels = np.zeros((30, 24, 32), np.uint8)
    labels[3, 2:6, 20:28] = 1
    labels[9, 4:9, 25:31] = 2
    rows, columns = figures._window(scan(), labels)
    assert rows.start == 0
    assert rows.stop - rows.start == 15  # 11 columns and a third more, as many rows
    assert (columns.start, columns.stop) == (17, 32)


@pytest.mark.parametrize("spacing", [(5.0, 1.0, 1.0), (1.0, 1.0, 6.0), (1.0, 4.0, 0.5)])
def test_pictures_are_drawn_for_any_spacing(tmp_path: Path, spacing: tuple[float, float, float]) -> None:
    volume = scan(spacing)
    labels = np.asarray(volume.to_slices(labels_on(4, 26)))
    confidence = np.where(labels.any(axis=(1, 2)), 0.7, math.nan)
    contact_sheet(tmp_path / "a.png", volume, labels, confidence, [9], {2: "liver"}, "Title")
    contact_sheet(tmp_path / "b.png", volume, np.zeros_like(labels), confidence)
    suggestion_figure(tmp_path / "c.png", volume, {2: 0.9, 3: 0.8})
    masks = {"reference": labels > 0, "result": np.zeros(labels.shape, bool)}
    outline_sheet(tmp_path / "d.png", volume, masks, [3, 4, 20], [4], {3: "Dice 0.00"}, "Title")
    names = ("a.png", "b.png", "c.png", "d.png")
    assert all((tmp_path / name).read_bytes().startswith(b"\x89PNG") for name in names)
