"""Training examples: short sequences of neighbouring slices with the labels of the first to be carried to the last."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from napari_oneseg.config import AnatomyConfig, TrainingConfig
from napari_oneseg.preprocessing import normalise
from napari_oneseg.training.generate import GeneratedVolume, generate_volume
from napari_oneseg.training.processes import Processes

__all__ = ["SequenceBatch", "cut_sequence", "cut_window", "generated_batch", "occupancy"]

_MAX_LABELS = 12


@dataclass(frozen=True)
class SequenceBatch:
    """A batch of sequences.

    Attributes
    ----------
    slices
        Normalised slices, shape (batch, sequence, 1, rows, columns), -1 to 1.
    labels
        Occupancy of each label at the feature grid, shape (batch, sequence, 1 + L, rows / s, columns / s), 0 to 1,
        summing to 1; channel 0 is background. A region that the first slice does not show is background throughout:
        it was not painted, so nothing may be copied into it.
    distances
        Distance between neighbouring slices in working pixels, shape (batch,).
    regions
        Number of each position's region, shape (batch, sequence, scales, rows / s, columns / s), int64; None where the
        network is shown no regions.
    """

    slices: Tensor
    labels: Tensor
    distances: Tensor
    regions: Tensor | None = None

    def to(self, device: torch.device) -> SequenceBatch:
        """Return the same batch on another device."""
        regions = None if self.regions is None else self.regions.to(device)
        return SequenceBatch(self.slices.to(device), self.labels.to(device), self.distances.to(device), regions)

    def share(self, processes: Processes) -> SequenceBatch:
        """Return the sequences of one process."""
        own = processes.share(len(self.slices))
        regions = None if self.regions is None else self.regions[own]
        return SequenceBatch(self.slices[own], self.labels[own], self.distances[own], regions)


def generated_batch(
    generator: torch.Generator, stride: int, config: TrainingConfig, anatomy: AnatomyConfig
) -> SequenceBatch:
    """Generate volumes and cut two sequences from each of them."""
    slices: list[Tensor] = []
    labels: list[Tensor] = []
    distances: list[float] = []
    while len(slices) < config.batch:
        volume = generate_volume(generator, anatomy)
        image = torch.from_numpy(normalise(volume.image.numpy()))
        for _ in range(min(2, config.batch - len(slices))):
            x, y, gap = cut_sequence(image, volume, generator, stride, config)
            slices.append(x)
            labels.append(y)
            distances.append(gap * volume.distance)
    return SequenceBatch(torch.stack(slices), torch.stack(labels), torch.tensor(distances))


def cut_sequence(
    image: Tensor, volume: GeneratedVolume, generator: torch.Generator, stride: int, config: TrainingConfig
) -> tuple[Tensor, Tensor, int]:
    """Cut a sequence out of a volume and draw which of its regions are painted.

    Parameters
    ----------
    image
        Normalised slices, shape (slices, rows, columns), -1 to 1.
    volume
        The regions of the same slices, and their distance.
    generator
        Of everything random.
    stride
        Working pixels per feature position.
    config
        Length of the sequence, size of the crop, share of painted regions.

    Returns
    -------
    Slices and labels as in :class:`SequenceBatch`, and the step from slice to slice: 2 if every other one was taken.
    """
    x, regions, gap = cut_window(image, volume, generator, config.sequence, config.crop)
    seen = torch.unique(regions[0])
    drawn = torch.rand(len(seen), generator=generator)
    painted = seen[drawn < config.foreground][:_MAX_LABELS]
    label_of = torch.zeros(volume.count, dtype=torch.int64)
    label_of[painted] = torch.arange(1, len(painted) + 1)
    return x[:, None], occupancy(label_of[regions], _MAX_LABELS, stride), gap


def cut_window(
    image: Tensor, volume: GeneratedVolume, generator: torch.Generator, length: int, crop: int
) -> tuple[Tensor, Tensor, int]:
    """Cut a random piece out of a volume: ``length`` slices in either order, turned and mirrored.

    Returns
    -------
    Grey values and regions, both of shape (length, crop, crop), and the step from slice to slice.
    """
    count, rows, columns = image.shape

    def integer(high: int) -> int:
        return int(torch.randint(high, (1,), generator=generator))

    # Sometimes every other slice: a scan of twice the slice distance.
    gap = 2 if integer(8) == 0 and 2 * (length - 1) < count else 1
    first = integer(count - gap * (length - 1))
    order = torch.arange(first, first + gap * length, gap)[:length]
    if integer(2):
        order = order.flip(0)
    top, left = integer(rows - crop + 1), integer(columns - crop + 1)
    window = (order, slice(top, top + crop), slice(left, left + crop))
    x, regions = image[window], volume.regions[window]
    turns, mirror = integer(4), integer(2)
    x, regions = torch.rot90(x, turns, (1, 2)), torch.rot90(regions, turns, (1, 2))
    if mirror:
        x, regions = x.flip(2), regions.flip(2)
    return x, regions, gap


def occupancy(labels: Tensor, count: int, stride: int) -> Tensor:
    """Return the share of background and each label in each feature position.

    Parameters
    ----------
    labels
        Shape (slices, rows, columns), 0 to ``count``.

    Returns
    -------
    Shape (slices, 1 + count, rows / stride, columns / stride), 0 to 1.
    """
    one_hot = functional.one_hot(labels, count + 1).permute(0, 3, 1, 2).float()
    return functional.avg_pool2d(one_hot, stride)
