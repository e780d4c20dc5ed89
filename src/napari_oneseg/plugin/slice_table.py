"""What is known of each slice, kept up to date slice by slice, so that no view has to look at the whole volume."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from napari_oneseg.session_state import SessionState
    from napari_oneseg.volume import LabelArray, Volume

__all__ = ["SliceTable"]


class SliceTable:
    """Areas and confidence of the slices of a scan.

    Parameters
    ----------
    volume
        The scan.
    """

    def __init__(self, volume: Volume) -> None:
        self.n_slices = volume.n_slices
        rows, columns = volume.in_plane_spacing
        self._pixel_mm2 = rows * columns
        self._pixel_ml = volume.voxel_ml
        self._shape = volume.slices.shape[1:]
        self._pixels: dict[int, NDArray[np.int64]] = {}
        self.confidence: NDArray[np.float32] = np.full(self.n_slices, np.nan, np.float32)

    @property
    def areas(self) -> dict[int, NDArray[np.float32]]:
        """Area of each label per slice in mm2, shape (n,)."""
        return {value: (pixels * self._pixel_mm2).astype(np.float32) for value, pixels in self._pixels.items()}

    @property
    def labelled(self) -> NDArray[np.bool_]:
        """Which slices show a label, shape (n,)."""
        shown = np.zeros(self.n_slices, bool)
        for pixels in self._pixels.values():
            shown |= pixels > 0
        return shown

    def volume_ml(self, value: int) -> float | None:
        """Return the volume of a label in mL; None where no slice shows it."""
        pixels = self._pixels.get(value)
        total = 0 if pixels is None else int(pixels.sum())
        return total * self._pixel_ml if total else None

    def extent(self, value: int) -> tuple[int, int] | None:
        """Return the first and the last slice that show a label."""
        pixels = self._pixels.get(value)
        found = np.flatnonzero(pixels) if pixels is not None else np.empty(0)
        return (int(found[0]), int(found[-1])) if found.size else None

    @property
    def values(self) -> list[int]:
        """Labels that some slice shows, ascending."""
        return sorted(value for value, pixels in self._pixels.items() if pixels.any())

    def count(self, index: int, labels: LabelArray) -> None:
        """Take over the labels of a slice, (rows, columns)."""
        for value, pixels in self._pixels.items():
            pixels[index] = np.count_nonzero(labels == value)
        if sum(int(pixels[index]) for pixels in self._pixels.values()) == np.count_nonzero(labels):
            return
        # A label that no slice has shown yet; looking for it takes many times longer.
        counts = np.bincount(labels.ravel())
        for value in np.flatnonzero(counts).tolist():
            if value and value not in self._pixels:
                self._pixels[value] = np.zeros(self.n_slices, np.int64)
                self._pixels[value][index] = counts[value]

    def take(self, state: SessionState, indices: Iterable[int]) -> Mapping[int, LabelArray]:
        """Take over slices from a session's state, and return their labels."""
        rows, columns = self._shape
        settled = state.complete | state.frozen.keys()
        images = {}
        for index in indices:
            labels = images[index] = state.labels_on(index, (rows, columns))
            self.count(index, labels)
            result = state.results.get(index)
            if index in settled or result is None:
                self.confidence[index] = 1.0 if labels.any() else np.nan
            else:
                self.confidence[index] = result.score
        return images
