"""The loss of a training, as a table and as a picture."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from napari_oneseg.files import replacing

__all__ = ["curve_paths", "save_curve", "smoothed"]

_PAPER, _TEXT, _FAINT = "#15181c", "#e8eaed", "#8b929b"
_SINGLE, _MEAN = "#3f6f82", "#ffd166"


def curve_paths(weights: Path) -> tuple[Path, Path]:
    """Return the table and the picture beside weights: ``a.loss.csv`` and ``a.loss.png`` for ``a.safetensors``."""
    return weights.with_suffix(".loss.csv"), weights.with_suffix(".loss.png")


def smoothed(losses: Sequence[float]) -> NDArray[np.float64]:
    """Return, for each step, the mean of the last losses up to it: a twentieth of all steps, but ten at least.

    At the beginning there are fewer, so that the curve begins where the training did.
    """
    values = np.asarray(losses, dtype=np.float64)
    window = max(10, len(values) // 20)
    sums = np.concatenate([[0.0], np.cumsum(values)])
    ends = np.arange(1, len(values) + 1)
    starts = np.maximum(0, ends - window)
    return np.asarray((sums[ends] - sums[starts]) / (ends - starts))


def save_curve(weights: Path, losses: Sequence[float]) -> None:
    """Write the loss of each step as CSV (``step,loss``, steps from 0) and as a PNG beside a weights file.

    Raises
    ------
    ~napari_oneseg.errors.OutputError
        If a file cannot be written.
    """
    table, picture = curve_paths(weights)
    with replacing(table) as part, part.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["step", "loss"])
        writer.writerows(enumerate(losses))
    with replacing(picture) as part:
        _draw(part, losses)


def _draw(path: Path, losses: Sequence[float]) -> None:
    # Figure without pyplot: no global state, no backend to choose, safe in any thread.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure((7.0, 4.0), facecolor=_PAPER, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot(facecolor="#1d2126")
    steps = np.arange(len(losses))
    axes.plot(steps, losses, color=_SINGLE, linewidth=0.8, label="single steps")
    axes.plot(steps, smoothed(losses), color=_MEAN, linewidth=1.8, label="mean of the last ones")
    axes.set_xlabel("step", color=_TEXT)
    axes.set_ylabel("loss", color=_TEXT)
    axes.grid(color="#343a42", linewidth=0.6)
    axes.tick_params(colors=_FAINT)
    axes.spines[:].set_color("#343a42")
    axes.legend(frameon=False, labelcolor=_TEXT)
    figure.savefig(path, format="png", dpi=130)
