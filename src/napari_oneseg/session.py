"""One scan being labelled: the object that the widget, the command line, the examples and the tests all drive.

The expensive step, :meth:`OneSegSession.set_volume`, computes the features once; everything else is cheap and may be
repeated. What the user has made lives in one immutable :class:`~napari_oneseg.session_state.SessionState`, replaced
whole by every change, so that undo is to take the previous one back. Slices are shared between states, so a state costs
only the slices it changed.
"""

from __future__ import annotations

import operator
import os
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import replace
from functools import partial

import torch

from napari_oneseg.checkpoint import Weights, load_weights
from napari_oneseg.config import Direction, PropagationConfig, ScreeningConfig
from napari_oneseg.crossing_lines import turned
from napari_oneseg.device import choose_device
from napari_oneseg.errors import AnnotationError, InputError, SessionError
from napari_oneseg.features.cache import FeatureCache
from napari_oneseg.features.extractor import FeatureStack
from napari_oneseg.planes import plane_name
from napari_oneseg.propagation.propagate import LabelledSlice
from napari_oneseg.scan_features import Progress, ScanFeatures
from napari_oneseg.screening import (
    NextSlice,
    PlaneExtent,
    PlaneSuggestion,
    SliceSuggestion,
    checked_voxel,
    locate,
    rank_next,
    rank_planes,
    rank_slices,
)
from napari_oneseg.session_file import SavedSession, load_session, save_session
from napari_oneseg.session_job import PropagationJob, beginning, joined, protecting, renewal
from napari_oneseg.session_order import in_scan_order
from napari_oneseg.session_planes import ScanPlanes, turned_annotation
from napari_oneseg.session_result import Propagation, all_labels, present_result
from napari_oneseg.session_state import History, SessionState
from napari_oneseg.slice_range import checked_range
from napari_oneseg.volume import Annotation, LabelArray, Volume, painted_image

__all__ = ["OneSegSession", "Propagation"]


