"""What the user has made on a scan so far, and its history."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from napari_oneseg.config import Direction
from napari_oneseg.crossing_lines import agreeing, crossed_anew, line, pasted, touched_labels, values_in
from napari_oneseg.propagation.correction import reopened_range
from napari_oneseg.propagation.propagate import LabelledSlice
from napari_oneseg.volume import Annotation, LabelArray

__all__ = ["HISTORY_BYTES", "History", "SessionState"]

HISTORY_BYTES = 512 * 1024**2
"""Undo forgets its oldest steps beyond this much memory."""


@dataclass(frozen=True, eq=False)
class SessionState:
    """All that was made, slice by slice; arrays in it are never written to, so that states can share them.

    Attributes
    ----------
    painted, complete
        Painted slices by index, each (rows, columns), and which of them are complete.
    frozen
        Frozen slices by index.
    results
        Propagated slices by index.
    stale
        Slices whose result is older than what was painted since.
    outdated
        The labels that are older there, None for all.
    direction
        In which direction the labels travelled last.
    across
        What is painted in the other planes, by the axis that they lie across in the scan's slice order: 1 (rows) or 2
        (columns); see :mod:`napari_oneseg.crossing_lines`. Where slices of two planes cross, they agree: what was
        painted last counts on both.
    """

    painted: Mapping[int, LabelArray] = field(default_factory=dict)
    complete: frozenset[int] = frozenset()
    frozen: Mapping[int, LabelArray] = field(default_factory=dict)
    results: Mapping[int, LabelledSlice] = field(default_factory=dict)
    stale: frozenset[int] = frozenset()
    outdated: frozenset[int] | None = None
    direction: Direction = "both"
    across: Mapping[int, Annotation] = field(default_factory=dict)

    @property
    def annotation(self) -> Annotation:
        """The painted and the frozen slices of the main plane."""
        return Annotation({**self.painted, **self.frozen}, self.complete | frozenset(self.frozen))

    @property
    def labels(self) -> tuple[int, ...]:
        """All labels that are painted or frozen, in any plane, ascending."""
        planes = [self.annotation, *self.across.values()]
        return tuple(sorted({label for annotation in planes for label in annotation.labels}))

    def out_of_date(self) -> SessionState:
        """Return this state with all that was propagated stale: it was made with something else than is used now."""
        return replace(self, stale=frozenset(self.results) - frozenset(self.frozen), outdated=None)

    def reopening(self, before: SessionState, indices: Iterable[int], count: int) -> SessionState:
        """Return this state with the results that painting on some slices has made stale marked as such.

        Only the labels that were changed there travel anew: of the others a correction says that they were right, so
        what would set out from it is what has arrived there. (Measured: docs/experiments.md, "What a correction sends
        out".)

        Parameters
        ----------
        before
            The state in which those slices had not been painted yet: its labels may have come from them too.
        indices
            The painted slices.
        count
            Slices of the scan.
        """
        if not before.results:
            return replace(self, stale=frozenset(), outdated=frozenset())
        if before.across != self.across:
            return self._all_reopened(before)
        shape = next(iter(before.results.values())).labels.shape
        stale = set(before.stale)
        outdated = before.outdated if before.stale else frozenset[int]()
        annotations = before.annotation, self.annotation
        for index in indices:
            touched = self._touched(before, index, shape)
            outdated = None if outdated is None or touched is None else outdated | touched
            for annotation in annotations:
                first, last = reopened_range(annotation, index, count, touched)
                stale.update(range(first, last + 1))
        # Where nothing was propagated yet, nothing is out of date, nor where the user has settled all labels.
        left = (frozenset(stale) & before.results.keys()) - self.frozen.keys() - self.complete
        return replace(self, stale=left, outdated=outdated)

    def _all_reopened(self, before: SessionState) -> SessionState:
        """Return this state with everything stale, as painting in another plane makes it: it reaches all slices."""
        touched = before.outdated if before.stale else frozenset[int]()
        for axis in (0, 1, 2):
            was, now = (({0: s.annotation} | dict(s.across)).get(axis, Annotation()) for s in (before, self))
            found = touched_labels(was, now)
            touched = None if touched is None or found is None else touched | found
        left = frozenset(before.results) - self.frozen.keys() - self.complete
        return replace(self, stale=left, outdated=touched)

    def _touched(self, before: SessionState, index: int, shape: tuple[int, int]) -> frozenset[int] | None:
        """Return the labels that were changed on a slice, None for all of them."""
        was_settled, is_settled = (index in state.complete or index in state.frozen for state in (before, self))
        if was_settled != is_settled and (was_settled or index not in before.results):
            return None
        shown = before.labels_on(index, shape), self.labels_on(index, shape)
        different = shown[0] != shown[1]
        changed = values_in([image[different] for image in shown])
        if is_settled:
            return changed
        # What is no longer painted there travels on from elsewhere, even if the slice looks the same.
        empty = np.zeros(0, np.uint8)
        return changed | (values_in([before.painted.get(index, empty)]) - values_in([self.painted.get(index, empty)]))

    def with_painted(self, slices: Mapping[int, LabelArray], complete: frozenset[int]) -> SessionState:
        """Return the state with slices painted anew; one that is empty and not complete is painted no more."""
        painted = {index: image for index, image in self.painted.items() if index not in slices}
        painted |= {index: image for index, image in slices.items() if image.any() or index in complete}
        settled = (self.complete - slices.keys()) | complete
        after = replace(self, painted=painted, complete=settled & painted.keys())
        for index, image in slices.items():
            counts = _counting(image, self.painted.get(index), index in complete)
            after = after.crossed(0, index, image, counts)
        return after

    def with_painted_across(
        self, axis: int, slices: Mapping[int, LabelArray], complete: frozenset[int]
    ) -> SessionState:
        """Return the state with slices of another plane painted anew, as :meth:`with_painted` does for the main one.

        Parameters
        ----------
        axis
            1 or 2, the axis that the plane lies across in the scan's slice order.
        """
        before = self.across.get(axis, Annotation())
        painted = {index: image for index, image in before.slices.items() if index not in slices}
        painted |= {index: image for index, image in slices.items() if image.any() or index in complete}
        settled = (before.complete - slices.keys()) | complete
        new = Annotation(dict(sorted(painted.items())), settled & painted.keys())
        after = self.holding_across({**self.across, axis: new})
        for index, image in slices.items():
            counts = _counting(image, before.slices.get(index), index in complete)
            after = after.crossed(axis, index, image, counts)
        return after

    def crossed(self, axis: int, index: int, image: LabelArray, counts: NDArray[np.bool_]) -> SessionState:
        """Return the state in which a slice counts wherever slices of other planes cross it.

        Parameters
        ----------
        axis, index, image
            The slice: axis that its plane lies across, index, and labels.
        counts
            Where it counts, boolean, of its shape.
        """
        after, across = self, dict(self.across)
        if axis != 0:
            painted = agreeing(self.painted, 0, image, axis, index, counts)
            painted = {k: v for k, v in painted.items() if v.any() or k in self.complete}
            after = replace(after, painted=painted, frozen=agreeing(self.frozen, 0, image, axis, index, counts))
        for other, annotation in self.across.items():
            if other != axis:
                slices = agreeing(annotation.slices, other, image, axis, index, counts)
                if _differing(slices, annotation.slices):
                    kept = {k: v for k, v in slices.items() if v.any() or k in annotation.complete}
                    across[other] = Annotation(kept, annotation.complete)
        return after.holding_across(across)

    def holding_across(self, across: Mapping[int, Annotation]) -> SessionState:
        """Return the state with other painted slices of the other planes."""
        return replace(self, across={axis: across[axis] for axis in sorted(across) if across[axis].slices})

    def with_strokes(
        self, images: Mapping[int, LabelArray], corrected: Collection[int] = ()
    ) -> tuple[SessionState, str]:
        """Return the state after strokes on several slices, with what they were in a few words.

        See :meth:`~napari_oneseg.session.OneSegSession.paint`.
        """
        after, did = self, ""
        for index, image in images.items():
            different = image != after.labels_on(index, image.shape)
            after, done = after.with_stroke(index, image, index in corrected)
            after = after.crossed(0, index, image, different)
            did = did or done
        changed = self.repainted(after)
        return after, f"{did} {min(changed)}" if len(changed) == 1 else f"painting on {len(changed)} slices"

    def with_stroke(self, index: int, image: LabelArray, corrected: bool = False) -> tuple[SessionState, str]:
        """Return the state after a stroke has left a slice as ``image``, with what the stroke was in a few words.

        See :meth:`~napari_oneseg.session.OneSegSession.paint`.
        """
        before = self.labels_on(index, image.shape)
        different = image != before
        if not different.any() and not corrected:
            return self, ""
        if index in self.frozen:
            # A correction too, which stays when the slice is no longer frozen.
            after = replace(self, painted={**self.painted, index: image}, complete=self.complete | {index})
            return replace(after, frozen={**self.frozen, index: image}), "painting on slice"
        if index not in self.results and not corrected:
            painted = {k: v for k, v in self.painted.items() if k != index}
            if image.any() or index in self.complete:
                painted[index] = image
            return replace(self, painted=painted), "painting on slice"
        erased = bool((different & (image == 0)).any())
        if index in self.painted and index not in self.complete and not erased and not corrected:
            added = np.where(different, image, self.painted[index])
            added.setflags(write=False)
            return replace(self, painted={**self.painted, index: added}), "painting on slice"
        after = replace(self, painted={**self.painted, index: image}, complete=self.complete | {index})
        return after, "correcting slice"

    def without(self, label: int) -> SessionState:
        """Return the state without a label, wherever it was painted, propagated or frozen."""

        def cleared(image: LabelArray) -> LabelArray:
            if not (image == label).any():
                return image
            left = np.where(image == label, np.zeros((), image.dtype), image)
            left.setflags(write=False)
            return left

        painted = {index: cleared(image) for index, image in self.painted.items()}
        return replace(
            self,
            painted={index: image for index, image in painted.items() if image.any() or index in self.complete},
            frozen={index: cleared(image) for index, image in self.frozen.items()},
            results={
                index: result if (left := cleared(result.labels)) is result.labels else replace(result, labels=left)
                for index, result in self.results.items()
            },
            across={
                axis: rest for axis, annotation in self.across.items() if (rest := _without(annotation, cleared)).slices
            },
        )

    def repainted(self, after: SessionState) -> frozenset[int]:
        """Return the slices on which what was painted or frozen differs from a later state's."""
        differing = _differing(self.painted, after.painted) | _differing(self.frozen, after.frozen)
        return differing | (self.complete ^ after.complete) | self._crossed_anew(after)

    def _crossed_anew(self, after: SessionState) -> frozenset[int]:
        """Return the slices on which what the other planes settle differs from a later state's."""
        return frozenset().union(
            *(
                crossed_anew(self.across.get(axis, Annotation()), after.across.get(axis, Annotation()))
                for axis in self.across.keys() | after.across.keys()
            )
        )

    def changed(self, after: SessionState) -> frozenset[int]:
        """Return the slices on which anything differs from another state: what has to be shown anew."""
        stale = self.stale ^ after.stale
        return self.repainted(after) | _differing(self.results, after.results) | stale

    def fits(self, count: int, shape: tuple[int, int]) -> bool:
        """Return whether all slices lie in a scan of ``count`` slices of that shape (rows, columns)."""
        images = [*self.painted.values(), *self.frozen.values(), *(result.labels for result in self.results.values())]
        indices = {*self.painted, *self.frozen, *self.results, *self.stale}
        rows, columns = shape
        sides = {1: (rows, (count, columns)), 2: (columns, (count, rows))}
        crossing = all(
            0 <= at < sides[axis][0] and image.shape == sides[axis][1]
            for axis, annotation in self.across.items()
            for at, image in annotation.slices.items()
        )
        return crossing and all(image.shape == shape for image in images) and max(indices, default=0) < count

    def labels_on(self, index: int, shape: tuple[int, int]) -> LabelArray:
        """Return the labels of a slice as they are now, (rows, columns): frozen before painted before propagated.

        Where painted slices of other planes cross it, they count like what was painted on it.
        """
        image = self._own_labels_on(index, shape)
        return pasted(image, index, self.across) if self.across else image

    def labels_across(self, axis: int, index: int, count: int, shape: tuple[int, int]) -> LabelArray:
        """Return the labels of a slice of another plane as they are now.

        Parameters
        ----------
        axis, index
            1 or 2, the axis that the plane lies across in the scan's slice order, and the slice's index.
        count, shape
            Slices of the main plane, and their rows and columns.

        Returns
        -------
        Shape (n, columns) for axis 1, (n, rows) for axis 2.
        """
        images = [line(self.labels_on(k, shape), 0, axis, index) for k in range(count)]
        return np.stack(images).astype(np.result_type(*images), copy=False)

    def _own_labels_on(self, index: int, shape: tuple[int, int]) -> LabelArray:
        if index in self.frozen:
            return self.frozen[index]
        painted = self.painted.get(index)
        if painted is not None and index in self.complete:
            return painted
        result = self.results.get(index)
        if result is None:
            return painted if painted is not None else np.zeros(shape, np.uint8)
        if painted is None:
            return result.labels
        return np.where(painted > 0, painted, result.labels)


def _counting(image: LabelArray, before: LabelArray | None, complete: bool) -> NDArray[np.bool_]:
    """Return where a slice that is painted anew counts on others: where something is painted, or no longer is."""
    if complete:
        return np.ones(image.shape, bool)
    return image > 0 if before is None else (image > 0) | (before > 0)


def _without(annotation: Annotation, cleared: Callable[[LabelArray], LabelArray]) -> Annotation:
    slices = {index: cleared(image) for index, image in annotation.slices.items()}
    return Annotation({k: v for k, v in slices.items() if v.any() or k in annotation.complete}, annotation.complete)


def _differing(one: Mapping[int, object], other: Mapping[int, object]) -> frozenset[int]:
    """Return the indices whose entries are not the same object: a change always makes a new one."""
    return frozenset(index for index in one.keys() | other.keys() if one.get(index) is not other.get(index))


class History:
    """The present state with those before it and those that were taken back, each with what was done to reach it."""

    def __init__(self, present: SessionState | None = None) -> None:
        self.present = present or SessionState()
        self._past: list[tuple[SessionState, str]] = []
        self._future: list[tuple[SessionState, str]] = []

    def __len__(self) -> int:
        """Return how many steps can be taken back."""
        return len(self._past)

    @property
    def undoable(self) -> str:
        """What :meth:`undo` would take back, in a few words; empty where there is nothing."""
        return self._past[-1][1] if self._past else ""

    @property
    def redoable(self) -> str:
        """What :meth:`redo` would make again; empty where there is nothing."""
        return self._future[-1][1] if self._future else ""

    def push(self, state: SessionState, done: str) -> None:
        """Make ``state`` the present one; ``done`` says in a few words what led to it."""
        self._past.append((self.present, done))
        self._future.clear()
        self.present = state
        while len(self._past) > 1 and self.nbytes() > HISTORY_BYTES:
            self._past.pop(0)

    def nbytes(self) -> int:
        """Return the memory of all past slices; what states share is counted once."""
        sizes = {}
        for state, _ in self._past:
            sizes.update({id(r): r.labels.nbytes + r.confidence.nbytes for r in state.results.values()})
            planes = (state.painted, state.frozen, *(annotation.slices for annotation in state.across.values()))
            sizes.update({id(image): image.nbytes for images in planes for image in images.values()})
        return sum(sizes.values())

    def undo(self) -> bool:
        """Go one step back; return whether there was one."""
        if not self._past:
            return False
        before, done = self._past.pop()
        self._future.append((self.present, done))
        self.present = before
        return True

    def redo(self) -> bool:
        """Go one step forward again; return whether there was one."""
        if not self._future:
            return False
        after, done = self._future.pop()
        self._past.append((self.present, done))
        self.present = after
        return True
