"""What a result rests on, as a plain record: scan, painting, parameters, weights, versions. It names no file."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np

from napari_oneseg import __version__
from napari_oneseg.config import Direction
from napari_oneseg.device import describe_device
from napari_oneseg.file_order import file_grid, file_slice
from napari_oneseg.planes import plane_name
from napari_oneseg.screening import checked_range
from napari_oneseg.session import OneSegSession, Propagation
from napari_oneseg.session_result import expected_by_slice
from napari_oneseg.volume import Volume

__all__ = ["export_record", "file_place", "painted_record", "propagation_record", "scan_record", "software_versions"]

# Whatever the result, or the way it is shown, depends on.
_PACKAGES = ("torch", "numpy", "scipy", "scikit-learn", "SimpleITK", "napari")


def software_versions() -> dict[str, str | None]:
    """Return the versions of this package, Python and the packages it rests on; None where one is not installed.

    Nothing is imported for it.
    """
    versions: dict[str, str | None] = {"napari-oneseg": __version__, "python": platform.python_version()}
    for package in _PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = None
    return versions


def scan_record(volume: Volume) -> dict[str, Any]:
    """Describe a scan, and how its slices are counted: in the scan's order, and in the array of its file.

    Returns
    -------
    Plain values for JSON. ``file_axis`` is the axis of the file's array ``data[i, j, k]`` that the slices follow each
    other along, and ``file_index`` lists for each slice its index there, all counted from 0.
    """
    places = [file_slice(volume, index) for index in range(volume.n_slices)]
    return {
        "sha256": volume.content_hash,
        "shape": list(volume.array.shape),
        "spacing_mm": [float(step) for step in volume.spacing],
        "spacing_known": volume.spacing_known,
        "slice_axis": volume.axis,
        "plane": plane_name(volume.direction, volume.axis),
        "slices": volume.n_slices,
        "file_axis": places[0][0],
        "file_index": [index for _, index in places],
    }


def file_place(volume: Volume, index: int) -> dict[str, int]:
    """Return what goes beside a slice's number in JSON: see :func:`~napari_oneseg.file_order.file_slice`."""
    axis, place = file_slice(volume, index)
    return {"file_axis": axis, "file_index": place}


def export_record(name: str, volume: Volume) -> dict[str, Any]:
    """Describe a label file: its grid, in the order (z, y, x) of the file's own array, and the scan that it belongs to.

    Parameters
    ----------
    name
        Of the label file.
    volume
        The scan.
    """
    grid = file_grid(volume)
    return {
        "file": name,
        "scan_sha256": volume.content_hash,
        "shape": list(grid.shape),
        "spacing_mm": list(grid.spacing),
        "spacing_known": volume.spacing_known,
        "origin_mm": list(grid.origin),
        "direction": grid.direction.tolist(),
    }


def painted_record(session: OneSegSession) -> list[dict[str, Any]]:
    """List every painted slice of every plane: plane, axis that it lies across, index, place in the scan's file."""
    volume = session.volume
    return [
        {
            "plane": plane_name(volume.direction, plane),
            "axis": plane,
            "index": index,
            "complete": index in annotation.complete,
            **file_place(replace(volume, slice_axis=plane), index),
        }
        for plane, annotation in session.painted_planes.items()
        for index in sorted(annotation.slices)
    ]


def propagation_record(
    session: OneSegSession,
    result: Propagation,
    slice_range: tuple[int, int] | None = None,
    direction: Direction = "both",
    seconds: Mapping[str, float] | None = None,
) -> dict[str, Any]:
    """Describe a propagation so that it can be judged, and repeated on the same scan.

    Parameters
    ----------
    session, result
        The session, and what its last propagation returned.
    slice_range, direction
        As they were given to :meth:`~napari_oneseg.session.OneSegSession.propagate`.
    seconds
        How long each stage took.

    Returns
    -------
    Plain values for JSON, but for NaN: the confidence of slices without labels.
    """
    volume, weights = session.volume, session.weights
    state = session.state
    confidence = [round(float(score), 4) for score in result.slice_confidence]
    return {
        "scan": scan_record(volume),
        "painted": sorted(state.painted),
        "complete": sorted(state.complete),
        "painted_slices": painted_record(session),
        "parameters": {
            "range": list(checked_range(slice_range, volume.n_slices)),
            "direction": direction,
            "propagation": session.propagation.to_dict(),
            "preprocessing": weights.preprocessing.to_dict(),
        },
        "labels": {label: _label_record(result, label) for label in result.volumes_ml},
        "confidence": confidence,
        "slices": _slice_records(expected_by_slice(result, session.annotation, volume), volume),
        "seconds": dict(seconds or {}),
        "device": describe_device(session.device),
        "weights": {"name": weights.name, "sha256": weights.sha256},
        "versions": software_versions(),
    }


def _slice_records(expected: Mapping[int, Mapping[int, float]], volume: Volume) -> list[dict[str, Any]]:
    """Return, of each slice that shows a label, where it lies and how good each of its labels is expected to be."""
    plane = plane_name(volume.direction, volume.axis)
    return [
        {
            "plane": plane,
            "index": index,
            **file_place(volume, index),
            "labels": {str(label): {"expected_dice": round(dice, 3)} for label, dice in labels.items()},
        }
        for index, labels in expected.items()
    ]


def _label_record(result: Propagation, label: int) -> dict[str, Any]:
    held = np.flatnonzero((result.labels == label).any(axis=(1, 2)))
    return {"volume_ml": result.volumes_ml[label], "slices": [int(held[0]), int(held[-1])]}
