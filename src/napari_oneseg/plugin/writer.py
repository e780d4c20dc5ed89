"""File > Save Selected Layer: a labels layer as a label file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from napari import current_viewer
from napari.layers import Labels, Layer
from numpy.typing import NDArray

from napari_oneseg.errors import InputError, OutputError
from napari_oneseg.io import write_labels
from napari_oneseg.plugin.beneath import is_placed, may_be_scan, record_beneath
from napari_oneseg.plugin.layer_grid import volume_in
from napari_oneseg.plugin.scan_layer import LayerSnapshot, ScanRecord, describe_layer

__all__ = ["write_labels_layer"]


def write_labels_layer(path: str, data: Any, meta: Mapping[str, Any]) -> list[str]:
    """Write a labels layer, on the grid of the scan it belongs to where it has its voxels, otherwise on its own.

    A layer that remembers no scan is where the scan is that lies beneath it in the viewer.

    Parameters
    ----------
    path
        The file, ending in one of :data:`~napari_oneseg.image_formats.WRITABLE`; an older one is replaced.
    data, meta
        What napari hands over: the layer's array, and the arguments to make it again.

    Returns
    -------
    The path.

    Raises
    ------
    OutputError
        If the layer is not 3D, its grid is sheared, it is not known where it lies, or the file cannot be written.
    """
    try:
        layer, layers = _in_viewer(data, meta)
        _write(Path(path), describe_layer(layer, _beneath(layer, layers)))
    except InputError as error:
        # napari drops the message of a ValueError, which an InputError is.
        raise OutputError(str(error)) from error
    return [path]


def _in_viewer(data: Any, meta: Mapping[str, Any]) -> tuple[Labels, Sequence[Layer]]:
    """Return the layer that napari has handed over, and those that are in the viewer with it."""
    viewer = current_viewer()
    layers = list(viewer.layers) if viewer is not None else []
    same = (layer for layer in layers if isinstance(layer, Labels) and layer.data is data)
    return next(same, None) or Labels(data, **meta), layers


def _beneath(layer: Labels, layers: Sequence[Layer]) -> ScanRecord | None:
    """Return the scan that a layer lies on, as :func:`~napari_oneseg.plugin.beneath.record_beneath`.

    Raises
    ------
    InputError
        If nothing says where the layer lies, though scans are there whose place is known.
    """
    found = record_beneath(layer, layers)
    scans = [scan for scan in layers if may_be_scan(scan) and is_placed(scan)]
    if found is None and scans and not is_placed(layer):
        raise InputError(
            f"'{layer.name}' lies beside {' and '.join(repr(scan.name) for scan in scans)}, so its place in the "
            "patient is not known: move it onto the scan that it belongs to, or take the scans out of the viewer to "
            "save it as if its place in napari were that in the patient."
        )
    return found


def _write(path: Path, snapshot: LayerSnapshot) -> None:
    labels = np.asarray(snapshot.data)
    labels = labels.reshape(labels.shape[-3:])  # without axes of length 1, such as one time point
    if snapshot.record is not None:
        write_labels(path, labels, snapshot.record.volume)
        return
    own = volume_in(_any_scan(labels.shape), snapshot.frame)
    write_labels(path, labels, replace(own, to_file=snapshot.to_file))


def _any_scan(shape: tuple[int, ...]) -> NDArray[np.generic]:
    """Return grey values that make a valid scan: the labels may all be 0, and only the grid is of interest."""
    return np.broadcast_to(np.arange(shape[-1], dtype=np.int32), shape)
