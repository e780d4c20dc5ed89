"""Fits what a slice's expected Dice is made of, and says how far it can be trusted on scans it was not fitted on.

    python benchmarks/exam.py build/exam.json --real 8 --slices build/slices.json
    python benchmarks/calibrate.py build/slices.json

The traits of all propagated slices of the exam, of generated and of train scans, go into a logistic model and its
output into an isotonic regression. Reported are the errors on train scans alone, each predicted by a model fitted
without that scan. Written is the model fitted on all, into the package beside the weights.
"""

from __future__ import annotations

import argparse
import itertools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from data_sets import ROOT
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import expit
from sklearn.isotonic import IsotonicRegression
from sklearn.metrics import roc_auc_score

from napari_oneseg.evaluation.report import markdown
from napari_oneseg.files import replacing
from napari_oneseg.propagation.expected_dice import Calibration, bent
from napari_oneseg.propagation.slice_traits import BETTER, TRAITS

__all__ = ["fit", "main", "measured"]

Array = NDArray[np.float64]
POOR = 0.7
"""Dice below which a slice must be found."""
BENDS = (0.15, 0.35, 0.6, 0.85)
"""Quantiles of each trait at which its effect may change."""
RIDGE = 1e-4
"""Weight of the squared slopes, per standard deviation, in the loss."""
KNOTS = 17
"""Most steps of the table that is kept."""
GENERATED_WEIGHT = 0.5
"""Weight of a generated scan's slices beside those of a real one."""
BINS = (0.0, 0.3, 0.5, 0.7, 0.8, 0.9, 1.01)


def fit(traits: Array, dice: Array, weights: Array) -> Calibration:
    """Fit the expected Dice of slices, shape (slices,), to their traits, shape (slices, traits)."""
    bends = np.quantile(traits, BENDS, axis=0)
    entries = bent(traits, bends)
    centre, spread = entries.mean(0), entries.std(0) + 1e-6
    scaled = (entries - centre) / spread
    signs = np.tile(BETTER[: traits.shape[1]], len(BENDS) + 1)
    share = weights / weights.sum()

    def loss(values: Array) -> tuple[float, Array]:
        """Return the cross-entropy with Dice as the share of right voxels, a little ridge, and the gradient."""
        odds = scaled @ values[:-1] + values[-1]
        slope = share * (expit(odds) - dice)
        entropy = float(share @ (np.logaddexp(0, odds) - dice * odds)) + RIDGE * float(values[:-1] @ values[:-1])
        return entropy, np.append(scaled.T @ slope + 2 * RIDGE * values[:-1], slope.sum())

    bounds = [(0, None) if sign > 0 else (None, 0) for sign in signs]
    model = minimize(loss, np.zeros(len(signs) + 1), jac=True, method="L-BFGS-B", bounds=[*bounds, (None, None)]).x
    raw = expit(scaled @ model[:-1] + model[-1])
    table = IsotonicRegression(y_min=0.0, y_max=1.0).fit(raw, dice, sample_weight=weights)
    # Even shares of the slices between two knots: a table of a few lines, without the steps of single slices.
    knots = np.unique(np.quantile(raw, np.linspace(0, 1, KNOTS), method="inverted_cdf"))
    means = [table.predict(raw[(raw >= low) & (raw <= high)]).mean() for low, high in _around(knots)]
    slopes = model[:-1] / spread
    intercept = float(model[-1] - slopes @ centre)
    return Calibration(bends, slopes.reshape(-1, traits.shape[1]), intercept, knots, np.maximum.accumulate(means))


def _around(knots: Array) -> list[tuple[float, float]]:
    """Return the range that each knot stands for: half-way to its neighbours."""
    middle = (knots[1:] + knots[:-1]) / 2
    return list(zip([knots[0], *middle], [*middle, knots[-1]], strict=True))


