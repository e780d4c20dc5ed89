"""Sessions of before there was one order of slices: made on the order of the scan's file, and turned to the patient's.

Until then the Python functions worked on a scan as its file has it. Such a session is told by the hash of its scan,
which was taken over the voxels in that order; nothing is guessed. It names no slice axis, as later ones do.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from napari_oneseg.config import Direction
from napari_oneseg.file_order import file_slice, in_file_order
from napari_oneseg.propagation.propagate import LabelledSlice
from napari_oneseg.session_file import SavedSession
from napari_oneseg.volume import Volume

__all__ = ["in_scan_order"]

T = TypeVar("T")
Scalar = TypeVar("Scalar", bound=np.generic)


def in_scan_order(saved: SavedSession, volume: Volume) -> SavedSession:
    """Return a session as it would have been made on a scan in patient order, along whichever axis it was made.

    Parameters
    ----------
    saved
        The session. One that names its slice axis is returned as it is.
    volume
        The scan that it was made on, as :func:`~napari_oneseg.io.read_volume` reads it.

    Returns
    -------
    The session, its slices and their rows and columns in the order of the scan, and its slice axis, which may be
    another than the scan's; the session as it was if it was made on another scan.
    """
    if saved.slice_axis is not None:
        return saved
    axes = sorted(range(3), key=lambda axis: axis != volume.axis)
    along = [replace(volume, slice_axis=axis) for axis in axes if volume.array.shape[axis] > 1]
    for scan in along:
        if scan.content_hash == saved.scan:
            return replace(saved, slice_axis=scan.axis)
    for scan in along:
        if in_file_order(scan).content_hash == saved.scan:
            return _turned(saved, scan)
    return saved


def _turned(saved: SavedSession, scan: Volume) -> SavedSession:
    """Turn a session from the order of a scan's file to that of the scan."""
    state = saved.state
    count = scan.n_slices
    is_flipped = file_slice(scan, 0)[1] != 0

    def number(index: int) -> int:
        return count - 1 - index if is_flipped else index

    def numbered(images: Any, turn: Callable[[Any], T]) -> dict[int, T]:
        return {number(index): turn(image) for index, image in images.items()}

    def image(array: NDArray[Scalar]) -> NDArray[Scalar]:
        axis = scan.to_file.axes.index(scan.axis)
        whole = scan.to_file.inverse.apply(np.expand_dims(array, axis))
        return np.ascontiguousarray(np.squeeze(whole, scan.axis))

    def result(found: LabelledSlice) -> LabelledSlice:
        return replace(found, index=number(found.index), labels=image(found.labels), confidence=image(found.confidence))

    ways: dict[Direction, Direction] = {"up": "down", "down": "up", "both": "both"}
    extras = dict(saved.extras)
    if isinstance(extras.get("slice"), int):
        extras["slice"] = number(extras["slice"])
    if extras.get("range"):
        extras["range"] = sorted(number(int(index)) for index in extras["range"])
    turned = replace(
        state,
        painted=numbered(state.painted, image),
        complete=frozenset(map(number, state.complete)),
        frozen=numbered(state.frozen, image),
        results=numbered(state.results, result),
        stale=frozenset(map(number, state.stale)),
        direction=ways[state.direction] if is_flipped else state.direction,
    )
    return replace(saved, scan=scan.content_hash, state=turned, slice_axis=scan.axis, extras=extras)
