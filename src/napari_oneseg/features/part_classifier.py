"""Which connected parts of a refined label stay: decided by a small network, from everything the refiner has seen.

A threshold cannot serve tubes and kidneys at once: an aorta never comes through whole, a kidney that is copied with one
half has jumped to the spleen. The network sees each part as a whole: what the refiner found on it, how well it was
supported compared with what is usual for its label, and how large it is beside what was painted.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor, nn
from torch.nn import functional

__all__ = ["PartClassifier", "Parts", "find_parts", "usual_support"]

_HIDDEN = 32
_SCALARS = 6
_RATE = 0.3  # weight of the present slice in what is usual for a label
_RIM = 2  # the rim of a part that goes, goes with it, in positions


@dataclass(frozen=True, eq=False)
class Parts:
    """The connected parts of labels on one slice.

    Attributes
    ----------
    numbers
        Number of the part at each position, shape (batch, L, rows, columns), from 0 on over all labels; -1 where there
        is none.
    sample, label
        To which sample and label of the batch each part belongs, shape (parts,).
    """

    numbers: Tensor
    sample: Tensor
    label: Tensor

    def __len__(self) -> int:
        return len(self.label)

    @property
    def area(self) -> Tensor:
        """Positions of each part, shape (parts,), float32, 1 or more."""
        numbers = self.numbers[self.numbers >= 0]
        return torch.bincount(numbers, minlength=len(self)).float()

    def mean(self, maps: Tensor) -> Tensor:
        """Return the mean of maps over each part.

        Parameters
        ----------
        maps
            Shape (batch, L, channels, rows, columns).

        Returns
        -------
        Shape (parts, channels).
        """
        inside = self.numbers >= 0
        values = maps.movedim(2, -1)[inside]
        total = values.new_zeros(len(self), maps.shape[2]).index_add(0, self.numbers[inside], values)
        return total / self.area[:, None]

    def without(self, stays: NDArray[np.bool_]) -> Tensor:
        """Return 0 where a part goes, its rim included, and 1 elsewhere: shape (batch, L, rows, columns)."""
        keep = torch.ones(self.numbers.shape, device=self.numbers.device)
        numbers = self.numbers.cpu().numpy()
        gone = np.flatnonzero(~stays)
        for sample, label in sorted({(int(self.sample[part]), int(self.label[part])) for part in gone}):
            here = numbers[sample, label]
            staying = (here >= 0) & stays[here]
            leaving = ndimage.binary_dilation((here >= 0) & ~stays[here], iterations=_RIM) & ~staying
            keep[sample, label][torch.from_numpy(leaving).to(keep.device)] = 0.0
        return keep


def find_parts(labels: Tensor) -> Parts:
    """Find the connected parts of each label, where its probability is above one half.

    Parameters
    ----------
    labels
        Shape (batch, L, rows, columns), 0 to 1.
    """
    shown = (labels.detach() > 0.5).cpu().numpy()
    numbers = np.full(shown.shape, -1, np.int64)
    owners: list[tuple[int, int]] = []
    for sample, label in np.argwhere(shown.any((2, 3))):
        parts, count = ndimage.label(shown[sample, label])
        numbers[sample, label][parts > 0] = parts[parts > 0] - 1 + len(owners)
        owners += [(int(sample), int(label))] * count
    device = labels.device
    sample, label = torch.tensor(owners, dtype=torch.int64).reshape(-1, 2).T.to(device)
    return Parts(torch.from_numpy(numbers).to(device), sample, label)


class PartClassifier(nn.Module):
    """Tell whether a connected part of a label belongs to it.

    Parameters
    ----------
    channels
        Channels of what the refiner has seen.
    further
        Further maps that the refiner was shown.
    """

    def __init__(self, channels: int, further: int) -> None:
        super().__init__()
        self.first = nn.Linear(channels + further + _SCALARS, _HIDDEN)
        self.second = nn.Linear(_HIDDEN, _HIDDEN)
        self.out = nn.Linear(_HIDDEN, 1)
        # It sets out from keeping what has support.
        nn.init.zeros_(self.out.weight)
        nn.init.constant_(self.out.bias, 2.0)

    def forward(
        self,
        parts: Parts,
        seen: Tensor,
        further: Tensor | None,
        copied: Tensor,
        matched: Tensor,
        usual: Tensor,
        painted_area: Tensor,
        distance: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Return the log-odds that each part stays, and the parts' support, both (parts,).

        Parameters
        ----------
        parts
            From :func:`find_parts`.
        seen
            What the refiner has seen, shape (batch, L, channels, rows, columns).
        further
            Its further maps, shape (batch, L, further, rows, columns); None where it has none.
        copied, matched
            Probability of each label as copied, and the share that the null match has left, shape
            (batch, L, rows, columns), 0 to 1.
        usual
            Support that has been usual for each label, shape (batch, L); NaN before its first step.
        painted_area
            Positions of each label where it was painted, shape (batch, L).
        distance
            Distance between the slices in working pixels, shape (batch,).
        """
        own = parts.sample, parts.label
        support, match = parts.mean(torch.stack([copied, matched], 2)).unbind(1)
        area, painted = parts.area, painted_area[own].clamp_min(1.0)
        whole = area.new_zeros(usual.shape).index_put(own, area, accumulate=True)[own]
        known = usual[own].isfinite()
        before = torch.where(known, usual[own], support)
        scalars = torch.stack(
            [
                2.0 * support - 1.0,
                4.0 * (support - before),
                2.0 * match - 1.0,
                (area / painted).log().clamp(-4.0, 2.0) / 2.0,
                2.0 * area / whole - 1.0,
                (distance[parts.sample].clamp(1.0, 16.0) / 4.0).log(),
            ],
            1,
        )
        means = [parts.mean(maps) for maps in (seen, further) if maps is not None]
        x = torch.cat([*means, scalars], 1)
        x = functional.relu(self.first(x))
        x = functional.relu(x + self.second(x))
        return self.out(x)[:, 0], support


def usual_support(usual: Tensor, parts: Parts, support: Tensor, stays: Tensor) -> Tensor:
    """Return what is usual for each label from now on, shape (batch, L): the parts that stay move it a little.

    Parameters
    ----------
    usual
        What was usual so far, shape (batch, L); NaN before a label's first step.
    parts, support
        As in :class:`PartClassifier`.
    stays
        Whether each part stays, shape (parts,), boolean.
    """
    weight = parts.area * stays
    own = parts.sample, parts.label
    total = usual.new_zeros(usual.shape).index_put(own, weight, accumulate=True)
    now = usual.new_zeros(usual.shape).index_put(own, weight * support.detach(), accumulate=True) / total.clamp_min(1.0)
    moved = torch.where(usual.isfinite(), torch.lerp(usual, now, _RATE), now)
    return torch.where(total > 0, moved, usual)
