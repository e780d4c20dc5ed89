"""Accuracy on real scans: the network beside the classical methods, on every data set that is at hand.

What is painted is chosen by --protocol; see ``napari_oneseg.evaluation.protocols`` and ``.effort`` for what exactly is
painted and scored. With several slices (--slices, of the ``largest`` protocol) these are evenly spaced over the organ,
and contour interpolation takes the place of the registrations. The tables of the report:

    python benchmarks/accuracy.py                                    # one label at a time, on 1, 2, 3, 5 slices
    python benchmarks/accuracy.py --slices 1 --together              # all labels of a scan at once
    python benchmarks/accuracy.py --protocol ranged                  # first and last slice given
    python benchmarks/accuracy.py --protocol suggested               # painted where the session suggests
    python benchmarks/accuracy.py --protocol volume                  # one suggested slice for the whole scan
    python benchmarks/accuracy.py --protocol best-plane              # largest slice of the suggested plane
    python benchmarks/accuracy.py --protocol two-planes              # largest slices of the two best planes
    python benchmarks/accuracy.py --protocol effort                  # slices needed to reach 0.90 and 0.95

The folder of scans is ONESEG_DATA, or ``shared/data`` beside the repository; each data set in it has the folders
``dev/images`` and ``dev/labels``, some also ``train``. Every finished run is kept in the JSON file, so that an
interrupted program goes on where it stopped; runs with other weights are kept beside it and do not count.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from data_sets import ROOT, SETS, DataSet, cases_of
from runs import Results, Run, protocol_of

from napari_oneseg.errors import OneSegError
from napari_oneseg.evaluation.baselines import BASELINES, Method
from napari_oneseg.evaluation.cases import Case, CaseFiles
from napari_oneseg.evaluation.effort import MOST_SLICES, STRATEGIES, Annotator, effort_curve, spacing_evenly, suggesting
from napari_oneseg.evaluation.effort_report import effort_comparison, effort_table, results_after
from napari_oneseg.evaluation.protocols import (
    PLANE_PROTOCOLS,
    CaseResult,
    Painting,
    Suggest,
    SuggestPlanes,
    evaluate_case,
    oneseg_method,
    oneseg_planes,
    oneseg_suggest,
)
from napari_oneseg.evaluation.report import METRICS, OrganSummary, cell, difference, markdown, markdown_table, summarise
from napari_oneseg.evaluation.worst import draw_worst

OURS = "oneseg"
EVENLY = f"{OURS}-evenly"
"""The ``effort`` protocol's annotator who spaces the slices evenly and has the network fill in the rest."""
OTHER_STRATEGIES = {f"{OURS}-{name}": strategy for name, strategy in STRATEGIES.items() if name != "suggested"}
SCORED_AFTER = 3
"""Number of painted slices after which the ``effort`` protocol's table gives all metrics of each organ."""

FOR_ONE_SLICE = ("copy", "dis", "demons", OURS)
FOR_SEVERAL_SLICES = ("contour", OURS)
DEFAULT_METHODS = {
    "largest": FOR_ONE_SLICE,
    "ranged": FOR_ONE_SLICE,
    "suggested": (OURS,),
    "volume": (OURS,),
    **dict.fromkeys(PLANE_PROTOCOLS, (OURS,)),
    "effort": ("contour", EVENLY, OURS),
}


class Bench:
    """What is measured with: methods and annotators by name, and the weights that their results depend on."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.methods: dict[str, Method] = dict(BASELINES)
        self.annotators: dict[str, Annotator] = {name: spacing_evenly(method) for name, method in BASELINES.items()}
        self.suggest: Suggest | None = None
        self.planes: SuggestPlanes | None = None
        self.weights: str | None = None
        self.suggesting = options.protocol in ("suggested", "volume", *PLANE_PROTOCOLS)
        if self.suggesting or any(method not in BASELINES for method, *_ in plan(options)):
            self._load_network(options.weights)

    def _load_network(self, weights: Path | None) -> None:
        from napari_oneseg.session import OneSegSession  # loads torch and the network

        session = OneSegSession(weights)
        self.weights = session.weights.sha256
        self.suggest, self.planes = oneseg_suggest(session), oneseg_planes(session)
        self.methods[OURS] = oneseg_method(session)
        self.annotators[EVENLY] = spacing_evenly(self.methods[OURS])
        for name, strategy in {OURS: STRATEGIES["suggested"], **OTHER_STRATEGIES}.items():
            self.annotators[name] = suggesting(session, strategy)

    def weights_of(self, method: str) -> str | None:
        """Return the weights that a method's results depend on: its own, or those that suggest what it is given."""
        return self.weights if self.suggesting or method not in BASELINES else None


