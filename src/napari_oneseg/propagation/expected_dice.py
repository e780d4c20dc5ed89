"""How good a propagated label is expected to be on each slice, as a Dice coefficient.

The traits that a label shows on a slice go through a logistic model and then a monotone table, both fitted on scans
whose truth is known (``benchmarks/calibrate.py``): the number means what it says, on the average over many slices. It
holds for the weights it was fitted with, and roughly for others of the same making.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

import numpy as np
from numpy.typing import ArrayLike, NDArray

from napari_oneseg.propagation.slice_traits import TRAITS, slice_traits
from napari_oneseg.volume import Annotation, LabelArray

__all__ = ["Calibration", "expected_dice", "shipped_calibration"]


@dataclass(frozen=True)
class Calibration:
    """From the traits of a slice to its expected Dice.

    Attributes
    ----------
    coefficients
        One per trait, in the order of :data:`~napari_oneseg.propagation.slice_traits.TRAITS`.
    intercept
        Of the logistic model.
    knots, values
        Outputs of that model, ascending, and the Dice coefficient that each stands for, ascending, 0 to 1; between two
        knots it changes evenly.
    """

    coefficients: tuple[float, ...]
    intercept: float
    knots: tuple[float, ...]
    values: tuple[float, ...]

    def __call__(self, traits: ArrayLike) -> NDArray[np.float64]:
        """Return the expected Dice, 0 to 1, of slices from their traits, shape (slices, traits)."""
        raw = 1 / (1 + np.exp(-(np.asarray(traits, float) @ np.asarray(self.coefficients) + self.intercept)))
        return np.interp(raw, self.knots, self.values)


@cache
def shipped_calibration() -> Calibration:
    """Return the calibration that belongs to the shipped weights."""
    text = files("napari_oneseg").joinpath("weights", "expected_dice.json").read_text(encoding="utf-8")
    values = json.loads(text)
    assert list(values["traits"]) == list(TRAITS), "the calibration was fitted on other traits: fit it anew"
    return Calibration(
        tuple(values["coefficients"].values()), values["intercept"], tuple(values["knots"]), tuple(values["values"])
    )


def expected_dice(
    labels: LabelArray,
    confidence: NDArray[np.floating],
    annotation: Annotation,
    spacing: tuple[float, float, float],
    label: int,
) -> dict[int, float]:
    """Return the Dice coefficient that one label is expected to have, by slice.

    Parameters
    ----------
    labels, confidence, annotation, spacing, label
        As for :func:`~napari_oneseg.propagation.slice_traits.slice_traits`.

    Returns
    -------
    Of each slice that shows the label, ascending, 0 to 1; 1 where it was painted or accepted.
    """
    traits = slice_traits(labels, confidence, annotation, spacing, label)
    found = {int(k): 1.0 for k in np.flatnonzero((labels == label).any((1, 2)))}
    if traits:
        found |= dict(zip(traits, shipped_calibration()(list(traits.values())).tolist(), strict=True))
    return dict(sorted(found.items()))
