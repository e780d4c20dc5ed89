"""The features of the scan that is open: computed or read from the cache, kept in it, and where they are used.

A GPU whose memory is full, or that fails while it computes, ends nothing: the features go on being used on the CPU.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from napari_oneseg.checkpoint import Weights
from napari_oneseg.device import gpu_failure
from napari_oneseg.features.cache import FeatureCache
from napari_oneseg.features.extractor import FeatureStack, compute_features
from napari_oneseg.screening import coarse_grey
from napari_oneseg.volume import Volume

__all__ = ["Progress", "ScanFeatures"]

Progress = Callable[[int, int], None]
T = TypeVar("T")


class ScanFeatures:
    """The features of one scan.

    Parameters
    ----------
    volume
        The scan.
    weights
        What computes its features.
    device
        Where they are computed and used.
    cache
        Where they are kept on disk, if anywhere: if it holds them, they are only read.
    progress
        Called with (slices done, slices in all); an exception it raises ends the computing.

    Attributes
    ----------
    stack
        The features themselves.
    """

    def __init__(
        self,
        volume: Volume,
        weights: Weights,
        device: torch.device,
        cache: FeatureCache | None = None,
        progress: Progress | None = None,
    ) -> None:
        self.volume, self._weights, self._cache = volume, weights, cache
        self._coarse_grey: NDArray[np.float32] | None = None
        kept = None
        if cache is not None:
            kept = cache.load(volume, weights.network, weights.preprocessing, weights.sha256, device, progress)
        self._is_kept = kept is not None
        self.stack = kept if kept is not None else self._computed(device, progress)

    def _computed(self, device: torch.device, progress: Progress | None) -> FeatureStack:
        return compute_features(self.volume, self._weights.network, self._weights.preprocessing, device, progress)

    def keep(self) -> None:
        """Write the features into the cache, if there is one and they came from elsewhere.

        It may run in another thread, so that nobody waits for the disk.
        """
        if self._cache is not None and not self._is_kept:
            self._is_kept = True
            self._cache.save(self.volume, self._weights.preprocessing, self._weights.sha256, self.stack)

    @property
    def coarse_grey(self) -> NDArray[np.float32]:
        """The scan's normalised grey values on the grid of the features, (n, h, w)."""
        if self._coarse_grey is None:
            self._coarse_grey = coarse_grey(self.volume, self.stack, self._weights.preprocessing)
        return self._coarse_grey

    def used(self, use: Callable[[FeatureStack], T]) -> T:
        """Return what is made of the features."""
        try:
            return use(self.stack)
        except RuntimeError as error:
            self._leave_gpu(error)
        return use(self.stack)

    def used_stepwise(
        self, use: Callable[[FeatureStack], Iterator[T]], progress: Progress | None = None
    ) -> Iterator[T]:
        """Yield what is made of the features bit by bit; where the GPU fails half way, all of it again.

        ``progress`` is called if the features have to be computed once more.
        """
        try:
            yield from use(self.stack)
        except RuntimeError as error:
            self._leave_gpu(error, progress)
        else:
            return
        yield from use(self.stack)

    def _leave_gpu(self, error: RuntimeError, progress: Progress | None = None) -> None:
        """Keep the features on the CPU from now on if an error came from the GPU, with a warning; else raise it."""
        failure = gpu_failure(error, self.stack.maps.device)
        if failure is None:
            raise error
        warnings.warn(failure, stacklevel=4)
        cpu = torch.device("cpu")
        try:
            self.stack = self.stack.to(cpu)
        except RuntimeError:  # a GPU that has failed takes along what it held
            self.stack = self._computed(cpu, progress)
