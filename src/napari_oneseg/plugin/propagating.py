"""Carrying labels through the scan while the user waits.

Strategy. There is a propagation exactly while it is the job that the user waits for. Its slices are shown as they
arrive, and the session takes them over in one step: at the end, or when it is stopped and what is ready is to stay.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, get_args

from qtpy.QtCore import QObject, Signal

from napari_oneseg.config import Direction
from napari_oneseg.plugin import work
from napari_oneseg.plugin.foreground import Foreground
from napari_oneseg.plugin.propagation_run import PropagationRun, next_job

if TYPE_CHECKING:
    from napari_oneseg.plugin.slice_table import SliceTable
    from napari_oneseg.propagation.propagate import LabelledSlice
    from napari_oneseg.session import OneSegSession
    from napari_oneseg.volume import LabelArray

__all__ = ["Propagator"]

LIVE_SECONDS = 5.0
"""A propagation that takes longer is not begun by each stroke."""


class Propagator(QObject):
    """Carries the labels of a scan from slice to slice while the user waits, and shows each slice as it arrives.

    Parameters
    ----------
    foreground
        Does the work; whatever else it is asked to do ends a propagation, and what is ready of it stays.

    Attributes
    ----------
    direction
        Where labels go.
    only_selected
        Whether only the label travels that is painted with.
    live
        Whether each stroke is to be carried on at once.
    default_range
        Slices on either side of the painted ones that are labelled where no range was given; 0 for all.
    others
        Labels that the user has painted in other planes, shape (n, rows, columns), and that no result may write over.
    seconds
        How long the last propagation took that was not stopped and renewed more than a few slices.
    """

    slices_changed = Signal(object)
    """Slices to be shown anew: index to labels, (rows, columns)."""
    taken = Signal()
    """The session has what was ready."""
    ended = Signal()
    """A propagation is done, or the user has cancelled it; the session has what was ready."""
    said = Signal(str, str)
    """A sentence for the user, with its level."""

    def __init__(self, foreground: Foreground, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._foreground = foreground
        self.direction: Direction = "both"
        self.only_selected = False
        self.live = False
        self.default_range = 0
        self.reset()
        foreground.beginning.connect(self._make_room)
        foreground.failed.connect(self._drop)

    def reset(self) -> None:
        """Begin with another scan; a propagation that was under way is forgotten."""
        self.seconds: float | None = None
        self.others: LabelArray | None = None
        self._run: PropagationRun | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return what was chosen, as plain values for JSON."""
        return {"live": self.live, "direction": self.direction, "only_selected": self.only_selected}

    def take(self, kept: Mapping[str, Any]) -> None:
        """Take over what :meth:`to_dict` gave; what is missing stays."""
        self.live = bool(kept.get("live", self.live))
        self.only_selected = bool(kept.get("only_selected", self.only_selected))
        if kept.get("direction") in get_args(Direction):
            self.direction = kept["direction"]

    @property
    def can_be_live(self) -> bool:
        """Whether the computer is fast enough to propagate after each stroke."""
        return self.seconds is None or self.seconds < LIVE_SECONDS

    @property
    def arrived(self) -> Collection[int]:
        """The slices that are shown and that the session does not have yet."""
        return self._run.results.keys() if self._run else ()

    def shown(self, index: int) -> LabelArray | None:
        """Return what one of these slices shows, (rows, columns); None for the others."""
        return self._run.shown(index) if self._run else None

    def propagate(
        self,
        session: OneSegSession,
        table: SliceTable,
        slice_range: tuple[int, int] | None,
        selected: int,
        quietly: bool = False,
    ) -> None:
        """Carry labels through a range, or renew what is out of date, unless the user waits for something else.

        Parameters
        ----------
        session
            The session on the open scan.
        table
            What is known of its slices.
        slice_range
            First and last slice that the user wants labelled, None where that was not said.
        selected
            The label that is painted with.
        quietly
            Whether nobody has asked: begin anew if a propagation is under way, and do not say what keeps it from that.
        """
        if quietly:
            self.pause()
        if self._foreground.doing:
            return
        labels = [selected] if self.only_selected else None
        try:
            job = next_job(session, slice_range, self.default_range, self.direction, labels)
        except ValueError as error:
            if not quietly:
                self.said.emit(str(error), "warning")
            return
        run = self._run = PropagationRun(session, job, table, self.others)

        def done(_: object) -> None:
            if job.only is None:
                self.seconds = run.seconds
            self._take()
            self.ended.emit()

        def stopped() -> None:
            self._take()
            self.ended.emit()
            self.said.emit("Stopped. The slices that were ready are kept.", "info")

        self._foreground.do("propagate", partial(work.run_job, session, job), done, self._arrived, stopped)

    def pause(self) -> None:
        """Stop a propagation at once; the slices that are ready are kept."""
        if self._run is not None:
            self._foreground.forget()
            self._take()

    def withdraw(self) -> bool:
        """Stop a propagation at once, and leave nothing of it; return whether there was one."""
        if self._run is None:
            return False
        self._foreground.forget()
        self._drop()
        return True

    def _make_room(self, doing: str) -> None:
        if doing != "propagate":
            self.pause()

    def _arrived(self, result: LabelledSlice) -> None:
        if self._run is not None:
            self._show(self._run.arrived(result))

    def _take(self) -> None:
        run, self._run = self._run, None
        if run is not None:
            self._show(run.take())
            self.taken.emit()

    def _drop(self, *_: object) -> None:
        run, self._run = self._run, None
        if run is not None:
            self._show(run.drop())

    def _show(self, images: Mapping[int, LabelArray]) -> None:
        if images:
            self.slices_changed.emit(images)
