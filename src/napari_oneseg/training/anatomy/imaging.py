"""From regions to grey values: partial volume, texture, bias, noise, ringing, and slices that moved."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from napari_oneseg.training.anatomy.scene import Scene

__all__ = ["imaged", "shift_slices"]


def imaged(scene: Scene) -> Tensor:
    """Return the grey values of a scene, shape (slices, rows, columns), float32."""
    image = torch.tensor(scene.tissue)[scene.regions]
    if scene.chance(0.5):  # partial volume along z: a slice is a mean over its thickness
        mixed = 0.25 * torch.cat([image[:1], image[:-1]]) + 0.5 * image + 0.25 * torch.cat([image[1:], image[-1:]])
        image = torch.lerp(image, mixed, scene.number(0.0, 0.8))
    image = image + _texture(scene)
    image = _blur(image, scene.number(0.3, 1.2))
    if scene.chance(0.12):
        image = _ringing(image, scene.number(0.35, 0.7))
    strength = scene.number(0.25, 0.6) if scene.chance(0.12) else scene.number(0.0, 0.25)
    image = image * (1 + scene.field(2, scene.integer(2, 4))[0] * strength)
    if scene.chance(0.3):  # slices of unequal brightness, as in interleaved MRI
        image = image * (1 + scene.number(0.0, 0.08) * torch.randn(scene.shape[0], 1, 1, generator=scene.random))
    noise = torch.randn(scene.shape, generator=scene.random)
    if scene.chance(0.5):  # reconstruction filters leave noise that is correlated
        noise = _blur(noise, scene.number(0.4, 1.0))
        noise = noise / noise.std()
    image = image + scene.number(0.0, 0.07) * noise
    if scene.chance(0.15):  # streaks, as from metal or a moving bowel
        turn = scene.number(0.0, math.pi)
        along = scene.y * math.cos(turn) + scene.x * math.sin(turn)
        image = image + scene.number(0.0, 0.08) * torch.sin(along * scene.number(0.2, 1.5) + scene.z)
    return -image if scene.chance(0.3) else image


def _texture(scene: Scene) -> Tensor:
    """Return the texture of all regions: of a strength of their own, in some scans unequal within a region."""
    amplitude = torch.tensor(scene.texture)[scene.regions]
    nodes = scene.integer(16, 64)
    grain = scene.field(scene.nodes_z(scene.config.size / nodes), nodes)[0]
    if scene.chance(0.35):  # smooth in one half of an organ and coarse in the other; brighter towards one end
        coarse = scene.integer(3, 8)
        uneven = scene.field(scene.nodes_z(scene.config.size / coarse), coarse)[0]
        grain = grain * (1 + uneven).clamp(0.0, 2.5) + scene.number(0.0, 1.0) * uneven
    return amplitude * grain


def _ringing(image: Tensor, kept: float) -> Tensor:
    """Cut the high frequencies of each slice off sharply, as an acquisition of too few lines does (Gibbs)."""
    spectrum = torch.fft.rfft2(image)
    rows = torch.fft.fftfreq(image.shape[1]).abs() < kept / 2
    columns = torch.fft.rfftfreq(image.shape[2]) < kept / 2
    cut: Tensor = torch.fft.irfft2(spectrum * rows[:, None] * columns, s=image.shape[1:])
    return cut


def shift_slices(scene: Scene, image: Tensor) -> Tensor:
    """Move and turn the slices against each other, as breathing does; the scene's regions move along."""
    count = scene.shape[0]
    angle = torch.randn(count, generator=scene.random) * scene.number(0.0, 0.03)
    shift = torch.randn(count, 2, generator=scene.random) * scene.number(0.0, 3.0) / scene.config.size
    if scene.chance(0.3):  # every other slice was taken in another breath
        odd = torch.arange(count) % 2 == 1
        shift[odd] += scene.uniform(-8.0, 8.0, 2) / scene.config.size
    cos, sin = angle.cos(), angle.sin()
    matrix = torch.stack([torch.stack([cos, -sin, shift[:, 0]], 1), torch.stack([sin, cos, shift[:, 1]], 1)], 1)
    grid = functional.affine_grid(matrix, [count, 1, *scene.shape[1:]], align_corners=False)
    moved = functional.grid_sample(image[:, None], grid, padding_mode="border", align_corners=False)
    labels = functional.grid_sample(
        scene.regions[:, None].float(), grid, mode="nearest", padding_mode="border", align_corners=False
    )
    scene.regions = labels[:, 0].round().long()
    return moved[:, 0]


def _blur(image: Tensor, sigma: float) -> Tensor:
    """Blur each slice of (slices, rows, columns) with a Gaussian of ``sigma`` pixels."""
    radius = max(1, math.ceil(3 * sigma))
    kernel = torch.exp(-(torch.arange(-radius, radius + 1.0) ** 2) / (2 * sigma**2))
    kernel = (kernel / kernel.sum())[None, None]
    padded = functional.pad(image[:, None], (radius,) * 4, mode="replicate")
    rows = functional.conv2d(padded, kernel[..., None])
    return functional.conv2d(rows, kernel[..., None, :])[:, 0]
