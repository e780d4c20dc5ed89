"""Where the target lies, and which slices of it are worth painting."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtCore import QObject, Signal

from napari_oneseg.plugin import work
from napari_oneseg.plugin.engine import Engine, Job
from napari_oneseg.plugin.foreground import Foreground

if TYPE_CHECKING:
    from napari_oneseg.plugin.work import Ranking
    from napari_oneseg.screening import NextSlice, SliceSuggestion
    from napari_oneseg.session import OneSegSession

__all__ = ["Target"]


class Target(QObject):
    """The range of slices that the target lies in, and its slices by how much they are worth painting.

    Parameters
    ----------
    foreground
        Does what the user waits for.
    engine
        Does the rest.

    Attributes
    ----------
    range
        The first and the last slice, as the user has said roughly; None for the whole scan.
    ranking
        The slices by the look of the scan, None where that tells nothing.
    next_slices
        Those that would gain most if they were painted next, by what was propagated.
    """

    changed = Signal()
    """Something that views show has changed."""
    worked = Signal()
    """A range was chosen that is to be kept."""
    said = Signal(str, str)
    """A sentence for the user, with its level."""
    slice_wanted = Signal(int)
    """The view is to go to a slice."""

    def __init__(self, foreground: Foreground, engine: Engine, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._foreground, self._engine = foreground, engine
        self.reset(None, None)

    def reset(self, session: OneSegSession | None, ranking: Ranking | None) -> None:
        """Begin with another scan, None where none is open; ``ranking`` is that of all its slices."""
        self._session = session
        self.range: tuple[int, int] | None = None
        self.ranking = ranking
        self.next_slices: list[NextSlice] = []

    @property
    def best(self) -> list[SliceSuggestion]:
        """The slices most worth painting by the look of the scan, best first; empty where none stands out."""
        return self.ranking.best if self.ranking else []

    # The range -----------------------------------------------------------------------------------------------------

    def set_range(self, slice_range: tuple[int, int] | None) -> None:
        """Say roughly where the target lies, first and last slice; None for the whole scan."""
        last = self._need_session().volume.n_slices - 1
        if slice_range is not None:
            first, end = (min(max(0, index), last) for index in sorted(slice_range))
            slice_range = first, end
        if slice_range != self.range:
            self.range = slice_range
            self.changed.emit()
            self.worked.emit()
            self.suggest()

    def set_first(self, index: int) -> None:
        """Begin the range at a slice."""
        last = self._need_session().volume.n_slices - 1
        self.set_range((index, max(index, self.range[1] if self.range else last)))

    def set_last(self, index: int) -> None:
        """End the range at a slice."""
        self.set_range((min(index, self.range[0] if self.range else 0), index))

    def locate(self, index: int, row: int, column: int) -> None:
        """Find the rough range of what lies at a place."""
        session = self._need_session()

        def done(found: tuple[int, int]) -> None:
            self.set_range(found)
            self.said.emit(
                f"It seems to reach from slice {found[0]} to {found[1]}; correct that where it is wrong.", "info"
            )

        self._foreground.do("locate", lambda _: session.locate(index, row, column), done)

    # The slices worth painting -------------------------------------------------------------------------------------

    def suggest(self, go: bool = True) -> None:
        """Rank the slices of the range anew, and go to the best one."""
        session, slice_range = self._need_session(), self.range

        def done(ranking: Ranking) -> None:
            self.ranking = ranking
            self.changed.emit()
            if go and ranking.best:
                self.slice_wanted.emit(ranking.best[0].index)

        if self._foreground.doing in ("", "suggest"):
            self._foreground.do("suggest", lambda _: work.rank(session, slice_range), done)

    def go_to_best(self) -> None:
        """Go to the slice most worth painting, once the slices of the range are ranked."""
        if self.ranking is None or self.ranking.slice_range != self.range:
            self.suggest()
        elif self.best:
            self.slice_wanted.emit(self.best[0].index)

    def propagated(self) -> None:
        """Find what to paint next; where the range was changed while nothing could be ranked, do that now."""
        self._rank_next()
        if self.ranking is not None and self.ranking.slice_range != self.range:
            self.suggest(go=False)

    def _rank_next(self) -> None:
        session, slice_range = self._need_session(), self.range

        def done(found: list[NextSlice]) -> None:
            if self._session is session:
                self.next_slices = found
                self.changed.emit()

        self._engine.submit(Job(lambda _: work.rank_next(session, slice_range), done, name="next"))

    def _need_session(self) -> OneSegSession:
        if self._session is None:
            raise RuntimeError("No scan is open.")
        return self._session
