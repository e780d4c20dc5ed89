"""The classical methods that the network has to beat.

Each is a :data:`Method`: called once per volume, it returns a function that is called once per annotation. All carry
every label from the slices where that label is known (:meth:`~napari_oneseg.volume.Annotation.anchors`) and leave
painted slices as they were painted.

Strategy of the registrations: neighbouring slices are registered with each other, and a painted mask is warped from
slice to slice outward, as a soft map that is cut at 0.5 only in the end. Between two painted slices both chains meet:
the weight of a painted slice falls linearly to 0 at the next one. Beyond the outermost ones the chain goes on to the
scan's end.
"""

from __future__ import annotations

import ctypes
import importlib
import sys
import warnings
from collections.abc import Callable, Mapping
from itertools import pairwise
from types import ModuleType
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from napari_oneseg.config import PreprocessingConfig
from napari_oneseg.errors import InputError
from napari_oneseg.preprocessing import normalise
from napari_oneseg.volume import Annotation, LabelArray, Volume, label_dtype

__all__ = ["BASELINES", "Method", "Propagate", "contour_interpolation", "copy_slice", "demons", "dis_flow"]


class Propagate(Protocol):
    """Carries an annotation through the volume that it was made for."""

    def __call__(
        self,
        annotation: Annotation,
        slice_range: tuple[int, int] | None = None,
        across: Mapping[int, Annotation] | None = None,
    ) -> LabelArray:
        """Return labels in slice order, unsigned, (n, rows, columns).

        Parameters
        ----------
        annotation
            The painted slices of the scan's own plane.
        slice_range
            First and last slice to label, both included, by default all; the painted slices lie within.
        across
            What is painted in other planes, by the axis in slice order that their slices lie across; each slice over
            the two other axes.

        Raises
        ------
        InputError
            If other planes are painted and the method has only the scan's own.
        """


Method = Callable[[Volume], Propagate]

Flow = NDArray[np.floating]
Register = Callable[[NDArray[np.float32], NDArray[np.float32]], Flow]

REGISTRATION_GREY = PreprocessingConfig(contrast_limit=1.0)
"""A linear mapping of grey values: with equalisation the registrations do no better on CT, and worse on MRI."""

_ROUNDING = 1e-4  # of soft labels on their way through a chain of single-precision warps

DEMONS_ITERATIONS = (40, 40, 20)
"""Iterations at each resolution, each twice as fine as the one before, the last one the slices' own."""
DEMONS_SMOOTHING = 1.0
"""Standard deviation, in pixels, of the Gaussian that smooths the displacement field after each iteration."""
DEMONS_MAX_SIDE = 320
"""Slices with a longer side are registered at half resolution."""


def copy_slice(volume: Volume) -> Propagate:
    """Copy the nearest painted slice's mask to every slice; of two equally near ones, the lower."""

    def carry(painted: Mapping[int, NDArray[np.bool_]]) -> NDArray[np.floating]:
        anchors = np.array(sorted(painted))
        nearest = anchors[np.abs(np.arange(volume.n_slices)[:, None] - anchors).argmin(axis=1)]
        return np.stack([painted[int(index)] for index in nearest]).astype(np.float32)

    return _label_by_label(volume, carry)


def dis_flow(volume: Volume) -> Propagate:
    """Chain DIS optical flow (Kroeger et al. 2016; OpenCV, medium preset) between neighbouring slices.

    Raises
    ------
    InputError
        If OpenCV is not installed.
    """
    cv2 = _optional("cv2", "opencv-python-headless", "DISOpticalFlow_create")
    flow = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)

    def register(target: NDArray[np.float32], reference: NDArray[np.float32]) -> Flow:
        columns_rows: Flow = flow.calc(_to_bytes(target), _to_bytes(reference), None)
        return columns_rows[..., ::-1]

    return _chained(volume, register)


