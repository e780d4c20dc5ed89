"""From one slice to the next and back: what is asked of :mod:`napari_oneseg.propagation.exchange`, and its answer."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["Crossing", "Exchange"]


@dataclass(frozen=True, eq=False)
class Crossing:
    """Two neighbouring slices, and what is to be copied from one to the other.

    Attributes
    ----------
    target, reference
        Features of the two slices, shape (C, rows, columns), float32.
    maps
        What is copied, shape (maps, rows, columns), float32; the labels come first.
    region
        Where on the target slice it is wanted, shape (rows, columns), boolean.
    window
        Side of the attention window, odd.
    null_bias
        Bias of the attention's null match, if there is to be one.
    bridged
        Labels from which the null match takes nothing, shape (L,), boolean.
    """

    target: Tensor
    reference: Tensor
    maps: Tensor
    region: Tensor
    window: int
    null_bias: float | None
    bridged: Tensor

    @property
    def labels(self) -> Tensor:
        """The labels among the maps, shape (L, rows, columns)."""
        return self.maps[: len(self.bridged)]

    def spared(self, labels: Tensor, share: Tensor) -> Tensor:
        """Take what the null match takes from those labels that it can take from.

        Parameters
        ----------
        labels
            Shape (L, rows, columns).
        share
            What it leaves, shape (rows, columns), 0 to 1.
        """
        return labels * torch.where(self.bridged[:, None, None], 1.0, share)


@dataclass(frozen=True, eq=False)
class Exchange:
    """What was copied to the target slice, and what has come back from there.

    Attributes
    ----------
    copied
        Means over the window, without the null match, shape (maps, rows, columns); it holds within the region.
    matched
        Share that the null match has left, shape (rows, columns), 0 to 1; it holds within the region.
    returned
        What came back to the reference slice of the labels among the maps, shape (L, rows, columns), null match
        included. It holds for positions that sent something and whose windows lie in the region or outside the slice.
    """

    copied: Tensor
    matched: Tensor
    returned: Tensor
