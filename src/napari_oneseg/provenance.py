"""What a result rests on, as a plain record: scan, painting, parameters, weights, versions. It names no file."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np

from napari_oneseg import __version__
from napari_oneseg.config import Direction
from napari_oneseg.device import describe_device
from napari_oneseg.screening import checked_range
from napari_oneseg.session import OneSegSession, Propagation
from napari_oneseg.session_result import expected_by_slice

__all__ = ["propagation_record", "software_versions"]

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
    annotation = session.annotation
    confidence = [round(float(score), 4) for score in result.slice_confidence]
    return {
        "scan": {
            "sha256": volume.content_hash,
            "shape": list(volume.array.shape),
            "spacing_mm": [float(step) for step in volume.spacing],
            "slice_axis": volume.axis,
            "slices": volume.n_slices,
        },
        "painted": sorted(annotation.slices),
        "complete": sorted(annotation.complete),
        "parameters": {
            "range": list(checked_range(slice_range, volume.n_slices)),
            "direction": direction,
            "propagation": session.propagation.to_dict(),
            "preprocessing": weights.preprocessing.to_dict(),
        },
        "labels": {label: _label_record(result, label) for label in result.volumes_ml},
        "confidence": confidence,
        "slices": _slice_records(expected_by_slice(result, annotation, volume)),
        "seconds": dict(seconds or {}),
        "device": describe_device(session.device),
        "weights": {"name": weights.name, "sha256": weights.sha256},
        "versions": software_versions(),
    }


def _slice_records(expected: Mapping[int, Mapping[int, float]]) -> list[dict[str, Any]]:
    """Return, of each slice that shows a label, its index and how good each of its labels is expected to be."""
    return [
        {"index": index, "labels": {str(label): {"expected_dice": round(dice, 3)} for label, dice in labels.items()}}
        for index, labels in expected.items()
    ]


def _label_record(result: Propagation, label: int) -> dict[str, Any]:
    held = np.flatnonzero((result.labels == label).any(axis=(1, 2)))
    return {"volume_ml": result.volumes_ml[label], "slices": [int(held[0]), int(held[-1])]}
