"""The result as files: labels on exactly the scan's grid, and beside them a record of how they were made."""

from __future__ import annotations

import json
import math
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_oneseg.errors import InputError, OutputError
from napari_oneseg.files import replacing, settle
from napari_oneseg.image_formats import WRITABLE, known_ending
from napari_oneseg.io import list_series, read_volume, write_labels
from napari_oneseg.plugin.scan_layer import OpenScan, scan_name, stamp_of
from napari_oneseg.segment_codes import Segment
from napari_oneseg.segment_nrrd import segment_entries
from napari_oneseg.volume import Volume

__all__ = ["export_labels", "is_dicom", "propose_export_path", "record_path"]


def propose_export_path(scan: OpenScan) -> Path:
    """Return a name for the label file: the scan's own with ``_labels.nii.gz``, beside it.

    The labels of a DICOM series go beside its folder, not into it. Without a file the layer's name is taken, in the
    user's own folder.
    """
    if scan.path is not None:
        return scan.path.with_name(f"{scan_name(scan.path)}_labels.nii.gz")
    name = re.sub(r"[^\w.-]+", "_", scan.name).strip("._")[:80]
    return Path.home() / f"{name or 'scan'}_labels.nii.gz"


def record_path(path: Path) -> Path:
    """Return the name of the record that belongs to a label file."""
    ending = known_ending(path, WRITABLE) or path.suffix
    return path.with_name(path.name[: len(path.name) - len(ending)] + ".json")


def export_labels(
    path: Path,
    labels_shown: NDArray[np.integer[Any]],
    scan: OpenScan,
    record: Mapping[str, Any],
) -> None:
    """Write labels on the grid of the scan's file, and a JSON record of the same name beside them.

    The record gets its name only once the labels are written and checked, so an older pair stays whole if one of them
    cannot be written. It may take seconds, and touches no layer.

    Parameters
    ----------
    path
        The label file, ending in one of :data:`~napari_oneseg.image_formats.WRITABLE`, or in ``.dcm`` for a DICOM
        segmentation of a scan that came from a DICOM series; an older one is replaced, and so is its record.
    labels_shown
        Labels on the shown scan's grid, shape (z, y, x), integers from 0 on.
    scan
        The scan that they were painted on.
    record
        What the result was made from, as :func:`~napari_oneseg.provenance.propagation_record` returns it, with
        ``label_names`` and ``label_colours`` by label, written as text. They go into ``labels``, which describes what
        is in the file: each label's name, colour, voxels, volume and slices. ``export`` is added: how the file lies to
        the scan as it was shown, in which slices are counted.

    Raises
    ------
    InputError
        If the labels do not fit the scan.
    OutputError
        If one of the files cannot be written, or would replace the scan or what another program has written.

    Warns
    -----
    UserWarning
        If the scan's file is another one than when it was opened.
    """
    if labels_shown.shape != scan.shown.array.shape:
        raise InputError(
            f"Labels of the scan's shape {scan.shown.array.shape} (z, y, x) were expected, got {labels_shown.shape}."
        )
    beside = record_path(path)
    _check_names(path, beside, scan)
    changed = scan.path is not None and _has_changed(scan, scan.path)
    entries = {**record, "labels": _label_entries(labels_shown, scan, record), "export": _export_entry(path, scan)}
    for folded in ("label_names", "label_colours"):
        entries.pop(folded, None)
    with replacing(beside, durable=False) as part:
        part.write_text(json.dumps(_plain(entries), indent=2, allow_nan=False) + "\n", encoding="utf-8")
        settle(part)  # now, so that the two files get their names at nearly the same moment
        _write(path, scan.orientation.to_source(labels_shown), scan, _segments(record), changed)
    if changed:
        assert scan.path is not None
        warnings.warn(
            f"{scan.path.name} was changed, replaced or removed after it was opened. The labels in {path.name} lie on "
            "the scan as it was opened; compare them with the file as it is now before you use them with it.",
            stacklevel=2,
        )


def _check_names(path: Path, beside: Path, scan: OpenScan) -> None:
    """Refuse to write over what is not a result of this program."""
    if not path.parent.is_dir():
        raise OutputError(f"{path.name} was not written: there is no folder {path.parent}; choose another one.")
    if scan.path is not None and path.exists() and scan.path.exists() and path.samefile(scan.path):
        raise OutputError(f"{path.name} was not written: this is the scan itself; choose another name.")
    if beside.is_dir():
        raise OutputError(f"{path.name} was not written: {beside.name} beside it is a folder; choose another name.")
    if beside.exists() and not _is_record(beside):
        raise OutputError(
            f"{path.name} was not written: its record would replace {beside.name}, which is another program's; choose "
            "another name."
        )


