"""The scan and what was painted on it, as plain numpy: no files, no torch, no viewer.

Arrays are ordered (z, y, x), and spacing follows the same order. A scan that was read from a file is in *patient
order*: z runs to the head, y to the back and x to the patient's left, each as closely as the scan allows, however the
file stores its voxels (:mod:`napari_oneseg.file_order`). *Slices* run along ``Volume.slice_axis``; an array "in slice
order" has that axis first: (n, rows, columns).
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from napari_oneseg.errors import AnnotationError, InputError
from napari_oneseg.orientation import Grid, Orientation

__all__ = ["Annotation", "Volume", "label_dtype", "painted_image", "through_plane_axis"]

Scalar = TypeVar("Scalar", bound=np.generic)
LabelArray = NDArray[np.unsignedinteger]

SHEARED = (
    "its grid is sheared (its axes are not perpendicular, as after a gantry tilt or an affine registration); resample "
    "it to a grid with perpendicular axes first"
)
"""What is said of a scan whose axes are not perpendicular, wherever that shows."""


def through_plane_axis(spacing: tuple[float, float, float]) -> int:
    """Return the array axis along which a scan was most likely acquired slice by slice.

    That is the axis of the largest spacing; axis 0, of axial slices, where the voxels are isotropic to 1 %.

    Parameters
    ----------
    spacing
        Voxel size along (z, y, x) in mm.
    """
    if max(spacing) <= 1.01 * min(spacing):
        return 0
    return int(np.argmax(spacing))


def label_dtype(largest: int) -> np.dtype[np.unsignedinteger]:
    """Return the smallest unsigned integer type that holds labels up to ``largest``."""
    return np.dtype(np.min_scalar_type(int(largest)))


@dataclass(frozen=True, eq=False)
class Volume:
    """A 3D scan with its exact position in space.

    Parameters
    ----------
    array
        Grey values, shape (z, y, x), any integer or float type, finite, not constant.
    spacing
        Voxel size along (z, y, x) in mm.
    origin
        Centre of voxel (0, 0, 0) in mm, in the patient's frame (x to the left, y to the back, z to the head).
    direction
        3 x 3, orthonormal; column k is the unit vector, in the patient's frame, of array axis k (z, y, x).
    slice_axis
        The axis along which the slices run; by default :func:`through_plane_axis`.
    header
        Entries of the source file's header that a label file on the same grid must repeat.
    to_file
        The way from the order of this array's axes to that of the file it was read from; labels go that way when they
        are written. An array that comes from no file is taken as it is given.
    padding
        The lowest and the highest grey value, both included, that the scanner filled in where it measured nothing, such
        as outside the circle of a CT: no tissue. None if the file does not say so.
    spacing_known
        Whether the file, or the user, has said how large the voxels are; if not, ``spacing`` is 1 mm along the axes of
        which the file says nothing, and no length or volume of it can be relied upon.

    Raises
    ------
    InputError
        If the array is not a 3D scan of at least two slices, or holds NaN, infinite or only equal values.
    """

    array: NDArray[np.generic]
    spacing: tuple[float, float, float] = (1.0, 1.0, 1.0)
    origin: tuple[float, float, float] = (0.0, 0.0, 0.0)
    direction: NDArray[np.float64] = field(default_factory=np.eye(3)[:, ::-1].copy)
    slice_axis: int | None = None
    header: Mapping[str, str] = field(default_factory=dict)
    to_file: Orientation = field(default_factory=Orientation)
    padding: tuple[float, float] | None = None
    spacing_known: bool = True

    def __post_init__(self) -> None:
        _check_scan(self.array)
        if len(self.spacing) != 3 or not all(np.isfinite(s) and s > 0 for s in self.spacing):
            raise InputError(f"Voxel spacing must be three positive numbers in mm, got {self.spacing}.")
        if len(self.origin) != 3 or not np.isfinite(self.origin).all():
            raise InputError(f"The scan's origin must be three numbers in mm, got {self.origin}.")
        if np.shape(self.direction) != (3, 3) or not np.allclose(
            np.asarray(self.direction).T @ self.direction, np.eye(3), atol=1e-3
        ):
            raise InputError(f"This scan cannot be used: {SHEARED}.")
        if self.padding is not None and not self.padding[0] <= self.padding[1]:
            raise InputError(f"The padding must be a lowest and a highest grey value, got {self.padding}.")
        axis = through_plane_axis(self.spacing) if self.slice_axis is None else self.slice_axis
        if axis not in (0, 1, 2):
            raise InputError(f"The slice axis must be 0, 1 or 2 (z, y or x), got {axis}.")
        if self.array.shape[axis] < 2:
            raise InputError(
                f"A scan needs at least two slices, this one has {self.array.shape[axis]} along axis {axis} "
                f"(shape {self.array.shape}). Open the whole series, or choose another slice axis."
            )
        object.__setattr__(self, "slice_axis", axis)

    @property
    def axis(self) -> int:
        """The slice axis, always resolved to 0, 1 or 2."""
        assert self.slice_axis is not None  # set in __post_init__
        return self.slice_axis

    @property
    def slices(self) -> NDArray[np.generic]:
        """The scan in slice order, shape (n, rows, columns): a view."""
        return np.moveaxis(self.array, self.axis, 0)

    @property
    def n_slices(self) -> int:
        """Number of slices along the slice axis."""
        return int(self.array.shape[self.axis])

    @property
    def slice_spacing(self) -> float:
        """Distance between neighbouring slices in mm."""
        return self.spacing[self.axis]

    @property
    def in_plane_spacing(self) -> tuple[float, float]:
        """Pixel size within a slice, (rows, columns), in mm."""
        rows, columns = (s for k, s in enumerate(self.spacing) if k != self.axis)
        return rows, columns

    @property
    def voxel_ml(self) -> float:
        """Volume of one voxel in mL."""
        return float(np.prod(self.spacing)) / 1000.0

    @property
    def grid(self) -> Grid:
        """Where the voxels lie."""
        return Grid(self.array.shape, self.spacing, self.origin, np.asarray(self.direction, dtype=float))

    def to_slices(self, array: NDArray[Scalar]) -> NDArray[Scalar]:
        """Bring an array on this scan's grid, (z, y, x), into slice order: a view."""
        return np.moveaxis(array, self.axis, 0)

    def from_slices(self, array: NDArray[Scalar]) -> NDArray[Scalar]:
        """Bring an array in slice order back to (z, y, x), contiguous."""
        return np.ascontiguousarray(np.moveaxis(array, 0, self.axis))

    @cached_property
    def content_hash(self) -> str:
        """SHA-256 over grey values and grid: two files of the same scan agree, whatever their names."""
        digest = hashlib.sha256()
        digest.update(repr((self.array.shape, self.array.dtype.str, self.axis)).encode())
        # Rounded, because file formats store the same spacing in single or double precision.
        frame = np.concatenate([self.spacing, self.origin, np.ravel(self.direction)])
        digest.update((np.round(frame, 3) + 0.0).tobytes())
        digest.update(np.ascontiguousarray(self.array).data)
        return digest.hexdigest()


