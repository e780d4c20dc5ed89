"""The tables of the accuracy and speed pages, from what the benchmarks have measured (benchmarks/results/*.json)."""

from __future__ import annotations

import hashlib
import json
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

from napari_oneseg.evaluation.effort import COUNTS, MOST_SLICES, EffortCurve
from napari_oneseg.evaluation.effort_report import reach, results_after
from napari_oneseg.evaluation.intervals import Summary
from napari_oneseg.evaluation.protocols import CaseResult
from napari_oneseg.evaluation.report import markdown, markdown_table, summarise

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "benchmarks"))

from data_sets import SETS  # noqa: E402 - the benchmarks are programs, no package
from runs import Results, Run  # noqa: E402 - as above

__all__ = ["TABLES"]

RESULTS = ROOT / "benchmarks" / "results"
TITLES = {
    "chaos_mr_t2": "MR abdomen (CHAOS)",
    "btcv_ct": "CT abdomen (BTCV)",
    "la_lge": "MR left atrium",
    "msd_hippocampus": "MR hippocampus",
    "ircadb_ct": "CT liver, 512 x 512 (3D-IRCADb)",
}
METHODS = {
    "copy": "copied slice",
    "dis": "chained DIS flow",
    "demons": "chained demons",
    "contour": "contour interpolation",
    "oneseg": "OneSeg",
}
SCANS = TITLES | {"phantom": "built-in phantom", "ircadb_ct": "CT liver (3D-IRCADb)"}


def plain_table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a markdown table whose columns all stand to the left."""
    lines = [headings, ["---"] * len(headings), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


@cache
def results() -> Results:
    """Return what was measured on real scans."""
    return Results(RESULTS / "accuracy.json", fresh=False)


@cache
def shipped() -> str:
    """Return the SHA-256 of the default weights: results of others do not count."""
    weights = ROOT / "src" / "napari_oneseg" / "weights" / "default.safetensors"
    return hashlib.sha256(weights.read_bytes()).hexdigest()


def scored(
    data: str, method: str, protocol: str = "largest", slices: int = 1, together: bool = False
) -> list[CaseResult]:
    """Return the scores of one method on the organs of a data set's mean.

    Raises
    ------
    LookupError
        If that was never measured, or only with other weights.
    """
    organs = list(SETS[data].headline)
    weights = shipped() if method == "oneseg" else None
    found = results().of(Run(data, "dev", protocol, slices, tuple(organs) if together else (), method, weights), organs)
    if not found:
        raise LookupError(f"{data}, {method}, {protocol}, {slices}: not in accuracy.json with the default weights")
    return found


def mean(found: Sequence[CaseResult], metric: str, label: int | None = None) -> Summary:
    """Return the summary of one metric over all organs, or of one organ."""
    return next(row.metrics[metric] for row in summarise(found) if row.label == label)


def both(found: Sequence[CaseResult], label: int | None = None) -> str:
    """Return the Dice coefficient over the whole scan / over the organ's own slices."""
    return f"{mean(found, 'dice', label).mean:.2f} / {mean(found, 'extent_dice', label).mean:.2f}"


def overview() -> str:
    """Return one row per data set: one slice painted per organ, one organ at a time."""
    rows = []
    for data, title in TITLES.items():
        found = {method: scored(data, method) for method in ("copy", "dis", "demons", "oneseg")}
        ours = found["oneseg"]
        cells = [both(one) for one in found.values()]
        far = [f"{mean(ours, 'ravd').mean:.0f}", f"{mean(ours, 'assd').mean:.1f}"]
        rows.append([f"{title}, {len(ours)} scan{'s' * (len(ours) > 1)}", *cells[:-1], f"**{cells[-1]}**", *far])
    return plain_table(
        ["", "copied slice", "chained DIS flow", "chained demons", "**OneSeg**", "RAVD %", "ASSD mm"], rows
    )


def organs(data: str) -> str:
    """Return the Dice coefficients by organ, for the best classical method and for OneSeg."""
    ways = {
        "demons": scored(data, "demons"),
        "OneSeg": scored(data, "oneseg"),
        "OneSeg, first and last slice given": scored(data, "oneseg", "ranged"),
        "OneSeg, all organs painted": scored(data, "oneseg", together=True),
    }
    labels = {**SETS[data].headline, None: "mean"}
    rows = [[way, *(both(found, label) for label in labels)] for way, found in ways.items()]
    return plain_table(["", *labels.values()], rows)


def several_slices() -> str:
    """Return the Dice coefficient over the whole scan by the number of evenly spaced painted slices."""
    counts = (1, 2, 3, 5)
    rows = []
    for data, title in TITLES.items():
        for method in ("oneseg", "contour"):
            cells = []
            for count in counts:
                alone = method == "contour" and count == 1
                protocol = "largest" if count == 1 else "evenly"
                cells.append("-" if alone else f"{mean(scored(data, method, protocol, count), 'dice').mean:.2f}")
            rows.append([f"{title}: OneSeg" if method == "oneseg" else METHODS[method], *cells])
    return plain_table(["slices painted", *map(str, counts)], rows)


