"""Generated anatomy: volumes made by a program, whose every region is known.

The correspondence network learns from these without any scan, human label or licence. What matters is not that they
look like a particular organ, but that everything which makes correspondence hard occurs: bodies that begin and end
between two slices, thin and tubular ones, pairs, nested and touching ones, equal grey values side by side, texture,
partial volume, noise, bias, slices that are shifted against each other, and any ratio of slice distance to pixel size.

Strategy: an integer map of regions is painted back to front (touching background regions, organs, vessels, lesions,
air), each region drawing its tissue from a small palette; then the map is imaged.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from napari_oneseg.config import AnatomyConfig

__all__ = ["GeneratedVolume", "generate_volume"]


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
    """

    image: Tensor
    regions: Tensor
    count: int
    distance: float


def generate_volume(generator: torch.Generator, config: AnatomyConfig | None = None) -> GeneratedVolume:
    """Make one volume; the same state of ``generator`` gives the same volume."""
    config = config or AnatomyConfig()
    return _Scene(generator, config).volume()


class _Scene:
    """One volume in the making: the canvas of regions, their tissues, and the random draws."""

    def __init__(self, generator: torch.Generator, config: AnatomyConfig) -> None:
        self.random = generator
        self.config = config
        self.shape = (config.slices, config.size, config.size)
        self.regions = torch.zeros(self.shape, dtype=torch.int64)
        self.tissue: list[float] = []
        self.palette = self.uniform(0.0, 1.0, int(self.integer(3, 8)))
        axes = [torch.arange(float(n)) for n in self.shape]
        self.z, self.y, self.x = torch.meshgrid(*axes, indexing="ij")
        # Slices per pixel: how far an organ of a given diameter reaches through the stack.
        low, high = config.slices_per_size
        self.thinness = math.exp(self.number(math.log(low), math.log(high)))

    # Random draws -------------------------------------------------------------------------------------------------

    def uniform(self, low: float, high: float, *size: int) -> Tensor:
        return low + (high - low) * torch.rand(size, generator=self.random)

    def number(self, low: float, high: float) -> float:
        return float(self.uniform(low, high, 1))

    def integer(self, low: int, high: int) -> int:
        """Return an integer from low to high, both included."""
        return int(torch.randint(low, high + 1, (1,), generator=self.random))

    def chance(self, probability: float) -> bool:
        return self.number(0.0, 1.0) < probability

    def field(self, nodes_z: int, nodes: int, count: int = 1) -> Tensor:
        """Return smooth random fields of unit variance at the nodes, shape (count, slices, rows, columns)."""
        coarse = torch.randn(1, count, nodes_z, nodes, nodes, generator=self.random)
        return functional.interpolate(coarse, size=self.shape, mode="trilinear", align_corners=True)[0]

    def nodes_z(self, pixels: float) -> int:
        """Return how many nodes along z make a field vary as fast along z as over ``pixels`` in the plane.

        There is at most one for two slices: neighbouring slices that have nothing in common teach nothing.
        """
        return max(2, min(self.config.slices // 2, 1 + round(self.config.slices / max(1.0, pixels * self.thinness))))

    # Regions ------------------------------------------------------------------------------------------------------

    def new_region(self, mask: Tensor, tissue: float | None = None) -> None:
        """Paint one more region; by default its grey value is one of the palette's, nearly."""
        if tissue is None:
            tissue = float(self.palette[self.integer(0, len(self.palette) - 1)]) + self.number(-0.08, 0.08)
        self.regions[mask] = len(self.tissue)
        self.tissue.append(tissue)

    def paint_background(self) -> None:
        count = self.integer(*self.config.regions)
        nodes = self.integer(3, 9)
        fields = self.field(self.nodes_z(self.config.size / nodes), nodes, count)
        fields += 0.35 * self.field(self.nodes_z(self.config.size / (2 * nodes)), 2 * nodes + 1, count)
        winner = fields.argmax(0)
        for k in range(count):
            self.new_region(winner == k)

    def organ_mask(self, centre: Tensor, radius: float, stretch: float, turn: float, wobble: float) -> Tensor:
        """Return an ellipsoid with a wavy surface; ``radius`` in pixels, along z scaled by the slices' thinness."""
        dz = (self.z - centre[0]) / max(0.8, radius * self.thinness)
        cos, sin = math.cos(turn), math.sin(turn)
        dy, dx = self.y - centre[1], self.x - centre[2]
        # The axis leans, so that the organ wanders from slice to slice.
        dy, dx = dy - centre[3] * radius * dz, dx - centre[4] * radius * dz
        u, v = (cos * dy + sin * dx) / (radius * stretch), (cos * dx - sin * dy) / (radius / stretch)
        nodes = max(3, round(2.5 * self.config.size / max(radius, 4.0)))
        waves = self.field(self.nodes_z(self.config.size / nodes), min(nodes, 40))[0]
        return dz**2 + u**2 + v**2 + wobble * waves < 1.0

    def paint_organs(self) -> None:
        slices, size = self.config.slices, self.config.size
        for _ in range(self.integer(*self.config.organs)):
            radius = math.exp(self.number(math.log(4.0), math.log(0.28 * size)))
            lean = self.uniform(-0.5, 0.5, 2)
            place = torch.stack([self.uniform(-1.0, slices, 1)[0], *self.uniform(0.1 * size, 0.9 * size, 2)])
            centre = torch.cat([place, lean])
            stretch, turn = math.exp(self.number(-0.6, 0.6)), self.number(0.0, math.pi)
            wobble = self.number(0.0, 0.45)
            self.new_region(self.organ_mask(centre, radius, stretch, turn, wobble))
            tissue = self.tissue[-1]
            if self.chance(0.25):  # its pair on the other side
                twin = centre.clone()
                twin[2], twin[4] = size - 1 - centre[2], -centre[4]
                twin[0] += self.number(-0.2, 0.2) * slices
                self.new_region(
                    self.organ_mask(twin, radius * self.number(0.8, 1.2), stretch, -turn, wobble),
                    tissue + self.number(-0.02, 0.02),
                )
            if radius > 12 and self.chance(0.35):  # something inside it
                inner = centre.clone()
                inner[1:3] += self.uniform(-0.4, 0.4, 2) * radius
                inner[0] += self.number(-0.4, 0.4) * radius * self.thinness
                small = radius * self.number(0.15, 0.5)
                self.new_region(self.organ_mask(inner, small, 1.0, 0.0, 0.2), tissue + self.number(-0.35, 0.35))

    def paint_vessels(self) -> None:
        slices, size = self.config.slices, self.config.size
        for _ in range(self.integer(*self.config.vessels)):
            radius = self.number(1.5, 7.0)
            nodes = max(2, min(slices, 2 + round(slices / max(1.0, 30 * self.thinness))))
            steps = torch.randn(2, nodes, generator=self.random) * self.number(2.0, 14.0)
            path = steps.cumsum(1) + self.uniform(0.15 * size, 0.85 * size, 2)[:, None]
            path = functional.interpolate(path[None], size=slices, mode="linear", align_corners=True)[0]
            first = self.integer(0, slices // 2) if self.chance(0.4) else 0
            last = self.integer(slices // 2, slices - 1) if self.chance(0.4) else slices - 1
            flat = math.exp(self.number(-0.5, 0.5))
            distance = ((self.y - path[0, :, None, None]) * flat) ** 2 + ((self.x - path[1, :, None, None]) / flat) ** 2
            self.new_region((distance < radius**2) & (self.z >= first) & (self.z <= last))

    def paint_air(self) -> None:
        """Cut the body out of air, with a layer of fat or skin under its surface."""
        size = self.config.size
        centre = torch.tensor([0.0, size / 2, size / 2, 0.0, 0.0]) + torch.cat(
            [torch.zeros(1), self.uniform(-8, 8, 2), torch.zeros(2)]
        )
        scale = torch.stack([self.uniform(0.36, 0.6, 1)[0], self.uniform(0.36, 0.6, 1)[0]]) * size
        waves = self.field(self.nodes_z(size / 4), 5)[0] * 0.08
        r = ((self.y - centre[1]) / scale[0]) ** 2 + ((self.x - centre[2]) / scale[1]) ** 2 + waves
        if self.chance(0.6):
            self.new_region((r < 1.0) & (r > self.number(0.75, 0.95)))
        self.new_region(r >= 1.0, self.number(-0.3, 0.1) if self.chance(0.8) else None)

    # Imaging ------------------------------------------------------------------------------------------------------

    def image(self) -> Tensor:
        tissue = torch.tensor(self.tissue)
        image = tissue[self.regions]
        if self.chance(0.5):  # partial volume along z: a slice is a mean over its thickness
            image = image.clone()
            mixed = 0.25 * torch.cat([image[:1], image[:-1]]) + 0.5 * image + 0.25 * torch.cat([image[1:], image[-1:]])
            image = torch.lerp(image, mixed, self.number(0.0, 0.8))
        amplitude = (self.uniform(0.0, 1.0, len(self.tissue)) ** 2 * 0.10)[self.regions]
        nodes = self.integer(16, 64)
        image = image + amplitude * self.field(self.nodes_z(self.config.size / nodes), nodes)[0]
        image = _blur(image, self.number(0.3, 1.2))
        bias = self.field(2, self.integer(2, 4))[0] * self.number(0.0, 0.25)
        image = image * (1 + bias)
        if self.chance(0.3):  # slices of unequal brightness, as in interleaved MRI
            image = image * (1 + self.number(0.0, 0.08) * torch.randn(self.shape[0], 1, 1, generator=self.random))
        noise = torch.randn(self.shape, generator=self.random)
        if self.chance(0.5):  # reconstruction filters leave noise that is correlated
            noise = _blur(noise, self.number(0.4, 1.0))
            noise = noise / noise.std()
        image = image + self.number(0.0, 0.07) * noise
        if self.chance(0.15):  # streaks, as from metal or a moving bowel
            turn = self.number(0.0, math.pi)
            along = self.y * math.cos(turn) + self.x * math.sin(turn)
            image = image + self.number(0.0, 0.08) * torch.sin(along * self.number(0.2, 1.5) + self.z)
        return -image if self.chance(0.3) else image

    def shift_slices(self, image: Tensor) -> Tensor:
        """Move and turn the slices against each other, as breathing does; the regions move along."""
        count = self.shape[0]
        angle = torch.randn(count, generator=self.random) * self.number(0.0, 0.03)
        shift = torch.randn(count, 2, generator=self.random) * self.number(0.0, 3.0) / self.config.size
        cos, sin = angle.cos(), angle.sin()
        matrix = torch.stack([torch.stack([cos, -sin, shift[:, 0]], 1), torch.stack([sin, cos, shift[:, 1]], 1)], 1)
        grid = functional.affine_grid(matrix, [count, 1, *self.shape[1:]], align_corners=False)
        moved = functional.grid_sample(image[:, None], grid, padding_mode="border", align_corners=False)
        labels = functional.grid_sample(
            self.regions[:, None].float(), grid, mode="nearest", padding_mode="border", align_corners=False
        )
        self.regions = labels[:, 0].round().long()
        return moved[:, 0]

    def volume(self) -> GeneratedVolume:
        self.paint_background()
        self.paint_organs()
        self.paint_vessels()
        if self.chance(0.5):
            self.paint_air()
        image = self.image()
        if self.chance(0.4):
            image = self.shift_slices(image)
        return GeneratedVolume(image, self.regions, len(self.tissue), 1.0 / self.thinness)


def _blur(image: Tensor, sigma: float) -> Tensor:
    """Blur each slice of (slices, rows, columns) with a Gaussian of ``sigma`` pixels."""
    radius = max(1, math.ceil(3 * sigma))
    kernel = torch.exp(-(torch.arange(-radius, radius + 1.0) ** 2) / (2 * sigma**2))
    kernel = (kernel / kernel.sum())[None, None]
    padded = functional.pad(image[:, None], (radius,) * 4, mode="replicate")
    rows = functional.conv2d(padded, kernel[..., None])
    return functional.conv2d(rows, kernel[..., None, :])[:, 0]