def _check_scan(array: NDArray[np.generic]) -> None:
    if array.ndim != 3:
        raise InputError(
            f"A 3D scan was expected, got {array.ndim} dimensions (shape {array.shape}). "
            + ("Choose one of its volumes." if array.ndim > 3 else "Open the whole series instead of one slice.")
        )
    if not (np.issubdtype(array.dtype, np.integer) or np.issubdtype(array.dtype, np.floating)):
        raise InputError(f"Grey values must be integers or floats, got {array.dtype}.")
    if array.size == 0:
        raise InputError(f"The scan is empty (shape {array.shape}).")
    if np.issubdtype(array.dtype, np.floating):
        bad = int(array.size - np.count_nonzero(np.isfinite(array)))
        if bad:
            raise InputError(
                f"The scan holds {bad} values that are NaN or infinite. Replace them, for instance by the value of air."
            )
    if array.min() == array.max():
        raise InputError(
            f"All voxels of the scan have the same value ({array.flat[0]}), so it shows nothing; check the file."
        )


def painted_image(image: NDArray[np.integer], shape: tuple[int, int]) -> LabelArray:
    """Return a checked, read-only copy of a painted slice in the smallest unsigned type that holds its labels.

    Parameters
    ----------
    image
        Labels, 0 = not painted.
    shape
        Rows and columns of the scan's slices.

    Raises
    ------
    AnnotationError
        If the image has another shape, or holds anything but whole numbers from 0 on.
    """
    if image.shape != shape:
        raise AnnotationError(f"A painted slice must have the scan's {shape} rows and columns, got {image.shape}.")
    if not np.issubdtype(image.dtype, np.integer):
        raise AnnotationError(f"A painted slice must hold whole numbers, one per label, got {image.dtype}.")
    if image.size and image.min() < 0:
        raise AnnotationError(f"Labels must be 0 or greater, got {image.min()}.")
    kept: LabelArray = image.astype(label_dtype(int(image.max())))
    kept.setflags(write=False)
    return kept


