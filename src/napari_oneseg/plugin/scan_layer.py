"""From a scan to an image layer, and from an image layer back to a scan that labels can be exported for."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Image, Labels
from numpy.typing import NDArray

from napari_oneseg.errors import InputError
from napari_oneseg.file_order import in_file_order
from napari_oneseg.image_formats import known_ending
from napari_oneseg.orientation import Orientation
from napari_oneseg.plugin.layer_grid import (
    Matrix,
    display_kwargs,
    is_tilted,
    on_file_grid,
    patient_frame,
    readable_path,
    same_place,
    scan_frame,
    straight_kwargs,
    straight_world,
    volume_in,
    world_frame,
)
from napari_oneseg.plugin.measured import measured_frame
from napari_oneseg.plugin.ome_zarr import UnscaledZarr, unscaled_zarr
from napari_oneseg.plugin.tiff import unscaled_tiff
from napari_oneseg.volume import Volume
from napari_oneseg.windows import default_window

if TYPE_CHECKING:
    from napari.types import LayerDataTuple

__all__ = [
    "METADATA_KEY",
    "LayerSnapshot",
    "OpenScan",
    "ScanRecord",
    "describe_layer",
    "kept_record",
    "labels_layer_kwargs",
    "metadata_of",
    "open_snapshot",
    "record_of",
    "scan_layer_data",
    "scan_name",
    "scan_of_layer",
    "stamp_of",
]

METADATA_KEY = "oneseg"
"""Where in ``layer.metadata`` this plugin keeps a dictionary of its own."""

MAX_BYTES = 2 << 30
"""Largest scan that is loaded: 1024 slices of 1024 x 1024 16-bit values. Floats count with four bytes each."""

MOVED = (
    "This layer was moved, scaled, cropped or resampled since it was read, or was made from a scan by another plugin: "
    "labels lie on its grid as it is now."
)

TILTED = (
    "This layer is displayed tilted, and napari may then paint on another slice than the one on screen. Open the file "
    "with OneSeg instead, which shows it straight and still exports onto its own grid."
)


@dataclass(frozen=True, eq=False)
class ScanRecord:
    """What a layer remembers of the scan that it shows, or that it was derived from.

    Attributes
    ----------
    volume
        The scan in the order of the layer that shows it; it knows the way to its file.
    world
        The way from its voxels to napari's world, (z, y, x) in mm; None where it was shown straight, by this plugin.
    """

    volume: Volume
    world: Matrix | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """The scan's, (z, y, x)."""
        return self.volume.array.shape

    @property
    def source(self) -> Volume:
        """The scan in the order of its file, on its file's grid."""
        return in_file_order(self.volume)

    @property
    def in_viewer(self) -> Matrix:
        """The way from the scan's voxels to napari's world."""
        return straight_world(self.volume.spacing) if self.world is None else self.world

    @property
    def to_patient(self) -> Matrix:
        """The way from napari's world to the patient, for all layers that lie on this scan."""
        matrix: Matrix = scan_frame(self.volume) @ np.linalg.inv(self.in_viewer)
        return matrix

    def is_grid_of(self, shape: tuple[int, ...], world: Matrix) -> bool:
        """Whether a layer has the scan's own voxels, no more and no fewer, and none of them moved."""
        return self.shape == tuple(shape) and same_place(world, self.in_viewer)


@dataclass(frozen=True, eq=False)
class LayerSnapshot:
    """All that is needed to open a layer as a scan, taken on the GUI thread at no cost: nothing is loaded or copied.

    Attributes
    ----------
    name
        The layer's name.
    data
        Shape (z, y, x), perhaps after axes of length 1; a numpy array or one that is loaded lazily.
    world, frame
        The way from voxels to napari's world (z, y, x) and to the patient (x, y, z), in mm.
    display
        What places another layer exactly on this one.
    record
        What the scan is remembered by whose voxels these are, none of them moved.
    to_file
        The way to the file of the scan that has as many voxels, though in another place or of another size.
    was_moved
        Whether it was moved, scaled, cropped or resampled since, so that the file says nothing of where it lies.
    path
        The file or folder it was opened from, if it is still there.
    note
        What is loaded of the layer, where that is not all of it, or not at hand; empty otherwise.
    tiff, ome_zarr
        The TIFF file, or the Zarr folder, it was opened from, if it is shown without the voxel size that may stand
        there.
    """

    name: str
    data: Any
    world: Matrix
    frame: Matrix
    display: Mapping[str, Any]
    record: ScanRecord | None = None
    to_file: Orientation = field(default_factory=Orientation)
    was_moved: bool = False
    path: Path | None = None
    note: str = ""
    tiff: Path | None = None
    ome_zarr: UnscaledZarr | None = None


