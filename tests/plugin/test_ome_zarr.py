"""Zarr folders as they are opened into the viewer, by napari's own reader and by napari-ome-zarr."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import zarr
from napari import Viewer
from napari.components import ViewerModel
from napari.layers import Image, Labels
from npe2 import PluginManager
from numpy.typing import NDArray
from pytestqt.qtbot import QtBot
from zarr.storage import LocalStore

from napari_oneseg import scan_features
from napari_oneseg.errors import InputError
from napari_oneseg.plugin import scan_layer
from napari_oneseg.plugin.export import export_labels
from napari_oneseg.plugin.scan_layer import describe_layer, labels_layer_kwargs, open_snapshot, scan_of_layer
from tests.plugin.plugin_fixtures import STACK, small_scan
from tests.plugin.test_widget import Desk

MakeViewer = Callable[[], Viewer]
ARRAY = small_scan().array
SPACING = (3.0, 1.0, 0.5)
PIXELS = (1.0, 1.0, 1.0)

BOTH_READERS = pytest.mark.parametrize("reader", ["napari", "napari-ome-zarr"])
BOTH_VERSIONS = pytest.mark.parametrize("version", [2, 3])

# A slice, as scanners and microscopes write them.
CHUNKS = (1, *ARRAY.shape[1:])


def plain(path: Path, version: int = 3, array: NDArray[np.int16] = ARRAY) -> Path:
    stored = zarr.create_array(path, shape=array.shape, chunks=CHUNKS, dtype=array.dtype, zarr_format=version)
    stored[:] = array
    return path


def ome(path: Path, version: int = 3, unit: str | None = "millimeter", before: str = "", **more: Any) -> Path:
    """OME-Zarr 0.4 (Zarr 2) or 0.5 (Zarr 3): two levels, and before the scan an axis of length 1 for each letter."""
    group = zarr.open_group(path, mode="w", zarr_format=version)
    sizes = np.array(SPACING) if unit != "micrometer" else np.array(SPACING) * 1000
    datasets = []
    for level in range(2):
        array = ARRAY[:: 2**level, :: 2**level, :: 2**level]
        shape = (1,) * len(before) + array.shape
        chunks = (1,) * (len(before) + 1) + array.shape[1:]
        group.create_array(f"s{level}", shape=shape, chunks=chunks, dtype=array.dtype)[:] = array.reshape(shape)
        scale = [1.0] * len(before) + (sizes * 2**level).tolist()
        datasets.append(sized(f"s{level}", scale))
    kinds = {"t": "time", "c": "channel"}
    axes = [{"name": name, "type": kinds[name]} for name in before]
    axes += [{"name": name, "type": "space"} | ({"unit": unit} if unit else {}) for name in "zyx"]
    record = {"name": "scan", "axes": axes, "datasets": datasets} | more
    if version == 3:
        group.attrs["ome"] = {"version": "0.5", "multiscales": [record]}
    else:
        group.attrs["multiscales"] = [record | {"version": "0.4"}]
    return path


@pytest.fixture
def viewer() -> ViewerModel:
    """A viewer without a window: it opens what the user opens, and draws nothing."""
    PluginManager.instance().discover()
    return ViewerModel()


def opened(viewer: ViewerModel, path: Path, reader: str = "napari") -> Image:
    (layer,) = viewer.open(path, plugin=reader)
    assert isinstance(layer, Image)
    return layer


@pytest.fixture
def chunks_read(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """The chunks of any array that were read from the disk by now."""
    get, read = LocalStore.get, set[str]()

    async def watched(store: LocalStore, key: str, *args: Any, **kwargs: Any) -> Any:
        if not key.endswith((".json", ".zarray", ".zattrs", ".zgroup", ".zmetadata")):
            read.add(key)
        return await get(store, key, *args, **kwargs)

    monkeypatch.setattr(LocalStore, "get", watched)
    return read


# Plain arrays


@BOTH_VERSIONS
def test_an_array_is_a_scan_whose_pixels_are_taken_for_mm(viewer: ViewerModel, tmp_path: Path, version: int) -> None:
    scan = scan_of_layer(opened(viewer, plain(tmp_path / "scan.zarr", version)))
    np.testing.assert_array_equal(scan.shown.array, ARRAY)
    assert (scan.name, scan.shown.spacing) == ("scan", PIXELS)
    assert scan.note == "The layer is loaded whole: 10 x 32 x 40 voxels, 0.0 MB."


def test_a_scale_that_the_user_gives_is_used(viewer: ViewerModel, tmp_path: Path) -> None:
    """As formats.md says, for an array that does not tell its voxel size."""
    (layer,) = viewer.open(plain(tmp_path / "scan.zarr"), plugin="napari", scale=SPACING)
    assert scan_of_layer(layer).shown.spacing == SPACING


def test_nothing_is_loaded_before_it_is_opened(
    make_napari_viewer: MakeViewer, tmp_path: Path, chunks_read: set[str]
) -> None:
    layer = opened(make_napari_viewer(), plain(tmp_path / "scan.zarr"))
    shown = set(chunks_read)
    assert 0 < len(shown) < 5, "napari reads the slices that it shows"
    snapshot = describe_layer(layer)
    assert chunks_read == shown
    np.testing.assert_array_equal(open_snapshot(snapshot).shown.array, ARRAY)
    assert len(chunks_read) == len(ARRAY)


# OME-Zarr


@BOTH_READERS
@BOTH_VERSIONS
@pytest.mark.parametrize("unit", ["millimeter", "micrometer"])
def test_the_voxel_size_arrives(viewer: ViewerModel, tmp_path: Path, reader: str, version: int, unit: str) -> None:
    layer = opened(viewer, ome(tmp_path / "scan.zarr", version, unit), reader)
    scan = scan_of_layer(layer)
    np.testing.assert_array_equal(scan.shown.array, ARRAY)
    assert scan.shown.spacing == pytest.approx(SPACING)
    assert scan.shown.origin == pytest.approx((0, 0, 0))
    taken = "The voxel size is taken from the OME-Zarr folder: 3 x 1 x 0.5 mm (z, y, x)."
    assert scan.note.endswith(taken) == (reader == "napari")


@BOTH_READERS
@pytest.mark.parametrize("before", ["t", "tc"])
def test_one_time_point_and_one_channel_are_left_aside(
    viewer: ViewerModel, tmp_path: Path, reader: str, before: str
) -> None:
    scan = scan_of_layer(opened(viewer, ome(tmp_path / "scan.zarr", before=before), reader))
    np.testing.assert_array_equal(scan.shown.array, ARRAY)
    assert scan.shown.spacing == pytest.approx(SPACING)


@BOTH_READERS
def test_only_the_level_that_is_used_is_loaded(
    viewer: ViewerModel,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    chunks_read: set[str],
    reader: str,
) -> None:
    layer = opened(viewer, ome(tmp_path / "scan.zarr"), reader)
    monkeypatch.setattr(scan_layer, "MAX_BYTES", ARRAY.nbytes - 1)
    shown = {key for key in chunks_read if key.startswith("s0/")}
    scan = scan_of_layer(layer)
    assert {key for key in chunks_read if key.startswith("s0/")} == shown
    assert len([key for key in chunks_read if key.startswith("s1/")]) == 5
    assert "number 2 is used (5 x 16 x 20 voxels)" in scan.note
    assert scan.shown.spacing == pytest.approx(np.multiply(SPACING, 2))
    # In the middle of the eight that it stands for, (x, y, z).
    assert scan.shown.origin == pytest.approx((0.25, 0.5, 1.5))
    labels = Labels(np.zeros(scan.shown.array.shape, np.uint8), **labels_layer_kwargs(scan))
    np.testing.assert_allclose(labels.data_to_world((1, 1, 1)), layer.data_to_world((2.5, 2.5, 2.5)))


def test_one_array_of_an_ome_zarr_folder(viewer: ViewerModel, tmp_path: Path) -> None:
    path = ome(tmp_path / "scan.zarr")
    assert scan_of_layer(opened(viewer, path / "s0")).shown.spacing == pytest.approx(SPACING)
    assert scan_of_layer(opened(viewer, path / "s1")).shown.spacing == pytest.approx(np.multiply(SPACING, 2))


def test_the_size_of_all_levels_together(viewer: ViewerModel, tmp_path: Path) -> None:
    common = [{"type": "scale", "scale": [2.0, 1.0, 4.0]}]
    layer = opened(viewer, ome(tmp_path / "scan.zarr", coordinateTransformations=common))
    assert scan_of_layer(layer).shown.spacing == pytest.approx((6.0, 1.0, 2.0))


def test_a_scale_of_the_layer_comes_first(viewer: ViewerModel, tmp_path: Path) -> None:
    layer = opened(viewer, ome(tmp_path / "scan.zarr"))
    layer.scale = (2.0, 0.5, 0.5)
    scan = scan_of_layer(layer)
    assert scan.shown.spacing == (2.0, 0.5, 0.5)
    assert "OME" not in scan.note


def other(path: Path, **changes: Any) -> Path:
    """An OME-Zarr folder with something else in its metadata."""
    content = json.loads((ome(path) / "zarr.json").read_bytes())
    content["attributes"]["ome"]["multiscales"][0] |= changes
    (path / "zarr.json").write_text(json.dumps(content))
    return path


def sized(path: str, scale: Sequence[float]) -> dict[str, Any]:
    return {"path": path, "coordinateTransformations": [{"type": "scale", "scale": scale}]}


@pytest.mark.parametrize(
    "write",
    [
        pytest.param(lambda path: ome(path, unit=None), id="no unit"),
        pytest.param(lambda path: ome(path, unit="furlong"), id="unknown unit"),
        pytest.param(lambda path: other(path, axes=["z", "y", "x"]), id="axes of version 0.3"),
        pytest.param(
            lambda path: other(path, axes=[{"name": name, "unit": "millimeter"} for name in "xyz"]), id="other order"
        ),
        pytest.param(lambda path: other(path, datasets=[{"path": "s0"}]), id="no scale"),
        pytest.param(lambda path: other(path, datasets=[{"path": "gone"}]), id="another array"),
        pytest.param(lambda path: other(path, datasets=[sized("s1", SPACING)]), id="the size of another array"),
        pytest.param(lambda path: other(path, datasets=7), id="no list"),
        pytest.param(lambda path: other(path, datasets=[sized("s0", (3.0, 0.0, 0.5))]), id="no length"),
    ],
)
def test_without_a_size_that_can_be_used_pixels_are_mm(
    viewer: ViewerModel, tmp_path: Path, write: Callable[[Path], Path]
) -> None:
    scan = scan_of_layer(opened(viewer, write(tmp_path / "scan.zarr")))
    assert scan.shown.spacing == PIXELS
    assert "OME" not in scan.note


@BOTH_READERS
def test_several_time_points_are_refused(viewer: ViewerModel, tmp_path: Path, reader: str) -> None:
    path = ome(tmp_path / "scan.zarr", before="t")
    for level in ("s0", "s1"):
        array = zarr.open_array(path / level)
        array.append(array[:])
    with pytest.raises(InputError, match=r"4 dimensions \(2 x 10 x 32 x 40\), so it holds several scans"):
        describe_layer(opened(viewer, path, reader))


def test_with_labels_beside_the_scan_napari_ome_zarr_is_needed(viewer: ViewerModel, tmp_path: Path) -> None:
    path = ome(tmp_path / "scan.zarr")
    zarr.open_group(path).create_group("labels").attrs["ome"] = {"version": "0.5", "labels": []}
    assert scan_of_layer(opened(viewer, path, "napari-ome-zarr")).shown.spacing == pytest.approx(SPACING)
    with pytest.raises(ValueError, match="No arrays found in zarr group"):
        viewer.open(path, plugin="napari")


# In the window


@pytest.fixture
def desk(
    make_napari_viewer: MakeViewer, qtbot: QtBot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Desk]:
    monkeypatch.setattr(scan_features, "compute_features", lambda *_: STACK)
    desk = Desk(make_napari_viewer(), qtbot, tmp_path / "kept")
    yield desk
    desk.widget.shut_down()


@BOTH_READERS
def test_labels_are_exported_on_its_grid(desk: Desk, tmp_path: Path, reader: str) -> None:
    opened(desk.viewer, ome(tmp_path / "scan.zarr", before="t"), reader)
    desk.settle()
    scan = desk.widget.controller.scan
    assert scan is not None
    assert scan.shown.axis == 0
    desk.layer.data[4, 12:20, 10:30] = 3
    desk.widget.propagate()
    desk.settle()
    assert len(desk.shown) > 5
    path = tmp_path / "labels.nii.gz"
    desk.widget.controller.export(path, export_labels)
    desk.settle()
    written = nibabel.load(path)
    np.testing.assert_array_equal(np.asarray(written.dataobj).transpose(2, 1, 0), desk.layer.data)
    assert written.header.get_zooms() == pytest.approx(SPACING[::-1])
    # In the world of NIfTI x runs to the right and y to the front.
    np.testing.assert_allclose(written.affine, np.diag([-0.5, -1.0, 3.0, 1.0]), atol=1e-6)
