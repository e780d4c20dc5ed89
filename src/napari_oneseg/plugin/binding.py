"""A labels layer and the work on a scan, kept the same: strokes go one way, results the other.

Strategy. napari says which voxels a stroke has changed; from them come the slices. What is written into the layer is
written in place, and never while a stroke is open: napari puts old voxels back when a stroke is given up, and would put
them over what was written meanwhile. Whatever changed the layer without an event (a script, napari's own undo) is found
by comparing slices: the one on screen whenever the layer is drawn anew, all of them before anything is saved.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtCore import QObject, Qt, QTimer, Signal
from qtpy.QtWidgets import QApplication

from napari_oneseg.volume import label_dtype

if TYPE_CHECKING:
    from collections.abc import Iterator

    from napari.layers import Labels

    from napari_oneseg.volume import LabelArray

__all__ = ["LabelsBinding", "make_room"]

_FLUSH_MS = 60


def make_room(layer: Labels, largest: int) -> None:
    """Give a layer's array a type that holds a label: written into a smaller one it would become another label."""
    dtype = layer.data.dtype
    if largest > np.iinfo(dtype).max:
        layer.data = layer.data.astype(np.promote_types(dtype, label_dtype(largest)))


class LabelsBinding(QObject):
    """Ties a labels layer to what is known of the slices.

    Parameters
    ----------
    layer
        Shape (z, y, x), held in memory.
    axis
        The axis of the slices.
    expected
        Returns what a slice is to show, (rows, columns).
    on_screen
        Returns the index of the slice on screen, None where several are (3D, or another plane).
    """

    stroked = Signal(object)
    """Slices that were changed in the layer: index to labels, (rows, columns)."""
    replaced = Signal()
    """The layer's array was replaced by one of another shape: it can no longer be used."""

    def __init__(
        self,
        layer: Labels,
        axis: int,
        expected: Callable[[int], LabelArray],
        on_screen: Callable[[], int | None],
        parent: QObject | None = None,
    ) -> None:
        super().__init__(parent)
        self.layer = layer
        self.axis = axis
        self._shape = tuple(layer.data.shape)
        self._expected = expected
        self._on_screen = on_screen
        self._writing = False
        # What is to be written, and what the layer shows there until then.
        self._waiting: dict[int, LabelArray] = {}
        self._present: dict[int, LabelArray] = {}
        self._touched_before: set[int] = set()
        self._released = False
        self._timer = QTimer(self)
        self._timer.setInterval(_FLUSH_MS)
        self._timer.timeout.connect(self._flush)
        layer.events.paint.connect(self._painted)
        layer.events.set_data.connect(self._drawn)
        layer.events.data.connect(self._data_replaced)

    def release(self) -> None:
        """Leave the layer as it is."""
        self._released = True
        self._flush(force=True)
        self._timer.stop()
        self.layer.events.paint.disconnect(self._painted)
        self.layer.events.set_data.disconnect(self._drawn)
        self.layer.events.data.disconnect(self._data_replaced)

    # From the layer ------------------------------------------------------------------------------------------------

    def _painted(self, event: Any) -> None:
        if self._writing:
            return
        touched = self._touched(event.value)
        # For an edit that is no mouse stroke napari says so before it has written the voxels.
        self._touched_before |= touched - self._take(touched)
        QTimer.singleShot(0, self._take_later)

    def _take_later(self) -> None:
        touched, self._touched_before = self._touched_before, set()
        if touched and not self._released:
            self._take(touched)

    def _touched(self, atoms: Iterable[Any]) -> set[int]:
        """Return the slices that the parts of a stroke lie on."""
        count = self._shape[self.axis]
        touched: set[int] = set()
        for atom in atoms:
            key = getattr(atom, "slice_key", None)
            along = (key if key is not None else atom[0])[self.axis]
            if isinstance(along, slice):
                touched.update(range(*along.indices(count)))
            else:
                touched.update(int(index) % count for index in np.unique(np.atleast_1d(along)))
        return touched

    def _drawn(self, _event: Any = None) -> None:
        """Napari's own undo, or a script, may have changed what is on screen."""
        index = self._on_screen()
        if not self._writing and index is not None and not self.stroke_is_open:
            self._take([index])

    def _data_replaced(self, _event: Any = None) -> None:
        if not self._fits:
            self._waiting.clear()
            self._present.clear()
            self.replaced.emit()
        elif not self._writing:
            self.compare()

    @property
    def _fits(self) -> bool:
        return isinstance(self.layer.data, np.ndarray) and tuple(self.layer.data.shape) == self._shape

    def compare(self) -> None:
        """Find every slice that was changed unnoticed, and take it as a stroke."""
        self._flush(force=not self.stroke_is_open)
        self._take(range(self._shape[self.axis]))

    def _take(self, indices: Iterable[int]) -> set[int]:
        """Take the slices that do not show what they should as strokes, and return them.

        What the user sees and paints on counts, also where something else was about to be written.
        """
        if not self._fits:
            return set()
        slices = np.moveaxis(self.layer.data, self.axis, 0)
        changed = {}
        for index in indices:
            shown = slices[index]
            present = self._present.get(index)
            if not np.array_equal(shown, self._expected(index) if present is None else present):
                changed[index] = self._as_labels(shown)
                self._waiting.pop(index, None)
                self._present.pop(index, None)
        if changed:
            self.stroked.emit(changed)
        return set(changed)

    @staticmethod
    def _as_labels(image: Any) -> LabelArray:
        """Return a copy as labels from 0 on; napari's layers may hold negative ones, which mean nothing here."""
        return np.maximum(image, 0) if np.issubdtype(image.dtype, np.signedinteger) else np.array(image)

    # To the layer --------------------------------------------------------------------------------------------------

    @property
    def stroke_is_open(self) -> bool:
        """Whether the user is drawing: a button is held, or a stroke was begun that lasts over several clicks."""
        overlay = self.layer._overlays.get("brush_stroke")  # noqa: SLF001 - there is no public way to know
        pressed = QApplication.mouseButtons() != Qt.MouseButton.NoButton
        return bool(overlay is not None and overlay.active) or (pressed and self.layer.mode != "pan_zoom")

    def write(self, images: Mapping[int, LabelArray]) -> None:
        """Show slices, index to labels, (rows, columns): a few times a second, and not into an open stroke."""
        if not self._fits:
            return
        slices = np.moveaxis(self.layer.data, self.axis, 0)
        for index in images.keys() - self._waiting.keys():
            self._present[index] = np.array(slices[index])
        self._waiting.update(images)
        touched = self._touched_before & images.keys()
        for index in touched:  # napari has announced a stroke there that nobody has taken yet
            self._present[index] = images[index]
        self._take(touched)
        if not self._timer.isActive():
            self._timer.start()
            self._flush()

    def _flush(self, force: bool = False) -> None:
        if not self._waiting or not self._fits:
            self._timer.stop()
            return
        if self.stroke_is_open and not force:
            return
        self._take_later()
        with self._quietly():
            make_room(self.layer, max((int(image.max(initial=0)) for image in self._waiting.values()), default=0))
        slices = np.moveaxis(self.layer.data, self.axis, 0)
        for index, image in self._waiting.items():
            slices[index] = image
        on_screen = self._on_screen()
        seen = on_screen is None or on_screen in self._waiting
        self._waiting.clear()
        self._present.clear()
        if seen:
            with self._quietly():
                self.layer.refresh(extent=False, highlight=False)

    @contextmanager
    def _quietly(self) -> Iterator[None]:
        before, self._writing = self._writing, True
        try:
            yield
        finally:
            self._writing = before
