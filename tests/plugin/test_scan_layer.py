"""From scans to layers and back, for layers of this plugin and of others."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import dask.array as da
import nibabel
import numpy as np
import pytest
from napari.layers import Image, Labels, Layer
from napari.layers._source import layer_source
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from napari_oneseg.errors import InputError
from napari_oneseg.file_order import in_file_order
from napari_oneseg.io import read_volume, write_labels
from napari_oneseg.orientation import Orientation
from napari_oneseg.plugin import scan_layer
from napari_oneseg.plugin.scan_layer import (
    OpenScan,
    ScanRecord,
    describe_layer,
    labels_layer_kwargs,
    open_snapshot,
    scan_layer_data,
    scan_of_layer,
)
from napari_oneseg.volume import Volume
from tests.plugin.layer_fixtures import (
    DIRECTIONS,
    ORIGIN,
    SHAPE,
    SPACING,
    grey_values,
    napari_nifti_layer,
    position,
    same_grid,
    save_scan,
    stored,
)

# napari itself warns of tilted layers.
TILTED_LAYERS = pytest.mark.filterwarnings("ignore:Non-orthogonal slicing")
EVERY_DIRECTION = pytest.mark.parametrize("direction", DIRECTIONS.values(), ids=DIRECTIONS.keys())
STRAIGHT = np.eye(3)[:, ::-1]


def from_path(path: Path, make: Callable[..., Image] | None = None, **kwargs: object) -> Image:
    with layer_source(path=str(path)):
        return Layer.create(*scan_layer_data(read_volume(path), "scan")) if make is None else make(**kwargs)


@pytest.mark.parametrize("slices", [3, 4])
def test_three_or_four_sagittal_slices_are_no_colours(slices: int) -> None:
    values = np.arange(40 * 36 * slices, dtype=np.uint8 if slices == 3 else np.float32).reshape(40, 36, slices)
    layer = Layer.create(*scan_layer_data(Volume(values, (1.0, 1.0, 5.0)), "scan"))
    assert isinstance(layer, Image)
    assert not layer.rgb
    scan = scan_of_layer(layer)
    assert (scan.shown.array.shape, scan.shown.axis, scan.shown.n_slices) == ((40, 36, slices), 2, slices)


def place(scan: OpenScan, index: tuple[int, int, int]) -> NDArray[np.float64]:
    """Where a voxel of the displayed array lies in the patient, by the definition in Volume."""
    shown = scan.shown
    return np.asarray(shown.origin) + np.asarray(shown.direction) @ (np.asarray(shown.spacing) * index)


def exported_voxel_lies_there(scan: OpenScan, file: Path, out: Path) -> None:
    """Paint a voxel of what is displayed, export, and look for it in the file with SimpleITK and nibabel."""
    index = (2, 1, 3) if scan.shown.array.shape[2] > 3 else (2, 3, 1)
    labels = np.zeros(scan.shown.array.shape, np.uint8)
    labels[index] = 2
    write_labels(out, labels, scan.shown)
    same_grid(out, file)
    (found,) = np.argwhere(stored(out) == 2)
    np.testing.assert_allclose(position(out, found), place(scan, index), atol=1e-3)
    # Same grey value: it is the same voxel of the scan's file too.
    assert stored(file)[tuple(found)] == scan.shown.array[index]


# Layers of this plugin


@EVERY_DIRECTION
def test_a_scan_s_own_layer(tmp_path: Path, direction: NDArray[np.float64]) -> None:
    path = save_scan(tmp_path / "scan.nii", direction)
    layer = from_path(path)
    scan = scan_of_layer(layer)
    assert np.shares_memory(scan.shown.array, layer.data), "nothing is copied"
    assert (scan.name, scan.path, scan.note) == ("scan", path, "")
    np.testing.assert_allclose(layer.scale, scan.shown.spacing)
    assert np.argmax(np.abs(scan.shown.direction), axis=0).tolist() == [2, 1, 0]
    exported_voxel_lies_there(scan, path, tmp_path / "labels.nii.gz")


def test_the_layer_is_shown_straight_in_mm_with_a_window(tmp_path: Path) -> None:
    layer = from_path(save_scan(tmp_path / "scan.nii", DIRECTIONS["oblique"]))
    np.testing.assert_allclose(layer.affine.affine_matrix, np.eye(4))
    np.testing.assert_allclose(layer.translate, 0)
    assert [str(unit) for unit in layer.units] == ["millimeter"] * 3
    assert layer.axis_labels == ("z", "y", "x")
    low, high = layer.contrast_limits
    assert 0 <= low < 50
    assert 950 < high < 1000


def test_a_filtered_layer_of_the_same_shape_keeps_the_grid(tmp_path: Path) -> None:
    layer = from_path(save_scan(tmp_path / "scan.nii", DIRECTIONS["sagittal"]))
    layer.data = layer.data.astype(np.float32) * 2
    scan = scan_of_layer(layer)
    np.testing.assert_array_equal(scan.shown.array, layer.data)
    assert scan.shown.header
    layer.data = layer.data[::-1]
    np.testing.assert_array_equal(scan_of_layer(layer).shown.array, layer.data)


def test_padding_is_known_of_a_scan_s_own_grey_values_only() -> None:
    data, kwargs, _ = scan_layer_data(Volume(grey_values(), SPACING, padding=(-9.0, 0.0)), "scan")
    layer = Image(data, **kwargs)
    assert scan_of_layer(layer).shown.padding == (-9, 0)
    layer.data = layer.data * 2 + 5
    assert scan_of_layer(layer).shown.padding is None


def test_a_cropped_layer_is_on_a_grid_of_its_own(tmp_path: Path) -> None:
    layer = from_path(save_scan(tmp_path / "scan.nii", DIRECTIONS["oblique"]))
    layer.data = layer.data[1:]
    scan = scan_of_layer(layer)
    assert scan.shown.array.shape == layer.data.shape
    assert scan.shown.header == {}


# Layers of others


@EVERY_DIRECTION
def test_a_layer_of_napari_nifti_is_exported_on_its_file_s_grid(tmp_path: Path, direction: NDArray[np.float64]) -> None:
    path = save_scan(tmp_path / "scan.nii.gz", direction)
    layer = from_path(path, partial(napari_nifti_layer, path))
    scan = scan_of_layer(layer)
    np.testing.assert_array_equal(scan.shown.array, layer.data)
    exported_voxel_lies_there(scan, path, tmp_path / "labels.nii.gz")


@EVERY_DIRECTION
def test_without_its_file_a_layer_of_napari_nifti_still_lies_right(
    tmp_path: Path, direction: NDArray[np.float64]
) -> None:
    path = save_scan(tmp_path / "scan.nii.gz", direction)
    scan = scan_of_layer(napari_nifti_layer(path))
    known = scan_of_layer(from_path(path, partial(napari_nifti_layer, path)))
    assert scan.shown.to_file == Orientation()
    for index in [(0, 0, 0), (1, 2, 3)]:
        np.testing.assert_allclose(place(scan, index), place(known, index), atol=1e-4)


@EVERY_DIRECTION
def test_napari_nifti_itself(tmp_path: Path, direction: NDArray[np.float64]) -> None:
    reader = pytest.importorskip("napari_nifti._reader", reason="napari-nifti is not installed")
    path = save_scan(tmp_path / "scan.nii.gz", direction)
    made = reader.reader_function(str(path))[0]
    known = scan_of_layer(from_path(path, partial(Layer.create, *made)))
    exported_voxel_lies_there(known, path, tmp_path / "labels.nii.gz")
    moved = scan_of_layer(Layer.create(*made))
    np.testing.assert_allclose(place(moved, (1, 2, 3)), place(known, (1, 2, 3)), atol=1e-4)


@EVERY_DIRECTION
def test_a_layer_in_the_file_s_order_with_spacing_only(tmp_path: Path, direction: NDArray[np.float64]) -> None:
    path = save_scan(tmp_path / "scan.nii.gz", direction)
    layer = from_path(path, Image, data=grey_values().astype(np.float64), scale=SPACING)
    exported_voxel_lies_there(scan_of_layer(layer), path, tmp_path / "labels.nii.gz")


def test_other_voxels_than_the_file_s_are_on_the_layer_s_grid(tmp_path: Path) -> None:
    path = save_scan(tmp_path / "scan.nii.gz", DIRECTIONS["oblique"])
    layer = from_path(path, Image, data=grey_values() + 1, scale=SPACING)
    scan = scan_of_layer(layer)
    assert scan.shown.header == {}
    np.testing.assert_array_equal(scan.shown.direction, STRAIGHT)


def test_a_file_that_cannot_be_read_is_left_aside(tmp_path: Path) -> None:
    path = tmp_path / "scan.nii.gz"
    path.write_bytes(b"no scan")
    assert scan_of_layer(from_path(path, Image, data=grey_values())).path == path


def test_a_plain_array() -> None:
    scan = scan_of_layer(Image(grey_values(), scale=SPACING, translate=(1, 2, 3), name="array"))
    assert scan.shown.spacing == pytest.approx(SPACING)
    assert scan.shown.origin == pytest.approx((3, 2, 1))
    np.testing.assert_allclose(scan.shown.direction, STRAIGHT)
    assert scan.shown.axis == 0
    assert scan.path is None


@TILTED_LAYERS
@pytest.mark.parametrize(
    ("linear", "tilted"),
    [
        pytest.param(np.diag([-7.5, 1.25, -0.8]), False, id="negative"),
        pytest.param(np.diag(SPACING)[[1, 0, 2]], False, id="permuted"),
        pytest.param(Rotation.from_euler("xyz", [20, 0, 10], degrees=True).as_matrix() * SPACING, True, id="rotated"),
    ],
)
def test_an_affine(linear: NDArray[np.float64], tilted: bool) -> None:
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = linear, (1, 2, 3)
    layer = Image(grey_values(), affine=affine)
    scan = scan_of_layer(layer)
    assert scan.shown.spacing == pytest.approx(SPACING)
    for index in [(0, 0, 0), (1, 2, 3)]:
        np.testing.assert_allclose(place(scan, index)[::-1], layer.data_to_world(index), atol=1e-9)
    assert bool(scan.note) == tilted


@TILTED_LAYERS
def test_affine_scale_and_rotation_together() -> None:
    rotation = Rotation.from_euler("xyz", [20, 0, 10], degrees=True).as_matrix()
    layer = Image(grey_values(), affine=np.diag([2, 2, 2, 1]), scale=SPACING, rotate=rotation, translate=(1, 2, 3))
    scan = scan_of_layer(layer)
    np.testing.assert_allclose(place(scan, (1, 2, 3))[::-1], layer.data_to_world((1, 2, 3)), atol=1e-9)


@TILTED_LAYERS
def test_a_sheared_layer() -> None:
    layer = Image(grey_values(), shear=[0.2, 0, 0])
    with pytest.raises(InputError, match=r"sheared.*resample"):
        scan_of_layer(layer)


def test_units() -> None:
    layer = Image(grey_values(), scale=(7500, 1250, 800), translate=(1000, 0, 0), units=("um",) * 3)
    scan = scan_of_layer(layer)
    assert scan.shown.spacing == pytest.approx(SPACING)
    assert scan.shown.origin == pytest.approx((0, 0, 1))


def test_a_lazy_array_is_loaded_only_when_opened() -> None:
    loads = []

    def block(**info: object) -> NDArray[np.int16]:
        loads.append(info)
        return grey_values()

    lazy = da.map_blocks(block, chunks=tuple((n,) for n in SHAPE), dtype=np.int16, meta=np.empty((0, 0, 0), np.int16))
    layer = Image(lazy, contrast_limits=(0, 1000))
    before = len(loads)
    snapshot = describe_layer(layer)
    assert len(loads) == before
    np.testing.assert_array_equal(open_snapshot(snapshot).shown.array, grey_values())


def test_the_finest_level_that_is_not_too_large(monkeypatch: pytest.MonkeyPatch) -> None:
    fine = np.random.default_rng(0).integers(0, 1000, (16, 16, 16)).astype(np.int16)
    layer = Image([fine, fine[::2, ::2, ::2]], multiscale=True, scale=(2, 1, 1), translate=(10, 0, 0))
    assert scan_of_layer(layer).shown.array.shape == (16, 16, 16)
    monkeypatch.setattr(scan_layer, "MAX_BYTES", 2000)
    scan = scan_of_layer(layer)
    assert scan.note == "Of the 2 levels of resolution, number 2 is used (8 x 8 x 8 voxels): finer ones are too large."
    assert scan.shown.array.shape == (8, 8, 8)
    assert scan.shown.spacing == pytest.approx((4, 2, 2))
    # The first coarse voxel covers fine voxels 0 and 1.
    assert place(scan, (0, 0, 0))[::-1] == pytest.approx((11, 0.5, 0.5))
    labels = Labels(np.zeros((8, 8, 8), np.uint8), **labels_layer_kwargs(scan))
    np.testing.assert_allclose(labels.data_to_world((0, 0, 0)), (11, 0.5, 0.5))
    monkeypatch.setattr(scan_layer, "MAX_BYTES", 1000)
    with pytest.raises(InputError, match=r"8 x 8 x 8 voxels, 0.0 GB; at most .* can be used: crop it .* or reduce"):
        describe_layer(layer)


def as_large_as(dtype: str, depth: int) -> Image:
    """A layer that would be as large, if it were ever loaded."""
    lazy = da.zeros((depth, 1024, 1024), dtype=dtype, chunks=(1, 1024, 1024))
    return Image(lazy, contrast_limits=(0, 1), name="large")


@pytest.mark.parametrize(("dtype", "depth"), [("int16", 1024), ("float32", 512), ("float64", 512), ("int64", 256)])
def test_two_gigabytes_are_loaded(dtype: str, depth: int) -> None:
    note = describe_layer(as_large_as(dtype, depth)).note
    assert note == f"The layer is loaded whole: {depth} x 1024 x 1024 voxels, 2048.0 MB."


@pytest.mark.parametrize(("dtype", "depth"), [("int16", 1025), ("float32", 513), ("float64", 513), ("int64", 257)])
def test_more_than_two_gigabytes_are_not(dtype: str, depth: int) -> None:
    layer = as_large_as(dtype, depth)
    with pytest.raises(
        InputError, match=rf"'large' has {depth} x 1024 x 1024 voxels, 2.0 GB; at most 2 GB can be used"
    ):
        describe_layer(layer)


def test_what_is_loaded_is_told() -> None:
    lazy = da.from_array(grey_values(), chunks=2)
    told = "is loaded whole: 6 x 5 x 4 voxels, 0.0 MB."
    assert scan_of_layer(Image(lazy)).note == f"The layer {told}"
    levels = Image([lazy, lazy[::2, ::2, ::2]], multiscale=True)
    assert scan_of_layer(levels).note == f"The finest level of resolution {told}"
    assert scan_of_layer(Image(grey_values())).note == ""


@pytest.mark.parametrize("make", [np.asarray, da.from_array])
def test_axes_of_length_one_before_the_scan(make: Callable[..., object]) -> None:
    """As readers of OME-Zarr and OME-TIFF leave them: one time point, one channel."""
    placed = {"scale": (9, 1, *SPACING), "translate": (5, 6, 1, 2, 3), "units": ("s", "pixel", "um", "um", "um")}
    layer = Image(make(grey_values()[np.newaxis, np.newaxis]), axis_labels=("t", "c", "z", "y", "x"), **placed)
    scan = scan_of_layer(layer)
    np.testing.assert_array_equal(scan.shown.array, grey_values())
    np.testing.assert_allclose(scan.shown.spacing, np.multiply(SPACING, 1e-3))
    np.testing.assert_allclose(scan.shown.origin, (3e-3, 2e-3, 1e-3))
    labels = Labels(np.zeros(scan.shown.array.shape, np.uint8), **labels_layer_kwargs(scan))
    assert labels.axis_labels == ("z", "y", "x")
    np.testing.assert_allclose(labels.data_to_world((1, 2, 3)), layer.data_to_world((0, 0, 1, 2, 3))[-3:])


@TILTED_LAYERS
def test_axes_of_length_one_before_a_turned_scan() -> None:
    turned = np.eye(4)
    turned[1:, 1:] = Rotation.from_euler("xyz", [20, 0, 10], degrees=True).as_matrix()
    layer = Image(grey_values()[np.newaxis], rotate=turned, scale=(1, *SPACING), translate=(0, 1, 2, 3))
    scan = scan_of_layer(layer)
    np.testing.assert_allclose(place(scan, (1, 2, 3))[::-1], layer.data_to_world((0, 1, 2, 3))[1:], atol=1e-9)
    labels = Labels(np.zeros(scan.shown.array.shape, np.uint8), **labels_layer_kwargs(scan))
    np.testing.assert_allclose(labels.data_to_world((1, 2, 3)), layer.data_to_world((0, 1, 2, 3))[1:], atol=1e-9)


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        pytest.param(lambda: Image(np.zeros((4, 4, 4, 3), np.uint8), rgb=True), "colour image", id="rgb"),
        pytest.param(lambda: Image(grey_values()[0]), "single 2D image", id="2D"),
        pytest.param(
            lambda: Image(np.stack([grey_values()] * 2)),
            r"4 dimensions \(2 x 6 x 5 x 4\), so it holds several scans.*Split Stack",
            id="4D",
        ),
        pytest.param(lambda: Image(grey_values() > 500), "integers or floats, got bool", id="bool"),
        pytest.param(lambda: Image(grey_values()[:1]), "at least two slices", id="one slice"),
        pytest.param(lambda: Image(np.where(grey_values() > 500, np.nan, 1.0)), "NaN", id="NaN"),
    ],
)
def test_what_is_no_scan(layer: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        scan_of_layer(layer())


# The labels on top


def layer_with(transform: str) -> Image:
    rotation = Rotation.from_euler("xyz", [20, 0, 10], degrees=True).as_matrix()
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = rotation * [1, 2, 3], (1, 2, 3)
    match transform:
        case "own":
            volume = Volume(grey_values(), SPACING, ORIGIN, DIRECTIONS["sagittal"])
            return Layer.create(*scan_layer_data(volume, "own"))
        case "scale":
            return Image(grey_values(), scale=(-7.5, 1.25, 0.8), translate=(1, 2, 3), units=("um",) * 3)
        case "affine":
            return Image(grey_values(), affine=affine, scale=(1, 2, 1), axis_labels=("a", "b", "c"))
        case _:
            return Image(grey_values(), rotate=rotation, scale=SPACING, translate=(1, 2, 3))


@TILTED_LAYERS
@pytest.mark.parametrize("transform", ["own", "scale", "affine", "rotated"])
def test_labels_lie_exactly_on_the_layer(transform: str) -> None:
    layer = layer_with(transform)
    scan = scan_of_layer(layer)
    labels = Labels(np.zeros(scan.shown.array.shape, np.uint8), **labels_layer_kwargs(scan))
    for index in [(0, 0, 0), (1, 2, 3), (3, 0, 1)]:
        np.testing.assert_allclose(labels.data_to_world(index), layer.data_to_world(index), atol=1e-12)
    np.testing.assert_allclose(labels.scale, layer.scale)
    np.testing.assert_allclose(labels.translate, layer.translate)
    assert labels.units == layer.units
    assert labels.axis_labels == layer.axis_labels
    assert scan_of_layer(layer).shown.array.shape == labels.data.shape


def test_a_layer_remembers_where_its_scan_lies_in_the_file(tmp_path: Path) -> None:
    path = save_scan(tmp_path / "scan.nii.gz", DIRECTIONS["oblique sagittal"])
    volume = read_volume(path)
    source = ScanRecord(volume).source
    assert source.array.shape == nibabel.load(path).shape[::-1]
    assert source.to_file == Orientation()
    assert source.origin == in_file_order(volume).origin
