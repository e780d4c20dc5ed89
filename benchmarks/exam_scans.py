"""The scans of the exam: whole generated ones with what was placed in them, and real ones with reference labels."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from data_sets import SETS, cases_of
from numpy.typing import NDArray

from napari_oneseg.config import AnatomyConfig
from napari_oneseg.training.anatomy.scene import SITUATIONS, SceneObject
from napari_oneseg.training.generate import GeneratedVolume, generate_volume
from napari_oneseg.training.rollouts import connected_regions
from napari_oneseg.volume import Volume

__all__ = ["ExamScan", "Target", "generated_scans", "real_scans"]

Mask = NDArray[np.bool_]
LEAST_AREA = 60
"""Pixels that an object shows at least on its largest slice."""
LEAST_SLICES = 4
GREATEST_SHARE = 0.3
"""Share of a slice that an object takes at most; what is larger is background."""
PLAIN_OBJECTS = 2
"""Organs and vessels without a hard situation that are taken from each scan."""


@dataclass(frozen=True, eq=False)
class Target:
    """An object to be labelled: its name, its kind, where it is, and where that is which it may be taken for."""

    name: str
    kind: str
    truth: Mask
    alike: Mask


@dataclass(frozen=True, eq=False)
class ExamScan:
    """A scan and what is to be labelled in it, in slice order."""

    name: str
    volume: Volume
    targets: tuple[Target, ...]


def generated_scans(count: int, first_seed: int) -> Iterator[ExamScan]:
    """Generate whole scans: 160 to 224 pixels, 30 to 100 slices, of any slice distance that such a body allows."""
    for seed in range(first_seed, first_seed + count):
        generator = torch.Generator().manual_seed(seed)

        def draw(low: float, high: float, source: torch.Generator = generator) -> float:
            return low + (high - low) * float(torch.rand(1, generator=source))

        size = 32 * round(draw(5, 7))
        thinness = float(np.exp(draw(np.log(0.15), np.log(0.8))))
        slices = int(np.clip(draw(0.7, 1.4) * size * thinness, 30, 100))
        config = AnatomyConfig(
            slices=slices, size=size, regions=(3, 7), situations=(3, 6), slices_per_size=(thinness, thinness)
        )
        volume = connected_regions(generate_volume(generator, config))
        scan = Volume(volume.image.numpy(), (volume.distance, 1.0, 1.0), slice_axis=0)
        yield ExamScan(f"generated {seed}", scan, tuple(_targets(volume)))


def _targets(volume: GeneratedVolume) -> Iterator[Target]:
    """Choose one object of each kind of hard situation, the largest, and some without."""
    chosen: dict[str, int] = {}
    regions = volume.regions.numpy()
    area = np.stack([np.bincount(plane.ravel(), minlength=volume.count) for plane in regions])
    for entry in sorted(volume.objects, key=lambda entry: -area[:, list(entry.regions)].sum()):
        shown = area[:, list(entry.regions)].sum(1)
        wanted = 1 if entry.kind in SITUATIONS else PLAIN_OBJECTS if entry.kind in ("organ", "vessel") else 0
        if chosen.get(entry.kind, 0) >= wanted or shown.max() < LEAST_AREA or (shown > 0).sum() < LEAST_SLICES:
            continue
        if shown.max() > GREATEST_SHARE * regions[0].size:
            continue
        number = chosen[entry.kind] = chosen.get(entry.kind, 0) + 1
        yield _target(f"{entry.kind} {number}", entry, regions)


def _target(name: str, entry: SceneObject, regions: NDArray[np.int64]) -> Target:
    return Target(name, entry.kind, np.isin(regions, entry.regions), np.isin(regions, entry.alike))


def real_scans(name: str, count: int, skip: int = 0) -> Iterator[ExamScan]:
    """Read train scans of a data set; what a label may be taken for there is any other labelled organ."""
    for files in cases_of(name, "train")[skip : skip + count]:
        case = files.load()
        organs = SETS[name].headline
        targets = (
            Target(organ, organ, case.reference == label, (case.reference > 0) & (case.reference != label))
            for label, organ in organs.items()
            if (case.reference == label).any()
        )
        yield ExamScan(f"{name} {case.name}", case.volume, tuple(targets))
