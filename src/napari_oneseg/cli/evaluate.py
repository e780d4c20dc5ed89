"""``oneseg evaluate``: how well the labels agree with a reference."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from napari_oneseg.cli.console import print_json, progress_bar, results_console
from napari_oneseg.cli.options import (
    Axis,
    Device,
    Overwrite,
    Threads,
    WeightsFile,
    config_options,
    parse_numbers,
)
from napari_oneseg.cli.outputs import check_outputs, write_json
from napari_oneseg.config import PropagationConfig
from napari_oneseg.errors import InputError

if TYPE_CHECKING:
    from napari_oneseg.evaluation.cases import CaseFiles
    from napari_oneseg.evaluation.protocols import CaseResult, PaintingProtocol
    from napari_oneseg.session import OneSegSession

__all__ = ["command"]


@config_options("propagation", PropagationConfig)
def command(
    images: Annotated[Path, typer.Argument(metavar="IMAGES", help="Folder of scans.")],
    labels: Annotated[
        Path, typer.Argument(metavar="LABELS", help="Folder of their reference labels, named like the scans.")
    ],
    propagation: PropagationConfig,
    protocol: Annotated[
        Literal["largest", "suggested", "volume"],
        typer.Option(
            help="What is painted from the reference: each label on the slice of its largest area, each label on the "
            "slice suggested within its extent, or all labels of the one slice suggested for the whole scan."
        ),
    ] = "largest",
    slices: Annotated[
        str,
        typer.Option(metavar="K,...", help="Slices to paint per label; several are spread evenly over its extent."),
    ] = "1",
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
    overwrite: Overwrite = False,
    axis: Axis = None,
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
    if protocol != "largest" and counts != (1,):
        raise InputError(f"The {protocol} protocol paints one slice, got --slices {slices}; leave --slices out.")
    to_terminal = json_file == Path("-")
    if json_file and not to_terminal:
        check_outputs({json_file: (".json",)}, [], overwrite)

    from napari_oneseg.evaluation.cases import find_cases, read_names
    from napari_oneseg.evaluation.report import rich_table, summarise, to_dict
    from napari_oneseg.provenance import software_versions
    from napari_oneseg.session import OneSegSession

    organs = read_names(names) if names else {}
    cases = find_cases(images, labels)
    session = OneSegSession(weights, device, threads, propagation=propagation)
    results = _score(session, cases, protocol, counts, chosen, axis)
    record: dict[str, Any] = {
        "protocol": protocol,
        "results": {count: to_dict(scored, organs) for count, scored in results.items()},
        "propagation": session.propagation.to_dict(),
        "weights": {"name": session.weights.name, "sha256": session.weights.sha256},
        "versions": software_versions(),
    }
    if to_terminal:
        print_json(record)
        return
    if json_file:
        write_json(json_file, record)
    for count, scored in results.items():
        way = protocol if count == 1 else "evenly spaced"
        heading = f"{way}, {count} painted slice{'s' if count > 1 else ''}, {len(scored)} scans"
        results_console().print(rich_table(summarise(scored, organs), heading))


def _score(
    session: OneSegSession,
    cases: list[CaseFiles],
    protocol: PaintingProtocol,
    counts: tuple[int, ...],
    labels: tuple[int, ...] | None,
    axis: int | None,
) -> dict[int, list[CaseResult]]:
    """Score every case for every number of painted slices; a case is read, and its features computed, once."""
    from napari_oneseg.evaluation.protocols import evaluate_case, oneseg_method, oneseg_suggest

    method, suggest = oneseg_method(session), oneseg_suggest(session)
    results: dict[int, list[CaseResult]] = {count: [] for count in counts}
    with progress_bar("Scans") as progress:
        progress(0, len(cases))
        for done, files in enumerate(cases, start=1):
            case = files.load(axis)
            for count in counts:
                way: PaintingProtocol = protocol if count == 1 else "evenly"
                results[count].append(evaluate_case(method, case, labels, way, count, suggest))
            progress(done, len(cases))
    if not any(result.scores for result in results[counts[0]]):
        raise InputError("None of the reference files holds any of the labels to score; check --labels and the files.")
    return results
