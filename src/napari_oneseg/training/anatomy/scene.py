"""One generated volume in the making: the canvas of regions, their tissues, the random draws and the record."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from napari_oneseg.config import AnatomyConfig

__all__ = ["SITUATIONS", "SURROUNDINGS", "Box", "Kind", "Scene", "SceneObject"]

Box = tuple[slice, slice, slice]
"""A piece of the canvas: slices, rows, columns."""
Kind = Literal[
    "organ", "vessel", "alike", "split", "wall", "cavity", "hollow", "loop", "tube", "sheet", "rim", "bone", "level"
]
"""What an object is.

organ, vessel
    A body that begins and ends; a tube from slice to slice.
alike
    An organ with a neighbour of the same tissue, which begins where the organ ends.
split
    An organ that shows as two parts on some slices.
wall, cavity, hollow
    A wall round a cavity, what is within it, and both together.
level
    Air over fluid within a cavity.
loop, tube
    A bowel-like tube that folds through the plane; a long one of constant brightness in any direction.
sheet
    A thin layer of the body's wall, or a dome between two bodies.
rim, bone
    A thin layer round an organ, and a bright body beside a tube: surroundings, which nobody paints.
"""

SITUATIONS: frozenset[Kind] = frozenset({"alike", "split", "wall", "cavity", "hollow", "loop", "tube", "sheet"})
"""Kinds of objects on which labels go astray in real scans."""
SURROUNDINGS: frozenset[Kind] = frozenset({"rim", "bone", "level"})
"""Kinds that only surround objects, or are a part of one."""
_LEAST_LEFT = 0.4
"""Share of an object that must not have been painted over, for the object to be on the record."""


@dataclass(frozen=True)
class SceneObject:
    """One thing that was placed in a generated volume.

    Attributes
    ----------
    kind
        What it is.
    regions
        Regions it is made of.
    alike
        Regions of the same tissue beside it that are not part of it.
    """

    kind: Kind
    regions: tuple[int, ...]
    alike: tuple[int, ...] = ()


class Scene:
    """A canvas of regions, the tissue of each, and random draws that all come from one generator."""

    def __init__(self, generator: torch.Generator, config: AnatomyConfig) -> None:
        self.random = generator
        self.config = config
        self.shape = (config.slices, config.size, config.size)
        self.regions = torch.zeros(self.shape, dtype=torch.int64)
        self.tissue: list[float] = []
        self.texture: list[float] = []
        self.objects: list[SceneObject] = []
        self._painted: list[int] = []
        self.palette = self.uniform(0.0, 1.0, int(self.integer(3, 8))).tolist()
        self.fat = self.number(0.0, 1.0)
        self.air = self.number(-0.3, 0.1)
        self.z, self.y, self.x = (
            torch.arange(float(n)).view([-1 if k == axis else 1 for k in range(3)]) for axis, n in enumerate(self.shape)
        )
        # Slices per pixel: how far an organ of a given diameter reaches through the stack.
        low, high = config.slices_per_size
        self.thinness = math.exp(self.number(math.log(low), math.log(high)))

    # Random draws -------------------------------------------------------------------------------------------------

    def uniform(self, low: float, high: float, *size: int) -> Tensor:
        """Return random numbers from low to high, shape ``size``."""
        return low + (high - low) * torch.rand(size, generator=self.random)

    def number(self, low: float, high: float) -> float:
        """Return a random number from low to high."""
        return float(self.uniform(low, high, 1))

    def scale(self, low: float, high: float) -> float:
        """Return a random number from low to high, whose logarithm is spread evenly."""
        return math.exp(self.number(math.log(low), math.log(max(low, high))))

    def integer(self, low: int, high: int) -> int:
        """Return a random integer from low to high, both included."""
        return int(torch.randint(low, high + 1, (1,), generator=self.random))

    def chance(self, probability: float) -> bool:
        """Return true with the given probability."""
        return self.number(0.0, 1.0) < probability

    def field(self, nodes_z: int, nodes: int, count: int = 1, shape: tuple[int, ...] | None = None) -> Tensor:
        """Return smooth random fields of unit variance at the nodes, shape (count, slices, rows, columns)."""
        coarse = torch.randn(1, count, nodes_z, nodes, nodes, generator=self.random)
        size = shape or self.shape
        if 0 in size:  # a body that lies outside the canvas
            return coarse.new_zeros(count, *size)
        return functional.interpolate(coarse, size=size, mode="trilinear", align_corners=True)[0]

    def nodes_z(self, pixels: float, slices: int | None = None) -> int:
        """Return how many nodes along z make a field vary as fast along z as over ``pixels`` in the plane.

        There is at most one for two slices: neighbouring slices that have nothing in common teach nothing.
        """
        count = self.config.slices if slices is None else slices
        return max(2, min(count // 2, 1 + round(count / max(1.0, pixels * self.thinness))))

    # Regions ------------------------------------------------------------------------------------------------------

    def paint(
        self,
        mask: Tensor,
        box: Box | None = None,
        tissue: float | None = None,
        like: int | None = None,
        smooth: bool = False,
    ) -> int:
        """Paint one more region over what is there, and return its number.

        Parameters
        ----------
        mask
            Where, shape of the box, bool.
        box
            Piece of the canvas; by default the whole.
        tissue
            Its grey value; by default one of the palette's, nearly.
        like
            A region whose tissue and texture it shares, within noise.
        smooth
            Whether it has no texture, as fluids have none.
        """
        if like is not None:
            tissue, texture = self.tissue[like] + self.number(-0.025, 0.025), self.texture[like]
        else:
            texture = 0.0 if smooth else self.number(0.0, 1.0) ** 2 * 0.10
            if tissue is None:
                tissue = self.palette[self.integer(0, len(self.palette) - 1)] + self.number(-0.08, 0.08)
        region = len(self.tissue)
        self.regions[box or ...][mask] = region
        self.tissue.append(tissue)
        self.texture.append(texture)
        self._painted.append(int(mask.sum()))
        return region

    def other_tissue(self, than: float) -> float:
        """Return a grey value that can be told from another: fat's where it can, else a random one away from it."""
        if abs(self.fat - than) > 0.12:
            return self.fat + self.number(-0.03, 0.03)
        return than + (0.15 + self.number(0.0, 0.4)) * (1 if than < 0.5 else -1)

    def record(self, kind: Kind, *regions: int, alike: tuple[int, ...] = ()) -> None:
        """Write down what has been placed."""
        self.objects.append(SceneObject(kind, regions, alike))

    def remaining(self) -> tuple[SceneObject, ...]:
        """Return the objects of which enough is left after all that was painted over them."""
        left = torch.bincount(self.regions.flatten(), minlength=len(self.tissue)).tolist()

        def shows(regions: tuple[int, ...]) -> bool:
            painted = sum(self._painted[region] for region in regions)
            return bool(sum(left[region] for region in regions) > _LEAST_LEFT * painted)

        return tuple(
            entry for entry in self.objects if shows(entry.regions) and (not entry.alike or shows(entry.alike))
        )
