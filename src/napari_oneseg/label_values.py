"""Values of a label file that are not quite labels: whole numbers after a rounding, and NaN for "not drawn on"."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_oneseg.errors import AnnotationError

__all__ = ["whole_labels"]

_ROUNDED = 1e-3
"""Labels that a scaling has left just beside whole numbers are off by no more."""


def whole_labels(array: NDArray[Any], nan: int, name: str) -> tuple[NDArray[Any], tuple[str, ...]]:
    """Return the values of a label file as whole numbers, and what the user must be told of it.

    Parameters
    ----------
    array
        Shape (z, y, x), integers or floats.
    nan
        How many voxels are NaN, or were in the file.
    name
        The file's name.

    Returns
    -------
    The array with 0 in the place of NaN, and rounded where all values are within 0.001 of whole numbers.

    Raises
    ------
    AnnotationError
        If a value is no whole number.
    """
    remarks = [f"{name} holds {nan} voxels that are NaN; they count as background (0)."] if nan else []
    if not np.issubdtype(array.dtype, np.floating):
        return array, tuple(remarks)
    values = np.nan_to_num(array, nan=0.0, posinf=np.inf, neginf=-np.inf) if nan else array
    rounded = np.rint(values)
    with np.errstate(invalid="ignore"):  # infinite less infinite
        off = np.abs(values - rounded)
    uneven = np.flatnonzero(~(off <= _ROUNDED))
    if uneven.size:
        raise AnnotationError(
            f"{name} is a float annotation with values such as {values.flat[uneven[0]]!s}; labels must be whole "
            "numbers (0 background, 1, 2, ...). If it is a probability map, apply a threshold first."
        )
    if off.any():
        example = values.flat[off.argmax()]
        remarks.append(f"{name} holds values beside whole numbers, such as {example!s}; they were rounded.")
    return rounded, tuple(remarks)
