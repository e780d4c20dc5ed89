"""Bodies that begin and end: organs, their pairs, rims and lesions, and neighbours that look alike."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from napari_oneseg.training.anatomy.scene import Box, Scene

__all__ = ["Body", "Surface", "paint_look_alikes", "paint_organs", "paint_rim", "random_body"]

_REACH = 1.45
"""Radii to which a wavy surface reaches at most."""


@dataclass(frozen=True)
class Body:
    """An ellipsoid with a wavy surface, along z scaled by the slices' thinness.

    Attributes
    ----------
    place
        Slice, row and column of the centre.
    radius
        In pixels.
    stretch, turn
        Of the two axes in the plane: ratio, and angle in radians.
    lean
        Rows and columns, in radii, by which the axis moves over half the height.
    wobble
        Height of the waves, 0 to 0.5.
    """

    place: tuple[float, float, float]
    radius: float
    stretch: float = 1.0
    turn: float = 0.0
    lean: tuple[float, float] = (0.0, 0.0)
    wobble: float = 0.2

    def height(self, scene: Scene) -> float:
        """Return half the height in slices."""
        return max(0.8, self.radius * scene.thinness)

    def surface(self, scene: Scene) -> Surface:
        """Return the body as a level set over the piece of the canvas that holds it."""
        height = self.height(scene)
        reach = self.radius * _REACH * (max(self.stretch, 1 / self.stretch) + max(map(abs, self.lean)))
        box = tuple(
            slice(max(0, math.floor(at - by)), max(0, min(size, math.ceil(at + by) + 1)))
            for at, by, size in zip(self.place, (height * _REACH, reach, reach), scene.shape, strict=True)
        )
        z, y, x = scene.z[box[0]], scene.y[:, box[1]], scene.x[:, :, box[2]]
        shape = (z.shape[0], y.shape[1], x.shape[2])
        if 0 in shape:
            return Surface(box, torch.full(shape, 9.0), self.radius)  # type: ignore[arg-type]  # three slices
        dz = (z - self.place[0]) / height
        cos, sin = math.cos(self.turn), math.sin(self.turn)
        # The axis leans, so that the body wanders from slice to slice.
        dy = y - self.place[1] - self.lean[0] * self.radius * dz
        dx = x - self.place[2] - self.lean[1] * self.radius * dz
        u = (cos * dy + sin * dx) / (self.radius * self.stretch)
        v = (cos * dx - sin * dy) / (self.radius / self.stretch)
        level = dz**2 + u**2 + v**2
        if self.wobble:
            spacing = max(self.radius, 4.0) / 2.5
            nodes = max(2, min(40, 1 + round(max(shape[1:]) / spacing)))
            level += self.wobble * scene.field(scene.nodes_z(spacing, shape[0]), nodes, shape=shape)[0]
        return Surface(box, level, self.radius)  # type: ignore[arg-type]  # three slices


@dataclass(frozen=True)
class Surface:
    """A body's level set: below 1 inside, shape of the box."""

    box: Box
    level: Tensor
    radius: float

    def within(self, pixels: float | Tensor = 0.0) -> Tensor:
        """Return the mask of the body, grown by some pixels or shrunk by negative ones."""
        edge = torch.as_tensor(1 + pixels / self.radius).clamp_min(0.0)
        return self.level < edge**2

    def uneven(self, scene: Scene, pixels: float, evenness: float) -> Tensor:
        """Return a thickness about ``pixels`` that varies over the box, and vanishes in places if it is uneven."""
        waves = scene.field(2, 5, shape=tuple(self.level.shape))[0]
        return pixels * (1 + (1 - evenness) * waves).clamp(0.0, 2.0)


def random_body(scene: Scene, least: float, greatest: float) -> Body:
    """Return a body of a radius between two, in pixels, anywhere."""
    size = scene.config.size
    row, column, *lean = scene.uniform(-1.0, 1.0, 4).tolist()
    return Body(
        (scene.number(-1.0, scene.config.slices), size * (0.5 + 0.4 * row), size * (0.5 + 0.4 * column)),
        scene.scale(least, greatest),
        math.exp(scene.number(-0.6, 0.6)),
        scene.number(0.0, math.pi),
        (lean[0] / 2, lean[1] / 2),
        scene.number(0.0, 0.45),
    )


