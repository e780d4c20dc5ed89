"""Brings the panels up to date with the controller, a few times a second and only where something has changed."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtCore import QObject, QTimer

from napari_oneseg.plugin import presenting
from napari_oneseg.plugin.view_model import Choice

if TYPE_CHECKING:
    from napari_oneseg.plugin.widget import OneSegWidget

__all__ = ["Showing"]

_REFRESH_MS = 60
_PROGRESS_MS = 200
_AXES = (
    Choice(0, "Axial (F → H)", "Slice 0 is at the feet, the last one at the head."),
    Choice(1, "Coronal (A → P)", "Slice 0 is at the front, the last one at the back."),
    Choice(2, "Sagittal (R → L)", "Slice 0 is at the patient's right, the last one at the left."),
)


class Showing(QObject):
    """Calls the setters of a widget's panels.

    Parameters
    ----------
    widget
        The widget, whose parts tell what there is to show.
    """

    def __init__(self, widget: OneSegWidget) -> None:
        super().__init__(widget)
        self._widget = widget
        self._later, self._progress_later = QTimer(self), QTimer(self)
        for timer, wait, action in (
            (self._later, _REFRESH_MS, self.refresh),
            (self._progress_later, _PROGRESS_MS, self._refresh_steps),
        ):
            timer.setSingleShot(True)
            timer.setInterval(wait)
            timer.timeout.connect(action)
        self._shown: dict[Callable[..., None], tuple[Any, ...]] = {}
        self._closed = False

    def soon(self) -> None:
        """Bring everything up to date, once for all changes of a moment."""
        if not self._later.isActive() and not self._closed:
            self._later.start()

    def progressed(self) -> None:
        """Bring up to date what changes while something is computed, less often."""
        if not self._progress_later.isActive() and not self._closed:
            self._progress_later.start()

    def anew(self, *_: object) -> None:
        """Set everything again: a control may show what was refused."""
        self._shown.clear()
        self.soon()

    def close(self) -> None:
        """Show nothing any more."""
        self._closed = True
        self._later.stop()
        self._progress_later.stop()

    def _set(self, setter: Callable[..., None], *values: Any) -> None:
        """Call a panel's setter, unless it shows these values already: each call has the window drawn anew."""
        if setter not in self._shown or self._shown[setter] != values:
            self._shown[setter] = values
            setter(*values)

    def _refresh_steps(self) -> None:
        """Bring up to date what changes while something is computed."""
        widget = self._widget
        if widget.view.is_held:
            self._progress_later.start()
            return
        steps = presenting.steps(widget.controller) | widget.opener.steps() | widget.learner.steps()
        for name, state in steps.items():
            self._set(getattr(widget.view, name).set_state, state)
        widget.learner.present(widget.view.adapt, self._set)
        widget.studier.present(widget.view.study, self._set)
        if widget.controller.doing == "propagate":
            self._refresh_strip()

    def refresh(self) -> None:
        """Bring every panel up to date."""
        if self._closed:
            return
        if self._widget.view.is_held:
            # Steps fold and unfold: nothing may move from under the mouse between press and release.
            self._later.start()
            return
        widget, show = self._widget, self._set
        view, controller, inspector = widget.view, widget.controller, widget.inspector
        propagator = controller.propagator
        self._refresh_steps()
        self._refresh_scan()
        show(view.target.set_labels, presenting.label_rows(controller), controller.book.selected)
        if controller.table is not None:
            show(view.target.set_range, controller.target.range, controller.table.n_slices)
        show(view.target.set_locating, inspector.locating)
        show(view.suggest.set_suggestions, presenting.suggestions(controller), controller.current)
        self._refresh_paint()
        text, enabled = presenting.propagate_action(controller)
        show(view.propagate.set_action, text, enabled, widget.settings.shortcuts.get("propagate", ""))
        show(view.propagate.set_direction, propagator.direction)
        show(view.propagate.set_scope, "selected" if propagator.only_selected else "all")
        show(view.propagate.set_live, propagator.live, propagator.can_be_live)
        if controller.session is not None:
            show(view.propagate.set_parameters, controller.session.propagation.to_dict())
        show(view.review.set_review, presenting.review(controller))
        show(view.review.set_confidence_shown, inspector.doubt_shown)
        show(view.review.set_why, inspector.explaining, inspector.text)
        show(view.export.set_summary, presenting.summary(controller))
        self._refresh_strip()
        self._refresh_canvas()

    def _refresh_strip(self) -> None:
        strip, data = self._widget.view.strip, presenting.strip(self._widget.controller)
        self._set(strip.setVisible, data is not None)
        if data is not None:
            strip.set_data(data)
            strip.set_current(self._widget.controller.current)

    def _refresh_scan(self) -> None:
        controller, opener, panel = self._widget.controller, self._widget.opener, self._widget.view.scan
        opened, show = controller.opened_scan, self._set
        show(panel.set_scans, *opener.choices())
        axis = opened.session.volume.axis if opened else None
        show(panel.set_axes, _AXES, axis)
        windows, limits = opened.windows if opened else (), self._widget.link.window
        named = next((w.name for w in windows if limits and np.allclose(limits, (w.low, w.high), atol=0)), None)
        show(panel.set_windows, [Choice(w.name, w.name, f"{w.low:g} to {w.high:g}") for w in windows], named)
        devices = opened.devices if opened else (("auto", "Automatic"),)
        meaning = f"{opened.device_name}, features took {opened.seconds:.1f} s" if opened else ""
        show(panel.set_devices, [Choice(key, text) for key, text in devices], controller.device, meaning)

    def _refresh_paint(self) -> None:
        painter, panel = self._widget.painter, self._widget.view.paint
        self._set(panel.set_layers, *painter.choices())
        self._set(panel.set_painted, presenting.painted_slices(self._widget.controller))
        if painter.layer is not None:
            self._set(panel.set_brush_size, round(painter.layer.brush_size))
            self._set(panel.set_tool, painter.tool)

    def _refresh_canvas(self) -> None:
        """Write on the canvas what the slice is, and frame the suggested one until something is painted."""
        controller, link = self._widget.controller, self._widget.link
        on_screen = link.current()
        text = "" if on_screen is None else presenting.slice_text(controller, on_screen)
        text = link.scene.warning or text  # where the strokes go comes before what the slice is
        self._set(link.write_on_canvas, text)
        best = controller.target.best
        if controller.session is None or not best or presenting.painted_slices(controller):
            link.unmark()
        elif link.marked != best[0].index:
            link.mark(best[0].index)