def main() -> None:
    """Measure what is asked for, and print the tables."""
    options = parse_options()
    try:
        results = Results(options.json, fresh=options.fresh)
        bench = Bench(options)
        for name in options.sets:
            cases = cases_of(name, options.split)
            if not cases:
                print(f"There are no scans {name}/{options.split}: left out.", file=sys.stderr)
                continue
            labels = chosen_labels(SETS[name], options.labels)
            at_once = tuple(labels) if options.together or options.protocol == "volume" else ()
            groups = [
                Run(name, options.split, protocol, slices, at_once, method, bench.weights_of(method))
                for method, protocol, slices in plan(options)
            ]
            measure(groups, cases, results, bench, labels)
            for text in tables(SETS[name], groups, results):
                print(text, end="\n\n", flush=True)
            if options.pictures is not None:
                shown = [group for group in groups if group.method in (options.methods or [OURS])]
                draw(shown, cases, results, bench, options.pictures, options.worst)
    except OneSegError as error:
        sys.exit(str(error))


def parse_options(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )

    def listed(convert: Callable[[str], Any]) -> Callable[[str], list[Any]]:
        return lambda text: [convert(item) for item in text.split(",")]

    default = ROOT / "benchmarks" / "results" / "accuracy.json"
    methods, annotators = [*BASELINES, OURS], [EVENLY, *OTHER_STRATEGIES]
    parser.add_argument("json", nargs="?", type=Path, default=default, help="where results are kept")
    parser.add_argument("--protocol", choices=list(DEFAULT_METHODS), default="largest", help="what is painted")
    parser.add_argument("--together", action="store_true", help="propagate all labels of a scan at once")
    parser.add_argument("--sets", type=listed(str), default=list(SETS), help=f"of {','.join(SETS)}")
    parser.add_argument("--split", choices=["dev", "train"], default="dev", help="of the data sets")
    parser.add_argument(
        "--methods", type=listed(str), help=f"of {','.join(methods)}; for effort also {','.join(annotators)}"
    )
    parser.add_argument("--slices", type=listed(int), help="numbers of painted slices; 1,2,3,5 for largest")
    parser.add_argument(
        "--labels", help="all, headline (the organs of the mean; the default for effort), or numbers: 1,6"
    )
    parser.add_argument("--weights", type=Path, help="weights file of the network; by default the shipped one")
    parser.add_argument("--pictures", type=Path, metavar="DIR", help="draw the worst results into this folder")
    parser.add_argument("--worst", type=int, default=5, metavar="N", help="how many of them, per table and method")
    parser.add_argument("--fresh", action="store_true", help="forget the results in the JSON file")
    options = parser.parse_args(arguments)
    effort = options.protocol == "effort"
    if effort and (options.together or options.pictures or options.slices):
        parser.error("effort paints one label at a time, slice by slice: leave --slices, --together, --pictures out")
    if options.protocol in PLANE_PROTOCOLS and options.together:
        parser.error(f"{options.protocol} paints one label at a time: leave --together out")
    if options.protocol != "largest" and options.slices:
        parser.error("only largest paints several slices: leave --slices out")
    if effort:
        options.slices = [MOST_SLICES]
    elif not options.slices:
        options.slices = [1, 2, 3, 5] if options.protocol == "largest" else [1]
    options.labels = options.labels or ("headline" if effort else "all")
    for given, known in ((options.sets, SETS), (options.methods or [], methods + annotators if effort else methods)):
        unknown = sorted(set(given) - set(known))
        if unknown:
            parser.error(f"{', '.join(unknown)} is unknown here; there are {', '.join(known)}")
    return options


def plan(options: argparse.Namespace) -> Iterator[tuple[str, str, int]]:
    """Yield each method with its protocol and number of painted slices; one slice has no contours to interpolate."""
    for slices in options.slices:
        protocol = protocol_of(slices) if options.protocol == "largest" else options.protocol
        several = protocol == "evenly"
        for method in options.methods or (FOR_SEVERAL_SLICES if several else DEFAULT_METHODS[options.protocol]):
            if method != "contour" or slices > 1:
                yield method, protocol, slices


def chosen_labels(data: DataSet, choice: str) -> list[int]:
    """Return the labels of a data set that are asked for."""
    known = [*data.headline, *data.others]
    if choice == "all":
        return known
    if choice == "headline":
        return list(data.headline)
    return [label for label in map(int, choice.split(",")) if label in known]


