"""The viewer's side: which slice is on screen, layers on top of the scan, marks, clicks. It decides nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Image, Labels, Layer
from napari.utils.colormaps import Colormap, DirectLabelColormap
from numpy.typing import NDArray
from qtpy.QtCore import QObject, Signal

from napari_oneseg.plugin.beneath import AID, may_be_scan
from napari_oneseg.plugin.orientation_markers import OrientationMarkers
from napari_oneseg.plugin.scan_layer import labels_layer_kwargs, record_of
from napari_oneseg.plugin.scan_scene import ScanScene
from napari_oneseg.plugin.view_model import Colour

if TYPE_CHECKING:
    import napari

    from napari_oneseg.plugin.scan_layer import OpenScan

__all__ = ["ViewerLink", "colormap"]

FRAME, DOUBT, ORIGIN = "Suggested slice", "Doubt", "Where it comes from"
"""Names of the layers that only show something."""
_FRAME_COLOUR = "#ffd166"
# Nothing where there is no doubt, so that scan and labels stay visible; added to a bright scan every colour is white.
_DOUBT_COLOURS = Colormap([[1.0, 0.6, 0.0, 0.0], [1.0, 0.6, 0.0, 0.4], [1.0, 0.9, 0.1, 0.8]], name="doubt")


class ViewerLink(QObject):
    """What the widget reads from the viewer and shows in it, for one scan at a time.

    Parameters
    ----------
    viewer
        The viewer.
    """

    slice_shown = Signal(int)
    """Another slice of the scan is on screen."""
    layers_changed = Signal()
    """Layers were added, removed or renamed."""
    window_changed = Signal()
    """Other grey values are shown black and white."""
    clicked = Signal(int, int, int)
    """A click that was asked for: slice, row, column."""

    def __init__(self, viewer: napari.Viewer, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self.viewer = viewer
        self.scene = ScanScene(viewer, self)
        """Keeps the viewer to the one scan."""
        self.layer: Image | None = None
        """The scan that is open."""
        self.axis = 0
        self.scan: OpenScan | None = None
        self.marked: int | None = None
        """The slice that is framed."""
        self._extra: dict[str, Layer] = {}
        self._clicks = False
        self._markers = OrientationMarkers(viewer)
        viewer.dims.events.point.connect(self._moved)
        viewer.dims.events.order.connect(self._moved)
        for event in (viewer.layers.events.inserted, viewer.layers.events.removed, viewer.layers.events.reordered):
            event.connect(self._changed)

    def close(self) -> None:
        """Let go of the viewer."""
        self.want_click(False)
        self.scene.close()
        if self.layer is not None:
            self.layer.events.contrast_limits.disconnect(self._window_changed)
        self._markers.close()
        self.write_on_canvas("")
        self.viewer.dims.events.point.disconnect(self._moved)
        self.viewer.dims.events.order.disconnect(self._moved)
        layers = self.viewer.layers.events
        for event in (layers.inserted, layers.removed, layers.reordered):
            event.disconnect(self._changed)

    # The scan ------------------------------------------------------------------------------------------------------

    def follow(self, layer: Image | None, scan: OpenScan | None) -> None:
        """Follow a scan, whose slices are shown one by one from now on."""
        self.want_click(False)
        if self.layer is not None:
            self.layer.events.contrast_limits.disconnect(self._window_changed)
        if layer is not None:
            layer.events.contrast_limits.connect(self._window_changed)
        self.layer, self.scan = layer, scan
        self.unmark()
        self.remove(DOUBT)
        self.remove(ORIGIN)
        self._markers.follow(self._directions())
        if layer is None or scan is None:
            return
        self.axis = scan.shown.axis
        self.face()

    def face(self) -> None:
        """Show the plane in which slices are painted, in 2D."""
        dims = self.viewer.dims
        first = dims.ndim - 3
        rest = [axis for axis in range(dims.ndim) if axis != first + self.axis]
        order = (*rest[:first], first + self.axis, *rest[first:])
        if dims.ndisplay != 2:
            dims.ndisplay = 2
        if tuple(dims.order) != order:
            dims.order = order

    def scans(self) -> list[Image]:
        """Return the image layers that may be scans, the topmost last."""
        return [layer for layer in self.viewer.layers if may_be_scan(layer)]

    def label_layers(self) -> list[Labels]:
        """Return the labels layers that have as many voxels as the open scan, on whichever grid."""
        if self.scan is None:
            return []
        shape = self.scan.shown.array.shape
        return [
            layer
            for layer in self.viewer.layers
            if isinstance(layer, Labels) and not layer.multiscale and tuple(layer.data.shape) == shape
        ]

    def current(self) -> int | None:
        """Return the slice on screen; None in 3D, in another plane, or beside the scan."""
        layer, dims = self.layer, self.viewer.dims
        if layer is None or dims.ndim - 3 + self.axis in dims.displayed:
            return None
        index = self.nearest()
        return index if index is not None and self.scan and 0 <= index < self.scan.shown.n_slices else None

    def nearest(self) -> int | None:
        """Return the slice at the viewer's position, whatever is displayed."""
        if self.layer is None:
            return None
        return round(float(self._voxel(self.viewer.dims.point)[self.axis]))

    def go_to(self, index: int) -> None:
        """Show a slice."""
        if self.layer is None:
            return
        self.face()
        voxel = np.zeros(self.layer.ndim)
        voxel[self.axis - 3] = (index + 0.5) * self._coarseness()[self.axis] - 0.5
        world = self.layer.data_to_world(voxel)
        dims = self.viewer.dims
        dims.set_point(dims.ndim - 3 + self.axis, world[self.axis - 3])

    def _coarseness(self) -> NDArray[np.float64]:
        """Return how many of the layer's voxels, along (z, y, x), one of the scan's stands for: see its levels."""
        if self.layer is None or self.scan is None:
            return np.ones(3)
        return np.divide(self.layer.data.shape[-3:], self.scan.shown.array.shape)

    def _voxel(self, position: Sequence[float]) -> NDArray[np.float64]:
        """Return where in the scan, (z, y, x), a position in napari's world lies."""
        assert self.layer is not None
        # A viewer of more dimensions shows the layer in the last ones.
        point = np.concatenate([np.zeros(self.layer.ndim), position])[-self.layer.ndim :]
        place = np.asarray(self.layer.world_to_data(point))[-3:]
        return (place + 0.5) / self._coarseness() - 0.5

    def _directions(self) -> NDArray[np.float64] | None:
        """Return where in the patient napari's last three axes lead, (x, y, z) in each column.

        None where only napari's own world is known of a layer, which says nothing of a patient.
        """
        layer, scan = self.layer, self.scan
        if layer is None or scan is None:
            return None
        shape = scan.shown.array.shape
        if not (record_of(layer.metadata, shape) or scan.shown.header or "coordinate_system" in layer.metadata):
            return None
        beginning = self._voxel((0.0, 0.0, 0.0))
        steps = np.stack([self._voxel(unit) - beginning for unit in np.eye(3).tolist()], axis=1)
        directions: NDArray[np.float64] = scan.shown.direction @ (np.array(scan.shown.spacing)[:, None] * steps)
        return directions

    @property
    def window(self) -> tuple[float, float] | None:
        """The grey values that are shown black and white, None where no scan is followed."""
        if self.layer is None:
            return None
        low, high = self.layer.contrast_limits
        return float(low), float(high)

    def set_window(self, low: float, high: float) -> None:
        """Show grey values from low to high."""
        if self.layer is not None:
            # The range of the slider must hold the window, or napari cuts it.
            least, most = self.layer.contrast_limits_range
            self.layer.contrast_limits_range = (min(least, low), max(most, high))
            self.layer.contrast_limits = (low, high)

    # Labels --------------------------------------------------------------------------------------------------------

    def add_labels(self, name: str) -> Labels:
        """Add an empty labels layer that lies exactly on the scan."""
        assert self.scan is not None
        data = np.zeros(self.scan.shown.array.shape, np.uint8)
        layer = Labels(data, name=name, opacity=0.5, **labels_layer_kwargs(self.scan))
        self.viewer.add_layer(layer)
        return layer

    def select(self, layer: Layer) -> None:
        """Make a layer the one that is worked on."""
        self.viewer.layers.selection.active = layer

    def focus(self) -> None:
        """Give the canvas the keyboard."""
        self.viewer.window._qt_viewer.canvas.native.setFocus()  # noqa: SLF001 - there is no public way to it

    # Marks ---------------------------------------------------------------------------------------------------------

    def mark(self, index: int) -> None:
        """Frame a slice."""
        if self.scan is None or self.layer is None:
            return
        self.unmark()
        sides = [axis for axis in (0, 1, 2) if axis != self.axis]
        rows, columns = (self.scan.shown.array.shape[axis] for axis in sides)
        # As wide in mm on all sides, however long the voxels are, and round the slice, so that nothing is covered.
        steps = [self.scan.shown.spacing[axis] for axis in sides]
        width = max(rows * steps[0], columns * steps[1]) / 120
        high, wide = width / steps[0], width / steps[1]
        bottom, right = rows - 0.5, columns - 0.5
        bars = [
            np.insert(np.array([[y, x], [y, x + w], [y + h, x + w], [y + h, x]]), self.axis, float(index), axis=1)
            for y, x, h, w in (
                (-0.5 - high, -0.5 - wide, high, columns + 2 * wide),
                (bottom, -0.5 - wide, high, columns + 2 * wide),
                (-0.5, -0.5 - wide, float(rows), wide),
                (-0.5, right, float(rows), wide),
            )
        ]
        kwargs: dict[str, Any] = dict(self.scan.display)
        active = self.viewer.layers.selection.active
        layer = self.viewer.add_shapes(
            bars, shape_type="polygon", edge_color="transparent", face_color=_FRAME_COLOUR, edge_width=0,
            name=FRAME, metadata=AID, **kwargs,
        )  # fmt: skip
        layer.editable = False
        self._extra[FRAME] = layer
        self.marked = index
        self._back_to(active)

    def unmark(self) -> None:
        """Take the frame away."""
        self.marked = None
        self.remove(FRAME)

    def write_on_canvas(self, text: str) -> None:
        """Show a line over the slice; none where it is empty."""
        overlay = self.viewer.canvas.overlays.text
        overlay.text = text
        # Where napari sets it above the letter, instead of one across the other on a narrow canvas.
        overlay.position = "bottom_center" if text else "bottom_right"
        overlay.visible = bool(text)

    def show_doubt(self, doubt: NDArray[np.float32]) -> None:
        """Show how doubtful each voxel is, 0 to 1, over the scan."""
        assert self.scan is not None
        layer = self._extra.get(DOUBT)
        if layer is not None and layer in self.viewer.layers:
            layer.data = doubt
            return
        active = self.viewer.layers.selection.active
        self._extra[DOUBT] = self.viewer.add_image(
            doubt, name=DOUBT, colormap=_DOUBT_COLOURS, blending="translucent", contrast_limits=(0.0, 0.8), rgb=False,
            metadata=AID, **self.scan.display,
        )  # fmt: skip
        self._back_to(active)

    def show_origin(self, points: NDArray[np.float64], sizes: NDArray[np.float64]) -> None:
        """Show the way of a label, one point per slice: shape (k, 3), in voxels of the shown scan; sizes in voxels."""
        assert self.scan is not None
        self.remove(ORIGIN)
        active = self.viewer.layers.selection.active
        self._extra[ORIGIN] = self.viewer.add_points(
            points, size=sizes, name=ORIGIN, face_color="transparent", border_color=_FRAME_COLOUR, border_width=0.25,
            metadata=AID, **self.scan.display,
        )  # fmt: skip
        self._back_to(active)

    def has(self, name: str) -> bool:
        """Return whether one of the layers that only show something is there."""
        layer = self._extra.get(name)
        return layer is not None and layer in self.viewer.layers

    def remove(self, name: str) -> None:
        """Remove one of the layers that only show something."""
        layer = self._extra.pop(name, None)
        if layer is not None and layer in self.viewer.layers:
            with self.scene.quietly():
                self.viewer.layers.remove(layer)

    def _back_to(self, active: Layer | None) -> None:
        if active is not None and active in self.viewer.layers:
            self.viewer.layers.selection.active = active

    # Clicks --------------------------------------------------------------------------------------------------------

    def want_click(self, wanted: bool) -> None:
        """Take the next clicks on the canvas as places instead of strokes."""
        if wanted != self._clicks:
            self._clicks = wanted
            callbacks = self.viewer.mouse_drag_callbacks
            if wanted:
                callbacks.insert(0, self._pressed)
            else:
                callbacks.remove(self._pressed)

    def _pressed(self, _viewer: napari.Viewer, event: Any) -> None:
        if self.layer is None or event.button != 1:
            return
        place = np.round(self._voxel(event.position)).astype(int)
        if (place >= 0).all() and self.scan is not None and (place < self.scan.shown.array.shape).all():
            index = int(place[self.axis])
            row, column = (int(value) for axis, value in enumerate(place) if axis != self.axis)
            self.clicked.emit(index, row, column)

    # Events --------------------------------------------------------------------------------------------------------

    def _moved(self, _event: Any = None) -> None:
        index = self.current()
        if index is not None:
            self.slice_shown.emit(index)

    def _window_changed(self, _event: Any = None) -> None:
        self.window_changed.emit()

    def _changed(self, _event: Any = None) -> None:
        self.layers_changed.emit()


def colormap(colours: Mapping[int, Colour], others: Callable[[int], Colour], values: Iterable[int]) -> Any:
    """Return the colours of a labels layer.

    Parameters
    ----------
    colours
        Colours that were chosen.
    others
        The colour of any other label.
    values
        Labels that must have one.
    """
    table: dict[int | None, Any] = {None: "transparent", 0: "transparent"}
    table |= {value: others(value) for value in values if value > 0}
    table |= {value: colour for value, colour in colours.items()}  # noqa: C416 - the keys' type is wider here
    return DirectLabelColormap(color_dict=table)
