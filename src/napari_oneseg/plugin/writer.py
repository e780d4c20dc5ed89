"""File > Save Selected Layer: a labels layer as a label file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from napari.layers import Labels
from numpy.typing import NDArray

from napari_oneseg.errors import InputError, OutputError
from napari_oneseg.io import write_labels
from napari_oneseg.plugin.layer_grid import volume_in
from napari_oneseg.plugin.scan_layer import LayerSnapshot, describe_layer

__all__ = ["write_labels_layer"]


def write_labels_layer(path: str, data: Any, meta: Mapping[str, Any]) -> list[str]:
    """Write a labels layer, on the grid of the file it belongs to where this plugin keeps that, otherwise on its own.

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
        If the layer is not 3D, its grid is sheared, or the file cannot be written.
    """
    try:
        _write(Path(path), describe_layer(Labels(data, **meta)))
    except InputError as error:
        # napari drops the message of a ValueError, which an InputError is.
        raise OutputError(str(error)) from error
    return [path]


def _write(path: Path, snapshot: LayerSnapshot) -> None:
    labels = np.asarray(snapshot.data)
    labels = labels.reshape(labels.shape[-3:])  # without axes of length 1, such as one time point
    if snapshot.record is not None:
        write_labels(path, snapshot.record.orientation.to_source(labels), snapshot.record.source)
    else:
        write_labels(path, labels, volume_in(_any_scan(labels.shape), snapshot.frame))


def _any_scan(shape: tuple[int, ...]) -> NDArray[np.generic]:
    """Return grey values that make a valid scan: the labels may all be 0, and only the grid is of interest."""
    return np.broadcast_to(np.arange(shape[-1], dtype=np.int32), shape)
