"""How good a propagated label is expected to be on each slice, as a Dice coefficient.

The traits that a label shows on a slice go through a logistic model, in which the effect of each may bend but not turn
(more certainty is never worse), and then through a monotone table. Both were fitted on scans whose truth is known
(``benchmarks/calibrate.py``): the number means what it says, on the average over many slices. It holds for the weights
it was fitted with, and roughly for others of the same making.
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

__all__ = ["Calibration", "bent", "expected_dice", "shipped_calibration"]


@dataclass(frozen=True)
class Calibration:
    """From the traits of a slice to its expected Dice.

    Attributes
    ----------
    bends
        Values of each trait at which its effect changes, shape (bends, traits).
    slopes
        How much a logarithm of odds rises per unit of each trait: before the first bend, between bends, after the
        last, shape (1 + bends, traits). Traits are in the order of
        :data:`~napari_oneseg.propagation.slice_traits.TRAITS`; those of one trait have one sign.
    intercept
        Of the logarithm of odds.
    knots, values
        Outputs of that model, 0 to 1 ascending, and the Dice coefficient that each stands for, 0 to 1 ascending;
        between two knots it changes evenly.
    """

    bends: NDArray[np.float64]
    slopes: NDArray[np.float64]
    intercept: float
    knots: NDArray[np.float64]
    values: NDArray[np.float64]

    def __call__(self, traits: ArrayLike) -> NDArray[np.float64]:
        """Return the expected Dice, 0 to 1, of slices from their traits, shape (slices, traits)."""
        odds = bent(np.asarray(traits, float), self.bends) @ self.slopes.ravel() + self.intercept
        expected: NDArray[np.float64] = np.interp(1 / (1 + np.exp(-odds)), self.knots, self.values)
        return expected


def bent(traits: NDArray[np.float64], bends: NDArray[np.float64]) -> NDArray[np.float64]:
    """Cut traits, (slices, traits), into the stretches between their bends: (slices, (1 + bends) * traits).

    The stretches of a trait add up to it, but for a constant: as many slopes as stretches make a line with bends.
    """
    low = np.concatenate([np.full_like(bends[:1], -np.inf), bends])
    high = np.concatenate([bends, np.full_like(bends[:1], np.inf)])
    begin = np.concatenate([np.zeros_like(bends[:1]), bends])
    stretches: NDArray[np.float64] = np.clip(traits[:, None], low, high) - begin
    return stretches.reshape(len(traits), -1)


@cache
def shipped_calibration() -> Calibration:
    """Return the calibration that belongs to the shipped weights."""
    text = files("napari_oneseg").joinpath("weights", "expected_dice.json").read_text(encoding="utf-8")
    kept = json.loads(text)
    assert kept["traits"] == list(TRAITS), "the calibration was fitted on other traits: fit it anew"
    tables = (np.array(kept[name], dtype=float) for name in ("bends", "slopes", "knots", "values"))
    bends, slopes, knots, values = tables
    return Calibration(bends, slopes, kept["intercept"], knots, values)


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
