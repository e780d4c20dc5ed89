"""One scan on the screen: which layers belong to which scan, and that no other scan's are seen, selected or painted.

Strategy. A scan is its image layer. Labels layers belong to the scan that they were painted for, or whose voxels they
share; whatever else is in the viewer belongs to nobody and is left alone. While a scan is open the others' layers are
hidden, and those that the user has not hidden himself come back with their scan. Who selects a layer of another scan
asks for that scan. What napari selects on its own, because a layer was removed, nobody has asked for.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Image, Labels, Layer
from qtpy.QtCore import QObject, QTimer, Signal

from napari_oneseg.plugin.beneath import is_aid, is_placed, lies_on, may_be_scan, same_voxels
from napari_oneseg.plugin.layer_grid import same_place, world_frame
from napari_oneseg.plugin.scan_layer import kept_record, metadata_of

if TYPE_CHECKING:
    import napari

    from napari_oneseg.plugin.scan_layer import OpenScan

__all__ = ["ScanScene"]

_PLACING = ("scale", "translate", "rotate", "shear", "affine", "units", "data")


@dataclass(frozen=True)
class _Owner:
    """The scan that a layer belongs to; the file tells it when it is opened once more."""

    image: weakref.ref[Image]
    path: Path | None


class ScanScene(QObject):
    """Keeps a viewer to the one scan that is open.

    Parameters
    ----------
    viewer
        The viewer.

    Attributes
    ----------
    image
        The layer of the open scan, or of the one that is being opened.
    labels
        The layer that is painted on.
    """

    chosen = Signal(object)
    """The user has selected a layer of another scan: its image layer."""
    selected = Signal()
    """Another layer is selected."""
    moved = Signal()
    """The open scan's layer was moved or scaled, or shows other voxels."""

    def __init__(self, viewer: napari.Viewer, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._viewer = viewer
        self.image: Image | None = None
        self.labels: Labels | None = None
        self._scan: OpenScan | None = None
        self._owners: weakref.WeakKeyDictionary[Layer, _Owner] = weakref.WeakKeyDictionary()
        self._hidden: weakref.WeakSet[Layer] = weakref.WeakSet()
        self._quiet = self._closed = False
        self._removal = QTimer(self)
        self._removal.setSingleShot(True)
        self._removal.setInterval(0)
        self._removal.timeout.connect(self._after_removal)
        viewer.layers.events.inserted.connect(self._inserted)
        viewer.layers.events.removed.connect(self._removed)
        viewer.layers.selection.events.active.connect(self._selected)
        viewer.dims.events.range.connect(self._keep_slider)

    def close(self) -> None:
        """Let go of the viewer, and show what was hidden."""
        self._closed = True
        self._removal.stop()
        self.show(None)
        for layer in list(self._hidden):
            layer.visible = True
        self._hidden.clear()
        self._viewer.layers.events.inserted.disconnect(self._inserted)
        self._viewer.layers.events.removed.disconnect(self._removed)
        self._viewer.layers.selection.events.active.disconnect(self._selected)
        self._viewer.dims.events.range.disconnect(self._keep_slider)

    # What belongs to which scan ------------------------------------------------------------------------------------

    def belongs_to(self, layer: Layer, image: Image) -> bool:
        """Whether a layer is a scan's image, or belongs to it."""
        return self._is_owned(layer) and self.owner(layer) is image

    def owner(self, layer: Layer) -> Image | None:
        """Return the scan that a layer belongs to; None where that is none, or one that was removed."""
        if may_be_scan(layer):
            image: Image = layer
            return image
        owner = self._owners.get(layer)
        image_then = None if owner is None else owner.image()
        return image_then if image_then in self._viewer.layers else None

    def _is_owned(self, layer: Layer) -> bool:
        """Whether a layer belongs to a scan, if only to one that was removed."""
        if layer not in self._owners and isinstance(layer, Labels):
            found = self._scan_of(layer)
            if found is not None:
                self._owners[layer] = _Owner(weakref.ref(found), None)
        return may_be_scan(layer) or layer in self._owners

    def claim(self, layer: Layer) -> None:
        """Note that a layer belongs to the open scan."""
        if self.image is not None:
            path = self._scan.path if self._scan is not None else None
            self._owners[layer] = _Owner(weakref.ref(self.image), path)

    def _scan_of(self, labels: Labels) -> Image | None:
        """Return the one scan whose voxels a labels layer has that nobody has claimed."""
        scans: list[Image] = [layer for layer in self._viewer.layers if may_be_scan(layer)]
        record = kept_record(labels.metadata)
        if record is None:
            found = [scan for scan in scans if same_voxels(labels, scan)]
        else:
            kept = [(scan, kept_record(scan.metadata)) for scan in scans]
            found = [scan for scan, other in kept if other is not None and other.volume is record.volume]
            place = record.to_patient @ world_frame(labels, np.ones(3))
            found = found or [
                scan
                for scan, other in kept
                if other is not None
                and same_voxels(labels, scan)
                and same_place(place, other.to_patient @ world_frame(scan, np.ones(3)))
            ]
        if len(found) > 1 and self.image in found:
            return self.image
        return found[0] if len(found) == 1 else None

    # What is on the screen -----------------------------------------------------------------------------------------

    def show(self, image: Image | None, scan: OpenScan | None = None) -> None:
        """Show one scan and no other; where none is given, leave all layers as they are.

        Parameters
        ----------
        image
            Its layer.
        scan
            What was read of it, once that is known.
        """
        if image is not self.image:
            self._watch(image)
            self.image = image
        self._scan = scan
        if image is not None and scan is not None and scan.path is not None:
            self._take_back(image, scan.path)
        if image is not None:
            for layer in self._viewer.layers:
                self._uncover(layer)
        self._keep_slider()

    def fit(self) -> None:
        """Fit the view to the open scan."""
        if self.image is not None and self.image in self._viewer.layers:
            self._viewer.fit_to_view(layers=[self.image])

    def _take_back(self, image: Image, path: Path) -> None:
        """Let layers that belonged to a scan which was removed belong to it again: it was opened once more."""
        for layer in self._viewer.layers:
            owner = self._owners.get(layer)
            if owner is not None and owner.path == path and self.owner(layer) is None:
                self._owners[layer] = _Owner(weakref.ref(image), path)

    def _uncover(self, layer: Layer) -> None:
        if self.image is None or not self._is_owned(layer):
            return
        if self.owner(layer) is not self.image:
            if layer.visible:
                layer.visible = False
                self._hidden.add(layer)
        elif layer in self._hidden:
            self._hidden.discard(layer)
            layer.visible = True

    def _keep_slider(self, _event: Any = None) -> None:
        """Have the sliders span the open scan: napari has them span all layers, those that are hidden too."""
        layers, dims = self._viewer.layers, self._viewer.dims
        if not len(layers) or dims.ndim < 3:
            return
        spanned = layers.extent if self.image is None or self.image not in layers else layers.get_extent([self.image])
        own = list(zip(spanned.world[0], spanned.world[1], spanned.step, strict=True))[-3:]
        wanted = tuple(tuple(float(part) for part in side) for side in (*dims.range[: dims.ndim - len(own)], *own))
        if tuple(tuple(map(float, side)) for side in dims.range) != wanted:
            dims.range = wanted

    # What is selected ----------------------------------------------------------------------------------------------

    @contextmanager
    def quietly(self) -> Iterator[None]:
        """Take what is added, removed or selected within for nobody's wish."""
        before, self._quiet = self._quiet, True
        try:
            yield
        finally:
            self._quiet = before

    @property
    def warning(self) -> str:
        """What is to be said where strokes would land: empty where they belong to the open scan."""
        active = self._viewer.layers.selection.active
        if not isinstance(active, Labels) or active is self.labels:
            return ""
        if self.image is None:
            return "No scan is open: strokes are in no export."
        instead = f"Select '{self.labels.name}'" if self.labels is not None else "Press 'Paint'"
        return f"Strokes on this layer are in no export.\n{instead}, or choose this layer under 'Labels'."

    def _selected(self, _event: Any = None) -> None:
        active = self._viewer.layers.selection.active
        self.selected.emit()
        if active is None or self._quiet or self._removal.isActive() or not self._is_owned(active):
            return
        owner = self.owner(active)
        if owner is not None and owner is not self.image:
            self.chosen.emit(owner)

    def select(self) -> None:
        """Select the layer that is painted on, or the scan's; nothing where none is open."""
        layers = self._viewer.layers
        wanted = next((one for one in (self.labels, self.image) if one is not None and one in layers), None)
        with self.quietly():
            layers.selection.active = wanted

    # Events --------------------------------------------------------------------------------------------------------

    def _inserted(self, event: Any) -> None:
        """Have a layer that appears on the open scan, and says nothing of its place, remember that it is its."""
        layer, image, scan = event.value, self.image, self._scan
        if not (may_be_scan(layer) or isinstance(layer, Labels)):
            return
        if not self._quiet:
            self._removal.stop()  # what was added is selected now, and that is the user's wish
        if image is None or layer is image:
            return
        of_file = layer.source.path is not None and not isinstance(layer, Labels)
        if scan is not None and not of_file and not is_placed(layer) and lies_on(layer, image):
            layer.metadata = {**layer.metadata, **metadata_of(scan.record)}
            if isinstance(layer, Labels):
                self.claim(layer)

    def _removed(self, event: Any) -> None:
        self._hidden.discard(event.value)
        if not self._quiet and not self._closed:
            self._removal.start()  # napari selects another layer now

    def _after_removal(self) -> None:
        active = self._viewer.layers.selection.active
        if self.image is None or self.image not in self._viewer.layers:
            return
        if active is None or is_aid(active) or (self._is_owned(active) and self.owner(active) is not self.image):
            self.select()

    def _watch(self, image: Image | None) -> None:
        for name in _PLACING:
            if self.image is not None:
                getattr(self.image.events, name).disconnect(self._placed)
            if image is not None:
                getattr(image.events, name).connect(self._placed)

    def _placed(self, _event: Any = None) -> None:
        self.moved.emit()
