"""Tubes: vessels from slice to slice, long ones in every direction that branch, bowel-like loops, and split organs."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from napari_oneseg.training.anatomy.bodies import Body
from napari_oneseg.training.anatomy.scene import Scene

__all__ = ["paint_long_tube", "paint_loop", "paint_split_organ", "paint_vessels"]

_THINNEST = 0.6
"""Slices to which a tube reaches at least on either side of its axis: a slice is as thick as it is apart."""
_SAMPLES = 256


def paint_vessels(scene: Scene) -> None:
    """Paint tubes that cross the slices on a wandering path, some of them only part of the way."""
    slices, size = scene.config.slices, scene.config.size
    for _ in range(scene.integer(*scene.config.vessels)):
        radius = scene.number(1.5, 7.0)
        nodes = max(2, min(slices, 2 + round(slices / max(1.0, 30 * scene.thinness))))
        steps = torch.randn(2, nodes, generator=scene.random) * scene.number(2.0, 14.0)
        path = steps.cumsum(1) + scene.uniform(0.15 * size, 0.85 * size, 2)[:, None]
        path = functional.interpolate(path[None], size=slices, mode="linear", align_corners=True)[0]
        first = scene.integer(0, slices // 2) if scene.chance(0.4) else 0
        last = scene.integer(slices // 2, slices - 1) if scene.chance(0.4) else slices - 1
        flat = math.exp(scene.number(-0.5, 0.5))
        distance = ((scene.y - path[0, :, None, None]) * flat) ** 2 + ((scene.x - path[1, :, None, None]) / flat) ** 2
        vessel = scene.paint((distance < radius**2) & (scene.z >= first) & (scene.z <= last))
        scene.record("vessel", vessel)


def paint_long_tube(scene: Scene) -> None:
    """Paint a tube of constant brightness through the whole canvas, in any direction, and some branches and bones."""
    slices, size = scene.config.slices, scene.config.size
    depth = slices / scene.thinness  # of the canvas, in pixels
    radius = scene.scale(2.0, 0.065 * size + 2.0)
    ends = scene.uniform(0.2, 0.8, 2, 3) * torch.tensor([depth, size, size])
    way = scene.integer(0, 3)
    if way < 3:  # mostly along z, then in the plane or oblique
        ends[:, 0] = torch.tensor([-0.1, 1.1]) * depth
        if way < 2:
            ends[1, 1:] = ends[0, 1:] + scene.uniform(-0.25, 0.25, 2) * min(size, depth)
    else:
        ends[:, 1 + scene.integer(0, 1)] = torch.tensor([-0.1, 1.1]) * size
    sway = torch.tensor([0.0 if way < 3 else min(depth, size) * 0.1, *[min(depth, size) * 0.12] * 2])
    path = _wander(scene, ends[0], ends[1], sway)
    tissue = scene.palette[scene.integer(0, len(scene.palette) - 1)] + scene.number(-0.08, 0.08)
    bone = None
    if scene.chance(0.5):  # as bright, or nearly, and touching: a vertebra
        at = path[_SAMPLES // 2] * torch.tensor([scene.thinness, 1.0, 1.0])
        around, thick = scene.number(0.0, 2 * math.pi), radius * scene.number(1.2, 2.5)
        away = radius + thick * 1.02
        centre = (at[0].item(), at[1].item() + away * math.sin(around), at[2].item() + away * math.cos(around))
        surface = Body(centre, thick, 1.1, wobble=0.1).surface(scene)
        core = scene.paint(surface.within(), surface.box, tissue + scene.number(-0.05, 0.25))
        bone = core
        scene.record("bone", core)
    radii = radius * (1 + 0.15 * torch.sin(torch.linspace(0, scene.number(1.0, 9.0), _SAMPLES)))
    pieces = [_stamped(scene, path, radii)]
    while scene.chance(0.45) and len(pieces) < 4:
        start = path[scene.integer(_SAMPLES // 5, 4 * _SAMPLES // 5)]
        end = start + scene.uniform(-0.5, 0.5, 3) * torch.tensor([depth, size, size])
        branch = _wander(scene, start, end, 0.4 * sway)
        pieces.append(_stamped(scene, branch, radii * scene.number(0.45, 0.8)))
    tube = scene.paint(torch.stack(pieces).any(0), tissue=tissue, smooth=True)
    scene.record("tube", tube, alike=() if bone is None else (bone,))


def paint_loop(scene: Scene) -> None:
    """Paint a bowel-like tube that folds through the plane, with a wall and a content of fluid and air."""
    slices, size = scene.config.slices, scene.config.size
    depth = slices / scene.thinness
    radius = scene.scale(0.025 * size + 1.0, 0.075 * size + 1.0)
    along = torch.linspace(0, 2 * math.pi, 2 * _SAMPLES)[:, None]
    turns = torch.tensor([float(scene.integer(1, 3)) for _ in range(3)])
    reach = torch.tensor([0.5 * depth, *scene.uniform(0.12, 0.32, 2).mul(size).tolist()])
    reach[0] = min(float(reach[0]), 0.5 * size) * scene.number(0.3, 1.0)
    centre = scene.uniform(0.3, 0.7, 3) * torch.tensor([depth, size, size])
    part = scene.number(0.4, 1.0)
    path = centre + reach * torch.sin(part * along * turns + scene.uniform(0, 2 * math.pi, 3))
    radii = radius * (1 + 0.25 * torch.sin(along[:, 0] * scene.number(2.0, 8.0)))
    whole = _stamped(scene, path, radii)
    tissue = scene.palette[scene.integer(0, len(scene.palette) - 1)] + scene.number(-0.08, 0.08)
    if scene.chance(0.4):
        scene.record("loop", scene.paint(whole, tissue=tissue))
        return
    lumen = _stamped(scene, path, (radii - scene.number(1.2, 2.5)).clamp_min(0.8)) & whole
    above = torch.zeros_like(lumen)
    if scene.chance(0.4):
        # Each fold has air on top of its own fluid; one height for all would leave most of them full or empty.
        above = lumen & ((scene.y + scene.number(0.0, size)) % (3 * radius) < radius)
    parts = [scene.paint(whole & ~lumen, tissue=tissue)]
    parts.append(scene.paint(lumen & ~above, tissue=scene.other_tissue(tissue)))
    if above.any():
        parts.append(scene.paint(above, tissue=scene.air, smooth=True))
    scene.record("loop", *parts)


def paint_split_organ(scene: Scene) -> None:
    """Paint an organ bent like a horseshoe: two parts on some slices, joined on others; or a lobe that appears."""
    slices, size = scene.config.slices, scene.config.size
    radius = scene.scale(0.04 * size + 1.0, 0.1 * size)
    bend = scene.number(1.3, 3.0) * radius
    along = torch.linspace(-1.0, 1.0, _SAMPLES)
    around, side = scene.number(0.0, math.pi), 1 if scene.chance(0.5) else -1
    apart = along * bend
    path = torch.stack(
        [
            side * along.square() * scene.number(1.5, 3.0) * radius,
            apart * math.sin(around),
            apart * math.cos(around),
        ],
        1,
    )
    middle = scene.uniform(0.3, 0.7, 3) * torch.tensor([slices / scene.thinness, size, size])
    path = path + middle - torch.tensor([float(path[:, 0].mean()), 0.0, 0.0])
    organ = scene.paint(_stamped(scene, path, radius * (1 + scene.number(-0.4, 0.4) * along)))
    scene.record("split", organ)


def _wander(scene: Scene, start: Tensor, end: Tensor, sway: Tensor) -> Tensor:
    """Return a smooth path between two points (z, row, column in pixels), shape (samples, 3), that starts exactly."""
    along = torch.linspace(0.0, 1.0, _SAMPLES)[:, None]
    path = start + (end - start) * along
    for wave in range(1, 4):
        path = path + sway * scene.uniform(-1.0, 1.0, 3) / wave * torch.sin(wave * math.pi * along)
    return path


def _stamped(scene: Scene, path: Tensor, radii: Tensor) -> Tensor:
    """Return the mask of a tube, shape of the canvas.

    Parameters
    ----------
    path
        Points of its axis: slice, row and column in pixels, shape (samples, 3).
    radii
        At each point, in pixels, shape (samples,).
    """
    widest = float(radii.max())
    length = torch.linalg.vector_norm(path[1:] - path[:-1], dim=1).cumsum(0)
    count = max(2, min(600, math.ceil(float(length[-1]) / max(0.8, float(radii.min()) / 3))))
    chosen = torch.searchsorted(length, torch.linspace(0, float(length[-1]), count)).clamp_max(len(path) - 1)
    half = max(_THINNEST, widest * scene.thinness)
    # Balls round all points at once: the voxels of each point's box are tested against its own centre.
    spans = [torch.arange(-math.ceil(reach), math.ceil(reach) + 1) for reach in (half, widest, widest)]
    offsets = torch.cartesian_prod(*spans)
    centres = path[chosen] * torch.tensor([scene.thinness, 1.0, 1.0])
    within = ((centres > -half) & (centres < torch.tensor(scene.shape) + half)).all(1)
    centres, own = centres[within], radii[chosen][within, None]
    voxels = centres.round().long()[:, None] + offsets
    away = voxels - centres[:, None]
    tall = (own * scene.thinness).clamp_min(_THINNEST)
    ball = (away[..., 0] / tall).square() + ((away[..., 1] / own).square() + (away[..., 2] / own).square()) < 1.0
    ball &= ((voxels >= 0) & (voxels < torch.tensor(scene.shape))).all(2)
    z, y, x = voxels[ball].unbind(1)
    mask = torch.zeros(scene.shape, dtype=torch.bool)
    mask[z, y, x] = True
    return mask
