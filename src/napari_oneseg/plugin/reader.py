"""File > Open: scans as image layers, label images as labels layers, both with their exact position in space.

A file is opened as labels where that is clear: all its values are whole numbers from 0 on, and there are at most 20
different ones, as no scanner makes, or at most 150 if the file's name says what it is ("label", "seg", "mask", ...).
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from napari import current_viewer
from napari.utils.notifications import show_error
from numpy.typing import NDArray

from napari_oneseg.errors import InputError
from napari_oneseg.image_formats import has_dicom_mark, known_ending
from napari_oneseg.io import is_dicom, read_volume
from napari_oneseg.overview import list_candidates
from napari_oneseg.plugin.layer_grid import straight_kwargs
from napari_oneseg.plugin.scan_layer import ScanRecord, metadata_of, scan_layer_data, scan_name
from napari_oneseg.volume import LabelArray, label_dtype

if TYPE_CHECKING:
    from napari.types import LayerDataTuple

    Reader = Callable[[str | Sequence[str]], list[LayerDataTuple]]

__all__ = ["get_reader", "read_layers"]

# A folder may hold thousands of files; a series begins with DICOM files, or with an index and a few notes.
_LOOKED_AT = 16

# What napari takes for "read, but there is nothing to show".
_NO_LAYER: Any = (None,)

_FEW_VALUES = 20
_MANY_VALUES = 150
_LABEL_WORDS = re.compile(r"(?<![a-z])(labels?|labelmap|seg|segmentations?|masks?|annotations?)(?![a-z])")


def get_reader(path: str | Sequence[str]) -> Reader | None:
    """Return the function that reads a path, or None, quickly, if it is not for this plugin.

    Parameters
    ----------
    path
        A file, or a folder; of several, each is read by itself, and several to be stacked are refused.
    """
    if not isinstance(path, str):
        if len(path) != 1:
            return None
        (path,) = path
    place = Path(path)
    if place.is_dir():
        return _read if _holds_dicom(place) else None
    is_ours = known_ending(place) is not None or (place.is_file() and _is_dicom(place))
    return _read if is_ours else None


def _read(path: str | Sequence[str]) -> list[LayerDataTuple]:
    """Read for napari, and say why a file cannot be read.

    napari would replace the message of an exception by one that names the plugin, and offer other readers.
    """
    place = Path(path if isinstance(path, str) else path[0])
    try:
        return read_layers(place)
    except InputError as error:
        if not (_holds_several(place) and _asked_in_the_window(place)):
            show_error(str(error))
        return [_NO_LAYER]


def _holds_several(place: Path) -> bool:
    try:
        return len(list_candidates(place)) > 1
    except InputError:
        return False


def _asked_in_the_window(place: Path) -> bool:
    """Have the widget ask which of several scans is meant; False where there is no window to ask in."""
    viewer = current_viewer()
    if viewer is None or getattr(viewer.window, "_qt_window", None) is None:
        return False
    from napari_oneseg.plugin.commands import widget_of

    widget_of(viewer).opener.open_path(place)
    return True


def read_layers(path: str | Path) -> list[LayerDataTuple]:
    """Read a scan, or a label image, as one layer.

    Raises
    ------
    InputError
        If the file cannot be read as a 3D scan.
    """
    place = Path(path)
    volume = read_volume(place)
    labels = None if is_dicom(place) else _as_labels(volume.array, place.name)
    if labels is None:
        return [scan_layer_data(volume, scan_name(place))]
    kwargs = straight_kwargs(volume.spacing) | {
        "name": scan_name(place),
        "metadata": metadata_of(ScanRecord(volume)),
    }
    # A copy of its own, because it will be painted on.
    layer: LayerDataTuple = (np.ascontiguousarray(labels), kwargs, "labels")
    return [layer]


def _holds_dicom(folder: Path) -> bool:
    """Look at the first files of a folder, and of the first folders in it: a study has one for each series."""
    return _begins_with_dicom(folder) or any(map(_begins_with_dicom, _first(folder, os.DirEntry.is_dir)))


def _begins_with_dicom(folder: Path) -> bool:
    return any(map(_is_dicom, _first(folder, os.DirEntry.is_file)))


def _first(folder: Path, wanted: Callable[[os.DirEntry[str]], bool]) -> list[Path]:
    try:
        with os.scandir(folder) as entries:
            return [Path(entry.path) for entry in islice(filter(wanted, entries), _LOOKED_AT)]
    except OSError:
        return []


def _is_dicom(path: Path) -> bool:
    try:
        return has_dicom_mark(path)
    except OSError:
        return False


def _as_labels(array: NDArray[np.generic], name: str) -> LabelArray | None:
    """Return the array as labels if it clearly holds some."""
    limit = _MANY_VALUES if _LABEL_WORDS.search(name.lower()) else _FEW_VALUES
    # A scan has more values than that in any part of it.
    if np.unique(array[::4, ::4, ::4]).size > limit:
        return None
    values = np.unique(array)
    if values.size > limit or (values < 0).any() or (values != np.round(values)).any() or values[-1] > 65535:
        return None
    labels: LabelArray = array.astype(label_dtype(int(values[-1])))
    return labels