def measure(
    groups: Sequence[Run], cases: Sequence[CaseFiles], results: Results, bench: Bench, labels: Sequence[int]
) -> None:
    """Run everything that is not done yet on one data set."""
    for files in cases:
        case: Case | None = None
        for group in groups:
            run = replace(group, case=files.name)
            missing = results.missing(run, labels)
            if not missing:
                continue
            case = case or files.load()
            if run.protocol == "effort":
                measure_effort(run, case, results, bench.annotators[run.method], missing)
                continue
            painting = Painting(run.protocol, run.slices, bool(run.together))
            result = evaluate_case(bench.methods[run.method], case, painting, missing, bench.suggest, bench.planes)
            results.add(run, missing, result)
            shown = " ".join(f"{score.label}:{score.dice:.3f}" for score in result.scores)
            say(f"{files.name} {run.method} {run.protocol} {run.slices} ({result.seconds:.1f} s) {shown}")


def measure_effort(run: Run, case: Case, results: Results, annotator: Annotator, labels: Sequence[int]) -> None:
    """Let an annotator paint one label of a case after the other."""
    held = set(np.unique(case.reference).tolist())
    for label in labels:
        curve = effort_curve(annotator, case, label, run.slices) if label in held else None
        results.add_curve(run, label, curve)
        if curve is not None:
            shown = " ".join(f"{score.dice:.3f}" for score in curve.scores)
            say(f"{run.case} {run.method} effort, label {label} ({curve.seconds:.1f} s) {shown}")


def say(text: str) -> None:
    """Report progress beside the tables."""
    print(text, file=sys.stderr, flush=True)


def tables(data: DataSet, groups: Sequence[Run], results: Results) -> Iterator[str]:
    """Yield the tables of one data set as markdown, for each number of painted slices."""
    for slices in dict.fromkeys(group.slices for group in groups):
        own = [group for group in groups if group.slices == slices]
        title = f"### {own[0].data} ({own[0].split}), {own[0].protocol}"
        if own[0].protocol == "effort":
            curves = {group.method: results.curves_of(group, list(data.headline)) for group in own}
            curves = {method: found for method, found in curves.items() if found}
            yield title
            yield markdown(*effort_table(curves, slices))
            if OURS in curves and len(curves) > 1:
                yield markdown(*effort_comparison(curves, OURS, slices))
            yield f"After {SCORED_AFTER} painted slices:"
            yield score_tables({method: results_after(found, SCORED_AFTER) for method, found in curves.items()}, data)
            continue
        count = PLANE_PROTOCOLS.get(own[0].protocol, slices)
        yield f"{title}, {count} painted, labels {'together' if own[0].together else 'one by one'}"
        yield score_tables({group.method: results.of(group, list(data.headline)) for group in own}, data)
        others = {group.method: results.of(group, list(data.others)) for group in own}
        if any(others.values()):
            yield "Other organs:"
            yield score_tables(others, data)


def score_tables(methods: Mapping[str, Sequence[CaseResult]], data: DataSet) -> str:
    """Return all metrics by method and organ, what we gain over each other method, and the cost of the organs' ends."""
    names = data.headline | data.others
    rows: list[OrganSummary] = []
    for method, scored in methods.items():
        own = summarise(scored, names) if scored else ()
        rows += [replace(row, name=f"{method}, {'mean' if row.label is None else row.name}") for row in own]
    text = [markdown_table(rows, heading="method, organ")]
    ours = methods.get(OURS)
    others = {method: scored for method, scored in methods.items() if method != OURS and scored}
    if ours:
        gap = difference(ours, ours, "extent_dice", "dice")
        text.append(f"{OURS}: Dice within the organs' extent above that over the whole scan by {cell(gap, 3)}.")
    if ours and others:
        lines = []
        for method, scored in others.items():
            gains = {metric: difference(ours, scored, metric) for metric in METRICS}
            cells = (cell(gains[metric], decimals) for metric, (_, decimals) in METRICS.items())
            lines.append([method, str(gains["dice"].n), *cells])
        headings = [f"mean of {OURS} less that of", "n", *(heading for heading, _ in METRICS.values())]
        text.append(markdown(headings, lines))
    return "\n\n".join(text)


def draw(
    groups: Sequence[Run], cases: Sequence[CaseFiles], results: Results, bench: Bench, folder: Path, count: int
) -> None:
    """Draw the worst results of each group of runs into a folder of its own."""
    for group in groups:
        data = SETS[group.data]
        names = data.headline | data.others
        own = folder / "_".join(map(str, (group.data, group.protocol, group.slices, group.method)))
        own.mkdir(parents=True, exist_ok=True)
        painting = Painting(group.protocol, group.slices, bool(group.together))
        method, scored = bench.methods[group.method], results.of(group, list(names))
        paths = draw_worst(own, scored, count, cases, method, painting, bench.suggest, names, planes=bench.planes)
        say(f"{len(paths)} pictures in {own}")


if __name__ == "__main__":
    main()