def effort() -> str:
    """Return what a simulated annotator reaches after so many slices, and how many it takes."""
    annotators = {
        "OneSeg, suggested slices": "oneseg",
        "OneSeg, evenly spaced slices": "oneseg-evenly",
        "contour interpolation, evenly spaced": "contour",
    }
    counts = [count for count in COUNTS if count <= MOST_SLICES]
    rows = []
    for title, method in annotators.items():
        curves = effort_curves("chaos_mr_t2", method)
        dice = [f"{mean(results_after(curves, count), 'dice').mean:.2f}" for count in counts]
        reached = [f"{reach(curves, threshold).mean.mean:.1f}" for threshold in (0.90, 0.95)]
        rows.append([title, *dice, *reached])
    return plain_table(["slices painted", *map(str, counts), "slices to 0.90", "slices to 0.95"], rows)


def effort_curves(data: str, method: str) -> list[EffortCurve]:
    """Return the curves of one annotator on a data set."""
    weights = shipped() if method.startswith("oneseg") else None
    group = Run(data, "dev", "effort", MOST_SLICES, (), method, weights)
    return results().curves_of(group, list(SETS[data].headline))


def full(data: str) -> str:
    """Return all metrics of OneSeg by organ, with their spread and the interval of the mean."""
    rows = []
    for way, found in {
        "alone": scored(data, "oneseg"),
        "range given": scored(data, "oneseg", "ranged"),
        "suggested slice": scored(data, "oneseg", "suggested"),
        "all painted": scored(data, "oneseg", together=True),
    }.items():
        for row in summarise(found, SETS[data].headline):
            name = "**mean**" if row.label is None else row.name
            rows.append(replace(row, name=f"{name}, {way}"))
    return markdown_table(rows)


def intervals() -> str:
    """Return the 95 % intervals of the mean Dice, where there are enough scans to have one."""
    rows = []
    for data, title in TITLES.items():
        summary = mean(scored(data, "oneseg"), "dice")
        if math.isfinite(summary.low):
            rows.append([title, f"{summary.mean:.2f}", f"{summary.low:.2f} to {summary.high:.2f}"])
    return markdown(["", "mean Dice", "95 % interval"], rows)


@cache
def measured_speed() -> Mapping[str, object]:
    """Return what ``make bench-speed`` has written."""
    return json.loads((RESULTS / "speed.json").read_text(encoding="utf-8"))


def speed() -> str:
    """Return the seconds of each step, by scan."""
    runs = measured_speed()["runs"]
    steps = list(runs[0]["seconds"])
    rows = []
    for run in runs:
        size = " x ".join(map(str, run["shape"]))
        seconds = [f"{run['seconds'][step]:.1f} s" for step in steps]
        rows.append([SCANS[run["scan"]], size, str(run["labels"]), *seconds])
    return plain_table(["", "slices", "labels", "features and suggestion, once", *steps[1:]], rows)


def speed_machine() -> str:
    """Return a sentence about the machine that was measured on."""
    record = measured_speed()
    return (
        f"Measured on: {record['device']}, {record['gflops']:.0f} GFLOP/s in a large matrix product. "
        f"Peak memory {record['peak_mib'] / 1024:.1f} GiB."
    )


def exam(group: str) -> str:
    """Return the mean Dice and the losses by kind of failure, of each kind of object of the exam."""
    profiles = json.loads((RESULTS / "exam.json").read_text(encoding="utf-8"))["profiles"][group]
    names = [name for name in profiles["all"] if name not in ("objects", "dice")]
    rows = [
        [kind, str(row["objects"]), f"{row['dice']:.2f}", *(f"{row[name]:.3f}" for name in names)]
        for kind, row in profiles.items()
    ]
    return plain_table(["", "objects", "Dice", *names], rows)


def calibration() -> dict[str, Any]:
    """Return how well the expected Dice of slices agrees with the true one."""
    found: dict[str, Any] = json.loads((RESULTS / "calibration.json").read_text(encoding="utf-8"))
    return found


def expected_errors() -> str:
    """Return the errors of the expected Dice beside those of the confidence that it is made from."""
    rows = [
        [name, str(row["slices"]), f"{row['error']:.3f}", f"{row['auc']:.3f}"]
        for name, row in calibration()["errors"].items()
    ]
    return plain_table(["", "slices", "mean absolute error", "AUC, Dice below 0.7"], rows)


def reliability() -> str:
    """Return how good slices of like expected Dice really are."""
    rows = [
        [
            f"{row['from']:.1f} to {row['to']:.1f}",
            str(row["slices"]),
            f"{row['expected']:.2f}",
            f"**{row['dice']:.2f}**",
            *(f"{100 * row[key]:.0f} %" for key in ("below_0.7", "below_0.9")),
        ]
        for row in calibration()["reliability"]
    ]
    return plain_table(["expected", "slices", "mean expected", "mean Dice", "below 0.7", "below 0.9"], rows)


TABLES: dict[str, Callable[[], str]] = {
    "accuracy-overview": overview,
    "accuracy-intervals": intervals,
    "accuracy-slices": several_slices,
    "accuracy-effort": effort,
    **{f"accuracy-organs {data}": (lambda data=data: organs(data)) for data in TITLES},
    **{f"accuracy-full {data}": (lambda data=data: full(data)) for data in TITLES},
    **{f"exam {group}": (lambda group=group: exam(group)) for group in ("generated", "chaos_mr_t2", "btcv_ct")},
    "expected-dice-errors": expected_errors,
    "expected-dice-reliability": reliability,
    "speed": speed,
    "speed-machine": speed_machine,
}
"""What can stand in a page as ``<!-- made: NAME -->``."""