def _is_record(path: Path) -> bool:
    try:
        return "scan_sha256" in json.loads(path.read_bytes())["export"]
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _has_changed(scan: OpenScan, path: Path) -> bool:
    """Return whether a scan's file, or folder, holds another scan now than when it was opened, or none."""
    if scan.stamp == stamp_of(path):
        return False
    # It may only have been copied once more, or something else was put into the folder.
    try:
        return all(volume.content_hash != scan.source.content_hash for volume in _scans_at(path, scan.source))
    except InputError:
        return True


def _scans_at(path: Path, like: Volume) -> Iterator[Volume]:
    """Read a file, or all series of a folder that are as large as a scan."""
    if not path.is_dir():
        yield read_volume(path)
        return
    for series in list_series(path):
        if series.problem is None and series.shape == like.array.shape:
            yield read_volume(path, series=series.key)


def _write(
    path: Path, labels: NDArray[np.integer[Any]], scan: OpenScan, segments: Mapping[int, Segment], changed: bool
) -> None:
    if not path.name.lower().endswith(".dcm"):
        named = segment_entries(labels, segments) if path.name.lower().endswith(".nrrd") else None
        write_labels(path, labels, scan.source, named)
        return
    if changed:
        raise OutputError(
            f"{path.name} was not written: a DICOM segmentation refers to the scan's images, and those that it was "
            "opened from are gone or were changed. Put them back, or choose NIfTI, NRRD or MetaImage."
        )
    if not is_dicom(scan):
        raise OutputError(
            "A DICOM segmentation refers to the images of a DICOM series; this scan is none. Choose NIfTI, NRRD or "
            "MetaImage."
        )
    from napari_oneseg.dicom_seg import write_dicom_seg

    assert scan.path is not None
    write_dicom_seg(path, labels, scan.source, scan.path, segments)


def is_dicom(scan: OpenScan) -> bool:
    """Return whether a scan came from a folder with a DICOM series that is still there."""
    return scan.path is not None and scan.path.is_dir()


def _segments(record: Mapping[str, Any]) -> dict[int, Segment]:
    names, colours = record.get("label_names", {}), record.get("label_colours", {})
    return {
        int(value): Segment(name, tuple(colours.get(value, (1.0, 0.0, 0.0, 1.0))[:3])) for value, name in names.items()
    }


def _label_entries(
    labels: NDArray[np.integer[Any]], scan: OpenScan, record: Mapping[str, Any]
) -> dict[str, dict[str, Any]]:
    """Describe every label that the file holds or that has a name."""
    names, colours = record.get("label_names", {}), record.get("label_colours", {})
    voxels: dict[int, int] = {}
    held: dict[int, list[int]] = {}
    for index, image in enumerate(scan.shown.to_slices(labels)):
        for value, count in zip(*np.unique(image[image > 0], return_counts=True), strict=True):
            voxels[int(value)] = voxels.get(int(value), 0) + int(count)
            held.setdefault(int(value), []).append(index)
    return {
        str(value): {
            "name": names.get(str(value), ""),
            "colour": _hex(colours[str(value)]) if str(value) in colours else None,
            "voxels": voxels.get(value, 0),
            "volume_ml": voxels.get(value, 0) * scan.shown.voxel_ml,
            "slices": [held[value][0], held[value][-1]] if value in held else None,
        }
        for value in sorted(voxels.keys() | {int(key) for key in names})
    }


def _export_entry(path: Path, scan: OpenScan) -> dict[str, Any]:
    source = scan.source
    return {
        "file": path.name,
        "scan_sha256": source.content_hash,
        "shape": source.array.shape,
        "spacing_mm": source.spacing,
        "spacing_known": source.spacing_known,
        "origin_mm": source.origin,
        "direction": np.asarray(source.direction),
        # Slice numbers in this record count along one axis of the scan as it was shown: the file's axis
        # "shown_axes"[slice_axis], from its end where "shown_flips" says so.
        "slice_axis": scan.shown.axis,
        "shown_axes": scan.orientation.axes,
        "shown_flips": scan.orientation.flips,
    }


def _hex(colour: Sequence[float]) -> str:
    return "#" + "".join(f"{round(255 * float(part)):02x}" for part in colour[:3])


def _plain(value: Any) -> Any:
    """Return values that JSON knows: NaN and infinity become null."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, np.ndarray | np.generic):
        return _plain(value.tolist())
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
