"""Work on scans that are in the viewer and not open just now, to go on with when they are opened again."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from napari_oneseg.plugin.layer_grid import same_place

if TYPE_CHECKING:
    from napari.layers import Image, Layer

    from napari_oneseg.plugin.layer_grid import Matrix
    from napari_oneseg.plugin.scan_layer import LayerSnapshot
    from napari_oneseg.plugin.work import OpenedScan
    from napari_oneseg.session_file import SavedSession
    from napari_oneseg.session_state import SessionState
    from napari_oneseg.volume import LabelArray, Volume

__all__ = ["KeptWork", "WorkShelf"]


@dataclass(frozen=True, eq=False)
class KeptWork:
    """What was made on a scan, for the plane in which it is opened.

    Attributes
    ----------
    axis
        The axis of the slices.
    saved
        The session.
    extras
        Names and colours of labels, and the range.
    others
        Labels that were painted in other planes, in the order of this plane's slices, (n, rows, columns).
    """

    axis: int
    saved: SavedSession
    extras: Mapping[str, Any]
    others: LabelArray | None


@dataclass(frozen=True, eq=False)
class _Left:
    """Work as it was when its scan was left; the layer's place and array then, and what was made in other planes."""

    work: KeptWork
    volume: Volume
    world: Matrix
    array: Any
    index: int
    planes: Mapping[int, SessionState]


class WorkShelf:
    """Keeps the work on each scan, whatever the plane it was made in.

    Attributes
    ----------
    array
        The array of the layer that was taken last, as it was then.
    index
        The slice that it was left at, None where that is not known in this plane.
    complaint
        Why work could not be taken; empty where there was none, or it was.
    """

    def __init__(self) -> None:
        self._left: dict[int, _Left] = {}
        self._planes: Mapping[int, SessionState] = {}
        self._others: LabelArray | None = None
        self.array: Any = None
        self.index: int | None = None
        self.complaint = ""

    def put(self, layer: Image, opened: OpenedScan, saved: SavedSession, extras: Mapping[str, Any], index: int) -> None:
        """Keep the work on the scan that was taken last."""
        volume = opened.session.volume
        work = KeptWork(volume.axis, saved, extras, self._others)
        world = opened.scan.record.in_viewer
        self._left[id(layer)] = _Left(work, volume, world, self.array, index, self._planes)

    def take(self, layer: Image, snapshot: LayerSnapshot, axis: int | None) -> KeptWork | None:
        """Return what was made on a scan, for a plane; by default the one it was left in. None where that is nothing.

        Labels that were propagated before the layer was scaled, or got other voxels, are out of date.
        """
        left = self._left.get(id(layer))
        self.array, self.index, self.complaint, self._planes, self._others = layer.data, None, "", {}, None
        if left is None:
            return None
        if tuple(snapshot.data.shape[-3:]) != left.volume.array.shape:
            del self._left[id(layer)]
            self.complaint = (
                f"'{snapshot.name}' has another shape than before; the work on it is kept for the scan as it was."
            )
            return None
        work = left.work
        if not (same_place(snapshot.world, left.world) and self.array is left.array):
            work = replace(work, saved=replace(work.saved, state=work.saved.state.out_of_date()))
        self._planes, self._others = left.planes, work.others
        if axis is None or axis == work.axis:
            self.index = left.index
            return work
        return self._turned(left, work, axis)

    def _turned(self, left: _Left, work: KeptWork, axis: int) -> KeptWork:
        from napari_oneseg.plugin.plane_change import turned
        from napari_oneseg.session_state import SessionState

        state = work.saved.state
        self._planes = {**left.planes, work.axis: state}
        turned_state, self._others = turned(
            state, left.volume, work.others, axis, left.planes.get(axis, SessionState())
        )
        return KeptWork(axis, replace(work.saved, state=turned_state), work.extras, self._others)

    def clear_but(self, layers: Iterable[Layer]) -> None:
        """Forget scans that are no longer in the viewer."""
        present = set(map(id, layers))
        self._left = {key: left for key, left in self._left.items() if key in present}
