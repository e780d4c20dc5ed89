"""The dock widget: puts panels, controller and viewer together, and nothing more."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QEvent, QObject, Qt, QTimer
from qtpy.QtGui import QKeyEvent, QKeySequence, QShortcut
from qtpy.QtWidgets import QAbstractButton, QApplication, QVBoxLayout, QWidget

from napari_oneseg.plugin.asking import Asking
from napari_oneseg.plugin.autosaving import Autosaver
from napari_oneseg.plugin.canvas_focus import CanvasFocus
from napari_oneseg.plugin.closing import Closing
from napari_oneseg.plugin.controller import Controller
from napari_oneseg.plugin.engine import Engine, Job
from napari_oneseg.plugin.inspecting import Inspector
from napari_oneseg.plugin.learning import Learner
from napari_oneseg.plugin.opening import Opener
from napari_oneseg.plugin.painting import Painter
from napari_oneseg.plugin.panels.view import OneSegView
from napari_oneseg.plugin.settings import read_settings
from napari_oneseg.plugin.showing import Showing
from napari_oneseg.plugin.studying import Studier
from napari_oneseg.plugin.viewer_link import ViewerLink
from napari_oneseg.plugin.warming import read_units, warm_up
from napari_oneseg.threads import wait_politely

if TYPE_CHECKING:
    import napari.viewer

__all__ = ["OneSegWidget"]

_WARM_AFTER_MS = 300


class OneSegWidget(QWidget):
    """Open a scan, paint the suggested slice, propagate, review, export.

    Parameters
    ----------
    viewer
        The viewer it belongs to.
    autosave_folder
        Where the work is kept; by default the user's data folder.
    """

    # Written in this way, the type tells napari to hand over its viewer.
    def __init__(self, viewer: napari.viewer.Viewer, autosave_folder: Path | None = None) -> None:
        self._docked = False
        super().__init__()
        wait_politely()
        # What it hands over is a proxy, which makes another object of a layer at each access: none would be itself.
        viewer = getattr(viewer, "__wrapped__", viewer)
        self.viewer = viewer
        self.settings = read_settings()
        self.engine = Engine(self)
        self._warmer = Engine(self)
        # Not at once: a thread that imports holds up the drawing of the dock by more than a second.
        self._warming = QTimer(self)
        self._warming.setSingleShot(True)
        self._warming.timeout.connect(self._warm_up)
        self._warming.start(_WARM_AFTER_MS)
        self.controller = Controller(self.engine, self)
        self.controller.device = self.settings.device
        self.controller.propagator.live = self.settings.live
        self.controller.propagator.default_range = self.settings.default_range
        self.link = ViewerLink(viewer, self)
        self.view = OneSegView(self)
        self.asking = Asking(self)
        self.saver = Autosaver(self.controller, self.settings.autosave_seconds, autosave_folder, self)
        self.saver.enabled = self.settings.autosave
        self.painter = Painter(self.controller, self.link, self)
        self.opener = Opener(self.controller, self.link, self.engine, self.saver, self.painter, self.asking, self)
        self.inspector = Inspector(self.controller, self.link, self.engine, self)
        self.learner = Learner(self.controller, self.opener, self)
        self.studier = Studier(self.controller, self.link, self.opener, self.painter, self.saver, self.asking, self)
        self.closing = Closing(self.controller, self.painter, self.studier, self.saver, self.asking, self)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(0)
        column.addWidget(self.view, 1)
        self.view.notices.add(self.asking)
        self.setMinimumWidth(self.view.minimumWidth())
        self.showing = Showing(self)
        self._closed = False
        self._connect_controller()
        self._connect_scan()
        self._connect_study()
        self._connect_target()
        self._connect_work()
        self._connect_review()
        self._connect_choices()
        self._bind_keys()
        # Last, so that a command has been carried out before.
        self.canvas_focus = CanvasFocus(self.view, self.controller, self.painter, self.link, self.inspector, self)
        application = QApplication.instance()
        if application is not None:
            application.aboutToQuit.connect(self.shut_down)
        self.opener.open_what_is_there()
        self.showing.refresh()

    # Wiring --------------------------------------------------------------------------------------------------------

    def _connect_controller(self) -> None:
        controller = self.controller
        controller.changed.connect(self.showing.soon)
        controller.progressed.connect(self.showing.progressed)
        controller.worked.connect(self.view.end_notice)
        controller.said.connect(self.view.notify)
        controller.slice_wanted.connect(self.link.go_to)
        controller.opened.connect(self._scan_opened)
        for part in (self.opener, self.painter, self.inspector, self.learner, self.studier):
            part.said.connect(self.view.notify)
            part.changed.connect(self.showing.progressed if part is self.learner else self.showing.soon)
        for told in (self.saver.failed, self.saver.told):
            told.connect(partial(self.view.notify, level="warning"))
        self.link.slice_shown.connect(self._slice_shown)
        self.link.layers_changed.connect(self.showing.soon)
        self.link.window_changed.connect(self.showing.soon)
        for step in self.view.steps:
            step.cancelled.connect(controller.cancel)
        self.view.adapt.cancelled.disconnect(controller.cancel)
        self.view.adapt.cancelled.connect(self.learner.cancel)

    def _connect_scan(self) -> None:
        panel = self.view.scan
        panel.file_chosen.connect(lambda path: self.opener.open_path(Path(path)))
        panel.folder_chosen.connect(lambda path: self.opener.open_path(Path(path)))
        panel.scan_chosen.connect(self.opener.open_key)
        panel.axis_chosen.connect(self.opener.change_axis)
        panel.device_chosen.connect(self.opener.change_device)
        panel.window_chosen.connect(self._window_chosen)

    def _connect_study(self) -> None:
        studier, panel, scan = self.studier, self.view.study, self.view.scan
        scan.study_chosen.connect(lambda path: studier.open(Path(path)))
        for chosen in (scan.file_chosen, scan.folder_chosen, scan.scan_chosen, self.opener.followed):
            chosen.connect(studier.interrupted)
        panel.previous_requested.connect(studier.previous)
        panel.next_requested.connect(studier.next)
        panel.done_requested.connect(studier.done)
        panel.skip_requested.connect(studier.skip)
        panel.scan_chosen.connect(studier.go_to)
        panel.notes_edited.connect(studier.keeper.note)
        panel.summary_requested.connect(studier.save_tables)
        panel.close_requested.connect(studier.close_study)
        for button in self.view.findChildren(QAbstractButton):
            button.clicked.connect(studier.keeper.touch)

    def _connect_target(self) -> None:
        controller, panel = self.controller, self.view.target
        book, target = controller.book, controller.target
        panel.label_selected.connect(book.select)
        panel.label_added.connect(book.add)
        panel.label_renamed.connect(lambda value, name: book.restyle(value, name=name))
        panel.label_recoloured.connect(lambda value, colour: book.restyle(value, colour=colour))
        panel.label_removed.connect(controller.remove_label)
        panel.first_slice_clicked.connect(lambda: target.set_first(controller.current))
        panel.last_slice_clicked.connect(lambda: target.set_last(controller.current))
        panel.range_cleared.connect(lambda: target.set_range(None))
        panel.range_edited.connect(lambda first, last: target.set_range((first, last)))
        panel.locate_toggled.connect(self.inspector.set_locating)
        self.view.strip.slice_chosen.connect(self.link.go_to)
        self.view.strip.range_edited.connect(lambda first, last: target.set_range((first, last)))
        self.view.suggest.suggestion_chosen.connect(self.link.go_to)
        self.view.suggest.suggest_requested.connect(self.go_to_suggestion)

    def _connect_work(self) -> None:
        controller, paint, propagate = self.controller, self.view.paint, self.view.propagate
        paint.paint_requested.connect(self.painter.start)
        paint.layer_chosen.connect(self.painter.choose)
        paint.brush_size_changed.connect(self.painter.set_brush_size)
        paint.tool_chosen.connect(self.painter.set_tool)
        propagate.propagate_requested.connect(self.propagate)
        propagate.direction_chosen.connect(partial(setattr, controller.propagator, "direction"))
        propagate.scope_chosen.connect(
            lambda scope: setattr(controller.propagator, "only_selected", scope == "selected")
        )
        for chosen in (propagate.direction_chosen, propagate.scope_chosen):
            chosen.connect(self._choice_made)
        propagate.live_toggled.connect(self._live_toggled)
        propagate.parameters_changed.connect(controller.set_parameters)

    def _connect_review(self) -> None:
        controller, panel = self.controller, self.view.review
        panel.next_requested.connect(self.next_slice_to_check)
        panel.accept_requested.connect(self.accept_slice)
        panel.confidence_toggled.connect(self.inspector.set_doubt_shown)
        panel.why_toggled.connect(self.inspector.set_explaining)
        panel.undo_requested.connect(self.undo)
        panel.redo_requested.connect(self.redo)
        panel.next_slice_chosen.connect(self._paint_next)
        self.view.export.export_requested.connect(self.export)
        self.view.adapt.adapt_requested.connect(self.learner.adapt)
        self.view.adapt.keep_requested.connect(self.learner.keep)
        self.view.adapt.revert_requested.connect(self.learner.revert)
        controller.changed.connect(self.inspector.update_doubt)

    def _connect_choices(self) -> None:
        """Have controls show what holds, also where a choice was refused: what they show then is not what was set."""
        view = self.view
        for chosen in (
            view.scan.scan_chosen, view.scan.axis_chosen, view.scan.window_chosen, view.scan.device_chosen,
            view.target.range_edited, view.target.locate_toggled, view.strip.range_edited, view.paint.layer_chosen,
            view.paint.tool_chosen, view.paint.brush_size_changed, view.propagate.direction_chosen,
            view.propagate.scope_chosen, view.propagate.live_toggled, view.propagate.parameters_changed,
            view.review.confidence_toggled, view.review.why_toggled,
        ):  # fmt: skip
            chosen.connect(self.showing.anew)

    def _bind_keys(self) -> None:
        """Give the dock its keys; the labels layer gets the same ones, for when the canvas has the focus."""
        actions: dict[str, Callable[[], None]] = {
            "propagate": self.propagate,
            "next": self.next_slice_to_check,
            "accept": self.accept_slice,
            "suggest": self.go_to_suggestion,
        }
        keys = self.settings.shortcuts
        bound = {keys[name]: action for name, action in actions.items() if keys.get(name)}
        self.painter.keys = bound | {"Ctrl+Z": self.undo, "Ctrl+Shift+Z": self.redo}
        for key, action in self.painter.keys.items():
            shortcut = QShortcut(QKeySequence(key), self)
            shortcut.setContext(Qt.ShortcutContext.WidgetWithChildrenShortcut)
            shortcut.activated.connect(action)
        self.view.set_shortcuts({name: keys[name] for name in actions if keys.get(name)})

    # Actions, also of the command palette --------------------------------------------------------------------------

    def propagate(self) -> None:
        """Carry the labels through the volume."""
        if self._has_scan():
            self.painter.compare()
            self.controller.propagate()

    def next_slice_to_check(self) -> None:
        """Go to the most doubtful slice."""
        if self._has_scan():
            self.painter.compare()
            self.controller.next_slice_to_check()

    def accept_slice(self, accepted: bool = True) -> None:
        """Accept the slice on screen, or take that back."""
        index = self.link.current()
        if not self._has_scan():
            return
        if index is None:
            self.view.notify("Show the slices of the scan in 2D to accept one.", "info")
            return
        self.painter.compare()
        self.controller.accept(index, accepted)

    def undo(self) -> None:
        """Take the last step back."""
        if self.controller.session is not None and not self.painter.is_drawing:
            self.painter.compare()
            self.controller.undo()

    def redo(self) -> None:
        """Make the step again that was taken back last."""
        if self.controller.session is not None and not self.painter.is_drawing:
            self.painter.compare()
            self.controller.redo()

    def go_to_suggestion(self) -> None:
        """Show the slice most worth painting."""
        if self._has_scan():
            self.controller.target.go_to_best()

    def export(self, path: Path | None = None) -> None:
        """Ask for a file and write the labels into it."""
        from napari_oneseg.plugin.export import export_labels, is_dicom, propose_export_path

        scan = self.controller.scan
        if not self._has_scan() or scan is None:
            return
        self.painter.compare()
        path = path or self.asking.for_export(propose_export_path(scan), is_dicom(scan))
        if path is not None:
            self.controller.export(path, export_labels)

    def _has_scan(self) -> bool:
        if self.controller.session is None:
            self.view.notify("Open a scan first.", "info")
            return False
        return True

    # Events --------------------------------------------------------------------------------------------------------

    def _scan_opened(self) -> None:
        opened = self.controller.opened_scan
        assert opened is not None
        notes = " ".join(note for note in (opened.scan.note, self.opener.note) if note)
        self.opener.note = ""
        self.view.notify(notes, "warning" if notes else "info")
        self._slice_shown(self.link.current() or 0)

    def _slice_shown(self, index: int) -> None:
        if self.controller.session is not None:
            self.view.strip.set_current(index)
            self.controller.set_current(index)

    def _window_chosen(self, name: object) -> None:
        opened = self.controller.opened_scan
        for window in opened.windows if opened else ():
            if window.name == name:
                self.link.set_window(window.low, window.high)

    def _live_toggled(self, on: bool) -> None:
        self.controller.propagator.live = on
        self._choice_made()
        if on and self.controller.session is not None and self.controller.can_propagate:
            self.controller.propagate(quietly=True)

    def _choice_made(self, *_: object) -> None:
        """Keep with the work how it is propagated."""
        if self.controller.session is not None and self.controller.session.has_work:
            self.controller.worked.emit()

    def _paint_next(self, index: int) -> None:
        self.link.go_to(index)
        self.painter.start()

    # The end -------------------------------------------------------------------------------------------------------

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        """Ask before the window closes over work that was not exported."""
        if watched is self.window() and not self._closed:
            if event.type() == QEvent.Type.Close:
                return self.closing.refuses(self.window(), event)
            if event.type() == QEvent.Type.ChildPolished:
                self.closing.watch(event.child())
        return super().eventFilter(watched, event)

    def keyPressEvent(self, event: QKeyEvent) -> None:
        """End what was typed with Enter; keep keys that mean nothing here from the viewer, whose shortcuts they are."""
        if event.key() in {Qt.Key.Key_Return, Qt.Key.Key_Enter}:
            self.canvas_focus.end_typing()
        modifiers = event.modifiers() & ~(Qt.KeyboardModifier.ShiftModifier | Qt.KeyboardModifier.KeypadModifier)
        if modifiers:
            super().keyPressEvent(event)

    def showEvent(self, event: Any) -> None:
        """Watch the window once the dock is in one."""
        super().showEvent(event)
        self.window().installEventFilter(self)

    def event(self, event: Any) -> bool:
        """End when the dock is closed for good: napari takes the widget out of it then, and makes a new one next time.

        Two of them would write to the same layers.
        """
        if event.type() == QEvent.Type.ParentChange:
            if self._docked and self.parent() is None:
                self.shut_down()
            self._docked = self.parent() is not None
        return super().event(event)

    def shut_down(self) -> None:
        """Stop what runs, and keep the work."""
        if self._closed:
            return
        self._closed = True
        self.showing.close()
        self.painter.compare()
        self.view.study.flush_notes()
        self.studier.close()
        self.learner.close()
        self.engine.close()
        self._warming.stop()
        # An import cannot be stopped, and a program that ends within one ends with an abort.
        self._warmer.close(seconds=60.0)
        self.saver.close()
        self.painter.release()
        self.link.close()

    def _warm_up(self) -> None:
        read_units()
        self._warmer.submit(Job(lambda _: warm_up(), name="warm up"))

    def closeEvent(self, event: Any) -> None:
        """Keep the work when the dock is closed on its own."""
        self.shut_down()
        super().closeEvent(event)
