"""A range of slices as users give it: first and last, both included."""

from __future__ import annotations

from napari_oneseg.errors import InputError

__all__ = ["checked_range"]


def checked_range(slice_range: tuple[int, int] | None, count: int) -> tuple[int, int]:
    """Return the first and last slice of a range, both included; the whole scan by default.

    Raises
    ------
    InputError
        If the range is reversed or reaches outside the scan.
    """
    if slice_range is None:
        return 0, count - 1
    first, last = slice_range
    if not 0 <= first <= last < count:
        raise InputError(
            f"Slice range {first}:{last} does not fit: expected FIRST:LAST with 0 <= FIRST <= LAST <= {count - 1}."
        )
    return int(first), int(last)
