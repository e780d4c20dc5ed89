"""The organs of the phantom's abdomen: where they lie, how large they are, and what varies between patients.

Coordinates are the canvas's: (z, y, x) in mm, z = 0 at the bifurcation of the aorta and about 200 at the domes of the
diaphragm, y to the back, x to the patient's left. Sizes and places follow an average adult lying on the back.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from napari_oneseg.phantom_canvas import SUBSLICES, Canvas, Shape

__all__ = ["NAMES", "paint_organs"]

NAMES = {1: "liver", 2: "right kidney", 3: "left kidney", 4: "spleen", 5: "aorta", 6: "gallbladder"}
LIVER, RIGHT_KIDNEY, LEFT_KIDNEY, SPLEEN, AORTA, GALLBLADDER = NAMES


def paint_organs(canvas: Canvas) -> None:
    """Paint the organs into the room that the frame leaves, those first that others press upon."""
    _breathe(canvas)
    _paint_mesentery(canvas)
    _paint_liver(canvas)
    _paint_pancreas(canvas)
    _paint_colon(canvas)
    _paint_spleen(canvas)
    _paint_kidney(canvas, RIGHT_KIDNEY, -1.0)
    _paint_kidney(canvas, LEFT_KIDNEY, 1.0)
    _paint_stomach(canvas)
    _paint_gallbladder(canvas)
    _paint_great_vessels(canvas)


def _breathe(canvas: Canvas) -> None:
    """Let the organs, not the wall and the spine, move a little from slice to slice."""
    steps = canvas.random.standard_normal((2, canvas.z.size // SUBSLICES)) * [[0.8], [0.3]]
    canvas.sway = np.repeat(steps, SUBSLICES, axis=1).astype(np.float32)


def _paint_mesentery(canvas: Canvas) -> None:
    """Paint the small bowel, its vessels and the fat between them."""
    for _ in range(30):
        root, end = canvas.place(95, 5, 5, spread=12), canvas.place(40, -45, 5, spread=60)
        canvas.paint(
            canvas.tube([(*root, 2.2), (*canvas.place(*np.add(root, end) / 2, spread=15), 1.7), (*end, 1.2)]),
            "vena cava",
        )
    centres: list[NDArray[np.float64]] = []
    for _ in range(900):
        centre = canvas.random.uniform((-5, -72, -78), (82, 20, 96))
        if centre[0] > 62 and centre[1] > -20:
            continue
        if not centres or (np.abs((centre - centres) / [13, 13, 19]).max(axis=1) > 1).all():
            centres.append(centre)
    loops = []
    for centre in centres:
        heading = canvas.random.normal(size=3) * [0.35, 0.8, 1.0]
        step = heading / np.linalg.norm(heading) * canvas.near(13, 6)
        bend, radius = canvas.random.normal(0, 4, 3), canvas.near(9.0, 3.0)
        loops.append(canvas.tube([(*p, radius) for p in (centre - step, centre + bend, centre + step)], waves=1.0))
    for loop in loops:
        gas = float(canvas.random.random() < 0.12)
        content = "bowel fluid" if canvas.random.random() < 0.6 else "bowel wall"
        _paint_gut(canvas, loop, 2.4, content, gas_share=0.5 * gas)


def _paint_gut(canvas: Canvas, shape: Shape, wall: float, content: str, *, gas_share: float) -> Shape:
    """Paint wall and content of a stretch of gut, gas in front of the rest, and return its lumen."""
    canvas.paint_organ(shape, "bowel wall", gap=1.5)
    # Where the gut is pressed flat against the wall of the belly, its own wall stays in between.
    lumen = shape.cut(canvas.room[shape.window]).grown(-wall)
    canvas.paint(lumen, content)
    filled = (lumen.depth > 0).any(axis=(0, 2))
    if gas_share > 0 and filled.any():
        y = canvas.y[shape.window[1]]
        level = np.quantile(y[filled], gas_share).astype(np.float32)
        canvas.paint(lumen.cut((level - y)[:, None]), "gas")
    return lumen


def _paint_colon(canvas: Canvas) -> None:
    right, left = canvas.near(-98, 6), canvas.near(108, 5)
    front = canvas.near(-66, 6)
    parts: list[list[tuple[float, float, float, float]]] = [
        [(-20, 10, right, 25), (25, 0, right, 24), (52, -20, right + 6, 20)],
        [
            (52, -35, right + 14, 19),
            (38, front, -45, 17),
            (30, front, 5, 17),
            (44, front, 55, 17),
            (80, -48, left - 16, 17),
        ],
        [
            (82, -40, left - 14, 17),
            (112, 8, left - 8, 17),
            (80, 34, left, 14),
            (40, 30, left, 13),
            (-20, 22, left - 2, 13),
        ],
    ]
    for number, part in enumerate(parts):
        shape = canvas.tube([(*canvas.place(*p[:3], spread=3), p[3]) for p in part], waves=3.5)
        lumen = _paint_gut(canvas, shape, 2.2, "stool", gas_share=(0.35, 0.6, 0.3)[number])
        bubbles = 3.0 * (canvas.noise(shape.window, 5.0) - 1.6)
        canvas.paint(lumen.grown(-2).cut(bubbles), "gas")


def _paint_stomach(canvas: Canvas) -> None:
    course = [
        (168, 14, 62, 31),
        (145, -12, 66, 29),
        (118, -42, 62, 25),
        (98, -60, 28, 20),
        (98, -52, -12, 15),
        (100, -38, -30, 9),
    ]
    canvas.paint_organ(canvas.tube([(160, 10, 36, 8), (172, 6, 20, 8), (215, 6, 6, 8)], waves=1.5), "muscle")
    shape = canvas.tube([(*canvas.place(*p[:3]), p[3] * canvas.near(1, 0.2)) for p in course], waves=3.0)
    _paint_gut(canvas, shape, 4.5, "bowel fluid", gas_share=canvas.near(0.33, 0.12))
    duodenum = [
        (100, -38, -30, 11),
        (92, -14, -44, 12),
        (66, -2, -44, 12),
        (50, 8, -25, 11),
        (50, 6, 15, 10),
        (66, -5, 38, 11),
    ]
    shape = canvas.tube([(*canvas.place(*p[:3], spread=2), p[3]) for p in duodenum], waves=1.0)
    _paint_gut(canvas, shape, 2.5, "bowel fluid", gas_share=0.0)


def _paint_pancreas(canvas: Canvas) -> None:
    course = [(78, -8, -28, 13), (98, -12, -18, 13), (112, -14, 8, 9), (122, 0, 38, 10), (132, 22, 72, 9)]
    shape = canvas.tube([(*canvas.place(*p[:3], spread=3), p[3]) for p in course], waves=2.2)
    lobes = canvas.noise(shape.window, 5.0)
    canvas.paint_organ(Shape(shape.window, shape.depth + 1.3 * lobes), "pancreas", gap=1.0)
    canvas.paint(canvas.tube([(110, -2, -14, 6), (120, 6, 20, 4.5), (134, 26, 78, 4.5)]), "portal vein")


def _paint_spleen(canvas: Canvas) -> None:
    size = canvas.near(1.0, 0.12)
    centre = canvas.place(133, 36, 100)
    shape = canvas.ellipsoid(centre, (52 * size, 60 * size, 46 * size), turn=-0.35, lean=(0.12, -0.15), waves=3)
    hilum = canvas.ellipsoid((centre[0] - 5, centre[1] - 26, centre[2] - 54), (80, 48, 34), turn=-0.35, waves=2)
    hollow = np.full_like(canvas.room, -np.inf)
    hollow[hilum.window] = hilum.depth
    shape = shape.cut(-hollow[shape.window])
    canvas.paint_organ(shape, "spleen", SPLEEN)


def _paint_liver(canvas: Canvas) -> None:
    size = canvas.near(1.0, 0.08)
    right = canvas.ellipsoid((122, 2, -78), (90 * size, 94, 76 * size), lean=(-0.05, 0.12), power=2.3, waves=5)
    left = canvas.ellipsoid((150, -48, 8), (48 * size, 34, 78 * size), lean=(0.35, 0.0), turn=0.12, waves=4)
    caudate = canvas.ellipsoid((142, 6, -16), (26, 17, 15), waves=2)
    under = canvas.ellipsoid((66, -24, -18), (60, 60, 44), lean=(0.0, -0.2), waves=4)
    depth = np.full_like(canvas.room, -np.inf)
    for shape in (right, left):
        part = depth[shape.window]
        # A rounded union: the lobes flow into each other.
        gap = np.clip(1 - np.abs(part - shape.depth) / 12, 0, None)
        np.maximum(part, shape.depth, out=part)
        part += 3 * gap**2
    depth[under.window] = np.minimum(depth[under.window], -under.depth)
    np.maximum(depth[caudate.window], caudate.depth, out=depth[caudate.window])
    canvas.paint(Shape(canvas.everything, depth), "liver", LIVER)
    fissure = canvas.tube([(104, -78, -6, 2), (128, -52, -10, 4), (140, -22, -16, 5)], waves=1)
    canvas.paint(fissure, "fat")
    _paint_liver_vessels(canvas)


def _paint_liver_vessels(canvas: Canvas) -> None:
    confluence, hilum = (100, 0, -14), canvas.place(128, -8, -34)
    stem = canvas.tube([(*confluence, 6.5), (114, -2, -24, 7), (*hilum, 6.5)])
    canvas.paint_organ(stem, "portal vein", gap=1.2)
    for target in ((140, 0, -72), (112, 2, -70), (145, -42, -4)):
        _branch(canvas, hilum, canvas.place(*target), 6.0, "portal vein", 4)
    cava = (174, 14, -24)
    for target in ((118, 22, -108), (128, -48, -62), (148, -60, 22), (150, 40, -84)):
        _branch(canvas, cava, canvas.place(*target, spread=8), 5.6, "hepatic vein", 2)


def _branch(
    canvas: Canvas, start: Sequence[float], end: Sequence[float], radius: float, tissue: str, depth: int
) -> None:
    """Paint a vessel inside the liver and, from its end, two thinner ones, ``depth`` times over."""
    middle = canvas.place(*np.add(start, end) / 2, spread=6)
    vessel = canvas.tube([(*start, radius), (*middle, 0.85 * radius), (*end, 0.7 * radius)])
    canvas.paint(vessel, tissue, LIVER, within=LIVER)
    if depth == 0:
        return
    step = np.subtract(end, start)
    length = float(np.linalg.norm(step)) * 0.72
    for _ in range(2):
        turned = step / np.linalg.norm(step) + canvas.random.normal(0, 0.55, 3)
        tip = np.add(end, turned / np.linalg.norm(turned) * length)
        _branch(canvas, end, tuple(tip), 0.68 * radius, tissue, depth - 1)


def _paint_gallbladder(canvas: Canvas) -> None:
    neck, size = canvas.place(108, -26, -40, spread=3), canvas.near(1.0, 0.15)
    body = (neck[0] - 16, neck[1] - 20, neck[2] - 10)
    fundus = (neck[0] - 30, neck[1] - 34, neck[2] - 15)
    shape = canvas.tube([(*neck, 5 * size), (*body, 14 * size), (*fundus, 15 * size)], waves=1.2)
    canvas.paint_organ(shape.grown(1.6), "bowel wall", gap=1.0)
    canvas.paint(shape, "bile", GALLBLADDER)


def _paint_kidney(canvas: Canvas, label: int, side: float) -> None:
    size = canvas.near(1.0, 0.1)
    middle = canvas.place(80 if side < 0 else 90, 36, 64 * side, spread=5)
    shape = canvas.ellipsoid(
        middle, (53 * size, 30 * size, 27.5 * size), turn=-0.5 * side, lean=(-0.18, -0.22 * side), power=2.2, waves=2.0
    )
    canvas.paint_organ(shape.grown(4), "fat", gap=4)
    canvas.paint(shape, "cortex", label)
    pyramids = canvas.noise(shape.window, 11.0)
    columns = np.minimum(shape.depth - 6.5, 4.5 * (pyramids + 0.75))
    canvas.paint(shape.cut(columns), "medulla", label, within=label)
    hilum = (middle[0], middle[1] - 10, middle[2] - 17 * side)
    sinus = canvas.ellipsoid(hilum, (25 * size, 9, 18), turn=0.5 * side, lean=(-0.18, -0.22 * side), waves=3)
    canvas.paint(sinus, "fat")
    pelvis = (middle[0] - 8, middle[1] - 8, middle[2] - 14 * side)
    outlet = (pelvis[0] - 15, pelvis[1] - 4, pelvis[2] - 14 * side)
    canvas.paint(canvas.tube([(*pelvis, 5), (*outlet, 3.5)]), "urine")
    canvas.paint(canvas.tube([(*outlet, 3), (50, 30, 36 * side, 2.2), (-5, 20, 34 * side, 2.2)]), "urine")
    for rise in (14.0, -2.0):
        entry = (middle[0] + rise, middle[1] - 10, middle[2] - 10 * side)
        canvas.paint(canvas.tube([(*entry, 2.5), (*canvas.place(*hilum, spread=4), 3.0)]), "vena cava")
    vein = [(*hilum, 4.5), (108, 20, 40 * side, 4.5), (108, 10 if side > 0 else 22, 0 if side > 0 else -20, 4.5)]
    canvas.paint(canvas.tube(vein), "vena cava")
    canvas.paint(canvas.tube([(*hilum, 3), (100, 32, 35 * side, 3), (106, 22, 6, 3)]), "aorta")


def _paint_great_vessels(canvas: Canvas) -> None:
    wide = canvas.near(9.5, 1.2)
    lean, split = canvas.near(8.0, 4.0), canvas.near(26, 6)
    cava = [
        (-10, 22, -26, 10),
        (20, 22, -22, 11),
        (70, 18, -24, 11.5),
        (120, 14, -26, 12),
        (160, 14, -26, 12.5),
        (182, 6, -22, 13),
        (215, -10, -20, 13),
    ]
    shape = canvas.tube([(*canvas.place(*p[:3], spread=1.5), p[3]) for p in cava], waves=1.0)
    room, canvas.room = canvas.room, np.full_like(canvas.room, np.inf)  # both pass through the diaphragm
    canvas.paint_organ(shape, "vena cava", gap=0.0)
    path = [
        (split, 14, lean - 2, 0.82 * wide),
        (60, 12, lean, 0.9 * wide),
        (120, 13, lean, wide),
        (165, 20, lean + 2, 1.1 * wide),
        (215, 24, lean + 6, 1.15 * wide),
    ]
    for side in (-1.0, 1.0):
        iliac = canvas.tube(
            [(split + 2, 14, lean - 2, 6.5), (split - 12, 16, lean + 14 * side, 6), (-25, 24, lean + 28 * side, 6)]
        )
        canvas.paint_organ(iliac, "aorta", gap=1.0)
        crus = [
            (70, 22, 11 * side + lean, 3.0),
            (125, 24, (wide + 5) * side + lean, 5.0),
            (180, 30, (wide + 6) * side + lean, 4.0),
        ]
        canvas.paint(canvas.tube(crus, waves=0.8), "muscle")
    canvas.paint_organ(canvas.tube(path), "aorta", AORTA, gap=1.0)
    superior = [(118, 4, lean, 3.8), (105, -6, lean - 2, 3.8), (60, -14, lean - 6, 3.2), (10, -22, lean - 10, 2.4)]
    canvas.paint(canvas.tube(superior), "aorta")
    canvas.paint(canvas.tube([(104, -4, -12, 5.5), (70, -13, -14, 4.5), (15, -20, -12, 3.2)]), "portal vein")
    canvas.room = room
