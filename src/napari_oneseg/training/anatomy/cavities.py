"""Walls round a cavity: heart muscle, stomach, bladder; with a level of air over fluid, and open at an end."""

from __future__ import annotations

import math
from dataclasses import replace

import torch

from napari_oneseg.training.anatomy.bodies import paint_rim, random_body
from napari_oneseg.training.anatomy.scene import Scene

__all__ = ["paint_hollow"]


def paint_hollow(scene: Scene) -> None:
    """Paint a wall of varying thickness round a cavity, which may hold air over fluid or border on its like."""
    slices, size = scene.config.slices, scene.config.size
    row, column = (scene.uniform(0.25, 0.75, 2) * size).tolist()
    body = replace(
        random_body(scene, 0.07 * size, 0.22 * size),
        place=(scene.number(0.1, 0.9) * slices, row, column),
        wobble=scene.number(0.0, 0.2),
    )
    surface = body.surface(scene)
    whole = surface.within()
    if scene.chance(0.4):  # open at an end, as the heart is towards its valves
        cut = scene.z[surface.box[0]] - body.place[0]
        whole = whole & (cut * (1 if scene.chance(0.5) else -1) < scene.number(0.0, 0.7) * body.height(scene))
    thickness = surface.uneven(scene, scene.number(0.08, 0.45) * body.radius + 1.0, scene.number(0.4, 1.0))
    inside = surface.within(-thickness) & whole
    tissue = scene.palette[scene.integer(0, len(scene.palette) - 1)] + scene.number(-0.08, 0.08)
    content = (
        scene.other_tissue(tissue)
        if scene.chance(0.5)
        else tissue + math.copysign(scene.number(0.1, 0.5), 0.5 - tissue)
    )
    beside = None
    if scene.chance(0.4):  # a second chamber, from which only the wall parts the first
        around = scene.number(0.0, 2 * math.pi)
        away = body.radius * scene.number(0.8, 1.2)
        place = (
            body.place[0] + scene.number(-0.3, 0.3) * body.height(scene),
            row + away * math.sin(around),
            column + away * math.cos(around),
        )
        chamber = replace(body, place=place, radius=body.radius * scene.number(0.6, 1.0)).surface(scene)
        beside = scene.paint(chamber.within(), chamber.box, content)
    elif scene.chance(scene.config.rims):
        paint_rim(scene, surface, tissue)
    wall = scene.paint(whole & ~inside, surface.box, tissue)
    fluid, air = inside, None
    if scene.chance(0.35):
        inside_rows = torch.nonzero(inside.any(2).any(0)).flatten()
        if len(inside_rows) > 4:
            first, last = int(inside_rows[0]), int(inside_rows[-1])
            surface_row = first + scene.number(0.15, 0.7) * (last - first)
            above = torch.arange(inside.shape[1])[None, :, None] < surface_row
            fluid, air = inside & ~above, inside & above
    parts = [scene.paint(fluid, surface.box, content, like=beside, smooth=True)]
    if air is not None:
        parts.append(scene.paint(air, surface.box, scene.air, smooth=True))
        scene.record("level", *parts)
    scene.record("wall", wall)
    scene.record("cavity", *parts, alike=() if beside is None else (beside,))
    scene.record("hollow", wall, *parts)
