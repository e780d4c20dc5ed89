"""The voxel size in a TIFF file: napari shows the file's pixels and does not look for their size."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
from napari.layers import Layer

__all__ = ["tiff_spacing", "unscaled_tiff"]

_ENDINGS = (".tif", ".tiff")
_MM = {
    "m": 1000.0, "cm": 10.0, "mm": 1.0, "millimeter": 1.0, "centimeter": 10.0, "inch": 25.4, "um": 1e-3, "µm": 1e-3,
    "μm": 1e-3, "micron": 1e-3, "microns": 1e-3, "nm": 1e-6,
}  # fmt: skip
_X_RESOLUTION, _Y_RESOLUTION = 282, 283


def unscaled_tiff(layer: Layer) -> Path | None:
    """Return the TIFF file that a layer was opened from, if it is there and nobody has given the layer a scale."""
    path = Path(layer.source.path) if layer.source.path else None
    if path is None or not path.name.lower().endswith(_ENDINGS) or not path.is_file():
        return None
    matrix = layer.affine.affine_matrix[:-1, :-1]
    is_plain = np.allclose(layer.scale, 1) and np.allclose(matrix, np.eye(layer.ndim))
    return path if is_plain and all(unit.dimensionality == {} or str(unit) == "pixel" for unit in layer.units) else None


def tiff_spacing(path: Path, shape: tuple[int, ...]) -> tuple[float, float, float] | None:
    """Return the voxel size along (z, y, x) in mm, as OME-TIFF or ImageJ have written it.

    Parameters
    ----------
    path
        The file.
    shape
        Of the scan, (z, y, x): of a file that holds another one the size is of no use.

    Returns
    -------
    None where the file does not say all three lengths, with a unit.
    """
    import tifffile

    try:
        with tifffile.TiffFile(path) as file:
            if tuple(side for side in file.series[0].shape if side != 1) != tuple(side for side in shape if side != 1):
                return None
            found = _of_ome(file) if file.is_ome else _of_imagej(file) if file.is_imagej else None
    except (OSError, ValueError, LookupError, TypeError, ArithmeticError, tifffile.TiffFileError):
        return None  # it is shown, so its voxels can be read: only their size is not known
    if found is None or not all(np.isfinite(side) and side > 0 for side in found):
        return None
    return found


def _of_ome(file: Any) -> tuple[float, float, float] | None:
    pixels = re.search(r"<(?:\w+:)?Pixels\b[^>]*>", file.ome_metadata or "")
    entries = dict(re.findall(r"(\w+)=[\"']([^\"']*)[\"']", pixels.group())) if pixels else {}
    z, y, x = (
        float(entries[f"PhysicalSize{axis}"]) * _MM[entries.get(f"PhysicalSize{axis}Unit", "µm")] for axis in "ZYX"
    )
    return z, y, x


def _of_imagej(file: Any) -> tuple[float, float, float] | None:
    told = file.imagej_metadata or {}
    unit = _MM[str(told["unit"]).replace("\\u00B5", "µ").strip()]
    tags = file.pages[0].tags
    # So many units have so many pixels.
    (pixels_y, units_y), (pixels_x, units_x) = tags[_Y_RESOLUTION].value, tags[_X_RESOLUTION].value
    return float(told["spacing"]) * unit, units_y / pixels_y * unit, units_x / pixels_x * unit
