"""``oneseg evaluate``: how well the labels agree with a reference."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from napari_oneseg.cli.console import note, print_json, progress_bar, results_console
from napari_oneseg.cli.options import (
    Axis,
    Device,
    Frame,
    Overwrite,
    Spacing,
    Threads,
    WeightsFile,
    config_options,
    parse_axis,
    parse_numbers,
    parse_spacing,
)
from napari_oneseg.cli.outputs import check_outputs, make_folder, write_json
from napari_oneseg.config import PropagationConfig
from napari_oneseg.errors import InputError

if TYPE_CHECKING:
    from rich.table import Table

    from napari_oneseg.evaluation.cases import Case, CaseFiles
    from napari_oneseg.evaluation.effort import EffortCurve
    from napari_oneseg.evaluation.protocols import CaseResult, Painting, PaintingProtocol
    from napari_oneseg.session import OneSegSession

__all__ = ["command"]

_NOTHING_TO_SCORE = "None of the reference files holds any of the labels to score; check --labels and the files."


@config_options("propagation", PropagationConfig)
def command(
    images: Annotated[Path, typer.Argument(metavar="IMAGES", help="Folder of scans.")],
    labels: Annotated[
        Path, typer.Argument(metavar="LABELS", help="Folder of their reference labels, named like the scans.")
    ],
    propagation: PropagationConfig,
    protocol: Annotated[
        Literal["largest", "ranged", "suggested", "volume", "best-plane", "two-planes", "effort"],
        typer.Option(
            help="What is painted from the reference: each label on the slice of its largest area; the same, with its "
            "first and last slice given; each label on the slice suggested within its extent; or all labels of the one "
            "slice suggested for the whole scan. best-plane, two-planes: each label on its largest slice of the plane "
            "suggested from a click in its middle, or of the first two. effort: each label on one suggested slice "
            "after the other, to see how many it takes."
        ),
    ] = "largest",
    slices: Annotated[
        str,
        typer.Option(metavar="K,...", help="Slices to paint per label; several are spread evenly over its extent."),
    ] = "1",
    together: Annotated[
        bool,
        typer.Option("--together", help="Propagate all labels of a scan at once instead of one after the other."),
    ] = False,
    only: Annotated[
        str | None, typer.Option("--labels", metavar="L,...", help="Labels to score, all by default.")
    ] = None,
    names: Annotated[
        Path | None, typer.Option(metavar="FILE.json", help='Organ names as JSON: {"1": "liver"}.')
    ] = None,
    json_file: Annotated[
        Path | None,
        typer.Option("--json", metavar="OUT.json", help="Also write all scores as JSON; - prints them, and no table."),
    ] = None,
    pictures: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Draw the worst results into this folder: reference and result, outlined."),
    ] = None,
    worst: Annotated[int, typer.Option(min=1, metavar="N", help="How many of them --pictures draws.")] = 5,
    overwrite: Overwrite = False,
    axis: Axis = None,
    frame: Frame = None,
    spacing: Spacing = None,
    weights: WeightsFile = None,
    device: Device = "auto",
    threads: Threads = None,
) -> None:
    """Paint slices from reference labels, carry them through each scan, and score the result.

    Per organ: Dice over the whole scan and over the organ's own slices, volume difference (RAVD), and surface distance
    (ASSD); mean, standard deviation over the scans, and 95 % interval of the mean.
    """
    counts = parse_numbers(slices, "--slices", least=1) or (1,)
    chosen = parse_numbers(only, "--labels", least=1)
    _check_protocol(protocol, counts, slices, together, pictures)
    to_terminal = json_file == Path("-")
    if json_file and not to_terminal:
        check_outputs({json_file: (".json",)}, [], overwrite)
    if pictures:
        make_folder(pictures)
        if any(pictures.iterdir()) and not overwrite:
            raise InputError(f"{pictures} is not empty; give --overwrite to draw into it, or another folder.")

    from napari_oneseg.evaluation.cases import find_cases, read_names
    from napari_oneseg.provenance import software_versions
    from napari_oneseg.session import OneSegSession

    organs = read_names(names) if names else {}
    cases = find_cases(images, labels, frame, parse_spacing(spacing))
    session = OneSegSession(weights, device, threads, propagation=propagation)
    record: dict[str, Any] = {
        "protocol": protocol,
        "together": together,
        "propagation": session.propagation.to_dict(),
        "weights": {"name": session.weights.name, "sha256": session.weights.sha256},
        "versions": software_versions(),
    }
    scans: dict[str, Any] = {}
    if protocol == "effort":
        measured, tables = _measure_effort(session, cases, chosen, parse_axis(axis), scans)
    else:
        paintings = [_painting(protocol, count, together) for count in counts]
        results = _score(session, cases, paintings, chosen, parse_axis(axis), scans)
        measured, tables = _report(results, organs)
    record |= measured | {"scans": scans}
    if json_file and not to_terminal:
        write_json(json_file, record)
    if pictures:
        _draw(pictures, results[paintings[0]], worst, session, cases, paintings[0], organs, parse_axis(axis))
    if to_terminal:
        print_json(record)
        return
    for table in tables:
        results_console().print(table)


def _check_protocol(protocol: str, counts: tuple[int, ...], slices: str, together: bool, pictures: Path | None) -> None:
    if protocol == "effort" and (counts != (1,) or together or pictures):
        raise InputError("The effort protocol paints one label at a time; leave --slices, --together, --pictures out.")
    if protocol != "largest" and counts != (1,):
        raise InputError(f"The {protocol} protocol says itself what is painted, got --slices {slices}; leave it out.")


def _painting(protocol: PaintingProtocol, count: int, together: bool) -> Painting:
    from napari_oneseg.evaluation.protocols import Painting

    return Painting(protocol if count == 1 else "evenly", count, together)


def _report(results: dict[Painting, list[CaseResult]], organs: dict[int, str]) -> tuple[dict[str, Any], list[Table]]:
    """Return the record and the tables of all numbers of painted slices."""
    from napari_oneseg.evaluation.protocols import PLANE_PROTOCOLS
    from napari_oneseg.evaluation.report import rich_table, summarise, to_dict

    record = {painting.slices: to_dict(scored, organs) for painting, scored in results.items()}
    tables = []
    for painting, scored in results.items():
        way = "evenly spaced" if painting.protocol == "evenly" else str(painting.protocol)
        way += ", labels together" if painting.together else ""
        count = PLANE_PROTOCOLS.get(painting.protocol, painting.slices)
        heading = f"{way}, {count} painted slice{'s' if count > 1 else ''}, {len(scored)} scans"
        tables.append(rich_table(summarise(scored, organs), heading))
    return {"results": record}, tables


def _loaded(files: CaseFiles, axis: int | None, scans: dict[str, Any]) -> Case:
    """Read a case, and note how its slices are counted."""
    from napari_oneseg.provenance import scan_record

    case = files.load(axis)
    scans[case.name] = scan_record(case.volume)
    return case


def _score(
    session: OneSegSession,
    cases: list[CaseFiles],
    paintings: list[Painting],
    labels: tuple[int, ...] | None,
    axis: int | None,
    scans: dict[str, Any],
) -> dict[Painting, list[CaseResult]]:
    """Score every case for every way of painting; a case is read, and its features computed, once."""
    from napari_oneseg.evaluation.protocols import evaluate_case, oneseg_method, oneseg_planes, oneseg_suggest

    method, suggest, planes = oneseg_method(session), oneseg_suggest(session), oneseg_planes(session)
    results: dict[Painting, list[CaseResult]] = {painting: [] for painting in paintings}
    with progress_bar("Scans") as progress:
        progress(0, len(cases))
        for done, files in enumerate(cases, start=1):
            case = _loaded(files, axis, scans)
            for painting in paintings:
                results[painting].append(evaluate_case(method, case, painting, labels, suggest, planes))
            progress(done, len(cases))
    if not any(result.scores for result in results[paintings[0]]):
        raise InputError(_NOTHING_TO_SCORE)
    return results


def _draw(
    folder: Path,
    results: list[CaseResult],
    count: int,
    session: OneSegSession,
    cases: list[CaseFiles],
    painting: Painting,
    organs: dict[int, str],
    axis: int | None,
) -> None:
    from napari_oneseg.evaluation.protocols import oneseg_method, oneseg_planes, oneseg_suggest
    from napari_oneseg.evaluation.worst import draw_worst

    method, suggest, planes = oneseg_method(session), oneseg_suggest(session), oneseg_planes(session)
    with progress_bar("Pictures") as progress:
        paths = draw_worst(folder, results, count, cases, method, painting, suggest, organs, axis, progress, planes)
    note(f"Drew the {len(paths)} worst results in {folder}.")


def _measure_effort(
    session: OneSegSession,
    cases: list[CaseFiles],
    labels: tuple[int, ...] | None,
    axis: int | None,
    scans: dict[str, Any],
) -> tuple[dict[str, Any], list[Table]]:
    """Let simulated annotators paint every label of every case, and return the record and the table."""
    import numpy as np
    from rich.table import Table

    from napari_oneseg.evaluation.effort import effort_curve, spacing_evenly, suggested_next, suggesting
    from napari_oneseg.evaluation.effort_report import effort_table
    from napari_oneseg.evaluation.protocols import oneseg_method

    annotators = {
        "suggested": suggesting(session, suggested_next),
        "evenly spaced": spacing_evenly(oneseg_method(session)),
    }
    curves: dict[str, list[EffortCurve]] = {name: [] for name in annotators}
    with progress_bar("Scans") as progress:
        progress(0, len(cases))
        for done, files in enumerate(cases, start=1):
            case = _loaded(files, axis, scans)
            held = [int(label) for label in np.unique(case.reference) if label]
            for label in held if labels is None else [label for label in labels if label in held]:
                for name, annotator in annotators.items():
                    curves[name].append(effort_curve(annotator, case, label))
            progress(done, len(cases))
    if not curves["suggested"]:
        raise InputError(_NOTHING_TO_SCORE)
    headings, rows = effort_table(curves)
    table = Table(title=f"painted slices, {len(cases)} scans, one label at a time")
    for place, heading in enumerate(headings):
        table.add_column(heading, justify="right" if place else "left")
    for row in rows:
        table.add_row(*row)
    return {"curves": {name: [asdict(curve) for curve in own] for name, own in curves.items()}}, [table]
