"""Which scan is open, and where it comes from: a file, a layer, or what was left of it by an earlier run."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari.layers import Image, Labels, Layer
from qtpy.QtCore import QObject, Signal

from napari_oneseg.errors import InputError
from napari_oneseg.plugin.beneath import record_beneath
from napari_oneseg.plugin.engine import Engine, Job, Report
from napari_oneseg.plugin.layer_grid import same_place
from napari_oneseg.plugin.scan_layer import LayerSnapshot, describe_layer
from napari_oneseg.plugin.view_model import Choice, StepState
from napari_oneseg.plugin.work_shelf import WorkShelf

if TYPE_CHECKING:
    from napari_oneseg.autosave import Found
    from napari_oneseg.overview import Candidate
    from napari_oneseg.plugin.asking import Asking
    from napari_oneseg.plugin.autosaving import Autosaver
    from napari_oneseg.plugin.controller import Controller
    from napari_oneseg.plugin.painting import Painter
    from napari_oneseg.plugin.panels.picture_list import PictureList
    from napari_oneseg.plugin.scan_layer import OpenScan
    from napari_oneseg.plugin.viewer_link import ViewerLink
    from napari_oneseg.session_file import SavedSession

__all__ = ["Opener"]


class Opener(QObject):
    """Opens scans one at a time; work on the others is kept until they are opened again."""

    said = Signal(str, str)
    changed = Signal()
    followed = Signal()
    """The user has selected a layer of another scan, and that one is opened."""
    left = Signal(object, object)
    """A scan is being left: its layer, and the work on it, None where nothing was made."""
    not_opened = Signal(str)
    """What was to be opened was not: why, or nothing where the user did not want it after all."""

    def __init__(
        self,
        controller: Controller,
        link: ViewerLink,
        engine: Engine,
        saver: Autosaver,
        painter: Painter,
        asking: Asking,
        parent: QObject | None = None,
    ) -> None:
        super().__init__(parent)
        self._controller, self._link, self._engine = controller, link, engine
        self._saver, self._painter, self._asking = saver, painter, asking
        self._layer: Image | None = None
        self._axis: int | None = None
        self._reading: Job | None = None
        self._shelf = WorkShelf()
        self._axes: dict[int, int | None] = {}
        self._paths: weakref.WeakKeyDictionary[Layer, Path] = weakref.WeakKeyDictionary()
        self._painted_on: weakref.WeakKeyDictionary[Layer, weakref.ref[Labels]] = weakref.WeakKeyDictionary()
        self._fitted: tuple[int, int] | None = None
        self._resuming = self._removing = False
        self.decide: Callable[[Found], bool | None] = lambda _: None
        """Whether earlier work that was found is taken up or left alone; None to ask the user."""
        self.note = ""
        """What is to be told of the file once it is open, such as slices that are missing."""
        controller.opened.connect(self._opened)
        controller.not_opened.connect(self.not_opened)
        link.layers_changed.connect(self._layers_changed)
        link.scene.chosen.connect(self._follow)
        link.scene.selected.connect(self.changed)
        link.scene.moved.connect(self._moved)

    @property
    def layer(self) -> Image | None:
        """The layer of the open scan, or of the one that is being opened."""
        return self._layer

    # Where scans come from -----------------------------------------------------------------------------------------

    def open_what_is_there(self) -> None:
        """Open the layer that is selected, or the topmost one that may be a scan."""
        scans = self._link.scans()
        if not scans or self._layer is not None or self._reading is not None:
            return
        active = self._link.viewer.layers.selection.active
        self.open_layer(active if isinstance(active, Image) and active in scans else scans[-1])

    def open_path(self, path: Path, axis: int | None = None) -> None:
        """Read a file, or a folder of DICOM files, and open it; of several scans in it the user chooses one.

        Parameters
        ----------
        path
            The file or folder.
        axis
            The axis of the slices; by default that of the largest spacing.
        """
        if self._reading is not None:
            self._reading.forget()

        def look(_: object) -> list[Candidate]:
            from napari_oneseg.overview import list_candidates

            return list_candidates(path)

        def done(found: list[Candidate]) -> None:
            self._reading = None
            if len(found) < 2:  # of none, reading says why
                self._read(path, found[0] if found else None, axis)
                return
            chosen = self._ask(path, found)
            self.changed.emit()
            if chosen is not None:
                self._read(path, found[chosen], axis)
            else:
                self.not_opened.emit("")

        self._begin(Job(look, done, on_error=self._not_read, name="list"))

    def _ask(self, path: Path, found: Sequence[Candidate]) -> int | None:
        """Let the user choose one of several; their pictures are made meanwhile."""

        def draw(report: Report) -> None:
            from napari_oneseg.overview import candidate_pictures

            for done, picture in enumerate(candidate_pictures(path, found), 1):
                report.item(picture)
                report.progress(done, len(found))

        job: Job | None = None

        def shown(dialog: PictureList) -> None:
            nonlocal job
            job = self._engine.submit(Job(draw, on_item=lambda picture: dialog.set_picture(*picture), name="pictures"))

        holder = "folder" if path.is_dir() else "file"
        chosen = self._asking.which(
            f"This {holder} holds several scans. Which one?", [candidate.text for candidate in found], shown
        )
        if job is not None:
            job.forget()
        return chosen

    def _read(self, path: Path, candidate: Candidate | None, axis: int | None) -> None:
        series, frame = (candidate.series, candidate.frame) if candidate else (None, None)

        def read(_: object) -> tuple[Any, str]:
            from napari_oneseg.io import read_volume_with_remarks
            from napari_oneseg.plugin.scan_layer import scan_layer_data

            volume, notes = read_volume_with_remarks(path, series=series, frame=frame)
            name = _plain_name(path) + (f" volume {frame}" if frame is not None else "")
            return scan_layer_data(volume, name), " ".join(notes)

        def done(answer: tuple[Any, str]) -> None:
            data, self.note = answer
            layer = Layer.create(*data)
            self._paths[layer] = path
            with self._link.scene.quietly():
                self._link.viewer.add_layer(layer)
            self._reading = None
            self.open_layer(layer, axis)

        self._begin(Job(read, done, on_error=self._not_read, name="read"))

    def _begin(self, job: Job) -> None:
        self._reading = self._engine.submit(job)
        self.changed.emit()

    def _not_read(self, sentence: str) -> None:
        self._reading = None
        self.said.emit(sentence, "error")
        self.not_opened.emit(sentence)
        self.changed.emit()

    def open_key(self, key: object) -> None:
        """Open a layer by its key in :meth:`choices`."""
        layer = next((layer for layer in self._link.scans() if id(layer) == key), None)
        if layer is not None and layer is not self._layer:
            self.open_layer(layer)

    def open_layer(self, layer: Image, axis: int | None = None) -> None:
        """Open a layer; work on the scan that was open is kept."""
        try:
            snapshot = describe_layer(layer, record_beneath(layer, self._link.viewer.layers))
        except InputError as error:
            self.said.emit(str(error), "error")
            self.not_opened.emit(str(error))
            return
        self._leave()
        self._layer = layer
        self._axis = axis if axis is not None else self._axes.get(id(layer))
        scene = self._link.scene
        is_new = layer is not scene.image
        scene.show(layer)
        scene.select()
        if is_new:
            self._fitted = None
            scene.fit()
        self._open(replace(snapshot, path=self._paths.get(layer, snapshot.path)))

    def _follow(self, layer: Image) -> None:
        """Open the scan that a layer belongs to which the user has selected."""
        if layer is not self._layer:
            self.followed.emit()
            self.open_layer(layer)

    def _moved(self) -> None:
        """Open the scan anew where its layer was moved or scaled, or shows other voxels, since it was read."""
        opened, layer = self._controller.opened_scan, self._layer
        if opened is None or layer is None or layer not in self._link.viewer.layers or self._shows(layer, opened.scan):
            return  # one that is being opened is looked at once it is
        if not opened.session.has_work:
            self._axes.pop(id(layer), None)
        self.open_layer(layer)

    def change_axis(self, axis: object) -> None:
        """Paint in another plane; work in this one is kept."""
        opened = self._controller.opened_scan
        if self._layer is None or opened is None or not isinstance(axis, int):
            return
        if axis != opened.session.volume.axis:
            self._axes[id(self._layer)] = axis
            self._painter.compare()
            self.open_layer(self._layer, axis)

    def change_device(self, device: object) -> None:
        """Compute on another device from now on."""
        if isinstance(device, str) and device != self._controller.device:
            self._controller.device = device
            self.reopen()

    def reopen(self) -> None:
        """Compute the features of the open scan anew; the work stays."""
        if self._layer is not None:
            self.open_layer(self._layer, self._axis)

    def remove(self, layers: Iterable[Layer]) -> None:
        """Let go of the open scan, and take layers out of the viewer; no other scan is opened in its place."""
        self._leave()
        self._layer, self._axis = None, None
        self._controller.close()
        self._link.scene.show(None)
        self._removing = True
        shown = self._link.viewer.layers
        # At once: napari tidies all memory after each removal, which takes a quarter of a second.
        with self._link.scene.quietly(), shown.batched_update():
            for layer in layers:
                if layer in shown:
                    shown.remove(layer)
        self._removing = False

    # Opening -------------------------------------------------------------------------------------------------------

    def _leave(self) -> None:
        """Keep the work on the open scan, and let go of it."""
        self._asking.withdraw()
        saved, opened, layer = self._saver.snapshot(), self._controller.opened_scan, self._layer
        labels = self._painter.layer
        self._painter.compare()
        saved = self._saver.snapshot() or saved
        if layer is not None and labels is not None:
            self._painted_on[layer] = weakref.ref(labels)
        if saved is not None and opened is not None and layer is not None:
            self._shelf.put(layer, opened, saved, self._controller.extras(), self._controller.current)
        if layer is not None:
            self.left.emit(layer, saved)
        self._painter.release()
        self._link.follow(None, None)

    def _open(self, snapshot: LayerSnapshot) -> None:
        assert self._layer is not None
        kept = self._shelf.take(self._layer, snapshot, self._axis)
        self._resuming = kept is not None
        if kept is None:
            if self._shelf.complaint:
                self.said.emit(self._shelf.complaint, "warning")
            self._controller.open(snapshot, self._axis)
        else:
            self._axis = kept.axis
            self._controller.open(snapshot, kept.axis, kept.saved, kept.extras, kept.others)

    def _opened(self) -> None:
        opened, layer, scene = self._controller.opened_scan, self._layer, self._link.scene
        if opened is None or layer is None:
            return
        if not self._shows(layer, opened.scan):  # it was moved while it was read
            self._moved()
            return
        self._axis = opened.session.volume.axis
        self._axes[id(layer)] = self._axis
        scene.show(layer, opened.scan)
        self._link.follow(layer, opened.scan)
        if self._fitted != (id(layer), self._axis):
            self._fitted = id(layer), self._axis
            scene.fit()
        self._tie(layer)
        if not self._resuming:
            self._saver.find(opened.scan.shown.content_hash, self._found)
        best = self._controller.target.best
        if best and not opened.session.annotation.slices:
            self._link.go_to(best[0].index)
        elif self._shelf.index is not None:
            self._link.go_to(self._shelf.index)
        self.changed.emit()

    def _tie(self, layer: Image) -> None:
        """Tie the scan's labels layer to the session: the one it had, one that came with it, or a new one."""
        before = self._painted_on.get(layer)
        labels = None if before is None else before()
        if labels is not None:
            self._painter.rejoin(labels)
            return
        made = None if self._resuming else self._painter.own_layer()
        if made is not None:
            self._painter.adopt(made)
        else:
            self._painter.attach()

    def _shows(self, layer: Image, scan: OpenScan) -> bool:
        """Whether a layer still shows the voxels of a scan that was read from it, where they were."""
        try:
            world = describe_layer(layer).world
        except InputError:
            return False
        return layer.data is self._shelf.array and same_place(world, scan.record.in_viewer)

    # Earlier work --------------------------------------------------------------------------------------------------

    def _found(self, found: Found) -> None:
        opened = self._controller.opened_scan
        if opened is None or found.scan != opened.scan.shown.content_hash:
            return
        when = found.saved_at.strftime("%d %B, %H:%M")
        many = f"{found.painted} painted and {found.accepted} accepted slices"
        text = f"There is work on this scan that was not finished: {many}, last changed on {when}."

        def resume() -> None:
            self._saver.load(
                found, lambda saved: self._resume(saved, found), lambda text: self.said.emit(text, "error")
            )

        wanted = self.decide(found)
        if wanted:
            resume()
        if wanted is not None:
            return
        self._asking.offer(text, resume, lambda: self._saver.discard(found))

    def _resume(self, saved: SavedSession, found: Found) -> None:
        opened = self._controller.opened_scan
        if opened is not None and saved.scan == opened.scan.shown.content_hash:
            self._controller.resume(saved, saved.extras)
            self._saver.taken_up(found)
            self.said.emit("The earlier work is back.", "info")

    # Layers --------------------------------------------------------------------------------------------------------

    def _layers_changed(self) -> None:
        layers = self._link.viewer.layers
        if self._layer is not None and self._layer not in layers:
            self._leave()
            self._layer, self._axis = None, None
            self._controller.close()
            self._link.scene.show(None)
            self.said.emit("The scan was removed; the work on it is kept, and offered when you open it again.", "info")
        self._shelf.clear_but(layers)
        if self._layer is None and self._reading is None and not self._removing:
            self.open_what_is_there()
        self.changed.emit()

    def choices(self) -> tuple[list[Choice], Hashable | None]:
        """Return the layers that may be opened, and which one is."""
        choices = [Choice(id(layer), layer.name) for layer in self._link.scans()]
        return choices, None if self._layer is None else id(self._layer)

    def steps(self) -> dict[str, StepState]:
        """Return what the scan step shows while a file is read."""
        return {"scan": StepState("busy", "Reading the file", 0.0)} if self._reading is not None else {}


def _plain_name(path: Path) -> str:
    """Return a file's name without its ending."""
    name = path.name
    for ending in (".nii.gz", path.suffix):
        if ending and name.lower().endswith(ending.lower()):
            return name[: -len(ending)] or name
    return name
