"""The voxel size in an OME-Zarr folder: napari's own reader shows its arrays and does not look for their size.

Its metadata are small JSON files, so nothing else is needed to read them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from napari.layers import Layer

__all__ = ["UnscaledZarr", "unscaled_zarr", "zarr_spacing"]

_ENDING = ".zarr"
_MM = {"meter": 1000.0, "centimeter": 10.0, "millimeter": 1.0, "micrometer": 1e-3, "nanometer": 1e-6, "inch": 25.4}
_LARGEST_RECORD = 64 << 20


@dataclass(frozen=True)
class UnscaledZarr:
    """A folder that a layer was opened from, and the shape of the finest array in the layer."""

    path: Path
    shape: tuple[int, ...]


def unscaled_zarr(layer: Layer) -> UnscaledZarr | None:
    """Return the Zarr folder that a layer was opened from, if it is there and nobody has given the layer a scale."""
    path = Path(layer.source.path) if layer.source.path else None
    if path is None or not any(part.endswith(_ENDING) for part in path.parts) or not path.is_dir():
        return None
    matrix = layer.affine.affine_matrix[:-1, :-1]
    is_plain = np.allclose(layer.scale, 1) and np.allclose(matrix, np.eye(layer.ndim))
    if not is_plain or any(str(unit) != "pixel" for unit in layer.units):
        return None
    finest = layer.data[0] if getattr(layer, "multiscale", False) else layer.data
    return UnscaledZarr(path, tuple(int(side) for side in finest.shape))


def zarr_spacing(folder: UnscaledZarr) -> tuple[float, float, float] | None:
    """Return the voxel size along (z, y, x) in mm, as OME-Zarr 0.4 and later have it.

    Returns
    -------
    None where the folder is no OME-Zarr, does not say all three lengths with a unit, or describes another array.
    """
    try:
        for record, dataset in _described(folder):
            found = _scale(record, dataset)
            if found is not None and all(np.isfinite(side) and side > 0 for side in found):
                return found
    except (OSError, ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RecursionError):
        return None  # it is shown, so its voxels can be read: only their size is not known
    return None


def _described(folder: UnscaledZarr) -> Iterator[tuple[Mapping[str, Any], Mapping[str, Any]]]:
    """Yield what describes arrays of that shape: of the folder, or of the one around it where it is itself an array."""
    for group in (folder.path, folder.path.parent):
        attributes = _attributes(group)
        attributes = attributes.get("ome", attributes)
        for record in attributes.get("multiscales", ()):
            for dataset in record["datasets"]:
                array = group / dataset["path"]
                if folder.path not in (group, array):
                    continue
                if tuple(_shape(array)) == folder.shape:
                    yield record, dataset


def _attributes(group: Path) -> Mapping[str, Any]:
    found: Mapping[str, Any] = _json(group / ".zattrs") or _json(group / "zarr.json").get("attributes", {})
    return found


def _shape(array: Path) -> Sequence[int]:
    found: Sequence[int] = (_json(array / ".zarray") or _json(array / "zarr.json")).get("shape", ())
    return found


def _json(path: Path) -> dict[str, Any]:
    if not path.is_file() or path.stat().st_size > _LARGEST_RECORD:
        return {}
    content = json.loads(path.read_bytes())
    return content if isinstance(content, dict) else {}


def _scale(record: Mapping[str, Any], dataset: Mapping[str, Any]) -> tuple[float, float, float] | None:
    axes = record["axes"][-3:]
    if [axis["name"] for axis in axes] != ["z", "y", "x"]:
        return None
    size = np.array([_MM[axis["unit"]] for axis in axes])
    # One of the array, and perhaps one of all levels.
    steps = [*dataset["coordinateTransformations"], *record.get("coordinateTransformations", ())]
    scales = [step["scale"] for step in steps if step["type"] == "scale"]
    if not scales:
        return None
    for scale in scales:
        size = size * np.asarray(scale[-3:], float)
    z, y, x = (float(side) for side in size)
    return z, y, x
