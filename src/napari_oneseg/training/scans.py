"""Scans to learn from: read one at a time, kept on the working grid while they are in use.

They may be more than fit into memory. What is kept of them is limited in bytes, and does not change what is learned.
"""

from __future__ import annotations

import threading
import warnings
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from napari_oneseg.config import FeatureConfig, PreprocessingConfig
from napari_oneseg.errors import InputError
from napari_oneseg.image_formats import READABLE, known_ending
from napari_oneseg.io import read_volume
from napari_oneseg.preprocessing import WorkingGrid, normalise, working_grid
from napari_oneseg.volume import Volume

__all__ = ["GROUP", "KEPT_BYTES", "Scans", "WorkingScan", "find_scans"]

GROUP = 8
"""Scans that are learned from at a time."""
KEPT_BYTES = 2_000_000_000
"""Bytes of scans that are kept in memory: two groups of scans of a thousand slices each."""

_NARROWEST = 32  # pixels: the least side of a training crop


@dataclass(frozen=True, eq=False)
class WorkingScan:
    """A scan as the network sees it.

    Attributes
    ----------
    slices
        Normalised slices on the working grid, shape (n, rows, columns), float16, -1 to 1.
    grid
        The working grid.
    distance
        Distance between neighbouring slices in working pixels.
    """

    slices: Tensor
    grid: WorkingGrid
    distance: float

    @classmethod
    def of(cls, volume: Volume, features: FeatureConfig, preprocessing: PreprocessingConfig) -> WorkingScan:
        """Bring a scan to the working grid of a network."""
        rows, columns = volume.slices.shape[1:]
        grid = working_grid(
            (rows, columns), volume.in_plane_spacing, features.stride, features.coarsest_stride, preprocessing
        )
        grey = normalise(volume.array, preprocessing, volume.padding)
        slices: NDArray[np.float32] = volume.to_slices(grey)
        working = torch.empty(len(slices), *grid.working, dtype=torch.float16)
        for index, image in enumerate(slices):
            working[index] = grid.to_working(torch.from_numpy(np.ascontiguousarray(image))[None, None])[0, 0]
        return cls(working, grid, volume.slice_spacing / grid.pixel)


def find_scans(folder: Path | str) -> list[Path]:
    """Return the scans of a folder, sorted by name: its readable files, and its sub-folders as DICOM series.

    Raises
    ------
    InputError
        If there is no such folder, or nothing in it can be a scan.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"The folder {folder} does not exist. Give a folder of scans.")
    found = [
        path
        for path in sorted(folder.iterdir())
        if not path.name.startswith(".") and (path.is_dir() or known_ending(path))
    ]
    if not found:
        raise InputError(
            f"{folder} holds no scans; expected are {', '.join(READABLE)} files, or a sub-folder for each DICOM series."
        )
    return found


class Scans:
    """The scans of a training, by number; those last used are kept in memory.

    Every scan is read once at the beginning, so that one that cannot be used is known before hours of training.

    Parameters
    ----------
    sources
        Scans, or where they lie: files, and folders of one DICOM series each. Labels are never read.
    features, preprocessing
        What the network's working grid follows from.
    progress
        Called with (scans read, all scans).
    memory
        Bytes of scans that are kept in memory. Reading and preparing a scan takes some times its own size besides.

    Attributes
    ----------
    hashes
        Content hash of each scan that can be used.

    Raises
    ------
    InputError
        If none of the scans can be used.

    Warns
    -----
    UserWarning
        For each scan that is left out because it cannot be used, with the reason.
    """

    def __init__(
        self,
        sources: Sequence[Volume | Path],
        features: FeatureConfig,
        preprocessing: PreprocessingConfig,
        progress: Callable[[int, int], None] | None = None,
        memory: int = KEPT_BYTES,
    ) -> None:
        self.features, self.preprocessing = features, preprocessing
        self._sources: list[Volume | Path] = []
        self._memory = memory
        self._sizes: list[int] = []
        self._kept: OrderedDict[int, WorkingScan] = OrderedDict()
        self._turn = 0
        # One for what is kept, and one for each scan: whoever asks for a scan that is being read waits for it.
        self._lock, self._reading = threading.Lock(), [threading.Lock() for _ in sources]
        hashes: list[str] = []
        reasons: list[str] = []
        for done, source in enumerate(sources, start=1):
            try:
                volume = _volume(source)
                scan = self._working(volume)
            except InputError as error:
                if len(sources) == 1:
                    raise InputError(f"The scan cannot be learned from: {error}") from error
                reasons.append(str(error))
                name = source.name if isinstance(source, Path) else f"scan {done}"
                warnings.warn(f"{name} is left out of the training: {error}", stacklevel=2)
            else:
                self._sizes.append(scan.slices.nbytes)
                self._keep(len(self._sources), scan)
                self._sources.append(source)
                hashes.append(volume.content_hash)
            if progress is not None:
                progress(done, len(sources))
        if not self._sources:
            raise InputError(
                f"None of the {len(sources)} scans can be learned from; the first: {reasons[0]}"
                if reasons
                else "There is no scan to learn from; give at least one."
            )
        self.hashes = tuple(hashes)

    def __len__(self) -> int:
        """Return the number of scans that can be used."""
        return len(self._sources)

    def __getitem__(self, index: int) -> WorkingScan:
        """Return a scan; it is read anew if it has not been used for a while."""
        with self._reading[index]:
            with self._lock:
                if index in self._kept:
                    self._kept.move_to_end(index)
                    return self._kept[index]
            scan = self._working(_volume(self._sources[index]))
            self._keep(index, scan)
            return scan

    def read_ahead(self, used: Sequence[int], coming: Sequence[int]) -> None:
        """Read scans that will be needed next in another thread, as far as they fit beside those in use."""
        room = self._memory - sum(self._sizes[index] for index in used)
        fitting = []
        for index in coming:
            room -= 0 if index in used else self._sizes[index]
            if room >= 0:
                fitting.append(index)
        self._turn += 1
        threading.Thread(target=self._read_all, args=(fitting, self._turn), name="Reading ahead").start()

    def _read_all(self, indices: list[int], turn: int) -> None:
        for index in indices:
            # Not a daemon, which might be cut off within a reader; so it must not keep the program from ending.
            if turn != self._turn or not threading.main_thread().is_alive():
                return
            try:
                self[index]
            except InputError:
                return  # raised again where the scan is needed

    def _working(self, volume: Volume) -> WorkingScan:
        scan = WorkingScan.of(volume, self.features, self.preprocessing)
        if min(scan.grid.working) < _NARROWEST:
            raise InputError(
                f"its slices are too narrow: at least {_NARROWEST} pixels of the network's grid are needed, got "
                f"{scan.grid.working[0]} x {scan.grid.working[1]}."
            )
        return scan

    def _keep(self, index: int, scan: WorkingScan) -> None:
        with self._lock:
            self._kept[index] = scan
            while len(self._kept) > 1 and sum(self._sizes[other] for other in self._kept) > self._memory:
                self._kept.popitem(last=False)


def _volume(source: Volume | Path) -> Volume:
    return source if isinstance(source, Volume) else read_volume(source)
