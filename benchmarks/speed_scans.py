"""The scans that speed is measured on: the phantom enlarged to any size, with any number of labels, and real ones."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from napari_oneseg.io import read_labels, read_volume, write_image, write_labels
from napari_oneseg.phantom import Phantom, phantom
from napari_oneseg.volume import Volume

__all__ = ["REAL", "Scan", "cut_labels", "enlarged", "generated", "painted_where_largest", "read", "real_scans"]

Labels = NDArray[np.uint8]
REAL = {"CHAOS": "chaos_mr_t2", "BTCV": "btcv_ct", "3D-IRCADb": "ircadb_ct"}
"""Folders of real scans, by the names of the sets."""


@dataclass(frozen=True)
class Scan:
    """A scan and its labels, as files.

    Attributes
    ----------
    name
        What it is called in tables.
    image, labels
        The files.
    """

    name: str
    image: Path
    labels: Path


def read(image: str | Path, labels: str | Path) -> tuple[Volume, Labels]:
    """Return a scan and its labels in slice order, (n, rows, columns)."""
    volume = read_volume(image)
    return volume, volume.to_slices(read_labels(labels, volume)).astype(np.uint8)


def real_scans(data: Path) -> list[Scan]:
    """Return the first scan for development of each set that is there."""
    found = []
    for name, folder in REAL.items():
        image = next(iter(sorted((data / folder / "dev" / "images").glob("*.nii.gz"))), None)
        if image is not None:
            found.append(Scan(name, image, image.parents[1] / "labels" / image.name))
    return found


@contextmanager
def generated(shape: tuple[int, int, int], counts: tuple[int, ...]) -> Iterator[list[Scan]]:
    """Write the enlarged phantom into files that exist while the block runs, one scan for each number of labels."""
    volume, labels = enlarged(shape)
    with tempfile.TemporaryDirectory(prefix="oneseg-speed-") as name:
        folder, scans = Path(name), []
        # Not compressed: it is not the packing that is measured.
        image = folder / "image.nii"
        write_image(image, volume.array, volume)
        for count in counts:
            path = folder / f"labels-{count}.nii"
            write_labels(path, cut_labels(labels, count), volume)
            scans.append(Scan("phantom, enlarged", image, path))
        del volume, labels
        yield scans


def enlarged(shape: tuple[int, int, int]) -> tuple[Volume, Labels]:
    """Return the phantom in another number of slices and of pixels, square, and its labels, (n, rows, columns) each.

    The body stays as large as it is, and more slices are thinner ones, until the voxels are cubes; with still more, the
    body is longer: as slices count those along the thickest side of a voxel.
    """
    sample = _sample()
    grey, labels = sample.volume.array.astype(np.float32), sample.labels
    wide = labels.shape[2] - labels.shape[1]
    beside = ((0, 0), (wide // 2, wide - wide // 2), (0, 0))
    grey = np.pad(grey, beside, mode="edge")
    labels = np.pad(labels, beside)
    count, side = shape[0], shape[1]
    array, cut = np.empty(shape, np.int16), np.empty(shape, np.uint8)
    for index in range(count):
        place = index * (len(grey) - 1) / max(1, count - 1)
        below, share = min(int(place), len(grey) - 2), place - min(int(place), len(grey) - 2)
        array[index] = np.rint(_resized(grey[below] * (1 - share) + grey[below + 1] * share, side, "bilinear"))
        cut[index] = _resized(labels[round(place)].astype(np.float32), side, "nearest-exact")
    pixel = sample.volume.spacing[1] * grey.shape[1] / side
    return Volume(array, (max(pixel, sample.volume.spacing[0] * len(grey) / count), pixel, pixel)), cut


@cache
def _sample() -> Phantom:
    return phantom()


def _resized(image: NDArray[np.float32], side: int, mode: str) -> NDArray[np.float32]:
    maps = torch.from_numpy(image.astype(np.float32))[None, None]
    smooth = {"align_corners": False} if mode == "bilinear" else {}
    return functional.interpolate(maps, (side, side), mode=mode, **smooth)[0, 0].numpy()


def cut_labels(labels: Labels, count: int) -> Labels:
    """Return the ``count`` largest structures, as labels from 1 on; where there are fewer, they are cut further.

    Always the largest one is cut, at the median of its columns, so that each half spans as many slices.
    """
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    kept = np.argsort(-sizes, kind="stable")[: min(count, np.count_nonzero(sizes))]
    names = np.zeros(len(sizes), np.uint8)
    names[kept] = np.arange(1, len(kept) + 1)
    result = names[labels]
    columns = np.arange(labels.shape[2])
    for new in range(len(kept) + 1, count + 1):
        largest = int(np.bincount(result.ravel())[1:].argmax()) + 1
        along = np.cumsum((result == largest).sum((0, 1)))
        right = columns > int(np.searchsorted(along, along[-1] / 2))
        result[(result == largest) & right] = new
    return result


def painted_where_largest(labels: Labels) -> dict[int, Labels]:
    """Return what is painted, by slice: each label on the slice of its largest area."""
    painted: dict[int, Labels] = {}
    for label in np.unique(labels)[1:]:
        index = int((labels == label).sum((1, 2)).argmax())
        image = painted.setdefault(index, np.zeros(labels.shape[1:], np.uint8))
        image[labels[index] == label] = label
    return painted
