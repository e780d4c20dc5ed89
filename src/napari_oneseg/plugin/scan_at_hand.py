"""The scan of a study that is worked on: what of it is on disk by now, and what is to be written."""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_oneseg.plugin import work
from napari_oneseg.plugin.plane_change import seen_in_plane
from napari_oneseg.plugin.study_desk import Left, plane_of
from napari_oneseg.study import mean_confidence

if TYPE_CHECKING:
    from napari.layers import Image, Labels, Layer

    from napari_oneseg.plugin.autosaving import Autosaver
    from napari_oneseg.plugin.controller import Controller
    from napari_oneseg.plugin.opening import Opener
    from napari_oneseg.plugin.painting import Painter
    from napari_oneseg.session_file import SavedSession
    from napari_oneseg.session_state import SessionState
    from napari_oneseg.study import StudyScan
    from napari_oneseg.study_file import Status
    from napari_oneseg.volume import LabelArray

__all__ = ["ScanAtHand"]


class ScanAtHand:
    """What a window knows of the scan it works on; the session and the layers belong to others.

    Parameters
    ----------
    scan
        The scan, as it was in the list when it was claimed.

    Attributes
    ----------
    name
        Its name.
    layer
        The layer that the study has opened, None before that.
    notes
        The user's notes, None where they were not changed.
    """

    def __init__(
        self, scan: StudyScan, controller: Controller, opener: Opener, painter: Painter, saver: Autosaver
    ) -> None:
        self.name, self._scan = scan.name, scan
        self._controller, self._opener, self._painter, self._saver = controller, opener, painter, saver
        self.layer: Image | None = None
        self.notes: str | None = None
        self._content: str | None = None
        self._made: weakref.ref[Labels] | None = None
        self._on_disk: SessionState | None = None
        self._extras: Mapping[str, Any] = {}
        self._kept_at: datetime | None = None
        self._own = True
        self._slice: int | None = None
        """The slice that is on disk with the work."""
        self._unsafe = self._restoring = False
        self._counted: tuple[int, int] | None = None

    # Opening -------------------------------------------------------------------------------------------------------

    def take_layer(self) -> bool:
        """Take the layer that was opened just now as this scan's, if it comes from its file."""
        open_scan = self._controller.scan
        if open_scan is None or open_scan.path != self._scan.path:
            return False
        self.layer = self._opener.layer
        made = self._painter.made_layer
        self._made = None if made is None else weakref.ref(made)
        self._content = open_scan.shown.content_hash
        return True

    def take_what_is_there(self) -> None:
        """Take the layer of a scan that could be shown, but not worked on."""
        self.layer = self._opener.layer

    @property
    def is_open(self) -> bool:
        """Whether it is the scan in the viewer, ready to be worked on."""
        return self.layer is not None and self._opener.layer is self.layer and self._controller.session is not None

    @property
    def plane(self) -> str:
        """In which plane it is painted."""
        session = self._controller.session
        return "" if session is None else plane_of(session.volume)

    def restore(self, kept: SavedSession, kept_at: datetime | None, own: bool = True) -> bool:
        """Take up what was made on it before, and go to the slice it was left at; return False if it does not fit.

        Parameters
        ----------
        kept
            What was made.
        kept_at
            When its strokes were written, None if that was not in a window of this study.
        own
            Whether the file it comes from is the one that this window writes.
        """
        from napari_oneseg.session_order import in_scan_order

        session = self._controller.session
        if session is None:
            return False
        kept = in_scan_order(kept, session.volume)
        if kept.scan != session.volume.content_hash:
            return False
        with self._quietly():
            self._controller.resume(kept, kept.extras)
        self._kept_at, self._own = kept_at, own
        index = kept.extras.get("slice")
        if isinstance(index, int) and 0 <= index < session.volume.n_slices:
            self._slice = index
            self._controller.slice_wanted.emit(index)
        return True

    def other_axis(self, kept: SavedSession) -> int | None:
        """Return along which axis something was made on this scan, if that is another than the one it is open in."""
        from napari_oneseg.session_order import in_scan_order

        session = self._controller.session
        axis = None if session is None else in_scan_order(kept, session.volume).slice_axis
        return None if session is None or axis == session.volume.axis else axis

    def restore_in_plane(self, kept: SavedSession) -> None:
        """Take up what was painted in this plane before; where labels of another plane are shown, these stay."""
        session = self._controller.session
        assert session is not None
        if not session.has_work:
            self.restore(kept, None)
            self.begin()
            return
        shown = session.result()
        self.restore(replace(kept, state=seen_in_plane(shown.labels, shown.confidence, kept.state)), None)

    def adopt(self, images: Mapping[int, LabelArray]) -> None:
        """Take slices that were painted elsewhere, but for those on which something was painted here since."""
        state = self._controller.state
        assert state is not None
        before = self.is_changed
        with self._quietly():
            self._controller.adopt({index: image for index, image in images.items() if index not in state.painted})
            self._painter.attach(self._painter.layer)
        if not before:
            self.begin()

    def name_labels(self, labels: Mapping[str, Any]) -> None:
        """Begin with the labels of the scan before: names and colours are those of the study."""
        self._controller.book.take(labels)
        self._controller.changed.emit()

    @contextmanager
    def _quietly(self) -> Iterator[None]:
        """Take what is done within for no work of the user's."""
        self._restoring = True
        try:
            yield
        finally:
            self._restoring = False

    def begin(self) -> None:
        """Count as work what is made from now on."""
        if not self._unsafe:
            self._on_disk, self._extras = self._controller.state, self._controller.extras()

    # What is to be written -----------------------------------------------------------------------------------------

    @property
    def painted(self) -> int:
        """How many slices are painted."""
        state = self._controller.state
        return len(state.painted) if state is not None else 0

    @property
    def is_changed(self) -> bool:
        """Whether there is anything that is not on disk."""
        if not self.is_open or self._restoring:
            return False
        return self._controller.state is not self._on_disk or self._controller.extras() != self._extras

    def left(self, seconds: float, status: Status | None) -> Left:
        """Return what is to be written when it is left now.

        Parameters
        ----------
        seconds
            Time to add.
        status
            What it becomes; None where that is not decided.
        """
        values: dict[str, Any] = {} if self.notes is None else {"notes": self.notes}
        saved, made, state = None, None, self._controller.state
        # Labels that are done are the user's, wherever they came from.
        mine = self.is_changed or self._has_moved or (status == "done" and not self._own)
        if mine and state is not None:
            values |= self._results()
            saved, made = self._snapshot(), (state, self._controller.extras())
        export = self._exporting() if status == "done" else None
        if status is not None:
            values |= {"status": status, "problem": self._scan.problem if status == "skipped" else ""}
        elif self._was_only_looked_at():
            values["status"] = "open"
        return Left(values, seconds, saved, self.plane if self.is_open else None, export, made)

    @property
    def _has_moved(self) -> bool:
        """Whether it is left on another slice than it was found on, with work of this window's on disk."""
        session = self._controller.session
        if not self.is_open or not self._own or session is None or not session.has_work or self._unsafe:
            return False
        return self._controller.current != self._slice

    def _was_only_looked_at(self) -> bool:
        session = self._controller.session
        if not self.is_open or session is None or self._scan.status != "open":
            return False
        is_empty = not self._scan.slices_painted and not session.has_work
        return is_empty or not (self._own or self.is_changed)

    def _snapshot(self) -> SavedSession | None:
        saved, session = self._saver.snapshot(), self._controller.session
        if saved is None or session is None:
            return None
        return replace(saved, extras={**saved.extras, "slice": int(self._controller.current)})

    def _results(self) -> dict[str, Any]:
        state, table = self._controller.state, self._controller.table
        assert state is not None
        assert table is not None
        labelled = table.labelled.astype("uint8")[:, None, None]
        volumes = {value: table.volume_ml(value) or 0.0 for value in table.values}
        return {
            "slices_painted": len(state.painted),
            "corrections": len(state.complete),
            "volumes_ml": {value: round(volume, 6) for value, volume in volumes.items()},
            "mean_confidence": mean_confidence(labelled, table.confidence, state.annotation.slices),
        }

    def _exporting(self) -> Any:
        controller = self._controller
        slice_range, record = controller.target.range, controller.book.record()

        def export(path: Path) -> None:
            from napari_oneseg.plugin.export import export_labels  # it takes the libraries that read and write images

            assert controller.session is not None
            assert controller.scan is not None
            work.write_export(path, controller.session, controller.scan, slice_range, record, export_labels)

        return export

    def counts(self) -> dict[str, Any]:
        """Return the numbers of painted slices, if they have changed since they were returned last."""
        state = self._controller.state
        if state is None:
            return {}
        now = len(state.painted), len(state.complete)
        if now == self._counted or (self._counted is None and not self.is_changed):
            return {}
        self._counted = now
        return {"slices_painted": now[0], "corrections": now[1]}

    # What was written ----------------------------------------------------------------------------------------------

    def kept(self, left: Left) -> bool:
        """Note what is on disk now; return whether that is all."""
        if left.values.get("notes") == self.notes:
            self.notes = None
        if left.made is not None:
            (self._on_disk, self._extras), self._unsafe = left.made, False
            if left.saved is not None:
                self._slice = left.saved.extras["slice"]
            self._kept_at, self._own = datetime.now(UTC), True
        if left.export is not None and not self.is_changed:
            self._controller.unsaved = False
        return not self.is_changed

    def not_kept(self, left: Left) -> None:
        """Note that writing has failed."""
        if left.made is not None:
            self._on_disk, self._unsafe = None, True

    @property
    def safe_scan(self) -> str | None:
        """Its content hash, if all that was made is on disk, so that nothing else need keep it."""
        return None if self._unsafe or self.is_changed else self._content

    def wants(self, saved_at: datetime) -> bool | None:
        """Return whether work that an earlier run has left is newer than what is on disk; None where the user knows."""
        if self._kept_at is not None and saved_at <= self._kept_at:
            return False
        return None if self.is_changed else True

    def layers(self) -> list[Layer]:
        """Return the layers that the study has opened, and that hold nothing but what is kept."""
        made = self._painter.made_layer
        if not self.is_open:
            # While its features are computed anew, nobody is tied to its labels.
            made = self._made() if self._made is not None and self._opener.layer is self.layer else None
        return [layer for layer in (self.layer, made) if layer is not None]
