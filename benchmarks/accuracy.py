"""Accuracy on real scans: the network beside the classical methods, on every data set that is at hand.

One label at a time is painted on its largest slice and carried through the whole scan; with several slices, these are
evenly spaced over the organ and contour interpolation takes the place of the registrations. See
``napari_oneseg.evaluation.protocols`` for what exactly is painted and scored.

The folder of scans is ONESEG_DATA, or ``shared/data`` beside the repository; each data set in it has the folders
``dev/images`` and ``dev/labels``. Every finished (data set, method, case) is kept in the JSON file, so that an
interrupted run goes on where it stopped.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from napari_oneseg.errors import InputError, OneSegError
from napari_oneseg.evaluation.baselines import BASELINES, Method
from napari_oneseg.evaluation.cases import Case, find_cases
from napari_oneseg.evaluation.metrics import OrganScore
from napari_oneseg.evaluation.protocols import CaseResult, evaluate_case, oneseg_method
from napari_oneseg.evaluation.report import markdown_table, summarise

ROOT = Path(__file__).resolve().parents[1]
OURS = "oneseg"
FOR_ONE_SLICE = ("copy", "dis", "demons", OURS)
FOR_SEVERAL_SLICES = ("contour", OURS)


@dataclass(frozen=True)
class DataSet:
    """A data set's organs; the headline mean is taken over ``headline``, the others are reported beside it."""

    headline: dict[int, str]
    others: dict[int, str]


SETS = {
    "chaos_mr_t2": DataSet({1: "liver", 2: "right kidney", 3: "left kidney", 4: "spleen"}, {}),
    "btcv_ct": DataSet(
        {1: "spleen", 2: "right kidney", 3: "left kidney", 6: "liver", 7: "stomach", 8: "aorta"},
        {
            4: "gallbladder",
            5: "esophagus",
            9: "inferior vena cava",
            10: "portal and splenic vein",
            11: "pancreas",
            12: "right adrenal",
            13: "left adrenal",
        },
    ),
    "la_lge": DataSet({1: "left atrium"}, {}),
    "msd_hippocampus": DataSet({1: "anterior hippocampus", 2: "posterior hippocampus"}, {}),
    "ircadb_ct": DataSet({1: "liver"}, {2: "tumours", 3: "portal vein", 4: "venous system", 5: "artery", 6: "bone"}),
}


@dataclass(frozen=True)
class Run:
    """One method with one number of painted slices, on one case."""

    data: str
    case: str
    method: str
    slices: int


class Results:
    """The runs done so far, kept in a JSON file."""

    def __init__(self, path: Path, *, fresh: bool) -> None:
        self.path = path
        self.entries: dict[Run, dict[str, Any]] = {}
        if path.exists() and not fresh:
            for entry in json.loads(path.read_text(encoding="utf-8"))["runs"]:
                self.entries[Run(*(entry[key] for key in ("data", "case", "method", "slices")))] = entry

    def missing(self, run: Run, labels: Sequence[int], weights: str | None) -> list[int]:
        """Return which labels are not scored yet, with these weights."""
        entry = self.entries.get(run)
        done = entry["labels"] if entry is not None and entry["weights"] == weights else []
        return [label for label in labels if label not in done]

    def add(self, run: Run, labels: Sequence[int], weights: str | None, result: CaseResult) -> None:
        """Add the scores of some labels, and write the file."""
        entry = self.entries.get(run)
        if entry is None or entry["weights"] != weights:
            entry = {**asdict(run), "weights": weights, "labels": [], "seconds": 0.0, "painted": {}, "scores": []}
        entry["labels"] = sorted({*entry["labels"], *labels})
        entry["seconds"] = round(entry["seconds"] + result.seconds, 2)
        entry["painted"] |= {str(label): list(slices) for label, slices in result.painted.items()}
        entry["scores"] += [
            {key: None if math.isnan(value) else round(value, 5) for key, value in asdict(score).items()}
            for score in result.scores
        ]
        self.entries[run] = entry
        self._write()

    def of(self, data: str, method: str, slices: int, labels: Sequence[int]) -> list[CaseResult]:
        """Return the scores of a method on a data set's cases, of the given labels."""
        results = []
        for run, entry in self.entries.items():
            if (run.data, run.method, run.slices) == (data, method, slices):
                scores = [score_of(values) for values in entry["scores"] if values["label"] in labels]
                if scores:
                    results.append(CaseResult(run.case, tuple(scores), {}, entry["seconds"]))
        return results

    def _write(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        part = self.path.with_name(self.path.name + ".part")
        part.write_text(json.dumps({"runs": list(self.entries.values())}, indent=1) + "\n", encoding="utf-8")
        part.replace(self.path)


def score_of(values: dict[str, Any]) -> OrganScore:
    """Return a score as it was before JSON, which has no NaN."""
    plain: dict[str, Any] = {key: math.nan if value is None else value for key, value in values.items()}
    return OrganScore(**plain)


def main() -> None:
    """Measure what is asked for, and print the table."""
    options = parse_options()
    try:
        folder = data_folder()
        results = Results(options.json, fresh=options.fresh)
        methods, weights = load_methods(options)
        for name in options.sets:
            if not (folder / name).is_dir():
                print(f"{folder} has no data set {name}: left out.", file=sys.stderr)
                continue
            measure(name, folder, results, methods, weights, options)
    except OneSegError as error:
        sys.exit(str(error))
    print(table(results, options))


def parse_options() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])

    def listed(convert: Callable[[str], Any]) -> Callable[[str], list[Any]]:
        return lambda text: [convert(item) for item in text.split(",")]

    default = ROOT / "benchmarks" / "results" / "accuracy.json"
    parser.add_argument("json", nargs="?", type=Path, default=default, help="where results are kept")
    parser.add_argument("--sets", type=listed(str), default=list(SETS), help=f"of {','.join(SETS)}")
    parser.add_argument(
        "--methods",
        type=listed(str),
        help=f"of {','.join([*BASELINES, OURS])}; by default {','.join(FOR_ONE_SLICE)} for one painted slice and "
        f"{','.join(FOR_SEVERAL_SLICES)} for several",
    )
    parser.add_argument("--slices", type=listed(int), default=[1, 2, 3, 5], help="numbers of painted slices")
    parser.add_argument("--labels", default="all", help="all, headline (the organs of the mean), or numbers: 1,6")
    parser.add_argument("--weights", type=Path, help="weights file of the network; by default the shipped one")
    parser.add_argument("--fresh", action="store_true", help="forget the results in the JSON file")
    options = parser.parse_args()
    for given, known in ((options.sets, SETS), (options.methods or [], [*BASELINES, OURS])):
        unknown = sorted(set(given) - set(known))
        if unknown:
            parser.error(f"{', '.join(unknown)} is unknown; there are {', '.join(known)}")
    return options