@dataclass(frozen=True, eq=False)
class Annotation:
    """What was painted, slice by slice.

    Parameters
    ----------
    slices
        Painted label images by slice index, each (rows, columns), unsigned integers, 0 = not painted.
    complete
        Indices of slices on which *every* label was painted, so that 0 means background there. Such a slice is an
        anchor for all labels, also for those that it does not show.
    """

    slices: Mapping[int, LabelArray] = field(default_factory=dict)
    complete: frozenset[int] = frozenset()

    def __post_init__(self) -> None:
        missing = sorted(set(self.complete) - set(self.slices))
        if missing:
            raise AnnotationError(f"Slices {missing} are marked complete, but nothing was given for them.")

    @classmethod
    def from_labels(cls, labels: LabelArray, complete: Iterable[int] = ()) -> Annotation:
        """Take every slice of a label volume that is not empty as painted.

        Parameters
        ----------
        labels
            Shape (n, rows, columns), in slice order, integers, 0 = not painted.
        complete
            Indices of complete slices; these may be empty.

        Raises
        ------
        AnnotationError
            If no slice is painted, or a complete slice lies outside the scan.
        """
        complete = frozenset(int(index) for index in complete)
        outside = sorted(index for index in complete if not 0 <= index < len(labels))
        if outside:
            raise AnnotationError(
                f"Complete slices {outside} lie outside the scan, which has slices 0 to {len(labels) - 1}."
            )
        painted = np.flatnonzero(labels.reshape(len(labels), -1).any(axis=1))
        if painted.size == 0:
            raise AnnotationError("The annotation is empty: paint at least one slice.")
        indices = sorted({int(index) for index in painted} | complete)
        return cls({index: labels[index] for index in indices}, complete)

    @cached_property
    def labels(self) -> tuple[int, ...]:
        """All painted label values, ascending, without 0."""
        values = [np.unique(image) for image in self.slices.values()]
        return tuple(int(value) for value in np.unique(np.concatenate(values)) if value) if values else ()

    def only(self, chosen: Collection[int]) -> Annotation:
        """Return the same annotation without all other labels; complete slices stay complete.

        Raises
        ------
        AnnotationError
            If one of the labels was painted nowhere.
        """
        unknown = sorted(set(chosen) - set(self.labels))
        if unknown:
            raise AnnotationError(f"Labels {unknown} were painted nowhere; painted are {list(self.labels)}.")
        return self.restricted(chosen)

    def restricted(self, chosen: Collection[int]) -> Annotation:
        """Return what was painted of some labels, perhaps nothing; complete slices stay complete."""
        slices = {
            index: np.where(np.isin(image, list(chosen)), image, 0).astype(image.dtype)
            for index, image in self.slices.items()
        }
        kept = {index: image for index, image in slices.items() if image.any() or index in self.complete}
        return Annotation(kept, self.complete)

    def anchors(self, label: int) -> tuple[int, ...]:
        """Return the slices where ``label`` is known: those where it was painted, and the complete ones."""
        return tuple(
            index
            for index in sorted(self.slices)
            if index in self.complete or bool((self.slices[index] == label).any())
        )