@dataclass(frozen=True, eq=False)
class OpenScan:
    """A scan on the screen.

    Attributes
    ----------
    shown
        The scan as displayed, in the order of the layer's array: in patient order, unless another reader has made the
        layer. A session works on it, and labels are exported onto the grid that it leads back to.
    name
        The layer's name, never a path.
    path
        The file or folder it came from, for proposing where to export to; never to be stored.
    display
        What places another layer exactly on the scan's.
    note
        A sentence that the user should read; empty where there is nothing to say.
    stamp
        What :func:`stamp_of` said of ``path`` when the scan was opened.
    world
        The way from the voxels of ``shown`` to napari's world; None where it was shown straight, by this plugin.
    """

    shown: Volume
    name: str
    path: Path | None = None
    display: Mapping[str, Any] = field(default_factory=dict)
    note: str = ""
    stamp: str = ""
    world: Matrix | None = None

    @property
    def record(self) -> ScanRecord:
        """What layers that lie on the scan remember."""
        return ScanRecord(self.shown, self.world)


def stamp_of(path: Path) -> str:
    """Return what changes when a file, or a file in a folder, is replaced; empty where it is not there."""
    try:
        # As deep as series of images are looked for.
        files = sorted([*path.glob("*"), *path.glob("*/*")]) if path.is_dir() else [path]
        stats = [(file.name, file.stat()) for file in files]
    except OSError:
        return ""
    told = repr([(name, stat.st_size, stat.st_mtime_ns) for name, stat in stats])
    return hashlib.sha256(told.encode()).hexdigest()


def scan_name(path: Path) -> str:
    """Return what a scan's layer is called: the name of its file without the ending, or of its folder."""
    ending = known_ending(path) or ""
    return path.name[: len(path.name) - len(ending)] or "scan"


def scan_layer_data(volume: Volume, name: str) -> LayerDataTuple:
    """Return the image layer that shows a scan, with spacing in mm.

    Parameters
    ----------
    volume
        The scan as :func:`~napari_oneseg.io.read_volume` returned it.
    name
        The layer's name.
    """
    window = default_window(volume)
    kwargs = straight_kwargs(volume.spacing) | {
        "name": name,
        # napari takes three or four sagittal slices for colours.
        "rgb": False,
        "contrast_limits": (window.low, window.high),
        "metadata": metadata_of(ScanRecord(volume)),
    }
    data: LayerDataTuple = (volume.array, kwargs, "image")
    return data


def labels_layer_kwargs(scan: OpenScan) -> dict[str, Any]:
    """Return the arguments for a Labels layer that lies exactly on the scan's layer and can be saved on its grid."""
    return {**scan.display, "metadata": metadata_of(scan.record)}


def metadata_of(record: ScanRecord) -> dict[str, Any]:
    """Return the metadata of a layer that keeps a record."""
    return {METADATA_KEY: {"scan": record}}


def record_of(metadata: Mapping[str, Any], shape: tuple[int, ...]) -> ScanRecord | None:
    """Return the record kept in a layer's metadata, unless the layer's array has another shape since."""
    record = kept_record(metadata)
    return record if record is not None and record.shape == tuple(shape) else None


def kept_record(metadata: Mapping[str, Any]) -> ScanRecord | None:
    """Return the record kept in a layer's metadata, of the scan that it shows or was derived from."""
    own = metadata.get(METADATA_KEY)
    record = own.get("scan") if isinstance(own, Mapping) else None
    return record if isinstance(record, ScanRecord) else None


def scan_of_layer(layer: Image) -> OpenScan:
    """Open an image layer as a scan: :func:`describe_layer` and :func:`open_snapshot` in one."""
    return open_snapshot(describe_layer(layer))


def describe_layer(layer: Image | Labels, beneath: ScanRecord | None = None) -> LayerSnapshot:
    """Note all that is needed of a layer; to be called on the GUI thread.

    Of a layer with several levels of resolution the finest is taken that is not too large.

    Parameters
    ----------
    layer
        The layer.
    beneath
        The scan that the layer lies on, where the layer itself remembers none: see
        :func:`~napari_oneseg.plugin.beneath.record_beneath`.

    Raises
    ------
    InputError
        If the layer is not a 3D image with one value per voxel, or is too large.
    """
    if getattr(layer, "rgb", False):
        raise InputError(f"'{layer.name}' is a colour image; choose a scan with one grey value per voxel.")
    if layer.ndim < 3:
        raise InputError(f"'{layer.name}' is a single 2D image; choose a 3D scan, or open the whole series.")
    data, factors, loaded = _level(layer)
    if np.prod(data.shape[:-3]) != 1:
        raise InputError(
            f"'{layer.name}' has {layer.ndim} dimensions ({' x '.join(map(str, data.shape))}), so it holds several "
            "scans, such as time points or channels; one was expected: split it with a right click on the layer, "
            "'Split Stack', and choose one of its volumes."
        )
    world, shape = world_frame(layer, factors), tuple(data.shape[-3:])
    kept = kept_record(layer.metadata) or beneath
    exact = kept is not None and kept.is_grid_of(shape, world)
    was_moved = kept is not None and not exact
    return LayerSnapshot(
        name=layer.name,
        data=data,
        world=world,
        frame=patient_frame(world, layer.metadata) if kept is None else kept.to_patient @ world,
        display=display_kwargs(layer, factors),
        record=kept if exact else None,
        to_file=kept.volume.to_file if kept is not None and kept.shape == shape else Orientation(),
        was_moved=was_moved,
        path=readable_path(layer),
        note=" ".join(filter(None, (loaded, MOVED if was_moved else ""))),
        tiff=unscaled_tiff(layer),
        ome_zarr=unscaled_zarr(layer),
    )


