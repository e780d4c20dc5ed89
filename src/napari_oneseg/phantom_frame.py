"""The frame of the phantom's body: wall, ribs, chest, spine and the muscles along it.

Coordinates are the canvas's: (z, y, x) in mm, z = 0 at the bifurcation of the aorta and about 200 at the domes of the
diaphragm, y to the back, x to the patient's left. Sizes and places follow an average adult lying on the back.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from napari_oneseg.phantom_canvas import Canvas, Shape

__all__ = ["paint_frame"]

FloatArray = NDArray[np.float32]

_VERTEBRA = 34.0
_HALF_BODY = 12.5


def paint_frame(canvas: Canvas) -> None:
    """Paint all that holds the organs, and leave in ``canvas.room`` the space where they lie."""
    frame = _Frame(canvas)
    frame.paint_wall()
    frame.paint_spine()


class _Frame:
    """The frame in the making: what wall, ribs and spine refer to."""

    def __init__(self, canvas: Canvas) -> None:
        self.canvas = canvas
        z = canvas.z
        lordosis = canvas.near(5.0, 3.0) * np.sin(np.pi * (z - 10) / 180)
        scoliosis = canvas.near(0.0, 3.0) * np.sin(np.pi * z / 200)
        self.spine = np.stack([42 - lordosis, scoliosis]).astype(np.float32)
        self.first_vertebra = canvas.near(16.0, 6.0)
        self.midline = z[:, None, None], canvas.y[None, :, None], canvas.x[None, None, :]

    # The wall -----------------------------------------------------------------------------------------------------

    def paint_wall(self) -> None:
        canvas, (z, y, x) = self.canvas, self.midline
        waist = 1 - canvas.near(0.06, 0.03) * np.exp(-(((z - 70) / 55) ** 2))
        width, depth = canvas.near(154, 8) * waist, canvas.near(110, 7) * (1 - 0.0002 * z)
        radius = (np.abs(x / width) ** 2.25 + np.abs(y / depth) ** 2.25) ** np.float32(1 / 2.25)
        # A shallow groove along the spine, flanked by the back muscles.
        radius = radius + 0.05 * np.exp(-((x / 13) ** 2)) * np.clip(y / depth, 0, None) ** 4
        skin = np.hypot(x, y) * (1 / np.maximum(radius, 1e-3) - 1) + 2.0 * canvas.noise(canvas.everything, 70)
        canvas.paint(Shape(canvas.everything, skin), "skin")
        canvas.paint(Shape(canvas.everything, skin - 2), "fat")

        turn = np.arctan2(x, y)  # 0 at the back, a quarter turn at the left side
        flank = np.exp(-(((np.abs(turn) - 0.95) / 0.4) ** 2))
        fat = canvas.near(13, 9) + (canvas.near(9, 5) - 0.03 * z) * flank + 1.5 * canvas.noise(canvas.everything, 45)
        fat = np.maximum(fat, 4)
        muscle = skin - fat
        canvas.paint(Shape(canvas.everything, muscle), "muscle")
        back = np.exp(-((x / 60) ** 4)) * np.clip(y / 40, 0, 1)
        thickness = canvas.near(11, 2) + 4 * np.exp(-(((np.abs(x) - 42) / 30) ** 2)) * (y < -40) * (z < 130) + 19 * back
        cavity = muscle - thickness
        canvas.paint(Shape(canvas.everything, cavity), "fat")
        self.paint_layers(muscle, turn)
        self.paint_ribs(muscle, turn)
        self.paint_chest(cavity)

    def paint_layers(self, muscle: FloatArray, turn: FloatArray) -> None:
        """Part the muscles of the wall by thin sheets of fat."""
        canvas, (z, y, x) = self.canvas, self.midline
        sheets = 0.7 - np.abs(muscle - 5.5)
        flank = 20 * (0.55 - np.abs(np.abs(turn) - 1.6))
        canvas.paint(Shape(canvas.everything, np.minimum(np.minimum(sheets, flank), 115 - z)), "fat")
        line = np.minimum(2.0 - np.abs(x), np.minimum(14 - muscle, muscle + 1))
        canvas.paint(Shape(canvas.everything, np.minimum(line, -30 - y)), "fat")
        edges = 2.0 - np.abs(np.abs(np.abs(turn) - 1.0) * 90 - 18)
        edges = np.minimum(np.minimum(edges, 90 * (0.95 - np.abs(turn))), np.minimum(24 - muscle, muscle + 1))
        canvas.paint(Shape(canvas.everything, np.minimum(edges, 140 - z)), "fat")

    def paint_ribs(self, muscle: FloatArray, turn: FloatArray) -> None:
        """Paint the lower ribs, which fall towards the front, and the cartilages that rise from there."""
        canvas = self.canvas
        # Only a tenth of the canvas is wall: the many terms below are worked out there alone.
        wall = np.abs(muscle - 6.5) < 7
        inward, around = muscle[wall] - 6.5, np.broadcast_to(np.abs(turn), muscle.shape)[wall]
        z = np.broadcast_to(self.midline[0], muscle.shape)[wall]
        fall = canvas.near(64, 4)
        bone, cartilage = np.full_like(z, -np.inf), np.full_like(z, -np.inf)
        twelfth = self.first_vertebra + 4 * _VERTEBRA + 12
        for number, end in enumerate((0.8, 1.35, 2.0, 2.1, 2.2, 2.3)):
            height = z - (twelfth + 29 * number - fall * around)
            body = 6.4 - np.hypot(0.9 * height, 1.5 * inward)
            np.maximum(bone, np.minimum(body, np.minimum(40 * (end - around), 100 * (around - 0.3))), out=bone)
            if number >= 2:
                height = z - (twelfth + 29 * number - fall * end + 95 * (around - end))
                body = 7.0 - np.hypot(0.8 * height, 1.3 * inward)
                np.maximum(cartilage, np.minimum(body, 40 * np.minimum(around - end, 2.85 - around)), out=cartilage)
        depth = np.full_like(muscle, -np.inf)
        for values, tissue in ((cartilage, "cartilage"), (bone, "cortical bone"), (bone - 1.8, "marrow")):
            depth[wall] = values
            canvas.paint(Shape(canvas.everything, depth), tissue)

    def paint_chest(self, cavity: FloatArray) -> None:
        """Paint lungs and heart above the diaphragm, and keep all that follows below it."""
        canvas, (z, y, x) = self.canvas, self.midline
        domes = []
        for peak, centre_x, centre_y, wide in ((canvas.near(193, 5), -68, -8, 66), (canvas.near(183, 6), 66, 2, 62)):
            falling = ((x - centre_x) / wide) ** 2 + ((y - centre_y) / 72) ** 2
            domes.append(peak - 55 * falling)
        saddle = 172 - 55 * ((x / 45) ** 4 + ((y + 10) / 75) ** 2)
        dome = np.maximum(np.maximum(*domes), saddle) + 2 * canvas.noise((slice(0, 1), *canvas.everything[1:]), 50)
        above = (z - dome) * 0.8  # the domes are steep at their sides
        canvas.paint(Shape(canvas.everything, np.minimum(cavity, above + 3.5)), "muscle")
        middle = 22 + 0.25 * np.abs(y - 10) - np.abs(x)
        lungs = np.minimum(np.minimum(cavity - 1, above), -middle)
        canvas.paint(Shape(canvas.everything, lungs), "lung")
        mediastinum = np.minimum(np.minimum(cavity - 1, above), middle)
        canvas.paint(Shape(canvas.everything, mediastinum), "fat")
        heart = canvas.ellipsoid((208, -42, 18), (42, 44, 66), turn=-0.25, waves=2)
        canvas.paint(heart.grown(3).cut(np.minimum(cavity, above)[heart.window]), "fat")
        canvas.paint(heart.cut(np.minimum(cavity - 2, above)[heart.window]), "heart")
        for _ in range(40):
            branch = canvas.place(200, 10, 85 * canvas.random.choice([-1, 1]), spread=45)
            vessel = canvas.tube([(*branch, 1.8), (*canvas.place(*branch, spread=25), 1.0)])
            canvas.paint(vessel.cut(lungs[vessel.window] - 1), "muscle")
        canvas.room = np.minimum(cavity - 1.5, -above - 3.5).astype(np.float32)

    # The spine ----------------------------------------------------------------------------------------------------

    def paint_spine(self) -> None:
        canvas = self.canvas
        room, canvas.room = canvas.room, np.full_like(canvas.room, np.inf)
        for side in (-1.0, 1.0):
            self.paint_back_muscles(side)
        window = canvas.window((-1e3, 10, -62), (1e3, 108, 62))
        z, y, x = canvas.mesh(window)
        front, side_shift = self.spine[:, :, None, None]
        y, x = y - front, np.abs(x - side_shift)
        level = (z - self.first_vertebra + _VERTEBRA / 2) % _VERTEBRA - _VERTEBRA / 2
        wide, deep = canvas.near(23.5, 2), canvas.near(17, 1.2)
        column = (1 - (np.abs(x / wide) ** 2.4 + np.abs(y / deep) ** 2.4) ** np.float32(1 / 2.4)) * 19
        column = np.minimum(column, 0.9 * np.hypot(x, y - 34) - 16)  # concave towards the canal
        vertebra = np.minimum(column - 1.8 * (1 - (level / _HALF_BODY) ** 2), _HALF_BODY - np.abs(level))

        def paint(depth: FloatArray, tissue: str) -> None:
            canvas.paint(Shape(window, depth.astype(np.float32)), tissue)

        canal = 9.5 - np.hypot(0.85 * x, y - 26)
        lamina = np.minimum(canal + 6.5, 10.5 - np.abs(level + 3))
        spinous = np.minimum(np.minimum(3.6 - x, 53 - y), np.minimum(y - 34, 12 - np.abs(level + 7 + 0.15 * (y - 34))))
        transverse = np.minimum(
            np.minimum(5 - np.abs(y - 22 - 0.2 * x), 40 - x), np.minimum(x - 10, 5 - np.abs(level - 2))
        )
        facet = np.minimum(8.5 - np.hypot(x - 16, y - 31), np.abs(level) - 6)
        paint(column + 0.8, "disc")
        paint(vertebra, "cortical bone")
        paint(vertebra - 2.0, "marrow")
        paint(canal + 2, "fat")
        arch = np.maximum(np.maximum(lamina, spinous), np.maximum(transverse, facet))
        paint(arch, "cortical bone")
        paint(arch - 2.4, "marrow")
        paint(canal, "spinal fluid")
        paint(5.2 - np.hypot(0.8 * x, y - 27), "cord")
        canvas.room = room

    def paint_back_muscles(self, side: float) -> None:
        canvas = self.canvas
        thin, thick = canvas.near(7, 1.5), canvas.near(23, 3)
        psoas = [
            (125, 44, 27 * side, thin),
            (80, 46, 34 * side, 0.7 * thick),
            (30, 44, 42 * side, thick),
            (-20, 38, 47 * side, thick),
        ]
        lumbar = canvas.ellipsoid((30, 62, 68 * side), (75, 11, 21), turn=0.35 * side, waves=1.5)
        for muscle in (canvas.tube(psoas, waves=1.5), lumbar):
            shape = muscle.cut(canvas.room[muscle.window] + 10)
            canvas.paint(shape.grown(1.5), "fat")
            canvas.paint(shape, "muscle")