class OneSegSession:
    """Suggest slices, take painted ones, carry their labels through the volume, take corrections.

    Parameters
    ----------
    weights
        A weights file, loaded weights, or None for those that ship with the package.
    device
        ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.
    threads
        CPU threads to compute with; torch's default where None.
    screening, propagation
        Parameters of these stages.
    cache
        Where features are kept on disk, for instance :func:`~napari_oneseg.features.cache.user_cache`; by default they
        are not.

    Examples
    --------
    >>> session = OneSegSession()
    >>> session.set_volume(volume)
    >>> index = session.suggest_slices(top=1)[0].index
    >>> session.annotate(index, painted)
    >>> labels = session.propagate().labels
    """

    def __init__(
        self,
        weights: str | os.PathLike[str] | Weights | None = None,
        device: str = "auto",
        threads: int | None = None,
        screening: ScreeningConfig | None = None,
        propagation: PropagationConfig | None = None,
        cache: FeatureCache | None = None,
    ) -> None:
        if threads is not None:
            torch.set_num_threads(threads)
        self.device = choose_device(device)
        self.weights = weights if isinstance(weights, Weights) else load_weights(weights)
        self.screening = screening or ScreeningConfig()
        self.propagation = propagation or PropagationConfig()
        self._cache = cache
        self._planes: ScanPlanes | None = None
        self._history = History()

    # The scan ----------------------------------------------------------------------------------------------------

    def set_volume(self, volume: Volume, progress: Progress | None = None) -> None:
        """Take a scan and compute its features; everything made on the previous scan is dropped.

        A cancelled or failed call leaves the session as it was. Where there is a cache that holds the features, they
        are only read.
        """
        self._planes = ScanPlanes(volume, self.weights, self.device, self._cache, progress)
        self._history = History()

    def keep_features(self) -> None:
        """Write the features into the cache, if there is one and they came from elsewhere.

        It may run in another thread, so that nobody waits for the disk.
        """
        self._open_planes.keep()

    def prepare_plane(self, plane: int, progress: Progress | None = None) -> None:
        """Compute the features of another plane, or read them from the cache; nothing is done if they are there.

        It may run in another thread while the user paints. Whatever needs the plane and does not find it calls this.

        Parameters
        ----------
        plane
            The axis of the scan's array, (z, y, x), that the plane's slices lie across.
        progress
            Called with (slices done, slices in all); an exception it raises ends the computing.
        """
        self._open_planes.features(self._checked_plane(plane), progress)

    @property
    def volume(self) -> Volume:
        """The scan.

        Raises
        ------
        SessionError
            Before :meth:`set_volume`.
        """
        return self._open_scan.volume

    @property
    def features(self) -> FeatureStack:
        """The features of the scan; see :attr:`volume`."""
        return self._open_scan.stack

    @property
    def _open_planes(self) -> ScanPlanes:
        if self._planes is None:
            raise SessionError("No scan is open: call set_volume first.")
        return self._planes

    @property
    def _open_scan(self) -> ScanFeatures:
        return self._open_planes.main

    def suggest_slices(
        self, slice_range: tuple[int, int] | None = None, top: int | None = None
    ) -> list[SliceSuggestion]:
        """Return the slices most worth painting, best first.

        Parameters
        ----------
        slice_range
            First and last slice to consider, both included, for instance the rough extent of the target.
        top
            How many to return at most.
        """
        return self._open_scan.used(lambda features: rank_slices(features, slice_range, self.screening))[:top]

    def locate(self, index: int, row: int, column: int) -> tuple[int, int]:
        """Return roughly the first and the last slice of what lies at a place, both included.

        Parameters
        ----------
        index, row, column
            A voxel well within the target, in slice order; an InputError says if it lies outside the scan.
        """
        scan = self._open_scan
        return scan.used(lambda features: locate(features, scan.coarse_grey, (index, row, column)))

    def suggest_planes(
        self, index: int, row: int, column: int, progress: Progress | None = None
    ) -> list[PlaneSuggestion]:
        """Return the planes for painting what lies at a place, each with a slice and a reason in words, best first.

        The features of all planes are needed; see :meth:`prepare_plane`.

        Parameters
        ----------
        index, row, column
            A voxel well within the target, in slice order; an InputError says if it lies outside the scan.
        progress
            As for :meth:`prepare_plane`.
        """
        volume, planes = self.volume, self._open_planes
        voxel = checked_voxel((index, row, column), volume.slices.shape)
        place = dict(zip(planes.axes, voxel, strict=True))
        extents = []
        for plane in planes.axes:
            if volume.array.shape[plane] < 2:
                continue
            scan = planes.features(plane, progress)
            row_axis, column_axis = (axis for axis in (0, 1, 2) if axis != plane)
            here = place[plane], place[row_axis], place[column_axis]
            first, last = scan.used(partial(locate, grey=scan.coarse_grey, voxel=here))
            ranked = scan.used(partial(rank_slices, slice_range=(first, last), config=self.screening))
            name = plane_name(volume.direction, plane)
            extents.append(PlaneExtent(plane, name, ranked[0].index, first, last, volume.spacing[plane]))
        return rank_planes(extents, volume.axis)

    def suggest_next(
        self, slice_range: tuple[int, int] | None = None, label: int | None = None, top: int | None = None
    ) -> list[NextSlice]:
        """Return the slices that would gain most if they were painted next, best first; none where all are known.

        If even the first one is not ``worth_it``, little is left to gain by painting.

        Parameters
        ----------
        slice_range
            First and last slice to choose from, both included.
        label
            The label to improve, by default all of them.
        top
            How many to return at most.

        Raises
        ------
        SessionError
            If nothing was propagated yet.
        AnnotationError
            If the label was painted nowhere.
        """
        state = self._state
        if not state.results:
            raise SessionError("Nothing was propagated yet: call propagate first, then see where one more slice helps.")
        now, voxel_ml = present_result(state, self.volume), self.volume.voxel_ml
        settings = slice_range, label, self.screening
        return rank_next(now.labels, now.confidence, state.annotation, voxel_ml, *settings, state.labels)[:top]

    # What the user makes -----------------------------------------------------------------------------------------

    @property
    def state(self) -> SessionState:
        """All that was made, as it is now; a later change leaves this object as it is."""
        return self._history.present

    @property
    def has_work(self) -> bool:
        """Whether anything was painted, propagated, or can be brought back by undo and redo."""
        state, history = self._state, self._history
        made = state.painted or state.frozen or state.results or state.across
        return bool(made or history.undoable or history.redoable)

    @property
    def annotation(self) -> Annotation:
        """The painted, corrected and frozen slices."""
        return self._state.annotation

    @property
    def frozen(self) -> frozenset[int]:
        """Slices that no propagation and no annotation may change."""
        return frozenset(self._state.frozen)

    @property
    def stale(self) -> frozenset[int]:
        """Slices whose labels are older than what was painted or corrected since; :meth:`update` renews them."""
        return self._state.stale

    @property
    def painted_planes(self) -> dict[int, Annotation]:
        """What is painted, corrected or frozen, by plane: the axis of the scan's array that its slices lie across."""
        state, main = self._state, self.volume.axis
        planes = {0: state.annotation, **state.across}
        return {
            plane: turned_annotation(planes[axis], plane, main)
            for axis, plane in enumerate(self._open_planes.axes)
            if axis in planes and planes[axis].slices
        }

    def annotate(self, index: int, image: LabelArray, complete: bool = False, plane: int | None = None) -> None:
        """Paint a slice; an empty image that is not complete takes the slice's painting back.

        Where it crosses painted slices of other planes, what is painted last counts on both.

        Parameters
        ----------
        index
            Slice index.
        image
            Labels, shape (rows, columns), integers, 0 = not painted.
        complete
            Whether every label was painted, so that 0 means background.
        plane
            The axis of the scan's array, (z, y, x), that the slice lies across; by default the scan's own slice axis.
            The image lies over the two other axes, in their order.

        Raises
        ------
        AnnotationError
            If the image does not fit the scan, or the slice is frozen.
        """
        self.set_annotation(Annotation({index: image}, frozenset([index] if complete else [])), plane)

    def set_annotation(self, annotation: Annotation, plane: int | None = None) -> None:
        """Paint several slices of a plane at once, as one step of the history; see :meth:`annotate`."""
        if plane is None or self._checked_plane(plane) == self.volume.axis:
            self._set_painted(annotation.slices, annotation.complete)
            return
        axis, slices = self._open_planes.axes.index(plane), self._checked(annotation.slices, plane)
        complete = frozenset(self._checked_index(index, plane) for index in annotation.complete)
        after = self._state.with_painted_across(axis, slices, complete)
        self._change(after, (), "painting")

    def correct(self, index: int, image: LabelArray) -> None:
        """Replace a slice's labels, all of them: from now on the slice is an anchor for every label."""
        self._set_painted({index: image}, complete={index}, done=f"correcting slice {index}")

    def paint(self, images: Mapping[int, LabelArray], corrected: Collection[int] = ()) -> frozenset[int]:
        """Take slices as the user has left them after a stroke, whatever they were before, as one step of the history.

        Where nothing was propagated, this is painting. On a propagated slice it is a correction, and all labels of the
        slice count. On a slice that was painted only in part, what is added joins what was painted. A frozen slice
        stays frozen as it is now: it is protected from propagation, not from the user.

        Parameters
        ----------
        images
            All labels of each slice, shape (rows, columns), integers, 0 = background.
        corrected
            Slices that the user saw propagated already, though :meth:`take` was not called yet.

        Returns
        -------
        The slices that changed.

        Raises
        ------
        AnnotationError
            If an image does not fit the scan; nothing was changed then.
        """
        after, done = self._state.with_strokes(self._checked(images), corrected)
        changed = self._state.repainted(after)
        if changed:
            self._change(after, changed, done)
        return changed

    def remove(self, label: int) -> None:
        """Take a label out of everything: painted, propagated and frozen slices."""
        after = self._state.without(label)
        changed = self._state.changed(after)
        if changed:
            # Nothing becomes stale: what is left does not depend on it.
            self._history.push(after, f"removing label {label}")

    def freeze(self, index: int) -> None:
        """Accept a slice as it is: it becomes an anchor for every label, and nothing changes it any more.

        The slices around it stay as they are, since what they show agrees with it; the next propagation sets out from
        it as well.
        """
        index = self._checked_index(index)
        state = self._state
        if index not in state.frozen:
            frozen = {**state.frozen, index: self._slice_labels(index)}
            after = replace(state, frozen=frozen, stale=state.stale - {index})
            self._history.push(after, f"accepting slice {index}")

    def unfreeze(self, index: int) -> None:
        """Let a frozen slice be changed again; what was painted on it before stays painted."""
        if index not in self._state.frozen:
            return
        frozen = {k: v for k, v in self._state.frozen.items() if k != index}
        self._change(replace(self._state, frozen=frozen), [index], f"re-opening slice {index}")

    def _set_painted(self, slices: Mapping[int, LabelArray], complete: Iterable[int], done: str = "painting") -> None:
        slices = self._checked(slices)
        frozen = sorted(slices.keys() & self._state.frozen.keys())
        if frozen:
            raise AnnotationError(f"Slice {frozen[0]} is frozen. Unfreeze it before you change it.")
        settled = frozenset(self._checked_index(index) for index in complete)
        self._change(self._state.with_painted(slices, settled), slices, done)

    def _change(self, after: SessionState, reopen: Iterable[int], done: str) -> None:
        self._history.push(after.reopening(self._state, reopen, self.volume.n_slices), done)

    def _checked(self, images: Mapping[int, LabelArray], plane: int | None = None) -> dict[int, LabelArray]:
        """Return checked copies of slices of a plane, by default the main one, in the main plane's slice order."""
        main = self.volume.axis
        plane = main if plane is None else plane
        rows, columns = (side for k, side in enumerate(self.volume.array.shape) if k != plane)
        return {
            self._checked_index(i, plane): turned(painted_image(image, (rows, columns)), plane, main)
            for i, image in images.items()
        }

    def _checked_index(self, index: int, plane: int | None = None) -> int:
        """Return the index as a plain integer, which a session file can hold."""
        index, count = operator.index(index), self.volume.array.shape[self.volume.axis if plane is None else plane]
        if not 0 <= index < count:
            raise AnnotationError(f"There is no slice {index}: the scan has slices 0 to {count - 1}.")
        return index

    def _checked_plane(self, plane: int) -> int:
        if plane not in (0, 1, 2):
            raise InputError(f"A plane must be 0, 1 or 2, the axis that its slices lie across, got {plane!r}.")
        if self.volume.array.shape[plane] < 2:
            raise InputError(f"The scan has one slice only across axis {plane}; labels cannot travel in that plane.")
        return operator.index(plane)

    @property
    def _slice_shape(self) -> tuple[int, int]:
        rows, columns = self.volume.slices.shape[1:]
        return rows, columns

    # The result --------------------------------------------------------------------------------------------------

    @property
    def labels(self) -> LabelArray:
        """All labels as they are now, painted ones included, shape (n, rows, columns), unsigned integers."""
        count, rows, columns = self.volume.slices.shape
        return all_labels(self._state, (count, rows, columns))

    def _slice_labels(self, index: int) -> LabelArray:
        return self._state.labels_on(index, self._slice_shape)

    def propagate(
        self,
        slice_range: tuple[int, int] | None = None,
        direction: Direction = "both",
        labels: Iterable[int] | None = None,
        progress: Progress | None = None,
    ) -> Propagation:
        """Carry the painted labels through the volume; frozen slices and slices outside the range stay as they are.

        Parameters
        ----------
        slice_range
            First and last slice to label, both included.
        direction
            ``up`` towards higher indices, ``down`` towards lower ones, or ``both``.
        labels
            The labels to carry, all by default. Voxels of other labels are not overwritten.
        progress
            Called with (slices visited, visits in all). A cancelled call changes nothing.

        Raises
        ------
        AnnotationError
            If nothing is painted in the range.
        """
        job = self.begin(slice_range, direction, labels)
        self.take(job, self.compute(job, progress))
        return self.result()

    def update(self, progress: Progress | None = None) -> Propagation:
        """Propagate again where corrections have made the result stale, and only there.

        Those labels travel that were changed, in the direction of the last propagation. Raises and cancels like
        :meth:`propagate`.
        """
        job = self.begin_update()
        if job is not None:
            self.take(job, self.compute(job, progress))
        return self.result()

    def result(self) -> Propagation:
        """Return the labels as they are now, with confidence and volumes."""
        return present_result(self._state, self.volume)

    # The same in parts, for a viewer that computes in the background -----------------------------------------------

    def begin(
        self,
        slice_range: tuple[int, int] | None = None,
        direction: Direction = "both",
        labels: Iterable[int] | None = None,
    ) -> PropagationJob:
        """Return what :meth:`propagate` would set out from now; nothing is computed. Raises like it."""
        span = checked_range(slice_range, self.volume.n_slices)
        chosen = None if labels is None else frozenset(labels)
        return beginning(self._state, span, direction, chosen)

    def begin_update(self) -> PropagationJob | None:
        """Return what :meth:`update` would set out from now, None if nothing is stale."""
        return renewal(self._state)

    def compute(self, job: PropagationJob, progress: Progress | None = None) -> Iterator[LabelledSlice]:
        """Compute a job, slice by slice as they are ready; the session's state is neither read nor changed.

        It may run in another thread, while this one paints. Raises like :meth:`propagate`.
        """
        yield from self._open_planes.propagated(job, self.propagation, progress)

    def preview(self, job: PropagationJob, result: LabelledSlice) -> LabelArray:
        """Return the labels, (rows, columns), that a slice would show if the job's result for it were taken now."""
        if job.only is not None and result.index not in job.only:
            return self._slice_labels(result.index)
        merged = protecting(job, self._state, result, self._slice_shape)
        return replace(self._state, results={result.index: merged}).labels_on(result.index, self._slice_shape)

    def take(self, job: PropagationJob, results: Iterable[LabelledSlice]) -> None:
        """Take over what a job has computed, or the part of it that was ready, as one step of the history.

        What was painted since the job began stays, and the slices that it reaches become stale again.
        """
        found = {result.index: result for result in results}
        if found:
            count, rows, columns = self.volume.slices.shape
            after = joined(job, self._state, found.values(), (count, rows, columns))
            self._history.push(after, "propagation" if job.only is None else "renewed propagation")

    # History -----------------------------------------------------------------------------------------------------

    @property
    def _state(self) -> SessionState:
        return self._history.present

    @property
    def undoable(self) -> str:
        """What :meth:`undo` would take back, in a few words; empty where there is nothing."""
        return self._history.undoable

    @property
    def redoable(self) -> str:
        """What :meth:`redo` would make again, in a few words; empty where there is nothing."""
        return self._history.redoable

    def undo(self) -> bool:
        """Take the last change back, a whole propagation at once; return whether there was one."""
        return self._history.undo()

    def redo(self) -> bool:
        """Make the change again that was taken back last; return whether there was one."""
        return self._history.redo()

    # Files -------------------------------------------------------------------------------------------------------

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write everything that was made on this scan into one file; the scan itself is not in it.

        Raises
        ------
        OutputError
            If the file cannot be written; a file of that name stays as it was.
        """
        save_session(path, self.snapshot())

    def snapshot(self) -> SavedSession:
        """Return everything that was made on this scan, as it is now: what a file holds."""
        return SavedSession(
            self.volume.content_hash,
            self.weights.sha256,
            self.propagation,
            self.screening,
            self._state,
            slice_axis=self.volume.axis,
        )

    def resume(self, path: str | os.PathLike[str]) -> None:
        """Take up a saved session on the scan that is open.

        Raises
        ------
        SessionError
            If no scan is open, or the file belongs to another scan.
        InputError
            If the file is missing or damaged.
        """
        _ = self.volume  # without a scan, that is what has to be said, not what is wrong with the file
        self.restore(load_session(path))

    def restore(self, saved: SavedSession) -> None:
        """Take up what :meth:`snapshot` has given, on the scan that is open; raises like :meth:`resume`."""
        state = in_scan_order(saved, self.volume).state_on(self.volume, self.weights.sha256)
        self.propagation, self.screening = saved.propagation, saved.screening
        if self.has_work:  # what was made since is one step back
            self._history.push(state, "resuming")
        else:
            self._history = History(state)
