"""What organs lie in: touching background regions, the body's wall in layers, domes, air."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from napari_oneseg.training.anatomy.bodies import Body
from napari_oneseg.training.anatomy.scene import Scene

__all__ = ["paint_background", "paint_dome", "paint_outside"]


def paint_background(scene: Scene, plain: bool) -> None:
    """Paint touching regions that fill the canvas; in a plain one, mostly fat with few others in it."""
    count = scene.integer(1, 3) if plain else scene.integer(*scene.config.regions)
    nodes = scene.integer(3, 9)
    size = scene.config.size
    if count == 1:
        scene.paint(torch.ones(scene.shape, dtype=torch.bool), tissue=scene.fat)
        return
    fields = scene.field(scene.nodes_z(size / nodes), nodes, count)
    fields += 0.35 * scene.field(scene.nodes_z(size / (2 * nodes)), 2 * nodes + 1, count)
    if plain:
        fields[0] += 0.8
    winner = fields.argmax(0)
    for k in range(count):
        scene.paint(winner == k, tissue=scene.fat if plain and k == 0 else None)


def paint_dome(scene: Scene) -> None:
    """Paint a thin curved sheet, as the diaphragm is, across what is there."""
    slices, size = scene.config.slices, scene.config.size
    row, column = (scene.uniform(0.2, 0.8, 2) * size).tolist()
    body = Body(
        (scene.number(-0.3, 1.3) * slices, row, column), scene.number(0.25, 0.5) * size, scene.scale(0.7, 1.4),
        scene.number(0.0, math.pi), wobble=scene.number(0.0, 0.1),
    )  # fmt: skip
    surface = body.surface(scene)
    inner = scene.number(1.2, 3.0)
    sheet = scene.paint(surface.within() & ~surface.within(-inner), surface.box)
    scene.record("sheet", sheet)


def paint_outside(scene: Scene, air: bool, layers: int) -> None:
    """Paint the body's wall along its contour: thin layers of muscle in a sector, fat or skin, and air outside."""
    contour, scale = _contour(scene)
    edge = 1.0 - scene.number(0.05, 0.2)  # where the layer of fat begins
    if layers:
        turned = torch.atan2(scene.y - scene.config.size / 2, scene.x - scene.config.size / 2)
        at, wide = scene.number(-math.pi, math.pi), scene.number(0.5, 2.5)
        sector = torch.remainder(turned - at + math.pi, 2 * math.pi).sub(math.pi).abs() < wide
        inner = edge
        for _ in range(layers):
            # The contour is a squared radius, so that a thickness is worth twice its share of the radius.
            thick = 2 * scene.number(2.0, 5.0) / scale
            sheet = scene.paint((contour < inner) & (contour > inner - thick) & sector)
            scene.record("sheet", sheet)
            inner -= thick + (2 * scene.number(0.7, 2.0) / scale if scene.chance(0.5) else 0.0)
    if not air:
        return
    if scene.chance(0.6):
        scene.paint((contour < 1.0) & (contour > edge), tissue=scene.fat if scene.chance(0.6) else None)
    scene.paint(contour >= 1.0, tissue=scene.air if scene.chance(0.8) else None, smooth=True)


def _contour(scene: Scene) -> tuple[Tensor, float]:
    """Return the squared distance from the body's axis, 1 at its surface, and the mean radius in pixels."""
    size = scene.config.size
    down, across = (scene.uniform(0.36, 0.6, 2) * size).tolist()
    off = scene.uniform(-0.05, 0.05, 2) * size
    waves = scene.field(scene.nodes_z(size / 4), 5)[0] * 0.08
    squared = ((scene.y - size / 2 - off[0]) / down) ** 2 + ((scene.x - size / 2 - off[1]) / across) ** 2
    return squared + waves, (down + across) / 2
