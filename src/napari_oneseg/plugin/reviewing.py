"""Which slices are to be looked at, and which next."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from napari_oneseg.plugin.slice_table import SliceTable
    from napari_oneseg.session_state import SessionState

__all__ = ["Round", "out_of_date", "slices_to_check"]


def out_of_date(state: SessionState) -> frozenset[int]:
    """Return the slices whose labels are older than what was painted since.

    On a painted slice another label may have to arrive anew, but what the user has just painted is never called old.
    """
    return state.stale - state.painted.keys()


def slices_to_check(state: SessionState, table: SliceTable) -> list[int]:
    """Return the slices that were propagated and neither painted nor accepted since, most doubtful first."""
    settled = state.frozen.keys() | state.complete | state.painted.keys()
    doubtful = [k for k in np.flatnonzero(np.isfinite(table.confidence)).tolist() if k not in settled]
    return sorted(doubtful, key=lambda k: float(table.confidence[k]))


class Round:
    """A walk through the slices to check: none is shown twice before all were."""

    def __init__(self) -> None:
        self._visited: set[int] = set()

    def next(self, waiting: Sequence[int], current: int) -> int:
        """Return the next slice.

        Parameters
        ----------
        waiting
            The slices to check, most doubtful first; at least one.
        current
            The slice on screen.
        """
        others = [index for index in waiting if index != current] or list(waiting)
        fresh = [index for index in others if index not in self._visited]
        if not fresh:
            self._visited, fresh = set(), others
        self._visited.add(fresh[0])
        return fresh[0]
