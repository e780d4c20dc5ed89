"""Examples for the refiner: long runs of slices with a few objects painted on the first.

The correspondences are learned from short sequences in which every region counts. The refiner has to be right about
whole objects over many slices, so its examples are other ones: objects that hang together, one to four at a time, some
of them made of more than one tissue, as organs are.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor
from torch.nn import functional

from napari_oneseg.config import AnatomyConfig, RefiningConfig
from napari_oneseg.features.regions import slice_regions
from napari_oneseg.preprocessing import normalise
from napari_oneseg.training.generate import GeneratedVolume, generate_volume
from napari_oneseg.training.sequences import SequenceBatch, cut_window, occupancy

__all__ = ["connected_regions", "rollout_batch"]

_MIN_AREA = 24
"""Pixels that an object shows at least on the painted slice."""
_SOLID = 12.0
"""Factor on area over squared perimeter above which an object counts as one piece; a network of strands is rare in
anatomy, and is rarely drawn."""


def connected_regions(volume: GeneratedVolume) -> GeneratedVolume:
    """Return the volume with each connected part of a region as a region of its own.

    Nobody could tell from a painted part that another one, elsewhere, is of the same random region.
    """
    regions = volume.regions.numpy()
    parts = np.zeros_like(regions)
    count = 0
    for region, box in enumerate(ndimage.find_objects(regions + 1)):
        if box is None:
            continue
        numbered, found = ndimage.label(regions[box] == region)
        inside = numbered > 0
        parts[box][inside] = numbered[inside] - 1 + count
        count += found
    return replace(volume, regions=torch.from_numpy(parts), count=count)


def rollout_batch(
    generator: torch.Generator,
    stride: int,
    config: RefiningConfig,
    anatomy: AnatomyConfig,
    region_scales: tuple[float, ...] = (),
) -> SequenceBatch:
    """Generate volumes and cut runs of one length, with one number of objects, from them."""
    low, high = config.steps_along
    length = 1 + low + int(torch.randint(high - low + 1, (1,), generator=generator))
    objects = 1 + int(torch.randint(config.objects, (1,), generator=generator))
    slices: list[Tensor] = []
    labels: list[Tensor] = []
    distances: list[float] = []
    while len(slices) < config.batch:
        volume = connected_regions(generate_volume(generator, anatomy))
        image = torch.from_numpy(normalise(volume.image.numpy()))
        for _ in range(min(config.per_volume, config.batch - len(slices))):
            x, regions, gap = cut_window(image, volume, generator, length, config.crop)
            label_of = _draw_objects(regions[0], volume.count, objects, config.merging, generator)
            slices.append(x[:, None])
            labels.append(occupancy(label_of[regions], objects, stride))
            distances.append(float(gap) * volume.distance)
    batch = SequenceBatch(torch.stack(slices), torch.stack(labels), torch.tensor(distances))
    if not region_scales:
        return batch
    grey = functional.avg_pool2d(batch.slices.flatten(0, 1), stride)[:, 0].numpy()
    regions = torch.from_numpy(np.stack([slice_regions(image, region_scales) for image in grey]))
    return replace(batch, regions=regions.unflatten(0, batch.slices.shape[:2]))


def _draw_objects(painted: Tensor, count: int, objects: int, merging: float, generator: torch.Generator) -> Tensor:
    """Draw objects among the regions of a slice (rows, columns): the label of each region, 0 = background, (count,)."""
    down = torch.stack([painted[1:].flatten(), painted[:-1].flatten()], 1)
    right = torch.stack([painted[:, 1:].flatten(), painted[:, :-1].flatten()], 1)
    contacts = torch.cat([down, right])
    contacts = contacts[contacts[:, 0] != contacts[:, 1]]
    area = torch.bincount(painted.flatten(), minlength=count).float()
    perimeter = torch.bincount(contacts.flatten(), minlength=count).float()
    solid = (_SOLID * area / perimeter.square().clamp_min(1)).clamp(0.02, 1.0)
    weight = torch.where(area >= _MIN_AREA, area.sqrt() * solid, 0.0)
    label_of = torch.zeros(count, dtype=torch.int64)
    if not weight.any():
        return label_of
    drawn = torch.multinomial(weight, min(objects, int((weight > 0).sum())), generator=generator)
    for label, region in enumerate(drawn.tolist(), start=1):
        if label_of[region]:
            continue
        label_of[region] = label
        # What lies within it, or beside it, joins: an organ of several tissues.
        for _ in range(2):
            if float(torch.rand(1, generator=generator)) >= merging:
                continue
            beside = torch.cat([contacts[contacts[:, 0] == region, 1], contacts[contacts[:, 1] == region, 0]])
            if len(beside):
                ids, touching = torch.unique(beside, return_counts=True)
                other = int(ids[torch.multinomial(touching.float() / area[ids], 1, generator=generator)])
                if not label_of[other] and area[other] < area[region]:
                    label_of[other] = label
    return label_of
