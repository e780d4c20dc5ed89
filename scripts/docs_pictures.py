"""The pictures of "How it works": the way of the data, and where positions of one slice look in the next.

Everything is computed on the generated scan with the default weights; no real scan is shown.

    python scripts/docs_pictures.py [folder, by default docs/images]
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, Rectangle
from numpy.typing import NDArray
from scipy import ndimage

from napari_oneseg.colours import COLOURS, colour_of
from napari_oneseg.phantom import Phantom, phantom
from napari_oneseg.preprocessing import normalise
from napari_oneseg.propagation.attention import local_affinity
from napari_oneseg.propagation.tracing import trace
from napari_oneseg.session import OneSegSession, Propagation

FOLDER = Path(__file__).resolve().parents[1] / "docs" / "images"
WINDOW = 13
"""Side of the attention's window, in positions of the feature map."""
NEW = "#f4a300"
INK = "#30363d"


class Demonstration:
    """The generated scan, its suggested slice painted, and what came of it."""

    def __init__(self) -> None:
        self.sample: Phantom = phantom(seed=0)
        volume = self.sample.volume
        self.truth = volume.to_slices(self.sample.labels)
        self.grey = normalise(volume.to_slices(volume.array))
        self.session = OneSegSession(device="cpu")
        self.session.set_volume(volume)
        self.range = (13, 22)
        self.suggestions = self.session.suggest_slices(self.range, top=len(self.grey))
        self.painted = self.suggestions[0].index
        self.session.annotate(self.painted, self.truth[self.painted])
        self.result: Propagation = self.session.propagate()
        self.maps = self.session.features.maps.float()

    def show(self, axes: Axes, index: int, labels: NDArray[np.integer] | None = None) -> None:
        """Draw a slice the way it is looked at, with labels over it."""
        axes.imshow(self.grey[index], cmap="gray", vmin=-1, vmax=1)
        if labels is not None:
            overlay = np.zeros((*labels.shape, 4))
            for value in np.unique(labels[labels > 0]):
                overlay[labels == value] = (*colour_of(int(value))[:3], 0.55)
            axes.imshow(overlay, interpolation="nearest")
        bare(axes)

    def position(self, row: int, column: int) -> tuple[int, int]:
        """Return the position of the feature map that a pixel of the scan lies in."""
        rows, columns = self.session.features.grid.features
        height, width = self.grey.shape[1:]
        return int((row + 0.5) * rows / height), int((column + 0.5) * columns / width)

    def attention(self, target: int, reference: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return the weights of all positions of a slice, (rows, columns, P, P), and the share that found a match."""
        query, key = self.maps[target][None], self.maps[reference][None]
        affinity = local_affinity(query, key, WINDOW, null_bias=self.session.features.null_bias)
        matched = affinity.dense().sum((-1, -2))
        weights = local_affinity(query, key, WINDOW).dense()
        return weights[0].numpy(), matched[0].numpy()


def bare(axes: Axes) -> None:
    """Take the ticks away."""
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_visible(False)


def new_figure(width: float, height: float) -> Figure:
    """Return an empty figure; text in sizes that stay readable at the width of a page."""
    figure = Figure(figsize=(width, height), facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def title(axes: Axes, text: str) -> None:
    """Write above a picture."""
    axes.set_title(text, fontsize=9, color=INK, pad=5)


def colours_of(features: torch.Tensor) -> NDArray[np.float32]:
    """Return features (C, rows, columns) as colours: their three main directions, each from 0 to 1."""
    flat = features.flatten(1).T.numpy().astype(np.float64)
    flat -= flat.mean(0)
    _, _, directions = np.linalg.svd(flat, full_matrices=False)
    # The sign of a direction is arbitrary; fixed, so that the picture is the same everywhere.
    signs = np.sign(directions[:3, np.abs(directions[:3]).argmax(1)].diagonal())
    image = flat @ (directions[:3] * signs[:, None]).T
    low, high = np.percentile(image, [2, 98], axis=0)
    scaled = np.clip((image - low) / (high - low), 0, 1)
    return scaled.reshape(*features.shape[1:], 3).astype(np.float32)


def draw_way(shown: Demonstration) -> Figure:
    """Draw the way from the scan to labels and confidence, in six steps."""
    figure = new_figure(10.4, 5.4)
    axes = figure.subplots(2, 3)
    figure.subplots_adjust(0.0, 0.08, 0.985, 0.94, wspace=0.16, hspace=0.28)
    first, second, third = axes[0]
    shown.show(first, shown.painted)
    title(first, "1  the scan, slice by slice")
    second.imshow(colours_of(shown.maps[shown.painted]))
    bare(second)
    title(second, "2  features of every position, as colours")
    scores = {entry.index: entry.score for entry in shown.suggestions}
    third.plot(sorted(scores), [scores[k] for k in sorted(scores)], color=INK, lw=1.4, marker=".")
    third.axvline(shown.painted, color=NEW, lw=2)
    third.set_xlabel("slice of the range", fontsize=8, labelpad=1)
    third.tick_params(labelsize=7)
    title(third, f"3  how much a slice has to give: {shown.painted} is suggested")
    fourth, fifth, sixth = axes[1]
    shown.show(fourth, shown.painted, shown.truth[shown.painted])
    title(fourth, "4  that slice, painted by a person")
    other = shown.painted + 6
    shown.show(fifth, other, shown.result.labels[other])
    title(fifth, f"5  labels copied from slice to slice: slice {other}")
    confidence = shown.result.slice_confidence
    sixth.plot(np.arange(len(confidence)), confidence, color=INK, lw=1.4)
    sixth.axvline(shown.painted, color=NEW, lw=2)
    sixth.set_xlabel("slice", fontsize=8, labelpad=1)
    sixth.tick_params(labelsize=7)
    title(sixth, "6  confidence: where to look and to correct")
    for left, right in ((first, second), (second, third), (fourth, fifth), (fifth, sixth)):
        join(figure, left, right)
    return figure


def join(figure: Figure, left: Axes, right: Axes) -> None:
    """Draw an arrow from one picture to the next."""
    start, end = left.get_position(), right.get_position()
    height = (start.y0 + start.y1) / 2
    middle = (start.x1 + end.x0) / 2
    arrow = FancyArrowPatch(
        (middle - 0.012, height), (middle + 0.012, height), transform=figure.transFigure, color=NEW,
        arrowstyle="simple", mutation_scale=12,
    )  # fmt: skip
    figure.add_artist(arrow)


def draw_attention(shown: Demonstration) -> Figure:
    """Draw, for four places of a slice, where they look in the slice below."""
    reference, target = 20, 21
    weights, _ = shown.attention(target, reference)
    places = [
        ("in the liver", 88, 70),
        ("edge of the right kidney", 96, 80),
        ("edge of the left kidney", 118, 167),
        ("aorta", 104, 116),
    ]
    figure = new_figure(10.4, 5.0)
    axes = figure.subplots(2, 4)
    figure.subplots_adjust(0.01, 0.02, 0.99, 0.93, wspace=0.05, hspace=0.14)
    for (name, row, column), above, below in zip(places, *axes, strict=True):
        height, width = (source / own for source, own in zip(shown.grey.shape[1:], weights.shape[:2], strict=True))
        i, j = shown.position(row, column)
        centre = (i + 0.5) * height - 0.5, (j + 0.5) * width - 0.5
        half = WINDOW / 2 * height, WINDOW / 2 * width
        shown.show(above, target)
        above.plot(centre[1], centre[0], "+", color=NEW, ms=11, mew=2)
        title(above, f"slice {target}: {name}")
        shown.show(below, reference)
        left, top = centre[1] - half[1], centre[0] - half[0]
        extent = (left, left + 2 * half[1], top + 2 * half[0], top)
        heat = weights[i, j]
        below.imshow(heated(heat / heat.max()), extent=extent, interpolation="nearest", zorder=2)
        below.add_patch(Rectangle((left, top), 2 * half[1], 2 * half[0], fill=False, color=NEW, lw=1.2, zorder=3))
        title(below, f"slice {reference}: copied from here")
        for picture in (above, below):
            picture.set_xlim(centre[1] - 34, centre[1] + 34)
            picture.set_ylim(centre[0] + 30, centre[0] - 30)
    return figure


def heated(share: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return shares of 0 to 1 as one colour whose opacity they are."""
    image = np.empty((*share.shape, 4), np.float32)
    image[..., :3] = (1.0, 0.42, 0.1)
    image[..., 3] = np.clip(share, 0, 1) ** 0.7 * 0.85
    return image


def draw_null(shown: Demonstration) -> Figure:
    """Draw what a slice shows that its neighbour does not: there nothing is copied."""
    reference, target = 25, 24
    _, matched = shown.attention(target, reference)
    height, width = shown.grey.shape[1:]
    # Round the largest part that has found nothing.
    parts, count = ndimage.label(matched < 0.5)
    largest = 1 + int(np.argmax(ndimage.sum_labels(matched < 0.5, parts, range(1, count + 1))))
    centre = ndimage.center_of_mass(parts == largest)
    row, column = (place * side / own for place, side, own in zip(centre, (height, width), matched.shape, strict=True))
    figure = new_figure(10.4, 3.2)
    axes = figure.subplots(1, 3)
    figure.subplots_adjust(0.01, 0.02, 0.99, 0.9, wspace=0.04)
    for picture, index, text in (
        (axes[0], reference, f"slice {reference}, already labelled"),
        (axes[1], target, f"slice {target}, to be labelled"),
        (axes[2], target, f"what has found nothing alike in slice {reference}"),
    ):
        shown.show(picture, index)
        title(picture, text)
    axes[2].imshow(heated(1.0 - matched), extent=(-0.5, width - 0.5, height - 0.5, -0.5), interpolation="bilinear")
    for picture in axes:
        picture.set_xlim(column - 46, column + 46)
        picture.set_ylim(row + 38, row - 38)
    return figure


def draw_trace(shown: Demonstration) -> Figure:
    """Draw where one voxel, eight slices away, has its label from."""
    at = (shown.painted + 8, 88, 70)
    label = int(shown.result.labels[at])
    found = trace(shown.session.features, shown.session.annotation, at, label).sources[0]
    figure = new_figure(10.4, 3.1)
    axes = figure.subplots(1, 3)
    figure.subplots_adjust(0.01, 0.02, 0.99, 0.9, wspace=0.04)
    shown.show(axes[0], at[0], shown.result.labels[at[0]])
    axes[0].plot(at[2], at[1], "+", color=NEW, ms=12, mew=2)
    title(axes[0], f"slice {at[0]}: why is this {shown.sample.names[label]}?")
    half_way = found.path[len(found.path) // 2]
    shown.show(axes[1], round(float(half_way[0])))
    axes[1].plot(found.path[:, 2], found.path[:, 1], color=COLOURS[1], lw=1.5)
    axes[1].plot(half_way[2], half_way[1], "+", color=NEW, ms=12, mew=2)
    title(axes[1], f"slice {round(float(half_way[0]))}: half-way back, with the way")
    shown.show(axes[2], found.index)
    axes[2].imshow(heated(found.places / found.places.max()), interpolation="nearest")
    title(axes[2], f"slice {found.index}, painted: these pixels were copied")
    return figure


PICTURES = {
    "how-way.png": draw_way,
    "how-attention.png": draw_attention,
    "how-null-match.png": draw_null,
    "how-trace.png": draw_trace,
}


def main(folder: Path) -> None:
    """Draw all pictures into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    shown = Demonstration()
    for name, draw in PICTURES.items():
        # Without the version of matplotlib in it, so that the same picture is the same file.
        draw(shown).savefig(folder / name, dpi=120, metadata={"Software": None})


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER)
