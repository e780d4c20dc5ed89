"""Refining copied labels: a small network looks at the target slice itself before the labels travel on.

Copying alone cannot do three things. It wears thin structures out, since every copy is a mean; it cannot find parts of
an organ that the slice before did not show; and it can end an organ only where nothing similar lies in the window. The
refiner sees, for one label at a time, what was copied, how well it matched, the grey values on both sides of the copy,
and how much each position looks like what was painted, and answers with a correction of the log-odds. It knows no
organ: all labels share its weights.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn import functional

from napari_oneseg.features.part_classifier import PartClassifier
from napari_oneseg.features.regions import region_share, slice_regions

__all__ = ["Appearance", "LabelRefiner"]

FLOOR = 1e-3
"""Probability given to every label before the correction: what is exactly zero could never come back."""

_SAMPLES = 48
_RING = 25
_APPEARANCE = 24
_WIDTH = 24
_DEEP = 40
_MAPS = 11
_BINS = 33
_GREY_WIDTH = 0.08


@dataclass(frozen=True)
class Appearance:
    """What each label looked like where it was painted, and what was beside it.

    Attributes
    ----------
    inside, outside
        Unit vectors at places inside the label and in a ring round it, shape (batch, L, samples, channels).
    grey
        For each grey value from -1 to 1, how much more often it was inside than outside, and how often it was inside
        against the most frequent one: logarithms, shape (batch, L, 2, bins).
    known
        Whether there was anything to sample, shape (batch, L), boolean.
    """

    inside: Tensor
    outside: Tensor
    grey: Tensor
    known: Tensor

    def only(self, label: int) -> Appearance:
        """Return the appearance of one label, by its place."""
        one = slice(label, label + 1)
        return Appearance(self.inside[:, one], self.outside[:, one], self.grey[:, one], self.known[:, one])

    def where(self, chosen: Tensor, other: Appearance | None) -> Appearance:
        """Return these appearances for the ``chosen`` labels, (batch, L), and another's for the rest."""
        if other is None:
            return Appearance(self.inside, self.outside, self.grey, chosen)
        which = chosen[:, :, None, None]
        return Appearance(
            torch.where(which, self.inside, other.inside),
            torch.where(which, self.outside, other.outside),
            torch.where(which, self.grey, other.grey),
            other.known | chosen,
        )


@dataclass(frozen=True, eq=False)
class Refinement:
    """What refining the labels of one scan takes.

    Attributes
    ----------
    network
        The refiner.
    grey
        Normalised grey values on the feature grid, shape (n, 1, rows, columns), -1 to 1.
    distance
        Distance between neighbouring slices in working pixels.
    """

    network: LabelRefiner
    grey: Tensor
    distance: float
    _regions: dict[int, Tensor] = field(default_factory=dict)

    def regions(self, index: int) -> Tensor | None:
        """Return the regions of a slice, shape (scales, rows, columns), int64; None where the refiner needs none.

        They are computed when a slice is first asked for, since only slices that a label reaches need them.
        """
        scales = self.network.region_scales
        if not scales:
            return None
        # Two sweeps may ask at once; both find the same.
        if index not in self._regions:
            found = slice_regions(self.grey[index, 0].float().cpu().numpy(), scales)
            self._regions[index] = torch.from_numpy(found.astype("int16"))
        return self._regions[index].to(self.grey.device, torch.int64)

    def to(self, device: torch.device) -> Refinement:
        """Return the same on another device."""
        return Refinement(self.network.to(device), self.grey.to(device), self.distance)