def measured(expected: Array, dice: Array) -> dict[str, float]:
    """Return the mean absolute error, and how well slices below :data:`POOR` are found (area under the curve)."""
    poor = dice < POOR
    found = float(roc_auc_score(poor, -expected)) if 0 < poor.sum() < len(poor) else float("nan")
    return {"slices": len(dice), "error": float(np.abs(expected - dice).mean()), "auc": found}


def left_out(scans: NDArray[np.str_], real: NDArray[np.bool_], traits: Array, dice: Array, weights: Array) -> Array:
    """Return the expected Dice of the real scans' slices, each by a model fitted without its scan; NaN for others."""
    expected = np.full(len(dice), np.nan)
    for scan in np.unique(scans[real]):
        held = scans == scan
        expected[held] = fit(traits[~held], dice[~held], weights[~held])(traits[held])
    return expected


def report(expected: Array, dice: Array, certainty: Array, groups: NDArray[np.str_]) -> dict[str, Any]:
    """Print and return the errors, by data set, and the reliability of the expected Dice."""
    rows = {"mean confidence of the label": measured(certainty, dice), "expected Dice": measured(expected, dice)}
    rows |= {
        f"expected Dice, {name}": measured(expected[groups == name], dice[groups == name])
        for name in np.unique(groups).tolist()
    }
    cells = [[name, str(row["slices"]), f"{row['error']:.3f}", f"{row['auc']:.3f}"] for name, row in rows.items()]
    print(markdown(["", "slices", "mean absolute error", "AUC below 0.7"], cells), end="\n\n")
    reliability = []
    for low, high in itertools.pairwise(BINS):
        inside = (expected >= low) & (expected < high)
        if inside.any():
            shares = [float((dice[inside] < level).mean()) for level in (0.7, 0.9)]
            means = [float(expected[inside].mean()), float(dice[inside].mean())]
            reliability.append({"from": low, "to": min(high, 1.0), "slices": int(inside.sum()), "expected": means[0],
                                "dice": means[1], "below_0.7": shares[0], "below_0.9": shares[1]})  # fmt: skip
    print(
        markdown(
            ["expected", "slices", "mean expected", "mean Dice", "below 0.7", "below 0.9"],
            [
                [f"{b['from']:.1f} to {b['to']:.1f}", str(b["slices"]), *(f"{b[k]:.2f}" for k in ("expected", "dice")),
                 *(f"{b[k]:.0%}" for k in ("below_0.7", "below_0.9"))]
                for b in reliability
            ],
        )
    )  # fmt: skip
    return {"errors": rows, "reliability": reliability}


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the slices, fit, print what was measured, and write the calibration."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("slices", type=Path, nargs="+", help="what exam.py --slices has written")
    parser.add_argument(
        "--out",
        type=Path,
        default=ROOT / "src" / "napari_oneseg" / "weights" / "expected_dice.json",
        help="calibration",
    )
    parser.add_argument("--json", type=Path, default=ROOT / "benchmarks" / "results" / "calibration.json")
    options = parser.parse_args(arguments)
    objects = [entry for path in options.slices for entry in json.loads(path.read_text(encoding="utf-8"))]
    rows = [(entry["scan"], entry["group"], *row[1:]) for entry in objects for row in entry["slices"]]
    scans, groups = (np.array([row[k] for row in rows]) for k in range(2))
    table = np.array([row[2:] for row in rows], dtype=float)
    dice, traits = table[:, 0], table[:, 1:]
    real = groups != "generated"
    weights = np.where(real, 1.0, GENERATED_WEIGHT)
    expected = left_out(scans, real, traits, dice, weights)[real]
    kept = report(expected, dice[real], traits[real, TRAITS.index("certainty")], groups[real])
    model = fit(traits, dice, weights)
    content = {
        "traits": list(TRAITS),
        "intercept": round(model.intercept, 5),
        **{name: np.round(getattr(model, name), 5).tolist() for name in ("bends", "slopes", "knots", "values")},
    }
    for path, values in ((options.out, content), (options.json, kept)):
        with replacing(path) as part:
            part.write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