def data_folder() -> Path:
    """Return the folder of real scans."""
    folder = Path(os.environ.get("ONESEG_DATA") or ROOT.parent / "shared" / "data")
    if not folder.is_dir():
        raise InputError(f"This benchmark needs real scans, and there is no folder {folder}. Set ONESEG_DATA to one.")
    return folder


def load_methods(options: argparse.Namespace) -> tuple[dict[str, Method], str | None]:
    """Return the methods by name, and the SHA-256 of our weights: results of other weights do not count."""
    methods = dict(BASELINES)
    if OURS not in (options.methods or FOR_ONE_SLICE):
        return methods, None
    from napari_oneseg.session import OneSegSession  # loads torch and the network

    session = OneSegSession(options.weights)
    methods[OURS] = oneseg_method(session)
    return methods, session.weights.sha256


def plan(options: argparse.Namespace) -> Iterator[tuple[str, int]]:
    """Yield each method and number of painted slices; contours cannot be interpolated from one slice."""
    for slices in options.slices:
        for method in options.methods or (FOR_ONE_SLICE if slices == 1 else FOR_SEVERAL_SLICES):
            if slices > 1 or method != "contour":
                yield method, slices


def chosen_labels(data: DataSet, choice: str) -> list[int]:
    """Return the labels of a data set that are asked for."""
    known = [*data.headline, *data.others]
    if choice == "all":
        return known
    if choice == "headline":
        return list(data.headline)
    return [label for label in map(int, choice.split(",")) if label in known]


def measure(
    name: str,
    folder: Path,
    results: Results,
    methods: dict[str, Method],
    weights: str | None,
    options: argparse.Namespace,
) -> None:
    """Run everything that is not done yet on one data set."""
    labels = chosen_labels(SETS[name], options.labels)
    for files in find_cases(folder / name / "dev" / "images", folder / name / "dev" / "labels"):
        case: Case | None = None
        for method, slices in plan(options):
            run, used = Run(name, files.name, method, slices), weights if method == OURS else None
            missing = results.missing(run, labels, used)
            if not missing:
                continue
            case = case or files.load()
            result = evaluate_case(methods[method], case, missing, "largest" if slices == 1 else "evenly", slices)
            results.add(run, missing, used, result)
            shown = " ".join(f"{score.label}:{score.dice:.3f}" for score in result.scores)
            print(f"{files.name} {method} {slices} ({result.seconds:.1f} s) {shown}", file=sys.stderr, flush=True)


def table(results: Results, options: argparse.Namespace) -> str:
    """Return a markdown table, one row per data set, number of slices and method: means over the organs."""
    rows = []
    for name in options.sets:
        for part, names in (("", SETS[name].headline), (", other organs", SETS[name].others)):
            for method, slices in plan(options):
                scored = results.of(name, method, slices, list(names))
                if scored:
                    title = f"{name}{part}, {slices} painted, {method}"
                    rows.append(replace(summarise(scored, names)[-1], name=title))
    return markdown_table(rows, heading="data set, slices, method")


if __name__ == "__main__":
    main()