def demons(volume: Volume) -> Propagate:
    """Chain symmetric-forces demons (Thirion 1998; Vercauteren et al. 2009; SimpleITK) between neighbouring slices.

    A coarse registration starts the next finer one. Levels, iterations and smoothing were chosen on training scans
    (thick-slice MRI). Slices above :data:`DEMONS_MAX_SIDE` are registered at half resolution throughout and the fields
    enlarged, which is faster and was no worse where it was compared; the soft maps keep the scan's own grid.
    """
    shrink = 2 if max(volume.slices.shape[1:]) > DEMONS_MAX_SIDE else 1

    def register(target: NDArray[np.float32], reference: NDArray[np.float32]) -> Flow:
        size = target.shape[0], target.shape[1]
        field: Flow | None = None
        for halvings, iterations in zip(reversed(range(len(DEMONS_ITERATIONS))), DEMONS_ITERATIONS, strict=True):
            factor = shrink * 2**halvings
            level = max(8, size[0] // factor), max(8, size[1] // factor)
            start = None if field is None else _resize_flow(field, level)
            field = _demons_field(_resize(target, level), _resize(reference, level), iterations, start)
        assert field is not None
        return _resize_flow(field, size)

    return _chained(volume, register)


def contour_interpolation(volume: Volume) -> Propagate:
    """Interpolate contours between painted slices (Zukić et al. 2016; ITK's MorphologicalContourInterpolation).

    Each label needs two painted slices; beyond the outermost ones there is nothing. It never looks at grey values.

    Raises
    ------
    InputError
        If the ITK module is not installed.
    """
    itk = _itk()

    def carry(painted: Mapping[int, NDArray[np.bool_]]) -> NDArray[np.floating]:
        result = np.zeros(volume.slices.shape, np.float32)
        anchors = sorted(painted)
        for index in anchors:
            result[index] = painted[index]
        for first, last in pairwise(anchors):
            if painted[first].any() and painted[last].any():
                result[first : last + 1] = _interpolate(itk, painted[first], painted[last], last - first + 1)
        return result

    return _label_by_label(volume, carry)


BASELINES: dict[str, Method] = {
    "copy": copy_slice,
    "dis": dis_flow,
    "demons": demons,
    "contour": contour_interpolation,
}
"""The baselines by the names that the command line and the benchmarks know them by."""


def _label_by_label(
    volume: Volume, carry: Callable[[Mapping[int, NDArray[np.bool_]]], NDArray[np.floating]]
) -> Propagate:
    """Carry each label on its own; a voxel gets the label of the greatest soft value, if that is at least 0.5."""
    shape = volume.slices.shape

    def propagate(
        annotation: Annotation,
        slice_range: tuple[int, int] | None = None,
        across: Mapping[int, Annotation] | None = None,
    ) -> LabelArray:
        if across:
            raise InputError(
                "The classical methods carry labels along the scan's own slices only, and slices of other planes are "
                "painted. Use a protocol that paints the scan's own slices."
            )
        labels = np.zeros(shape, label_dtype(max(annotation.labels, default=0)))
        best = np.full(shape, 0.5 - _ROUNDING, np.float32)
        for label in annotation.labels:
            soft = carry({index: annotation.slices[index] == label for index in annotation.anchors(label)})
            won = soft > best
            labels[won] = label
            best[won] = soft[won]
        for index, image in annotation.slices.items():
            known = np.ones(image.shape, bool) if index in annotation.complete else image > 0
            labels[index][known] = image[known]
        if slice_range is not None:  # chains run outward, so what lies beyond the range changes nothing within
            labels[: slice_range[0]] = 0
            labels[slice_range[1] + 1 :] = 0
        return labels

    return propagate


def _chained(volume: Volume, register: Register) -> Propagate:
    """Make a method of a registration of two slices; each field is computed when first needed, and kept."""
    slices = volume.to_slices(normalise(volume.array, REGISTRATION_GREY, volume.padding))
    fields: dict[tuple[int, int], NDArray[np.float16]] = {}

    def step(target: int, reference: int, soft: NDArray[np.floating]) -> NDArray[np.floating]:
        if (target, reference) not in fields:
            flow = register(np.ascontiguousarray(slices[target]), np.ascontiguousarray(slices[reference]))
            # Half precision is a hundredth of a pixel for the largest displacements, and half the memory.
            fields[target, reference] = flow.astype(np.float16)
        return warp(soft, fields[target, reference])

    def carry(painted: Mapping[int, NDArray[np.bool_]]) -> NDArray[np.floating]:
        return _blend_chains(painted, volume.slices.shape, step)

    return _label_by_label(volume, carry)


def _blend_chains(
    painted: Mapping[int, NDArray[np.bool_]],
    shape: tuple[int, ...],
    step: Callable[[int, int, NDArray[np.floating]], NDArray[np.floating]],
) -> NDArray[np.floating]:
    """Run a chain from each painted slice to its neighbours, or the scan's ends, and sum them by their weights."""
    blended = np.zeros(shape, np.float32)
    anchors = sorted(painted)
    for place, anchor in enumerate(anchors):
        blended[anchor] = painted[anchor]
        below = anchors[place - 1] if place else None
        above = anchors[place + 1] if place + 1 < len(anchors) else None
        for direction, neighbour, end in ((-1, below, -1), (1, above, shape[0])):
            soft = painted[anchor].astype(np.float32)
            for target in range(anchor + direction, end if neighbour is None else neighbour, direction):
                if not soft.any():
                    break
                soft = step(target, target - direction, soft).astype(np.float32)
                weight = 1.0 if neighbour is None else 1.0 - abs(target - anchor) / abs(neighbour - anchor)
                blended[target] += weight * soft
    return blended


def warp(soft: NDArray[np.floating], flow: Flow) -> NDArray[np.float32]:
    """Move a map along a displacement field: ``result(p) = soft(p + flow(p))``, linearly, 0 outside.

    Parameters
    ----------
    soft
        Shape (rows, columns).
    flow
        Displacement (rows, columns) in pixels, shape (rows, columns, 2).
    """
    rows, columns = soft.shape
    grid = np.stack(np.meshgrid(np.arange(rows), np.arange(columns), indexing="ij"), axis=-1) + flow.astype(np.float32)
    # torch counts from the outer edges of the outermost pixels, -1 to 1, columns first.
    place = (2.0 * grid + 1.0) / np.array([rows, columns]) - 1.0
    moved = functional.grid_sample(
        torch.from_numpy(soft.astype(np.float32))[None, None],
        torch.from_numpy(place[None, ..., ::-1].astype(np.float32)),
        mode="bilinear",
        padding_mode="zeros",
        align_corners=False,
    )
    result: NDArray[np.float32] = moved[0, 0].numpy()
    return result


def _demons_field(
    target: NDArray[np.float32], reference: NDArray[np.float32], iterations: int, start: Flow | None
) -> Flow:
    import SimpleITK as sitk

    registration = sitk.FastSymmetricForcesDemonsRegistrationFilter()
    registration.SetNumberOfIterations(iterations)
    registration.SetSmoothDisplacementField(True)
    registration.SetStandardDeviations(DEMONS_SMOOTHING)
    images = [sitk.GetImageFromArray(target), sitk.GetImageFromArray(reference)]
    if start is not None:
        images.append(sitk.GetImageFromArray(start[..., ::-1].astype(np.float64), isVector=True))
    columns_rows: Flow = sitk.GetArrayFromImage(registration.Execute(*images))
    return columns_rows[..., ::-1]


def _resize(image: NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.float32]:
    if image.shape == size:
        return image
    maps = torch.from_numpy(np.ascontiguousarray(image, np.float32))[None, None]
    resized = functional.interpolate(maps, size=size, mode="bilinear", antialias=True, align_corners=False)
    result: NDArray[np.float32] = resized[0, 0].numpy()
    return result


def _resize_flow(flow: Flow, size: tuple[int, int]) -> Flow:
    """Resize a displacement field; displacements are in pixels, so they grow with the grid."""
    old = flow.shape[:2]
    return np.stack([_resize(flow[..., k], size) * (size[k] / old[k]) for k in range(2)], axis=-1)


def _interpolate(
    itk: ModuleType, first: NDArray[np.bool_], last: NDArray[np.bool_], count: int
) -> NDArray[np.floating]:
    """Fill the slices between two masks, returning ``count`` slices with both, 0 or 1."""
    stack = np.zeros((count, *first.shape), np.uint8)
    stack[0], stack[-1] = first, last
    held = first | last
    rows, columns = np.flatnonzero(held.any(axis=1)), np.flatnonzero(held.any(axis=0))
    # Cropped with a margin: the filter's time grows with the image, and its shapes stay within the two masks' box.
    top, left = max(0, rows[0] - 8), max(0, columns[0] - 8)
    box = (slice(None), slice(top, rows[-1] + 9), slice(left, columns[-1] + 9))
    filled = np.zeros(stack.shape, np.float32)
    with warnings.catch_warnings(action="ignore"):
        interpolator = itk.MorphologicalContourInterpolator[itk.Image[itk.UC, 3]].New()
        interpolator.SetInput(itk.image_from_array(np.ascontiguousarray(stack[box])))
        interpolator.SetAxis(2)  # ITK counts the axes from the fastest: the slices are its last
        interpolator.Update()
        filled[box] = itk.array_from_image(interpolator.GetOutput()) > 0
    return filled


def _to_bytes(image: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Map -1..1 to 0..255, which OpenCV's flow expects."""
    grey: NDArray[np.uint8] = np.clip(127.5 * (image + 1.0), 0, 255).astype(np.uint8)
    return grey


def _itk() -> Any:
    """Import ITK in such a way that it crashes neither now nor later."""
    with warnings.catch_warnings(action="ignore"):  # it crashes where the warnings of its wrapper are errors
        itk = _optional("itk", "itk-morphologicalcontourinterpolation", "MorphologicalContourInterpolator")
    # When Python ends, its wrapper may free its table of types after what it needs to do so. The table stays.
    for name in [name for name in sys.modules if name.startswith("swig_runtime_data")]:
        for table in [value for value in vars(sys.modules[name]).values() if type(value).__name__ == "PyCapsule"]:
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(table))
    return itk


def _optional(module: str, package: str, name: str) -> Any:
    """Import an optional package and make sure that it has what is needed, or say how to get it."""
    try:
        imported = importlib.import_module(module)
        getattr(imported, name)
    except (ImportError, AttributeError) as error:
        raise InputError(
            f"This baseline needs the package {package}, which is not installed. "
            'Install it with: pip install "napari-oneseg[bench]"'
        ) from error
    return imported
