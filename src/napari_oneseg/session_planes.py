"""The planes of a scan that is being labelled: their features, and a propagation from painted slices of several.

The main plane's features are computed when the scan is opened, those of another plane when they are first needed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from napari_oneseg.checkpoint import Weights
from napari_oneseg.config import PropagationConfig
from napari_oneseg.crossing_lines import turned
from napari_oneseg.features.cache import FeatureCache
from napari_oneseg.propagation.fusion import PaintedPlane, propagate_planes, without_crossings
from napari_oneseg.propagation.propagate import LabelledSlice, propagate_slices
from napari_oneseg.scan_features import Progress, ScanFeatures
from napari_oneseg.session_job import PropagationJob, staying
from napari_oneseg.volume import Annotation, Volume

__all__ = ["ScanPlanes", "plane_axes", "turned_annotation"]


def plane_axes(main: int) -> tuple[int, int, int]:
    """Return the axis of a scan's array that lies across the main plane, and then the two others, ascending.

    That is where axis 0, 1 and 2 of an array in the main plane's slice order, (n, rows, columns), come from.
    """
    first, second = (axis for axis in (0, 1, 2) if axis != main)
    return main, first, second


def turned_annotation(annotation: Annotation, plane: int, main: int) -> Annotation:
    """Bring painted slices from the order of the scan's axes to the main plane's slice order, or back."""
    slices = {index: turned(image, plane, main) for index, image in annotation.slices.items()}
    return Annotation(slices, annotation.complete)


class ScanPlanes:
    """The features of one scan, plane by plane.

    Parameters
    ----------
    volume, weights, device, cache, progress
        As for :class:`~napari_oneseg.scan_features.ScanFeatures`; the main plane is the volume's own.

    Attributes
    ----------
    main
        Features of the main plane.
    axes
        From :func:`plane_axes`.
    """

    def __init__(
        self,
        volume: Volume,
        weights: Weights,
        device: torch.device,
        cache: FeatureCache | None = None,
        progress: Progress | None = None,
    ) -> None:
        self._given = weights, device, cache
        self.main = ScanFeatures(volume, *self._given, progress)
        self.axes = plane_axes(volume.axis)
        self._opened = {volume.axis: self.main}

    @property
    def volume(self) -> Volume:
        """The scan."""
        return self.main.volume

    def features(self, plane: int, progress: Progress | None = None) -> ScanFeatures:
        """Return the features of a plane; they are computed, or read from the cache, if nobody has needed them before.

        Parameters
        ----------
        plane
            The axis of the scan's array that its slices lie across.
        progress
            Called with (slices done, slices in all); an exception it raises ends the computing.
        """
        if plane not in self._opened:
            # Two threads that need it at once would both compute it, and one of them be used.
            found = ScanFeatures(replace(self.volume, slice_axis=plane), *self._given, progress)
            self._opened.setdefault(plane, found)
        return self._opened[plane]

    def keep(self) -> None:
        """Write the features of all planes that were computed into the cache, if there is one."""
        for scan in tuple(self._opened.values()):
            scan.keep()

    def propagated(
        self, job: PropagationJob, config: PropagationConfig, progress: Progress | None = None
    ) -> Iterator[LabelledSlice]:
        """Carry what a job has painted, in whatever planes, and give the main plane's slices as they are ready.

        Parameters
        ----------
        job
            What travels.
        config
            Window and stopping rule.
        progress
            Called with (visits done, visits in all); where several planes are painted, in thousandths of a plane.
        """
        rows, columns = self.volume.slices.shape[1:]
        others = staying(job, (rows, columns))
        if not job.across:
            given = job.annotation, job.slice_range, job.direction, config, progress, others
            yield from self.main.used_stepwise(lambda features: propagate_slices(features, *given), progress)
            return
        painted = self._painted(job)
        planes = without_crossings(painted)

        def carried(plane: PaintedPlane) -> Iterator[LabelledSlice]:
            told = None if progress is None else _part(progress, planes.index(plane), len(planes))
            return self._carried(plane, job, config, told, others)

        shape = self.volume.n_slices, rows, columns
        yield from propagate_planes(planes, carried, shape, job.slice_range, painted)

    def _painted(self, job: PropagationJob) -> list[PaintedPlane]:
        """Return the planes in which a job has painted something, as far as it lies in the range."""
        first, last = job.slice_range
        inside = {index: image for index, image in job.annotation.slices.items() if first <= index <= last}
        main = Annotation(inside, job.annotation.complete & inside.keys())
        shape = self.volume.slices.shape
        return [
            PaintedPlane(
                axis,
                annotation,
                shape[axis],
                self.volume.spacing[self.axes[axis]],
                job.direction if axis == 0 else "both",
            )
            for axis, annotation in {0: main, **job.across}.items()
            if annotation.slices
        ]

    def _carried(
        self,
        plane: PaintedPlane,
        job: PropagationJob,
        config: PropagationConfig,
        progress: Progress | None,
        others: Callable[[int], NDArray[np.bool_]] | None,
    ) -> Iterator[LabelledSlice]:
        """Carry what is painted in one plane along its axis, and give its slices in the main plane's slice order."""
        annotation, main = plane.annotation, self.volume.axis
        if not annotation.labels:  # complete slices that show nothing settle their voxels; there is nothing to carry
            return
        axis = self.axes[plane.axis]
        scan = self.features(axis, progress)
        if plane.axis == 0:
            span, beside = job.slice_range, others
        else:
            span, beside = None, None if others is None else self._others_across(others, plane.axis)
        given = turned_annotation(annotation, axis, main), span, plane.direction, config, progress, beside
        for found in scan.used_stepwise(lambda features: propagate_slices(features, *given), progress):
            labels, confidence = turned(found.labels, axis, main), turned(found.confidence, axis, main)
            yield replace(found, labels=labels, confidence=confidence)

    def _others_across(
        self, others: Callable[[int], NDArray[np.bool_]], axis: int
    ) -> Callable[[int], NDArray[np.bool_]]:
        """Return what tells where on a slice of another plane labels lie that do not travel."""
        where = np.moveaxis(np.stack([others(index) for index in range(self.volume.n_slices)]), axis, 0)
        return lambda index: np.ascontiguousarray(turned(where[index], self.axes[axis], self.volume.axis))


def _part(progress: Progress, number: int, count: int) -> Callable[[int, int], Any]:
    """Return the progress of one of several parts, as progress of the whole in thousandths of a part."""
    return lambda done, total: progress(1000 * number + 1000 * done // max(total, 1), 1000 * count)