def open_snapshot(snapshot: LayerSnapshot) -> OpenScan:
    """Load a layer as a scan; may take seconds, so it is meant for a worker thread.

    A layer of this plugin has its record; it holds as long as the layer is not moved or scaled. Of any other layer the
    array stays as it is displayed; if the file that it was opened from is there and holds the same voxels, labels will
    be exported onto the file's own grid, otherwise onto the layer's.

    Raises
    ------
    InputError
        If the array is not a scan, or its grid is sheared.
    """
    array = _loaded(snapshot)
    if snapshot.record is not None:
        return _opened(snapshot, _recorded(snapshot.record.volume, array))
    frame, note = measured_frame(snapshot, array.shape)
    snapshot = replace(snapshot, frame=frame, note=" ".join(filter(None, (snapshot.note, note))))
    own = replace(volume_in(array, snapshot.frame), to_file=snapshot.to_file)
    found = None
    if snapshot.path is not None and not snapshot.was_moved:
        found = on_file_grid(array, snapshot.frame, snapshot.path)
    return _opened(snapshot, found or own)


def _opened(snapshot: LayerSnapshot, volume: Volume) -> OpenScan:
    return OpenScan(
        shown=volume,
        name=snapshot.name,
        path=snapshot.path,
        display=snapshot.display,
        note=" ".join(filter(None, (snapshot.note, TILTED if is_tilted(snapshot.world) else ""))),
        stamp=stamp_of(snapshot.path) if snapshot.path else "",
        world=snapshot.world,
    )


def _recorded(volume: Volume, array: NDArray[np.generic]) -> Volume:
    """Return the recorded scan, with the layer's own array where that was replaced, by a filtered one for instance."""
    if array.__array_interface__ == volume.array.__array_interface__:
        return volume
    # What was padding in the file has other grey values by now.
    return replace(volume, array=array, padding=None)


def _level(layer: Image | Labels) -> tuple[Any, NDArray[np.float64], str]:
    """Return the finest level that is not too large, what one of its voxels stands for, and a note."""
    levels = list(layer.data) if layer.multiscale else [layer.data]
    for number, data in enumerate(levels):
        if _bytes(data) <= MAX_BYTES:
            factors = np.divide(levels[0].shape[-3:], data.shape[-3:])
            return data, factors, _what_is_loaded(data, number, len(levels))
    raise InputError(
        f"'{layer.name}' has {_size(levels[-1])} voxels, {_bytes(levels[-1]) / 2**30:.1f} GB; at most "
        f"{MAX_BYTES / 2**30:.3g} GB can be used: crop it to the region of interest or reduce its resolution."
    )


def _bytes(data: Any) -> float:
    dtype = np.dtype(data.dtype)
    return float(np.prod(data.shape, dtype=float)) * (4 if dtype.kind == "f" else dtype.itemsize)


def _what_is_loaded(data: Any, number: int, levels: int) -> str:
    if number:
        return (
            f"Of the {levels} levels of resolution, number {number + 1} is used ({_size(data)} voxels): finer ones are "
            "too large."
        )
    if not isinstance(data, np.ndarray):
        finest = "The finest level of resolution" if levels > 1 else "The layer"
        return f"{finest} is loaded whole: {_size(data)} voxels, {_bytes(data) / 2**20:.1f} MB."
    return ""


def _size(data: Any) -> str:
    return " x ".join(map(str, data.shape[-3:]))


def _loaded(snapshot: LayerSnapshot) -> NDArray[np.generic]:
    """Load the voxels in a type that all stages can use; an array that has one is not copied."""
    array = np.asarray(snapshot.data)
    array = array.reshape(array.shape[-3:])
    if array.dtype.kind == "f":
        with np.errstate(over="ignore"):  # becomes infinite, which Volume reports
            return array.astype(np.float32, copy=False)
    return array.astype(array.dtype.newbyteorder("="), copy=False)
