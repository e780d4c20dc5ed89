"""Pictures of suggestions and results, drawn without a screen.

Slices are turned so that a reader of scans recognises them: the patient's front is at the top of an axial slice, the
head at the top of the others, and the patient's left on the viewer's right.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from napari_oneseg.colours import COLOURS
from napari_oneseg.preprocessing import normalise
from napari_oneseg.volume import LabelArray, Volume

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["contact_sheet", "outline_sheet", "sheet_slices", "suggestion_figure"]

_PAPER, _TEXT, _FAINT, _ACCENT = "#15181c", "#e8eaed", "#8b929b", "#ffd166"
_DPI = 130
_LEGEND_COLUMNS = 7


def suggestion_figure(path: str | Path, volume: Volume, scores: Mapping[int, float], top: int = 5) -> None:
    """Draw the suggested slice, and the score of every slice beside it.

    Parameters
    ----------
    path
        The PNG file to write.
    volume
        The scan.
    scores
        Score by slice index, -1 to 1; slices that were not considered are missing.
    top
        How many of the best slices are marked.
    """
    ranked = sorted(scores, key=lambda index: -scores[index])[:top]
    best = ranked[0]
    figure = _figure(11.0, 4.8)
    figure.set_layout_engine("constrained")
    picture, curve = figure.subplots(1, 2, width_ratios=(1.0, 1.35))
    _grey_picture(volume)(picture, best, _WHOLE)
    picture.set_title(f"slice {best}", color=_ACCENT, fontweight="bold")

    indices = np.arange(volume.n_slices)
    values = np.array([scores.get(int(index), math.nan) for index in indices])
    curve.plot(indices, values, color=COLOURS[1], linewidth=1.6, marker=".", markersize=3)
    curve.plot(ranked[1:], [scores[k] for k in ranked[1:]], "o", color=_TEXT, markersize=6, label="runners-up")
    curve.plot([best], [scores[best]], "*", color=_ACCENT, markersize=16, label=f"best: slice {best}")
    curve.axvline(best, color=_ACCENT, linewidth=0.8, alpha=0.5)
    curve.set(xlabel="slice index", ylabel="representative score", xlim=(0, volume.n_slices - 1))
    curve.ticklabel_format(axis="y", useOffset=False)
    curve.set_facecolor("#1d2126")
    curve.grid(color="#343a42", linewidth=0.6)
    curve.tick_params(colors=_FAINT)
    curve.spines[:].set_color("#343a42")
    curve.xaxis.label.set_color(_TEXT)
    curve.yaxis.label.set_color(_TEXT)
    # Above the curve, where it hides nothing.
    curve.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=2, frameon=False, labelcolor=_TEXT)
    figure.savefig(path, format="png")


def contact_sheet(
    path: str | Path,
    volume: Volume,
    labels: LabelArray,
    slice_confidence: NDArray[np.floating],
    painted: Sequence[int] = (),
    names: Mapping[int, str] | None = None,
    title: str = "",
    count: int = 12,
) -> None:
    """Draw slices spread over what is labelled, with the labels on them and their confidence below.

    Parameters
    ----------
    path
        The PNG file to write.
    volume
        The scan.
    labels
        Shape (n, rows, columns), in slice order, 0 = background.
    slice_confidence
        Shape (n,), 0 to 1, NaN on slices without labels.
    painted
        Painted slices; they get a frame.
    names
        Name of each label for the legend.
    title
        Heading.
    count
        How many slices to show.
    """
    values = [int(value) for value in np.unique(labels) if value]
    colours = {value: COLOURS[k % len(COLOURS)] for k, value in enumerate(values)}
    shown = sheet_slices(labels, painted, count)
    window = _window(volume, labels)
    rows_mm, columns_mm = _extent_mm(volume, window)
    show = _grey_picture(volume)
    tiles, figure = _tiles(len(shown), rows_mm / columns_mm, title, len(colours))
    for tile, index in zip(tiles, shown, strict=True):
        show(tile, index, window)
        _show_labels(tile, volume, labels[index], window, colours)
        confidence = float(slice_confidence[index])
        _caption(tile, index, index in painted, "" if math.isnan(confidence) else f"confidence {confidence:.2f}")
        if not math.isnan(confidence):
            _confidence_bar(tile, confidence)
    _legend(figure, colours, names or {})
    figure.savefig(path, format="png")


def outline_sheet(
    path: str | Path,
    volume: Volume,
    masks: Mapping[str, NDArray[np.bool_]],
    slices: Sequence[int],
    painted: Sequence[int] = (),
    captions: Mapping[int, str] | None = None,
    title: str = "",
) -> None:
    """Draw the outlines of several masks on the same slices, to compare them.

    Parameters
    ----------
    path
        The PNG file to write.
    volume
        The scan.
    masks
        Masks by their names, each boolean, shape (n, rows, columns), in slice order.
    slices
        Which slices to show.
    painted
        Painted slices; they get a frame.
    captions
        What to write below a slice, on the right.
    title
        Heading.
    """
    colours = {place: COLOURS[place % len(COLOURS)] for place in range(len(masks))}
    window = _window(volume, np.any(list(masks.values()), axis=0))
    rows_mm, columns_mm = _extent_mm(volume, window)
    show = _grey_picture(volume)
    tiles, figure = _tiles(len(slices), rows_mm / columns_mm, title, len(masks))
    for tile, index in zip(tiles, slices, strict=True):
        show(tile, index, window)
        for place, mask in enumerate(masks.values()):
            _outline(tile, np.asarray(_upright(volume, mask[index][window])), colours[place])
        _caption(tile, index, index in painted, (captions or {}).get(index, ""))
    _legend(figure, colours, dict(enumerate(masks)))
    figure.savefig(path, format="png")


def sheet_slices(labels: LabelArray, painted: Sequence[int], count: int) -> list[int]:
    """Choose slices spread evenly over the labelled extent; the nearest choice makes room for each painted slice.

    Parameters
    ----------
    labels
        Shape (n, rows, columns), in slice order.
    painted
        Slices that must be among them, as far as there is room.
    count
        How many at most.
    """
    held = np.flatnonzero(labels.any(axis=(1, 2)))
    if held.size == 0:
        held = np.array(sorted(painted) or [len(labels) // 2])
    chosen = np.unique(np.linspace(held[0], held[-1], min(count, held[-1] - held[0] + 1)).round().astype(int))
    free = np.ones(len(chosen), bool)
    for index in sorted(set(painted)):
        distance = np.where(free, np.abs(chosen - index), len(labels) + 1)
        nearest = int(distance.argmin())
        if free[nearest]:
            chosen[nearest], free[nearest] = index, False
    return sorted({int(index) for index in chosen})


Window = tuple[slice, slice]
_WHOLE = (slice(None), slice(None))


def _figure(width: float, height: float) -> Figure:
    # Figure without pyplot: no global state, no backend to choose, safe in any thread.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=_DPI, facecolor=_PAPER)
    FigureCanvasAgg(figure)
    return figure


def _tiles(count: int, aspect: float, title: str, labels: int) -> tuple[list[Axes], Figure]:
    """Lay out ``count`` pictures of one size (height = aspect x width), with room for captions; all in inches."""
    columns = min(4, count)
    lines = math.ceil(count / columns)
    width = min(3.1, 4.2 / aspect)
    tile, gap, caption = width * aspect, 0.12, 0.32
    above, below = (0.5 if title else gap), gap + 0.24 * math.ceil(labels / _LEGEND_COLUMNS)
    # Wide enough for the title and the legend where there are few pictures.
    total_width = max(columns * (width + gap) + gap, 6.5)
    total_height = above + lines * (tile + caption) + below
    figure = _figure(total_width, total_height)
    left = (total_width - columns * (width + gap) + gap) / 2
    axes = []
    for k in range(count):
        line, column = divmod(k, columns)
        x, y = left + column * (width + gap), total_height - above - line * (tile + caption) - tile
        axes.append(figure.add_axes((x / total_width, y / total_height, width / total_width, tile / total_height)))
    if title:
        figure.text(0.5, 1 - 0.27 / total_height, title, color=_TEXT, size=13, weight="bold", ha="center", va="center")
    return axes, figure


def _in_plane_axes(volume: Volume) -> tuple[int, int]:
    rows, columns = (axis for axis in range(3) if axis != volume.axis)
    return rows, columns


def _upright(volume: Volume, image: NDArray[np.generic]) -> NDArray[np.generic]:
    """Turn rows and columns the way a reader expects them: x to the left, y to the back and z to the feet ascend."""
    for place, axis in enumerate(_in_plane_axes(volume)):
        direction = np.asarray(volume.direction)[:, axis]
        main = int(np.abs(direction).argmax())
        if direction[main] * (1, 1, -1)[main] < 0:
            image = np.flip(image, place)
    return image


def _grey_picture(volume: Volume) -> Callable[[Axes, int, Window], None]:
    """Return what draws a slice; the grey values are spread as the network sees them, whatever the modality."""
    slices = volume.to_slices(normalise(volume.array, padding=volume.padding))
    height, width = volume.in_plane_spacing

    def show(axes: Axes, index: int, window: Window) -> None:
        image = _upright(volume, slices[(index, *window)])
        axes.imshow(image, cmap="gray", vmin=-1, vmax=1, aspect=height / width)
        axes.set_axis_off()

    return show


def _show_labels(axes: Axes, volume: Volume, image: LabelArray, window: Window, colours: Mapping[int, str]) -> None:
    from matplotlib.colors import to_rgb

    cut = np.asarray(_upright(volume, image[window]))
    overlay = np.zeros((*cut.shape, 4), np.float32)
    for value, colour in colours.items():
        overlay[cut == value] = (*to_rgb(colour), 0.28)
    axes.imshow(overlay, aspect=axes.get_aspect(), interpolation="nearest")
    for value, colour in colours.items():
        _outline(axes, cut == value, colour)


def _outline(axes: Axes, mask: NDArray[np.bool_], colour: str) -> None:
    """Draw the outline of a mask on the picture that it fills."""
    height, width = mask.shape
    if mask.any():
        # One empty pixel around it closes the outline where the organ leaves the picture.
        rows, columns = np.arange(-1, height + 1), np.arange(-1, width + 1)
        axes.contour(columns, rows, np.pad(mask, 1).astype(float), levels=[0.5], colors=[colour], linewidths=1.4)
    axes.set(xlim=(-0.5, width - 0.5), ylim=(height - 0.5, -0.5))


def _caption(axes: Axes, index: int, painted: bool, text: str) -> None:
    from matplotlib.patches import Rectangle

    across = axes.transAxes
    if painted:
        axes.add_patch(Rectangle((0, 0), 1, 1, transform=across, fill=False, edgecolor=_ACCENT, linewidth=5, zorder=5))

    def write(x: float, text: str, side: str, colour: str) -> None:
        axes.annotate(
            text, (x, 0), (0, -7), "axes fraction", "offset points", annotation_clip=False,
            ha=side, va="top", color=colour, size=9,
        )  # fmt: skip

    write(0, f"slice {index}, painted" if painted else f"slice {index}", "left", _ACCENT if painted else _TEXT)
    write(1, text, "right", _TEXT)


def _confidence_bar(axes: Axes, confidence: float) -> None:
    """Draw a bar below the picture, which shows a weak slice at a glance."""
    from matplotlib.transforms import ScaledTranslation

    below = ScaledTranslation(0, -4 / 72, axes.figure.dpi_scale_trans)
    for width, colour in ((1.0, "#343a42"), (confidence, COLOURS[1])):
        axes.plot(
            [0, width],
            [0, 0],
            color=colour,
            linewidth=3,
            transform=axes.transAxes + below,
            clip_on=False,
            solid_capstyle="butt",
        )


def _legend(figure: Figure, colours: Mapping[int, str], names: Mapping[int, str]) -> None:
    from matplotlib.patches import Patch

    handles = [Patch(color=colour, label=names.get(value, f"label {value}")) for value, colour in colours.items()]
    if handles:
        columns = min(_LEGEND_COLUMNS, len(handles))
        figure.legend(
            handles=handles, loc="lower center", bbox_to_anchor=(0.5, 0), ncols=columns, frameon=False, labelcolor=_TEXT
        )


def _window(volume: Volume, labels: LabelArray) -> Window:
    """Return the rows and columns around all labels, with a margin, so that small organs are seen."""
    flat: NDArray[np.bool_] = np.asarray(labels.any(axis=0))
    if not flat.any():
        return _WHOLE
    spans = []
    reach = max(_held_mm(volume, flat, axis) for axis in range(2))
    for axis in range(2):
        step = volume.in_plane_spacing[axis]
        held = np.flatnonzero(flat.any(axis=1 - axis))
        size = flat.shape[axis]
        # A square window of the labels' longer side and a third more, moved to stay within the slice.
        wanted = min(size, math.ceil(1.35 * reach / step))
        first = int(np.clip((held[0] + held[-1] + 1 - wanted) // 2, 0, size - wanted))
        spans.append(slice(first, first + wanted))
    return spans[0], spans[1]


def _held_mm(volume: Volume, flat: NDArray[np.bool_], axis: int) -> float:
    held = np.flatnonzero(flat.any(axis=1 - axis))
    return float((held[-1] - held[0] + 1) * volume.in_plane_spacing[axis])


def _extent_mm(volume: Volume, window: Window) -> tuple[float, float]:
    shape = volume.slices.shape[1:]
    rows, columns = (len(range(*part.indices(size))) for part, size in zip(window, shape, strict=True))
    return rows * volume.in_plane_spacing[0], columns * volume.in_plane_spacing[1]