class LabelRefiner(nn.Module):
    """Correct labels that were copied to a slice by what the slice shows.

    Parameters
    ----------
    channels
        Channels of the features.
    region_scales
        Scales of the regions whose share of a label it is shown, with the label's area; none by default.
    classify_parts
        Whether a :class:`~napari_oneseg.features.part_classifier.PartClassifier` decides which parts stay.
    """

    def __init__(self, channels: int, region_scales: tuple[float, ...] = (), classify_parts: bool = False) -> None:
        super().__init__()
        self.region_scales = region_scales
        further = len(region_scales) + 1 if region_scales else 0
        self.part_classifier = PartClassifier(_WIDTH, further) if classify_parts else None
        self.look = nn.Conv2d(channels, _WIDTH, 1)
        self.appearance = nn.Conv2d(channels, _APPEARANCE, 1)
        self.sharpness = nn.Parameter(torch.tensor(math.log(8.0)))
        self.first = nn.Conv2d(_MAPS + further, _WIDTH, 3, padding=1)
        self.second = nn.Conv2d(_WIDTH, _WIDTH, 3, padding=1)
        self.down = nn.Conv2d(_WIDTH, _DEEP, 3, stride=2, padding=1)
        self.deep = nn.ModuleList(nn.Conv2d(_DEEP, _DEEP, 3, padding=d, dilation=d) for d in (1, 2, 4))
        self.up = nn.Conv2d(_DEEP, _WIDTH, 1)
        self.last = nn.Conv2d(_WIDTH, _WIDTH, 3, padding=1)
        self.out = nn.Conv2d(_WIDTH, 1, 1)
        # It sets out from the plain copy.
        nn.init.zeros_(self.out.weight)
        if self.out.bias is not None:
            nn.init.zeros_(self.out.bias)

    def describe(self, features: Tensor, grey: Tensor, labels: Tensor) -> Appearance:
        """Sample the appearance of painted labels.

        The samples are spread evenly over the label's mass, so that the same painting gives the same samples.

        Parameters
        ----------
        features
            Of the painted slice, shape (batch, C, rows, columns).
        labels
            Occupancy of each label there, shape (batch, L, rows, columns), 0 to 1.
        """
        vectors = self._vectors(features)
        # The greatest value in a square, one axis after the other.
        near = functional.max_pool2d(labels, (_RING, 1), 1, (_RING // 2, 0))
        near = functional.max_pool2d(near, (1, _RING), 1, (0, _RING // 2))
        inside = labels.square()
        outside = (near - labels).clamp_min(0.0) * (1.0 - labels) + 1e-6
        known = labels.flatten(2).amax(2) > 0.3
        here, beside = _histogram(grey, inside + 1e-9), _histogram(grey, outside)
        relative = (here / here.amax(2, keepdim=True)).clamp_min(0.02).log()
        ratio = ((here + 0.002) / (beside + 0.002)).log()
        table = torch.stack([ratio, relative], 2)
        return Appearance(_spread_samples(vectors, inside + 1e-9), _spread_samples(vectors, outside), table, known)

    def forward(
        self,
        copied: Tensor,
        others: Tensor,
        matched: Tensor,
        features: Tensor,
        grey: Tensor,
        copied_grey: Tensor,
        appearance: Appearance,
        distance: Tensor,
        further: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Return the correction of each label's log-odds, and what was seen on the way to it.

        Parameters
        ----------
        copied
            Probability of each label as copied, shape (batch, L, rows, columns), 0 to 1, null match included.
        others
            What the other labels claim, same shape.
        matched
            Share that the null match has left, same shape, 0 to 1.
        features
            Of the target slice, shape (batch, C, rows, columns).
        grey, copied_grey
            Grey values of the target slice, and those copied from the reference slice, (batch, 1, rows, columns).
        appearance
            Of the labels, from :meth:`describe`.
        distance
            Distance between the slices in working pixels, shape (batch,).
        further
            From :meth:`further_maps`; None where there are no region scales.

        Returns
        -------
        Shape (batch, L, rows, columns), and (batch, L, channels, rows, columns).
        """
        batch, labels = copied.shape[:2]
        size = copied.shape[2:]
        vectors = self._vectors(features)
        scale = self.sharpness.exp()
        like = _likeness(appearance.inside, vectors, scale)
        unlike = _likeness(appearance.outside, vectors, scale)
        seen = _look_up(appearance.grey, grey)
        known = appearance.known[:, :, None, None]

        def each(x: Tensor) -> Tensor:
            return x.expand(batch, labels, *size)

        far = (distance.clamp(1.0, 16.0) / 4.0).log()[:, None, None, None]
        maps = torch.stack(
            [
                copied * 2.0 - 1.0,
                ((copied + FLOOR) / (1.0 + FLOOR - copied).clamp_min(FLOOR)).log() / 4.0,
                others,
                matched,
                each(grey),
                each(grey - copied_grey),
                torch.where(known, (like - unlike) / 4.0, 0.0),
                torch.where(known, like / 4.0, 0.0),
                torch.where(known, seen[:, :, 0] / 2.0, 0.0),
                torch.where(known, seen[:, :, 1] / 2.0, 0.0),
                each(far),
            ],
            2,
        )
        if further is not None:
            maps = torch.cat([maps, further], 2)
        x = self.first(maps.flatten(0, 1)).unflatten(0, (batch, labels)) + self.look(features)[:, None]
        x = functional.relu(x.flatten(0, 1))
        x = functional.relu(self.second(x))
        y = functional.relu(self.down(x))
        for convolution in self.deep:
            y = functional.relu(y + convolution(y))
        y = functional.interpolate(self.up(y), x.shape[-2:], mode="bilinear", align_corners=False)
        x = functional.relu(x + y)
        x = functional.relu(x + self.last(x))
        correction: Tensor = self.out(x).unflatten(0, (batch, labels))[:, :, 0]
        return correction, x.unflatten(0, (batch, labels))

    def further_maps(self, copied: Tensor, regions: Tensor | None, painted_area: Tensor) -> Tensor | None:
        """Return what a label's whole course says at each position: its share of the regions, and its area.

        Parameters
        ----------
        copied
            Probability of each label as copied, shape (batch, L, rows, columns), over the whole slice.
        regions
            As in :func:`~napari_oneseg.features.regions.region_share`; None where there are no region scales.
        painted_area
            Positions of each label where it was painted, shape (batch, L).

        Returns
        -------
        Shape (batch, L, scales + 1, rows, columns), about -1 to 1; None where there are no region scales.
        """
        if regions is None:
            return None
        area = ((copied.sum((2, 3)) + 4.0) / (painted_area + 4.0)).log().clamp(-3.0, 3.0) / 1.5
        share = 2.0 * region_share(copied, regions) - 1.0
        return torch.cat([share, area[:, :, None, None, None].expand_as(share[:, :, :1])], 2)

    def _vectors(self, features: Tensor) -> Tensor:
        vectors: Tensor = functional.normalize(self.appearance(features), dim=1)
        return vectors


def corrected(
    copied: Tensor, correction: Tensor, floor: Tensor | float = FLOOR, beside: Tensor | float = 0.0
) -> Tensor:
    """Apply a correction of the log-odds; the labels compete with each other and with background.

    Parameters
    ----------
    copied
        Shape (batch, L, rows, columns), 0 to 1; background has what the labels leave.
    correction
        Same shape.
    floor
        Probability that each label is given first; 0 where a label cannot appear.
    beside
        What other labels have that are not corrected, shape (batch, 1, rows, columns), 0 to 1.
    """
    background = (1.0 - copied.sum(1, keepdim=True) - beside).clamp_min(FLOOR)
    odds = (copied + floor) * correction.clamp(-12.0, 12.0).exp()
    return odds / (background + beside + odds.sum(1, keepdim=True))


def _likeness(samples: Tensor, vectors: Tensor, scale: Tensor) -> Tensor:
    """Return how much each position looks like the samples, shape (batch, L, rows, columns)."""
    batch, labels, count, channels = samples.shape
    flat = vectors.flatten(2)  # (batch, channels, positions)
    products = torch.bmm(samples.reshape(batch, labels * count, channels), flat) * scale
    likeness = products.unflatten(1, (labels, count)).logsumexp(2) - math.log(count)
    maps: Tensor = likeness.unflatten(2, vectors.shape[2:])
    return maps


def _histogram(grey: Tensor, weights: Tensor) -> Tensor:
    """Return how often each grey value occurs under the weights, smoothed: (batch, L, bins), summing to 1."""
    centres = torch.linspace(-1.0, 1.0, _BINS, device=grey.device)
    kernel = torch.exp(-((grey.flatten(2) - centres[:, None]) ** 2) / (2 * _GREY_WIDTH**2))  # (batch, bins, positions)
    share = torch.einsum("blp,bkp->blk", weights.flatten(2), kernel)
    return share / share.sum(2, keepdim=True).clamp_min(1e-12)


def _look_up(table: Tensor, grey: Tensor) -> Tensor:
    """Return the tables' entries at each position's grey value: (batch, L, tables, rows, columns)."""
    place = (grey.flatten(1) + 1.0) * ((_BINS - 1) / 2)
    below = place.floor().clamp(0, _BINS - 2)
    share = (place - below).clamp(0.0, 1.0)[:, None, None]
    index = below.long()[:, None, None].expand(-1, *table.shape[1:3], -1)
    # In one type: under autocast the table and the grey values may come in two, which lerp refuses.
    values = torch.lerp(table.gather(3, index), table.gather(3, index + 1), share.to(table.dtype))
    maps: Tensor = values.unflatten(3, grey.shape[2:])
    return maps


def _spread_samples(vectors: Tensor, weights: Tensor) -> Tensor:
    """Return vectors at places spread evenly over the weights: (batch, L, samples, channels)."""
    batch, labels = weights.shape[:2]
    mass = weights.flatten(2).double().cumsum(2)
    mass = mass / mass[..., -1:]
    places = (torch.arange(_SAMPLES, device=weights.device, dtype=torch.float64) + 0.5) / _SAMPLES
    index = torch.searchsorted(mass, places.expand(batch, labels, -1).contiguous())
    index = index.clamp_max(mass.shape[2] - 1)
    flat = vectors.flatten(2).transpose(1, 2)  # (batch, positions, channels)
    samples: Tensor = flat.gather(1, index.flatten(1)[..., None].expand(-1, -1, flat.shape[2])).unflatten(
        1, (labels, -1)
    )
    return samples
