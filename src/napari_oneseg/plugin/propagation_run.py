"""A propagation under way: what it sets out from, and the slices that have arrived and are shown."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import numpy as np

from napari_oneseg.plugin.plane_change import with_strokes

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from napari_oneseg.config import Direction
    from napari_oneseg.plugin.slice_table import SliceTable
    from napari_oneseg.propagation.propagate import LabelledSlice
    from napari_oneseg.session import OneSegSession
    from napari_oneseg.session_job import PropagationJob
    from napari_oneseg.volume import LabelArray

__all__ = ["PropagationRun", "next_job"]


def next_job(
    session: OneSegSession,
    slice_range: tuple[int, int] | None,
    margin: int,
    direction: Direction,
    labels: Collection[int] | None,
) -> PropagationJob:
    """Return what is to be propagated next: what is out of date where that is all, else the whole range.

    Parameters
    ----------
    session
        The session.
    slice_range
        First and last slice that the user wants labelled, None where that was not said.
    margin
        In that case, slices on either side of the painted ones; 0 for the whole scan.
    direction, labels
        As for :meth:`~napari_oneseg.session.OneSegSession.begin`.

    Raises
    ------
    AnnotationError
        If nothing is painted in the range.
    """
    state, end = session.state, session.volume.n_slices - 1
    painted = state.annotation.slices
    if slice_range is None and margin and painted:
        slice_range = max(0, min(painted) - margin), min(end, max(painted) + margin)
    first, last = slice_range or (0, end)
    labelled = all(index in state.results or index in state.frozen for index in range(first, last + 1))
    if state.stale and labelled and labels is None and state.direction == direction:
        update = session.begin_update()
        if update is not None:
            return update
    return session.begin(slice_range, direction, labels)


class PropagationRun:
    """What a propagation has brought so far.

    Parameters
    ----------
    session, job
        The session, and what it computes.
    table
        What is known of each slice; kept up to date.
    others
        Labels that were painted in other planes, shape (n, rows, columns): where they still stand, they stay.

    Attributes
    ----------
    results
        The slices that have arrived, by index.
    """

    def __init__(
        self, session: OneSegSession, job: PropagationJob, table: SliceTable, others: LabelArray | None = None
    ) -> None:
        self.session, self.job, self.table = session, job, table
        self._standing = None if others is None else np.where(others == session.labels, others, 0)
        self.results: dict[int, LabelledSlice] = {}
        self._began = time.perf_counter()

    @property
    def seconds(self) -> float:
        """How long it has been under way."""
        return time.perf_counter() - self._began

    def arrived(self, result: LabelledSlice) -> Mapping[int, LabelArray]:
        """Take a slice; return it as it is to show, index to labels, (rows, columns), empty where it is to stay."""
        if self.job.only is not None and result.index not in self.job.only:
            return {}
        if self._standing is not None:
            result = with_strokes(result, self._standing[result.index])
        self.results[result.index] = result
        labels = self.session.preview(self.job, result)
        self.table.count(result.index, labels)
        self.table.confidence[result.index] = result.score
        return {result.index: labels}

    def shown(self, index: int) -> LabelArray | None:
        """Return what a slice shows that has arrived, None for the others."""
        result = self.results.get(index)
        return None if result is None else self.session.preview(self.job, result)

    def take(self) -> Mapping[int, LabelArray]:
        """Hand over to the session what has arrived; return those slices that show something else now."""
        self.session.take(self.job, self.results.values())
        # The others are shown already: with many slices that takes a moment.
        changed = self.results.keys() & self.job.before.repainted(self.session.state)
        return self.table.take(self.session.state, sorted(changed))

    def drop(self) -> Mapping[int, LabelArray]:
        """Leave the session as it is; return what has arrived as the session has it."""
        return self.table.take(self.session.state, self.results)
