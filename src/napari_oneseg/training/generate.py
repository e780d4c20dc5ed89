"""Generated anatomy: volumes made by a program, whose every region is known.

The correspondence network learns from these without any scan, human label or licence. What matters is not that they
look like a particular organ, but that everything which makes correspondence hard occurs: bodies that begin and end
between two slices, thin and tubular ones, pairs, nested and touching ones, equal grey values side by side, texture,
partial volume, noise, bias, slices that are shifted against each other, and any ratio of slice distance to pixel size.
And what labels go astray on in real scans: a neighbour that looks alike and begins where the organ ends, thin rims,
walls round a cavity, bowel, long tubes beside bone, organs that split, thin sheets.

Strategy: an integer map of regions is painted back to front (touching background regions, organs, vessels, hard
situations, air), each region drawing its tissue from a small palette; then the map is imaged. What was placed is on
record, so that a training can paint the hard cases and an exam can score by them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from napari_oneseg.config import AnatomyConfig
from napari_oneseg.training.anatomy.bodies import paint_look_alikes, paint_organs
from napari_oneseg.training.anatomy.cavities import paint_hollow
from napari_oneseg.training.anatomy.imaging import imaged, shift_slices
from napari_oneseg.training.anatomy.scene import Scene, SceneObject
from napari_oneseg.training.anatomy.surroundings import paint_background, paint_dome, paint_outside
from napari_oneseg.training.anatomy.tubes import paint_long_tube, paint_loop, paint_split_organ, paint_vessels

__all__ = ["GeneratedVolume", "generate_volume"]

_SITUATIONS: tuple[tuple[float, Callable[[Scene], None]], ...] = (
    (0.3, paint_look_alikes),
    (0.2, paint_hollow),
    (0.2, paint_long_tube),
    (0.12, paint_loop),
    (0.1, paint_split_organ),
    (0.08, paint_dome),
)
"""Hard situations and how often each is drawn; the costliest most often."""


@dataclass(frozen=True)
class GeneratedVolume:
    """A generated scan and its regions.

    Attributes
    ----------
    image
        Grey values, shape (slices, rows, columns), float32, arbitrary unit.
    regions
        Region of each voxel, same shape, int64, 0 to ``count - 1``.
    count
        Number of regions.
    distance
        Distance between neighbouring slices in pixels.
    objects
        What was placed and can still be seen.
    """

    image: Tensor
    regions: Tensor
    count: int
    distance: float
    objects: tuple[SceneObject, ...] = ()


def generate_volume(generator: torch.Generator, config: AnatomyConfig | None = None) -> GeneratedVolume:
    """Make one volume; the same state of ``generator`` gives the same volume."""
    config = config or AnatomyConfig()
    scene = Scene(generator, config)
    body = scene.chance(config.bodies)
    paint_background(scene, plain=body)
    paint_organs(scene)
    paint_vessels(scene)
    weights = torch.tensor([weight for weight, _ in _SITUATIONS])
    for _ in range(scene.integer(*config.situations)):
        _SITUATIONS[int(torch.multinomial(weights, 1, generator=generator))][1](scene)
    layers = scene.integer(1, 3) if config.situations[1] and scene.chance(0.5 if body else 0.1) else 0
    air = body or scene.chance(0.4)
    if air or layers:
        paint_outside(scene, air, layers)
    image = imaged(scene)
    if scene.chance(0.4):
        image = shift_slices(scene, image)
    return GeneratedVolume(image, scene.regions, len(scene.tissue), 1.0 / scene.thinness, scene.remaining())
