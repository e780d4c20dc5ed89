"""TIFF stacks as napari's own reader opens them: the voxel size that ImageJ or OME-TIFF wrote is used."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from napari import Viewer
from napari.layers import Image

from napari_oneseg.plugin.scan_layer import scan_of_layer
from tests.plugin.layer_fixtures import SHAPE, grey_values

MakeViewer = Callable[[], Viewer]
ARRAY = grey_values().astype(np.uint16)
DEFAULT = (1.0, 1.0, 1.0)


def imagej(path: Path, unit: str = "mm", spacing: float | None = 2.5, **more: Any) -> Path:
    meta = {"axes": "ZYX", "unit": unit} | ({"spacing": spacing} if spacing else {})
    tifffile.imwrite(path, ARRAY, imagej=True, resolution=(1 / 0.5, 1 / 0.75), metadata=meta, **more)
    return path


def ome(path: Path, **sizes: Any) -> Path:
    tifffile.imwrite(path, ARRAY, ome=True, photometric="minisblack", metadata={"axes": "ZYX"} | sizes)
    return path


def opened(viewer: Viewer, path: Path) -> Image:
    (layer,) = viewer.open(path, plugin="napari")
    assert isinstance(layer, Image)
    return layer


@pytest.mark.parametrize(
    ("write", "spacing"),
    [
        (imagej, (2.5, 0.75, 0.5)),
        (lambda path: imagej(path, "micron", 2500), (2.5, 0.75e-3, 0.5e-3)),
        (lambda path: imagej(path, "\\u00B5m"), (2.5e-3, 0.75e-3, 0.5e-3)),
        (lambda path: ome(path, PhysicalSizeX=500, PhysicalSizeY=750, PhysicalSizeZ=2500), (2.5, 0.75, 0.5)),
        (
            lambda path: ome(
                path, PhysicalSizeX=0.5, PhysicalSizeXUnit="mm", PhysicalSizeY=750, PhysicalSizeZ=0.25,
                PhysicalSizeZUnit="cm",
            ),
            (2.5, 0.75, 0.5),
        ),
    ],
)  # fmt: skip
def test_the_voxel_size_of_the_file(
    make_napari_viewer: MakeViewer, tmp_path: Path, write: Callable[[Path], Path], spacing: tuple[float, ...]
) -> None:
    layer = opened(make_napari_viewer(), write(tmp_path / "scan.tif"))
    np.testing.assert_array_equal(layer.scale, DEFAULT)
    scan = scan_of_layer(layer)
    np.testing.assert_array_equal(scan.shown.array, ARRAY)
    np.testing.assert_allclose(scan.shown.spacing, spacing, rtol=1e-5)
    told = " x ".join(f"{side:.4g}" for side in scan.shown.spacing)
    assert scan.note == f"The voxel size is taken from the TIFF file: {told} mm (z, y, x)."
    assert scan.display["scale"].tolist() == [1, 1, 1], "labels lie on the layer as it is shown"


@pytest.mark.parametrize(
    "write",
    [
        lambda path: tifffile.imwrite(path, ARRAY, photometric="minisblack"),
        lambda path: imagej(path, "pixel"),
        lambda path: imagej(path, spacing=None),
        lambda path: ome(path, PhysicalSizeX=500, PhysicalSizeY=750),
        lambda path: ome(path, PhysicalSizeX=0, PhysicalSizeY=750, PhysicalSizeZ=2500),
    ],
)
def test_a_file_that_does_not_say_its_voxel_size(
    make_napari_viewer: MakeViewer, tmp_path: Path, write: Callable[[Path], object]
) -> None:
    write(tmp_path / "scan.tif")
    scan = scan_of_layer(opened(make_napari_viewer(), tmp_path / "scan.tif"))
    assert (scan.shown.spacing, scan.note) == (DEFAULT, "")


def test_a_scale_that_the_user_has_set_stays(make_napari_viewer: MakeViewer, tmp_path: Path) -> None:
    layer = opened(make_napari_viewer(), imagej(tmp_path / "scan.tif"))
    layer.scale = (3, 1, 1)
    scan = scan_of_layer(layer)
    assert (scan.shown.spacing, scan.note) == ((3.0, 1.0, 1.0), "")


def test_a_file_that_holds_another_scan_by_now(make_napari_viewer: MakeViewer, tmp_path: Path) -> None:
    layer = opened(make_napari_viewer(), imagej(tmp_path / "scan.tif"))
    layer.data = ARRAY[:, :, : SHAPE[2] - 1]
    assert scan_of_layer(layer).shown.spacing == DEFAULT
    (tmp_path / "scan.tif").write_bytes(b"no TIFF")
    assert scan_of_layer(layer).shown.spacing == DEFAULT