def paint_rim(scene: Scene, surface: Surface, tissue: float) -> int:
    """Paint a thin layer, whole or patchy, of another tissue round a body that is painted next; return its region."""
    pixels = scene.number(1.0, 3.0)
    thickness = pixels if scene.chance(0.4) else surface.uneven(scene, pixels, scene.number(0.2, 0.8))
    rim = scene.paint(
        surface.within(thickness) & ~surface.within(), surface.box, scene.other_tissue(tissue), smooth=True
    )
    scene.record("rim", rim)
    return rim


def paint_organs(scene: Scene) -> None:
    """Paint organs: bodies, some with a rim, some with a twin on the other side or something within."""
    slices, size = scene.config.slices, scene.config.size
    for _ in range(scene.integer(*scene.config.organs)):
        body = random_body(scene, 4.0, 0.28 * size)
        tissue = scene.palette[scene.integer(0, len(scene.palette) - 1)] + scene.number(-0.08, 0.08)
        organ = _paint_body(scene, body, tissue)
        if scene.chance(0.25):
            row, column = body.place[1], size - 1 - body.place[2]
            twin = replace(
                body,
                place=(body.place[0] + scene.number(-0.2, 0.2) * slices, row, column),
                radius=body.radius * scene.number(0.8, 1.2),
                turn=-body.turn,
                lean=(body.lean[0], -body.lean[1]),
            )
            _paint_body(scene, twin, tissue, like=organ)
        if body.radius > 12 and scene.chance(0.35):
            offset = scene.uniform(-0.4, 0.4, 3) * torch.tensor([body.height(scene), body.radius, body.radius])
            at = (torch.tensor(body.place) + offset).tolist()
            lesion = Body((at[0], at[1], at[2]), body.radius * scene.number(0.15, 0.5))
            surface = lesion.surface(scene)
            scene.paint(surface.within(), surface.box, tissue + scene.number(-0.35, 0.35))


def _paint_body(scene: Scene, body: Body, tissue: float, like: int | None = None) -> int:
    surface = body.surface(scene)
    if scene.chance(scene.config.rims):
        paint_rim(scene, surface, tissue)
    organ = scene.paint(surface.within(), surface.box, tissue, like)
    scene.record("organ", organ)
    return organ


def paint_look_alikes(scene: Scene) -> None:
    """Paint an organ, and beside it another of the same tissue that begins about where the first one ends.

    The two touch, or only a thin rim is between them: a kidney below the spleen, a heart above the liver.
    """
    slices, size = scene.config.slices, scene.config.size
    body = replace(
        random_body(scene, 0.06 * size, 0.2 * size),
        stretch=math.exp(scene.number(-0.35, 0.35)),
        lean=(scene.number(-0.2, 0.2), scene.number(-0.2, 0.2)),
        wobble=scene.number(0.0, 0.25),
    )
    other = replace(
        body,
        radius=body.radius * scene.number(0.6, 1.5),
        stretch=math.exp(scene.number(-0.35, 0.35)),
        turn=scene.number(0.0, math.pi),
    )
    # From beside each other to one above the other; close enough to touch.
    rise, around, side = scene.number(0.2, 1.25), scene.number(0.0, 2 * math.pi), 1 if scene.chance(0.5) else -1
    apart = scene.number(0.72, 0.98)
    up = side * apart * math.sin(rise)
    along = apart * math.cos(rise) * (body.radius + other.radius)
    meeting = scene.number(0.2, 0.8) * slices
    row, column = (scene.uniform(0.3, 0.7, 2) * size).tolist()
    body = replace(body, place=(meeting - up * body.height(scene), row, column))
    other = replace(
        other,
        place=(
            meeting + up * other.height(scene),
            row + along * math.sin(around),
            column + along * math.cos(around),
        ),
    )
    near, far = body.surface(scene), other.surface(scene)
    tissue = scene.palette[scene.integer(0, len(scene.palette) - 1)] + scene.number(-0.08, 0.08)
    neighbour = scene.paint(far.within(), far.box, tissue)
    if scene.chance(0.6):
        paint_rim(scene, near, tissue)
    organ = scene.paint(near.within(), near.box, like=neighbour)
    scene.record("alike", organ, alike=(neighbour,))
    scene.record("alike", neighbour, alike=(organ,))
