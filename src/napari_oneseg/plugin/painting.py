"""The labels layer that is painted on: made or adopted, tied to the scan, with its tools, colours and keys."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Hashable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Labels
from qtpy.QtCore import QObject, Signal

from napari_oneseg.colours import colour_of
from napari_oneseg.orientation import Grid
from napari_oneseg.plugin.binding import LabelsBinding, make_room
from napari_oneseg.plugin.label_book import LARGEST_LABEL
from napari_oneseg.plugin.layer_grid import same_place, world_frame
from napari_oneseg.plugin.scan_layer import describe_layer, labels_layer_kwargs, record_of
from napari_oneseg.plugin.view_model import Choice
from napari_oneseg.plugin.viewer_link import colormap

if TYPE_CHECKING:
    from napari_oneseg.plugin.controller import Controller
    from napari_oneseg.plugin.viewer_link import ViewerLink
    from napari_oneseg.volume import LabelArray

__all__ = ["Painter"]

_MODES = {"brush": "paint", "eraser": "erase", "fill": "fill", "polygon": "polygon"}
_NEW = "new"
_LARGEST_VALUE = 65535


class Painter(QObject):
    """Ties a labels layer to the controller's session."""

    said = Signal(str, str)
    changed = Signal()

    def __init__(self, controller: Controller, link: ViewerLink, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._controller, self._link = controller, link
        self._binding: LabelsBinding | None = None
        self._used: weakref.WeakSet[Labels] = weakref.WeakSet()
        self._made: weakref.WeakSet[Labels] = weakref.WeakSet()
        self._coloured: set[int] = set()
        self.keys: Mapping[str, Callable[[], None]] = {}
        """Keys that the layer gets, and what they do."""
        controller.slices_changed.connect(self._write)
        controller.book.styled.connect(self._style)
        controller.changed.connect(self._colour)
        link.layers_changed.connect(self._layers_changed)

    @property
    def layer(self) -> Labels | None:
        """The layer that is painted on."""
        return self._binding.layer if self._binding else None

    @property
    def made_layer(self) -> Labels | None:
        """The layer that is painted on, if it was made here, and is not the user's."""
        return self.layer if self.layer in self._made else None

    # The layer -----------------------------------------------------------------------------------------------------

    def attach(self, layer: Labels | None = None) -> None:
        """Tie a layer to the open scan, a new one where none is given, and show in it what was made so far."""
        self.release()
        scan, table = self._controller.scan, self._controller.table
        if scan is None or table is None:
            return
        if layer is None or layer not in self._link.label_layers():
            with self._link.scene.quietly():
                layer = self._link.add_labels(f"{scan.name} labels")
            self._made.add(layer)
        self._fill(layer)
        self._bind(layer)
        self.start(go=False)

    def rejoin(self, layer: Labels) -> None:
        """Tie the layer to the open scan that was tied to it before; what was painted on it meanwhile counts."""
        if layer not in self._link.label_layers():
            self.attach()
            return
        self.release()
        self._bind(layer)
        self.compare()
        self.start(go=False)

    def _fill(self, layer: Labels) -> None:
        """Write what was made so far before the layer is tied: else what is missing would be taken for erased."""
        scan, table = self._controller.scan, self._controller.table
        assert scan is not None
        assert table is not None
        make_room(layer, max(table.values, default=0))
        slices = np.moveaxis(layer.data, scan.shown.axis, 0)
        for index in range(table.n_slices):
            image = self._controller.shown_labels(index)
            if image.any() or np.any(slices[index]):
                slices[index] = image
        layer.refresh(extent=False)

    def _place(self, layer: Labels) -> None:
        """Have a layer lie exactly on the scan, which may have been moved or scaled since the layer was made."""
        scan = self._controller.scan
        assert scan is not None
        kwargs = labels_layer_kwargs(scan)
        if not same_place(world_frame(layer, np.ones(3)), scan.record.in_viewer):
            for name in ("scale", "translate", "rotate", "shear", "affine", "units"):
                setattr(layer, name, kwargs[name])
        layer.metadata = {**layer.metadata, **kwargs["metadata"]}

    def _bind(self, layer: Labels) -> None:
        scan = self._controller.scan
        assert scan is not None
        binding = LabelsBinding(layer, scan.shown.axis, self._controller.shown_labels, self._link.current, self)
        binding.stroked.connect(self._controller.stroke)
        binding.replaced.connect(self._replaced)
        self._binding = binding
        self._link.scene.labels = layer
        self._link.scene.claim(layer)
        self._place(layer)
        self._used.add(layer)
        layer.events.selected_label.connect(self._label_selected)
        layer.events.mode.connect(self._tool_changed)
        layer.events.brush_size.connect(self._tool_changed)
        for key, action in self.keys.items():
            layer.bind_key(key, _key_function(action), overwrite=True)
        self._style()

    def release(self) -> None:
        """Leave the layer as it is: it is the user's."""
        binding, self._binding = self._binding, None
        if binding is None:
            return
        self._link.scene.labels = None
        binding.release()
        binding.deleteLater()
        events = binding.layer.events
        events.selected_label.disconnect(self._label_selected)
        events.mode.disconnect(self._tool_changed)
        events.brush_size.disconnect(self._tool_changed)
        for key in self.keys:
            binding.layer.bind_key(key, None)

    def choose(self, key: object) -> None:
        """Paint on another layer; what is on it counts as painted, where nothing was painted yet."""
        if key == _NEW:
            self.attach(None)
            self.start(go=False)
            return
        layer = next((one for one in self._link.label_layers() if id(one) == key), None)
        if layer is None or layer is self.layer:
            return
        if not isinstance(layer.data, np.ndarray):
            self.said.emit("This layer is not held in memory: duplicate it, and choose the copy.", "warning")
            return
        if layer.data.max(initial=0) > _LARGEST_VALUE:
            self.said.emit(
                f"'{layer.name}' holds values up to {layer.data.max()}; labels must lie between 0 (background) and "
                f"{_LARGEST_VALUE}. Renumber the labels.",
                "warning",
            )
            return
        differences = self._differences(layer)
        if differences:
            self.said.emit(
                f"'{layer.name}' is not on the scan's grid: {'; '.join(differences)}. Open the scan that it was drawn "
                "on, or resample it to this one with nearest-neighbour interpolation.",
                "warning",
            )
            return
        self.adopt(layer)

    def _differences(self, layer: Labels) -> list[str]:
        """Say in what a layer's grid differs from the open scan's; an empty list if they are the same."""
        scan = self._controller.scan
        assert scan is not None
        frame = describe_layer(layer, scan.record).frame
        sides = np.linalg.norm(frame[:3, :3], axis=0)
        shape = layer.data.shape[-3:]
        place, size = tuple(frame[:3, 3].tolist()), tuple(sides.tolist())
        return Grid(shape, size, place, frame[:3, :3] / sides).differences(scan.shown.grid)

    def adopt(self, layer: Labels) -> None:
        """Paint on a layer; its slices count as painted, but for those on which something was painted before."""
        self.release()
        scan, state = self._controller.scan, self._controller.state
        assert scan is not None
        assert state is not None
        slices = np.moveaxis(layer.data, scan.shown.axis, 0)
        found: dict[int, LabelArray] = {k: _labels(image) for k, image in enumerate(slices) if np.any(image)}
        self._controller.adopt({k: image for k, image in found.items() if k not in state.painted})
        self.attach(layer)

    def own_layer(self) -> Labels | None:
        """Return the one labels layer that came with the open scan, as the sample with a painted slice has it."""
        scan = self._controller.scan
        layers = [
            layer
            for layer in self._link.label_layers()
            if layer not in self._used
            and (record := record_of(layer.metadata, layer.data.shape))
            and scan
            and record.volume.array is scan.shown.array
        ]
        return layers[0] if len(layers) == 1 and isinstance(layers[0].data, np.ndarray) else None

    def choices(self) -> tuple[list[Choice], Hashable | None]:
        """Return the layers that may be painted on, and which one is."""
        choices = [Choice(id(layer), layer.name) for layer in self._link.label_layers()]
        choices.append(Choice(_NEW, "New labels layer", "Make an empty layer; what was painted is shown in it too."))
        return choices, None if self.layer is None else id(self.layer)

    def compare(self) -> None:
        """Take over what has changed in the layer without an event."""
        if self._binding is not None:
            self._binding.compare()

    @property
    def is_drawing(self) -> bool:
        """Whether a stroke is open, so that this is no time to take anything back."""
        return self._binding is not None and self._binding.stroke_is_open

    # Tools ---------------------------------------------------------------------------------------------------------

    def start(self, go: bool = True) -> None:
        """Take up the brush, on the suggested slice if nothing is painted yet."""
        if self._controller.session is None:
            return
        if self._binding is None:
            self.attach(None)
            self.said.emit("", "info")  # that the layer was removed is no longer so
        layer, best = self.layer, self._controller.target.best
        assert layer is not None
        if go and best and not self._controller.session.annotation.slices:
            self._link.go_to(best[0].index)
        layer.visible = True
        self._link.select(layer)
        layer.selected_label = self._controller.book.selected
        layer.mode = "paint"
        self.changed.emit()

    @property
    def tool(self) -> str:
        """The tool in hand, by its name in the panel; empty where it is none of them."""
        mode = str(self.layer.mode) if self.layer is not None else ""
        return next((tool for tool, name in _MODES.items() if name == mode), "")

    def set_tool(self, tool: str) -> None:
        """Take another tool."""
        if self.layer is None or not self.tool:
            self.start()
        if self.layer is not None:
            self._link.select(self.layer)
            self.layer.mode = _MODES[tool]

    def set_brush_size(self, size: int) -> None:
        """Choose the width of the brush, in pixels."""
        if self.layer is not None:
            self.layer.brush_size = size

    # Between layer and controller ----------------------------------------------------------------------------------

    def _write(self, images: Mapping[int, LabelArray]) -> None:
        if self._binding is not None:
            self._binding.write(images)

    def _style(self) -> None:
        layer, book = self.layer, self._controller.book
        if layer is None:
            return
        make_room(layer, book.selected)
        # First, because colours have the layer say which label is selected: it would take the selection back.
        if layer.selected_label != book.selected:
            layer.selected_label = book.selected
        colours = {value: style.colour for value, style in book.styles.items()}
        self._coloured = set(book.values)
        layer.colormap = colormap(colours, colour_of, {*range(1, 256), *self._coloured})

    def _colour(self) -> None:
        """Give labels a colour that have appeared and have none: napari would not show them."""
        if any(value > LARGEST_LABEL and value not in self._coloured for value in self._controller.book.values):
            self._style()

    def _label_selected(self, _event: Any = None) -> None:
        if self.layer is not None and self.layer.selected_label > 0:
            self._controller.book.select(int(self.layer.selected_label))

    def _tool_changed(self, _event: Any = None) -> None:
        self.changed.emit()

    def _layers_changed(self) -> None:
        if self._binding is not None and self._binding.layer not in self._link.viewer.layers:
            self.compare()
            self.release()
            if self._controller.session is not None and self._controller.session.has_work:
                self.said.emit("The labels layer was removed, the work is kept: 'Paint' shows it again.", "info")
            self.changed.emit()

    def _replaced(self) -> None:
        self.release()
        self.said.emit("The labels layer no longer fits the scan, the work is kept: 'Paint' shows it again.", "warning")
        self.changed.emit()


def _key_function(action: Callable[[], None]) -> Callable[[Any], None]:
    # A function, because napari asks for its name.
    def press(_layer: Any) -> None:
        action()

    return press


def _labels(image: Any) -> LabelArray:
    labels: LabelArray = np.maximum(image, 0)
    return labels
