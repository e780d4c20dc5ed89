from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from napari_oneseg.errors import AnnotationError, InputError
from napari_oneseg.file_order import in_file_order
from napari_oneseg.volume import Annotation, Volume, label_dtype, through_plane_axis


def grey_values(shape: tuple[int, ...] = (4, 5, 6)) -> NDArray[np.int16]:
    return np.arange(np.prod(shape), dtype=np.int16).reshape(shape)


# The slice axis


@pytest.mark.parametrize(
    ("spacing", "axis"),
    [
        ((5.0, 1.0, 1.0), 0),
        ((1.0, 5.0, 1.0), 1),
        ((0.8, 0.8, 3.0), 2),
        ((1.0, 1.0, 1.0), 0),
        ((0.999, 1.0, 1.005), 0),
        ((1.0, 1.0, 1.02), 2),
    ],
)
def test_slices_run_along_the_largest_spacing(spacing: tuple[float, float, float], axis: int) -> None:
    assert through_plane_axis(spacing) == axis
    assert Volume(grey_values(), spacing).axis == axis


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_slice_order_and_back(axis: int) -> None:
    volume = Volume(grey_values(), (2.0, 3.0, 5.0), slice_axis=axis)
    others = [k for k in range(3) if k != axis]
    assert volume.slices.shape == (volume.n_slices, *(volume.array.shape[k] for k in others))
    np.testing.assert_array_equal(volume.slices[1], np.take(volume.array, 1, axis))
    assert np.shares_memory(volume.slices, volume.array)
    assert volume.slice_spacing == volume.spacing[axis]
    assert volume.in_plane_spacing == tuple(volume.spacing[k] for k in others)
    back = volume.from_slices(volume.to_slices(volume.array))
    np.testing.assert_array_equal(back, volume.array)
    assert back.flags.c_contiguous


def test_voxels_are_measured_in_millilitres() -> None:
    assert Volume(grey_values(), (5.0, 2.0, 0.5)).voxel_ml == pytest.approx(0.005)


@pytest.mark.parametrize(
    ("largest", "dtype"), [(0, "uint8"), (255, "uint8"), (256, "uint16"), (65535, "uint16"), (65536, "uint32")]
)
def test_the_smallest_label_type(largest: int, dtype: str) -> None:
    assert label_dtype(largest) == dtype


def test_padding_goes_where_the_scan_goes() -> None:
    volume = Volume(grey_values(), direction=np.diag([-1.0, 1.0, 1.0]), padding=(-2000.0, -1024.0))
    assert in_file_order(volume).padding == (-2000, -1024)
    assert replace(volume, slice_axis=2).padding == (-2000, -1024)
    assert Volume(grey_values()).padding is None


# What is refused


@pytest.mark.parametrize("padding", [(0.0, -1.0), (float("nan"), 0.0)])
def test_padding_that_is_no_range(padding: tuple[float, float]) -> None:
    with pytest.raises(InputError, match="a lowest and a highest grey value, got"):
        Volume(grey_values(), padding=padding)


def refused(match: str, array: NDArray[np.generic] | None = None, **changes: object) -> None:
    with pytest.raises(InputError, match=match):
        Volume(grey_values() if array is None else array, **changes)


def test_other_than_three_dimensions_are_refused() -> None:
    refused(r"got 4 dimensions .shape \(2, 3, 4, 5\).*Choose one of its volumes", grey_values((2, 3, 4, 5)))
    refused("got 2 dimensions .*Open the whole series", grey_values((4, 5)))


@pytest.mark.parametrize("dtype", ["complex64", "bool", "U3"])
def test_values_that_are_no_grey_values_are_refused(dtype: str) -> None:
    refused("must be integers or floats", grey_values().astype(dtype))


def test_an_empty_scan_is_refused() -> None:
    refused("empty", np.zeros((0, 4, 4), np.int16))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_refused(value: float) -> None:
    array = grey_values().astype(np.float32)
    array[0, 0, :2] = value
    refused("2 values that are NaN or infinite", array)


def test_a_constant_scan_is_refused() -> None:
    refused("same value .3.", np.full((3, 3, 3), 3, np.uint8))


def test_a_single_slice_is_refused_along_its_own_axis_only() -> None:
    refused(r"at least two slices, this one has 1 along axis 0 \(shape \(1, 5, 6\)\)", grey_values((1, 5, 6)))
    assert Volume(grey_values((1, 5, 6)), slice_axis=1).n_slices == 5


