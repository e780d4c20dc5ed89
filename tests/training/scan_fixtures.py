"""Small scans that the tests of learning share."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from napari_oneseg.config import PreprocessingConfig
from napari_oneseg.io import write_image
from napari_oneseg.training.scans import Scans, WorkingScan
from napari_oneseg.volume import Volume
from tests.engine_fixtures import TINY

SMALL = PreprocessingConfig(working_size=48)


def make_scan(seed: int = 0, slices: int = 8, shape: tuple[int, int] = (48, 48)) -> Volume:
    """Bright and dark blobs that change slowly from slice to slice, in a little noise."""
    random = np.random.default_rng(seed)
    z, y, x = np.indices((slices, *shape)).astype(np.float64)
    grey = random.normal(0, 4, (slices, *shape))
    for value in (100, -80, 60):
        centre, radius, lean = random.uniform(12, min(shape) - 12, 2), random.uniform(6, 11), random.uniform(-1, 1, 2)
        grey[(y - centre[0] - lean[0] * z) ** 2 + (x - centre[1] - lean[1] * z) ** 2 < radius**2] += value
    return Volume(grey.astype(np.float32), (3.0, 1.0, 1.0))


def working_scan(seed: int = 0, slices: int = 8) -> WorkingScan:
    return WorkingScan.of(make_scan(seed, slices), TINY, SMALL)


def open_scans(count: int = 2, slices: int = 8) -> Scans:
    return Scans([make_scan(seed, slices) for seed in range(count)], TINY, SMALL)


def scan_folder(folder: Path, count: int = 2) -> Path:
    folder.mkdir()
    for seed in range(count):
        volume = make_scan(seed)
        write_image(folder / f"scan{seed}.nii.gz", volume.array, volume)
    return folder
