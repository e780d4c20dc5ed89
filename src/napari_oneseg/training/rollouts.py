"""Examples for the refiner: long runs of slices with a few objects painted on the first.

The correspondences are learned from short sequences in which every region counts. The refiner has to be right about
whole objects over many slices, so its examples are other ones: objects that hang together, one to four at a time, some
of them made of more than one tissue, as organs are. What goes astray in real scans is painted most often: an organ
beside another that looks alike and is not painted, rings, bowel, long tubes.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor
from torch.nn import functional

from napari_oneseg.config import AnatomyConfig, RefiningConfig
from napari_oneseg.features.regions import slice_regions
from napari_oneseg.preprocessing import normalise
from napari_oneseg.training.anatomy.scene import SITUATIONS, SURROUNDINGS, SceneObject
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

    Nobody could tell from a painted part that another one, elsewhere, is of the same random region. An object on the
    record keeps the largest part of each of its regions; what surrounds or resembles one keeps all parts.
    """
    regions = volume.regions.numpy()
    parts = np.zeros_like(regions)
    parts_of: dict[int, range] = {}
    largest: dict[int, int] = {}
    count = 0
    for region, box in enumerate(ndimage.find_objects(regions + 1)):
        if box is None:
            continue
        numbered, found = ndimage.label(regions[box] == region)
        inside = numbered > 0
        parts[box][inside] = numbered[inside] - 1 + count
        parts_of[region] = range(count, count + found)
        largest[region] = count + int(np.bincount(numbered[inside]).argmax()) - 1
        count += found
    objects = []
    for entry in volume.objects:
        seen = [region for region in entry.regions if region in parts_of]
        if entry.kind in SURROUNDINGS:
            own = tuple(part for region in seen for part in parts_of[region])
        else:
            own = tuple(largest[region] for region in seen)
        alike = tuple(part for region in entry.alike for part in parts_of.get(region, ()))
        objects.append(SceneObject(entry.kind, own, alike))
    return replace(volume, regions=torch.from_numpy(parts), count=count, objects=tuple(objects))


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
            label_of = _draw_objects(regions[0], volume, objects, config, generator)
            slices.append(x[:, None])
            labels.append(occupancy(label_of[regions], objects, stride))
            distances.append(float(gap) * volume.distance)
    batch = SequenceBatch(torch.stack(slices), torch.stack(labels), torch.tensor(distances))
    if not region_scales:
        return batch
    grey = functional.avg_pool2d(batch.slices.flatten(0, 1), stride)[:, 0].numpy()
    regions = torch.from_numpy(np.stack([slice_regions(image, region_scales) for image in grey]))
    return replace(batch, regions=regions.unflatten(0, batch.slices.shape[:2]))


def _draw_objects(
    painted: Tensor, volume: GeneratedVolume, objects: int, config: RefiningConfig, generator: torch.Generator
) -> Tensor:
    """Draw objects among the regions of a slice (rows, columns): the label of each region, 0 = background, (count,).

    Regions can be drawn, and things on the volume's record: those of a hard situation more often.
    """
    candidates, weight = _candidates(painted, volume, config.hard_cases)
    area = torch.bincount(painted.flatten(), minlength=volume.count)
    alike_of = {part: set(entry.alike) for entry in volume.objects for part in entry.regions}
    surroundings = {part for entry in volume.objects if entry.kind in SURROUNDINGS for part in entry.regions}
    label_of = torch.zeros(volume.count, dtype=torch.int64)
    barred: set[int] = set()
    for label in range(1, objects + 1):
        if not weight.any():
            break
        drawn = candidates[int(torch.multinomial(weight, 1, generator=generator))]
        label_of[list(drawn)] = label
        barred.update(drawn)
        alike = {part for region in drawn for part in alike_of.get(region, ())}
        for _ in range(2):
            if _chance(config.merging, generator):
                joining = _neighbour(painted, drawn, area, barred | alike | surroundings, generator)
                if joining is not None:
                    label_of[joining] = label
                    barred.add(joining)
                    alike |= alike_of.get(joining, set())
        if _chance(config.lone, generator):
            barred |= alike
        for k, candidate in enumerate(candidates):
            if not barred.isdisjoint(candidate):
                weight[k] = 0.0
    return label_of


def _candidates(painted: Tensor, volume: GeneratedVolume, hard_cases: float) -> tuple[list[tuple[int, ...]], Tensor]:
    """Return what can be painted on a slice, each as the regions it is made of, and how often it should be."""
    contacts = _contacts(painted)
    area = torch.bincount(painted.flatten(), minlength=volume.count).float()
    perimeter = torch.bincount(contacts.flatten(), minlength=volume.count).float()
    solid = (_SOLID * area / perimeter.square().clamp_min(1)).clamp(0.02, 1.0)
    candidates: list[tuple[int, ...]] = [(region,) for region in range(volume.count)]
    weight = torch.where(area >= _MIN_AREA, area.sqrt() * solid, 0.0).tolist()
    for entry in volume.objects:
        shown = float(area[list(entry.regions)].sum())
        if entry.kind in SURROUNDINGS:
            for region in entry.regions:
                # Fluid and air can be organs of their own; nobody paints a capsule.
                weight[region] *= 0.0 if entry.kind == "rim" else 1.0
        elif entry.kind in SITUATIONS and shown >= _MIN_AREA:
            candidates.append(entry.regions)
            weight.append(hard_cases * math.sqrt(shown))
    return candidates, torch.tensor(weight)


def _contacts(painted: Tensor) -> Tensor:
    """Return the pairs of unequal regions on either side of a border between two pixels, shape (borders, 2)."""
    down = torch.stack([painted[1:].flatten(), painted[:-1].flatten()], 1)
    right = torch.stack([painted[:, 1:].flatten(), painted[:, :-1].flatten()], 1)
    contacts = torch.cat([down, right])
    return contacts[contacts[:, 0] != contacts[:, 1]]


def _neighbour(
    painted: Tensor, drawn: tuple[int, ...], area: Tensor, barred: set[int], generator: torch.Generator
) -> int | None:
    """Draw what joins an object: a smaller region within it or beside it, the rather the more of it touches."""
    contacts = _contacts(painted)
    own = torch.isin(contacts, torch.tensor(drawn))
    beside = contacts[own[:, [1, 0]] & ~own]
    ids, touching = torch.unique(beside, return_counts=True)
    free = [k for k, region in enumerate(ids.tolist()) if region not in barred]
    if not free:
        return None
    joining = free[int(torch.multinomial(touching[free] / area[ids[free]], 1, generator=generator))]
    region = int(ids[joining])
    return region if area[region] < area[list(drawn)].sum() else None


def _chance(probability: float, generator: torch.Generator) -> bool:
    return float(torch.rand(1, generator=generator)) < probability
