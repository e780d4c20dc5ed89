"""The exam: whole generated scans, one painted slice per object, and how what comes of it goes wrong.

Every object is painted on its largest slice and carried through the whole scan, alone, by the product's own
propagation. What is lost is told apart by how it was lost:

    jumped      the label went on in a neighbour that looks alike (real scans: in another labelled organ)
    ran on      it went on, elsewhere, on slices that show nothing of the object
    lost        a slice shows the object and no label at all
    lost part   a slice shows a part of the object that the label misses, and another one that it has
    ragged      the rest, for walls and sheets: borders that leak and break
    drift       the rest: borders that wandered

    python benchmarks/exam.py                            # generated scans
    python benchmarks/exam.py --scans 4 --weights FILE   # few, and other weights
    python benchmarks/exam.py --real 3                   # three train scans of each data set beside them

Losses are in Dice: those of an object add up to 1 minus its Dice.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from data_sets import ROOT
from exam_scans import ExamScan, Mask, Target, generated_scans, real_scans
from scipy import ndimage

from napari_oneseg.errors import OneSegError
from napari_oneseg.evaluation.report import markdown
from napari_oneseg.files import replacing
from napari_oneseg.propagation.slice_traits import slice_traits
from napari_oneseg.session import OneSegSession
from napari_oneseg.volume import Annotation

__all__ = ["FAILURES", "ObjectScore", "losses", "main"]

FAILURES = ("jumped", "ran on", "lost", "lost part", "ragged", "drift")
THIN = frozenset({"wall", "sheet"})
REAL_SETS = ("chaos_mr_t2", "btcv_ct")
LEAST_HIT = 0.1
"""Share of a part that a label must cover for the part not to be lost."""


@dataclass(frozen=True)
class ObjectScore:
    """What came of one object.

    Attributes
    ----------
    scan, name, kind
        Of the object.
    dice
        Over the whole scan.
    losses
        Dice lost by each kind of failure.
    slices
        Of each propagated slice that shows the label: index, Dice, and the traits of
        :func:`~napari_oneseg.propagation.slice_traits.slice_traits`.
    """

    scan: str
    name: str
    kind: str
    dice: float
    losses: dict[str, float]
    slices: list[list[float]]


def losses(found: Mask, target: Target) -> dict[str, float]:
    """Share what a label has lost among the kinds of failure, by voxels; the sum is 1 minus Dice."""
    truth = target.truth
    extra, missing = found & ~truth, truth & ~found
    shown, labelled = truth.any((1, 2)), found.any((1, 2))
    jumped = extra & target.alike
    ran_on = extra & ~jumped & ~shown[:, None, None]
    lost = missing & ~labelled[:, None, None]
    part = np.zeros_like(missing)
    for k in np.flatnonzero(shown & labelled):
        numbered, count = ndimage.label(truth[k])
        if count > 1:
            hit = ndimage.mean(found[k], numbered, np.arange(1, count + 1)) >= LEAST_HIT
            if hit.any():
                part[k] = (numbered > 0) & ~np.append(False, hit)[numbered]
    rest = int(extra.sum() + missing.sum() - jumped.sum() - ran_on.sum() - lost.sum() - part.sum())
    voxels = dict(zip(FAILURES, (jumped.sum(), ran_on.sum(), lost.sum(), part.sum(), 0, 0), strict=True))
    voxels["ragged" if target.kind in THIN else "drift"] = rest
    whole = int(truth.sum() + found.sum())
    return {failure: float(count) / whole for failure, count in voxels.items()}


def examine(session: OneSegSession, scan: ExamScan) -> Iterable[ObjectScore]:
    """Label every object of a scan from its largest slice, one at a time."""
    session.set_volume(scan.volume)
    spacing = (scan.volume.spacing[scan.volume.axis], *np.delete(scan.volume.spacing, scan.volume.axis).tolist())
    for target in scan.targets:
        while session.undo():
            pass
        index = int(target.truth.sum((1, 2)).argmax())
        annotation = Annotation({index: target.truth[index].astype(np.uint8)})
        session.set_annotation(annotation)
        result = session.propagate()
        found = result.labels > 0
        lost = losses(found, target)
        traits = slice_traits(result.labels, result.confidence, annotation, spacing, 1)
        slices = [[k, dice(found[k], target.truth[k]), *row.tolist()] for k, row in sorted(traits.items())]
        yield ObjectScore(scan.name, target.name, target.kind, 1.0 - sum(lost.values()), lost, slices)


def dice(found: Mask, truth: Mask) -> float:
    """Return the Dice coefficient of two masks that are not both empty."""
    return 2.0 * float((found & truth).sum()) / float(found.sum() + truth.sum())


def profile(scores: Sequence[ObjectScore]) -> dict[str, dict[str, float]]:
    """Return the mean Dice and the mean loss by failure of each kind of object, and of all."""
    groups: dict[str, list[ObjectScore]] = defaultdict(list)
    for score in scores:
        groups[score.kind].append(score)
    groups = dict(sorted(groups.items())) | {"all": list(scores)}
    return {
        kind: {"objects": len(group), "dice": float(np.mean([score.dice for score in group]))}
        | {failure: float(np.mean([score.losses[failure] for score in group])) for failure in FAILURES}
        for kind, group in groups.items()
    }


def table(profiles: dict[str, dict[str, float]]) -> str:
    """Return a profile as a Markdown table."""
    rows = [
        [kind, str(int(row["objects"])), *(f"{row[name]:.3f}" for name in ("dice", *FAILURES))]
        for kind, row in profiles.items()
    ]
    return markdown(["kind", "objects", "Dice", *FAILURES], rows)


def parse_options(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = ROOT / "benchmarks" / "results" / "exam.json"
    parser.add_argument("json", nargs="?", type=Path, default=default, help="where results are kept")
    parser.add_argument("--scans", type=int, default=8, metavar="N", help="generated scans")
    parser.add_argument("--seed", type=int, default=9000, help="of the first of them; trainings use small seeds")
    parser.add_argument("--real", type=int, default=0, metavar="N", help="train scans of each data set, too")
    parser.add_argument("--weights", type=Path, metavar="FILE", help="weights file; by default the shipped one")
    parser.add_argument("--slices", type=Path, metavar="FILE", help="also write every slice's traits, for calibration")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    """Examine weights, print the tables and write the results."""
    options = parse_options(arguments)
    session = OneSegSession(options.weights)
    groups: dict[str, Iterable[ExamScan]] = {"generated": generated_scans(options.scans, options.seed)}
    groups |= {name: real_scans(name, options.real) for name in REAL_SETS if options.real}
    results: dict[str, list[ObjectScore]] = {}
    try:
        for name, scans in groups.items():
            scores = results[name] = []
            for scan in scans:
                scores += examine(session, scan)
                write(options, session.weights.sha256, results)  # what an interrupted program has done is kept
            if scores:
                print(f"\n{name}\n\n{table(profile(scores))}", flush=True)
    except OneSegError as error:
        sys.exit(str(error))


def write(options: argparse.Namespace, weights: str, results: dict[str, list[ObjectScore]]) -> None:
    """Write profiles and scores, and the traits of all slices where they are wanted."""
    scored = {name: scores for name, scores in results.items() if scores}
    objects = [asdict(score) | {"group": name} for name, scores in scored.items() for score in scores]
    kept = {
        "weights": weights,
        "seed": options.seed,
        "profiles": {name: profile(scores) for name, scores in scored.items()},
        "objects": [{key: value for key, value in entry.items() if key != "slices"} for entry in objects],
    }
    for path, content in ((options.json, kept), (options.slices, objects)):
        if path is not None:
            with replacing(path) as part:
                part.write_text(json.dumps(rounded(content), indent=1) + "\n", encoding="utf-8")


def rounded(value: Any) -> Any:
    """Return plain values with numbers rounded to four digits."""
    if isinstance(value, dict):
        return {key: rounded(item) for key, item in value.items()}
    if isinstance(value, list):
        return [rounded(item) for item in value]
    return round(value, 4) if isinstance(value, float) else value


if __name__ == "__main__":
    main()