@pytest.mark.parametrize("spacing", [(1.0, 1.0), (1.0, 1.0, 0.0), (1.0, 1.0, -2.0), (1.0, np.nan, 1.0)])
def test_impossible_spacings_are_refused(spacing: tuple[float, ...]) -> None:
    refused("spacing must be three positive numbers in mm, got", spacing=spacing)


@pytest.mark.parametrize("origin", [(1.0, 1.0), (0.0, np.nan, 0.0)])
def test_impossible_origins_are_refused(origin: tuple[float, ...]) -> None:
    refused("origin must be three numbers in mm, got", origin=origin)


@pytest.mark.parametrize(
    "direction", [np.eye(3) + 0.1 * np.eye(3, k=1), 2 * np.eye(3), np.eye(2), np.full((3, 3), np.nan)]
)
def test_sheared_grids_are_refused(direction: NDArray[np.float64]) -> None:
    refused("sheared .*resample", direction=direction)


def test_an_impossible_slice_axis_is_refused() -> None:
    refused("slice axis must be 0, 1 or 2 .*got 3", slice_axis=3)


# The hash


def test_the_same_scan_has_the_same_hash() -> None:
    first = Volume(grey_values(), (3.0, 1.0, 1.0), (1.0, 2.0, 0.0))
    rounded = Volume(
        grey_values(), (float(np.float32(3.00001)), 1.0, 1.0), (1.0, 2.0, -1e-7), header={"qform_code": "1"}
    )
    assert first.content_hash == rounded.content_hash
    fortran = Volume(np.asfortranarray(grey_values()), (3.0, 1.0, 1.0), (1.0, 2.0, 0.0))
    assert first.content_hash == fortran.content_hash


@pytest.mark.parametrize(
    "changes",
    [
        {"spacing": (3.01, 1.0, 1.0)},
        {"origin": (0.0, 0.0, 0.5)},
        {"direction": np.eye(3)},
        {"slice_axis": 1},
        {"array": grey_values().astype(np.int32)},
        {"array": grey_values().reshape(5, 4, 6)},
        {"array": np.where(grey_values() == 77, 78, grey_values()).astype(np.int16)},
    ],
)
def test_another_scan_has_another_hash(changes: dict[str, object]) -> None:
    common: dict[str, object] = {"array": grey_values(), "spacing": (3.0, 1.0, 1.0)}
    assert Volume(**common).content_hash != Volume(**{**common, **changes}).content_hash


# Annotations


def painted() -> NDArray[np.uint8]:
    labels = np.zeros((6, 4, 5), np.uint8)
    labels[1, 0, 0] = 2
    labels[4, 1:3, 1] = 2, 7
    return labels


def test_painted_slices_are_found() -> None:
    annotation = Annotation.from_labels(painted())
    assert sorted(annotation.slices) == [1, 4]
    np.testing.assert_array_equal(annotation.slices[4], painted()[4])
    assert annotation.labels == (2, 7)
    assert annotation.anchors(2) == (1, 4)
    assert annotation.anchors(7) == (4,)
    assert annotation.anchors(3) == ()
    assert annotation.complete == frozenset()


def test_a_complete_slice_is_an_anchor_for_labels_that_it_does_not_show() -> None:
    annotation = Annotation.from_labels(painted(), complete=[np.int64(1), 5])
    assert sorted(annotation.slices) == [1, 4, 5]
    assert annotation.complete == {1, 5}
    assert annotation.anchors(7) == (1, 4, 5)
    assert annotation.anchors(2) == (1, 4, 5)


def test_an_empty_annotation_is_refused() -> None:
    for complete in ([], [2]):
        with pytest.raises(AnnotationError, match="annotation is empty: paint at least one slice"):
            Annotation.from_labels(np.zeros((3, 4, 5), np.uint8), complete)
    assert Annotation().labels == ()


@pytest.mark.parametrize("index", [6, -1])
def test_complete_slices_outside_the_scan_are_refused(index: int) -> None:
    with pytest.raises(AnnotationError, match=rf"Complete slices \[{index}\] lie outside .* 0 to 5"):
        Annotation.from_labels(painted(), [index])


def test_complete_slices_must_be_given() -> None:
    with pytest.raises(AnnotationError, match=r"Slices \[3\] are marked complete, but nothing was given"):
        Annotation({1: painted()[1]}, frozenset({1, 3}))
