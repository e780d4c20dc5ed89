"""A canvas in millimetres on which a body is painted, shape after shape, back to front.

Strategy: a shape is a field of *depth*, the distance in mm to its surface, positive inside. Depths combine simply
(union = maximum, intersection = minimum, shell = subtraction), and depth near zero tells how much of a voxel lies
inside, so that borders come out with partial volume instead of steps. Along z every slice is painted as
:data:`SUBSLICES` thinner ones, whose mean it becomes.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["SHAPE", "SPACING", "SUBSLICES", "Canvas", "Shape", "smooth_noise"]

FloatArray = NDArray[np.float32]

SHAPE = (40, 192, 224)
"""Slices, rows and columns of the phantom; not square, so that mixed-up axes show."""
SPACING = (5.0, 1.6, 1.6)
"""Voxel size along (z, y, x) in mm."""
SUBSLICES = 3

_FINE_SPACING = (SPACING[0] / SUBSLICES, *SPACING[1:])
_FINE_SHAPE = (SHAPE[0] * SUBSLICES, *SHAPE[1:])
Window = tuple[slice, slice, slice]


@dataclass(frozen=True)
class Shape:
    """A field of depth in mm, positive inside, on a window of the canvas."""

    window: Window
    depth: FloatArray

    def grown(self, margin: float) -> Shape:
        """Return the shape with its surface moved outwards by ``margin`` mm."""
        return Shape(self.window, self.depth + np.float32(margin))

    def cut(self, depth: FloatArray) -> Shape:
        """Return the intersection with another depth on the same window."""
        return Shape(self.window, np.minimum(self.depth, depth))


def smooth_noise(random: np.random.Generator, axes: Sequence[FloatArray], scale: Sequence[float]) -> FloatArray:
    """Return smooth noise of about unit variance on the grid of three axes.

    Parameters
    ----------
    axes
        Coordinates along (z, y, x) in mm, each one-dimensional and ascending.
    scale
        Distance in mm over which the noise changes, along (z, y, x).
    """
    weights = []
    for axis, step in zip(axes, scale, strict=True):
        position = (axis - axis[0]) / step
        nodes = np.arange(int(position[-1]) + 4, dtype=np.float32) - 1.0
        weights.append(_cubic_spline(position[:, None] - nodes).astype(np.float32))
    field = random.standard_normal([w.shape[1] for w in weights]).astype(np.float32)
    for w in weights:
        # Each product consumes the first axis and appends the fine one, so three of them restore the order.
        field = np.tensordot(field, w, axes=(0, 1))
    return np.ascontiguousarray(field) * np.float32(2.9)


def _cubic_spline(t: FloatArray) -> FloatArray:
    t = np.abs(t)
    return np.where(t < 1, 2 / 3 - t**2 + t**3 / 2, np.clip(2 - t, 0, None) ** 3 / 6)


class Canvas:
    """Grey values and labels of a body in the making.

    Coordinates are mm: x from the midline to the patient's left, y from the centre of the body to the back, z from the
    lowest slice to the head.

    Parameters
    ----------
    random
        Source of all chance.
    tissues
        Grey value by name of tissue.
    size
        In-plane size of the patient relative to the average.
    """

    def __init__(self, random: np.random.Generator, tissues: Mapping[str, float], size: float) -> None:
        self.random = random
        self.tissues = tissues
        self.image = np.full(_FINE_SHAPE, tissues["air"], np.float32)
        self.labels = np.zeros(_FINE_SHAPE, np.uint8)
        self.room = np.full(_FINE_SHAPE, np.inf, np.float32)
        """Depth in mm inside the space that :meth:`paint` may use."""
        counts = np.array(_FINE_SHAPE)
        middle = (np.array([0, counts[1], counts[2]]) - [1, 1, 1]) / 2
        self.z, self.y, self.x = (
            ((np.arange(n) - m) * s / (size if k else 1.0)).astype(np.float32)
            for k, (n, m, s) in enumerate(zip(counts, middle, _FINE_SPACING, strict=True))
        )
        self.everything = self.window((-np.inf,) * 3, (np.inf,) * 3)
        """The window of the whole canvas."""
        self.sway = np.zeros((2, _FINE_SHAPE[0]), np.float32)
        """Displacement of the organs in mm along (y, x), slice by slice."""

    # Chance -------------------------------------------------------------------------------------------------------

    def near(self, value: float, spread: float) -> float:
        """Return a number within ``spread`` of ``value``, small deviations being likelier."""
        return value + spread * float(self.random.triangular(-1, 0, 1))

    def place(self, *values: float, spread: float = 5.0) -> tuple[float, ...]:
        """Return a point near the one given."""
        return tuple(self.near(value, spread) for value in values)

    # Coordinates --------------------------------------------------------------------------------------------------

    def window(self, low: Sequence[float], high: Sequence[float]) -> Window:
        """Return the part of the canvas between two corners (z, y, x) in mm, at least one voxel wide."""
        edges = []
        for axis, a, b in zip((self.z, self.y, self.x), low, high, strict=True):
            first = min(int(np.searchsorted(axis, a)), len(axis) - 1)
            edges.append(slice(first, max(int(np.searchsorted(axis, b)), first + 1)))
        return edges[0], edges[1], edges[2]

    def mesh(self, window: Window) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Return open coordinates (z, y, x) of a window, moved by the sway of the slices."""
        sway = self.sway[:, window[0], None, None]
        z = self.z[window[0], None, None]
        return z, self.y[None, window[1], None] - sway[0], self.x[None, None, window[2]] - sway[1]

    def noise(self, window: Window, scale: float) -> FloatArray:
        """Return smooth noise of unit variance on a window, changing over ``scale`` mm."""
        axes = [axis[part] for axis, part in zip((self.z, self.y, self.x), window, strict=True)]
        return smooth_noise(self.random, axes, (scale,) * 3)

    # Shapes -------------------------------------------------------------------------------------------------------

    def ellipsoid(
        self,
        centre: Sequence[float],
        radii: Sequence[float],
        *,
        turn: float = 0.0,
        lean: tuple[float, float] = (0.0, 0.0),
        power: float = 2.0,
        waves: float = 0.0,
    ) -> Shape:
        """Return a super-ellipsoid with a wavy surface.

        Parameters
        ----------
        centre, radii
            Along (z, y, x) in mm.
        turn
            Rotation in the plane in radians; positive turns the x axis towards the back.
        lean
            Displacement along (y, x) in mm for each mm upwards.
        power
            2 for an ellipsoid, more for a boxier one.
        waves
            Height of the surface's waves in mm.
        """
        reach = max(radii[1:]) + 3 * waves + radii[0] * max(map(abs, lean)) + 4
        span = np.array([radii[0] + 3 * waves + 4, reach, reach])
        window = self.window(np.subtract(centre, span), np.add(centre, span))
        z, y, x = self.mesh(window)
        dz = z - centre[0]
        dy, dx = y - centre[1] - lean[0] * dz, x - centre[2] - lean[1] * dz
        cos, sin = np.float32(np.cos(turn)), np.float32(np.sin(turn))
        v, u = cos * dy - sin * dx, cos * dx + sin * dy
        distance = np.sqrt(dz**2 + dy**2 + dx**2) + np.float32(1e-3)
        if power == 2.0:
            radius = np.sqrt((dz / radii[0]) ** 2 + (v / radii[1]) ** 2 + (u / radii[2]) ** 2)
        else:
            terms = (np.abs(d / r) ** power for d, r in zip((dz, v, u), radii, strict=True))
            radius = sum(terms) ** np.float32(1 / power)
        depth = (distance / (radius + np.float32(1e-5 / max(radii))) - distance).astype(np.float32)
        if waves:
            depth += np.float32(waves) * self.noise(window, 0.55 * float(np.mean(radii)))
        return Shape(window, depth)

    def tube(self, points: Sequence[Sequence[float]], *, waves: float = 0.0) -> Shape:
        """Return a tube along a smooth curve.

        Parameters
        ----------
        points
            Control points (z, y, x, radius) in mm, at least two.
        waves
            Height of the surface's waves in mm.
        """
        path = _rounded(np.array(points, np.float32))
        reach = path[:, 3:] + 3 * waves + 4
        window = self.window((path[:, :3] - reach).min(0), (path[:, :3] + reach).max(0))
        z, y, x = self.mesh(window)
        depth = np.full(np.broadcast_shapes(z.shape, y.shape, x.shape), -np.inf, np.float32)
        for start, end in itertools.pairwise(path):
            along = end[:3] - start[:3]
            dz, dy, dx = z - start[0], y - start[1], x - start[2]
            t = (dz * along[0] + dy * along[1] + dx * along[2]) / max(float(along @ along), 1e-6)
            t = np.clip(t, 0, 1)
            gap = (dz - t * along[0]) ** 2 + (dy - t * along[1]) ** 2 + (dx - t * along[2]) ** 2
            np.maximum(depth, start[3] + t * (end[3] - start[3]) - np.sqrt(gap), out=depth)
        if waves:
            depth += np.float32(waves) * self.noise(window, 0.8 * float(path[:, 3].mean()))
        return Shape(window, depth)

    # Painting -----------------------------------------------------------------------------------------------------

    def paint(self, shape: Shape, tissue: str, label: int = 0, *, within: int | None = None) -> None:
        """Paint a shape over what is there.

        Parameters
        ----------
        tissue
            Name of the tissue.
        label
            The shape's label; 0 takes the labels beneath away.
        within
            Leave everything but this label untouched.
        """
        depth = np.minimum(shape.depth, self.room[shape.window])
        labels, image = self.labels[shape.window], self.image[shape.window]
        touched = depth > -0.5 * SPACING[1]
        if within is not None:
            touched &= labels == within
        share = np.minimum(depth[touched] / np.float32(SPACING[1]) + np.float32(0.5), 1)
        beneath = image[touched]
        image[touched] = beneath + share * (np.float32(self.tissues[tissue]) - beneath)
        touched &= depth > 0
        labels[touched] = label

    def paint_organ(self, shape: Shape, tissue: str, label: int = 0, *, gap: float = 1.8) -> None:
        """Paint an organ with ``gap`` mm of fat that parts it from its neighbours."""
        self.paint(shape.grown(gap), "fat")
        self.paint(shape, tissue, label)


def _rounded(path: FloatArray) -> FloatArray:
    """Cut the corners of a path twice (Chaikin), keeping its ends."""
    for _ in range(2):
        inner = np.stack([0.75 * path[:-1] + 0.25 * path[1:], 0.25 * path[:-1] + 0.75 * path[1:]], 1)
        path = np.concatenate([path[:1], inner.reshape(-1, path.shape[1])[1:-1], path[-1:]])
    return path
