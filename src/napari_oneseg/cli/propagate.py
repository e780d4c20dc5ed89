"""``oneseg propagate``: from a few painted slices to a labelled scan."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from napari_oneseg.cli.console import Stages, print_json, results_console
from napari_oneseg.cli.options import (
    Axis,
    Device,
    Frame,
    Image,
    Json,
    Overwrite,
    Range,
    SeriesName,
    Spacing,
    Threads,
    WeightsFile,
    config_options,
    parse_axis,
    parse_places,
    parse_range,
    parse_spacing,
)
from napari_oneseg.cli.outputs import check_outputs, write_json
from napari_oneseg.config import Direction, PropagationConfig
from napari_oneseg.errors import InputError
from napari_oneseg.files import replacing

if TYPE_CHECKING:
    from napari_oneseg.session import OneSegSession, Propagation
    from napari_oneseg.volume import Annotation, Volume

__all__ = ["command"]

DOUBTFUL = 3
"""How many of the least certain slices are named."""
NEXT = 3
"""How many slices are suggested to be painted next."""


@config_options("propagation", PropagationConfig)
def command(
    image: Image,
    annotation: Annotated[
        Path,
        typer.Argument(
            metavar="ANNOTATION",
            help="Label file on the scan's grid with painted slices; of which planes they are is found.",
        ),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FILE", help="Label file to write.")],
    propagation: PropagationConfig,
    slice_range: Range = None,
    direction: Annotated[
        Direction, typer.Option(help="Carry labels towards higher slice indices (up), lower ones (down), or both.")
    ] = "both",
    complete: Annotated[
        str | None,
        typer.Option(
            metavar="I,J,...",
            help="Slices on which every label was painted: 0 means background there; as for --painted.",
        ),
    ] = None,
    painted: Annotated[
        str | None,
        typer.Option(
            metavar="PLANE:I,...",
            help="Which slices were painted, such as coronal:127,axial:18; by default they are found.",
        ),
    ] = None,
    confidence: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Also write each voxel's confidence, 0 to 1.")
    ] = None,
    report: Annotated[
        Path | None, typer.Option(metavar="OUT.json", help="Also write a JSON record of the run.")
    ] = None,
    figure: Annotated[Path | None, typer.Option(metavar="OUT.png", help="Also draw a PNG of a dozen slices.")] = None,
    overwrite: Overwrite = False,
    axis: Axis = None,
    frame: Frame = None,
    series: SeriesName = None,
    spacing: Spacing = None,
    weights: WeightsFile = None,
    device: Device = "auto",
    threads: Threads = None,
    as_json: Json = False,
) -> None:
    """Carry painted labels through a scan."""
    chosen = parse_range(slice_range)
    size = parse_spacing(spacing)

    from napari_oneseg.image_formats import WRITABLE

    wanted = ((output, WRITABLE), (confidence, WRITABLE), (report, (".json",)), (figure, (".png",)))
    _check_files(wanted, [image, annotation], overwrite)

    from napari_oneseg.features.cache import user_cache
    from napari_oneseg.io import read_volume, write_image, write_labels
    from napari_oneseg.provenance import file_place, propagation_record
    from napari_oneseg.session import OneSegSession

    stages = Stages()
    session = OneSegSession(weights, device, threads, propagation=propagation, cache=user_cache())
    with stages.stage("read", "Reading"):
        volume = read_volume(image, parse_axis(axis), series, frame, size)
        planes = _read_painted(
            annotation,
            volume,
            chosen,
            parse_places(painted, "--painted", volume.axis),
            parse_places(complete, "--complete", volume.axis) or {},
        )
    with stages.stage("features", "Computing features") as progress:
        session.set_volume(volume, progress)
        session.keep_features()
    for plane, drawn in planes.items():
        session.set_annotation(drawn, plane)
    with stages.stage("propagate", "Carrying labels") as progress:
        result = session.propagate(chosen, direction, progress=progress)
    with stages.stage("write", "Writing"):
        write_labels(output, volume.from_slices(result.labels), volume)
        if confidence:
            write_image(confidence, volume.from_slices(result.confidence), volume)
        if figure:
            _draw(figure, session, result)
    record = propagation_record(session, result, chosen, direction, stages.seconds)
    if frame is not None:
        record["scan"]["frame"] = frame
    record["next"] = [
        asdict(entry) | file_place(volume, entry.index) for entry in session.suggest_next(chosen, top=NEXT)
    ]
    if report:
        write_json(report, record)
    if as_json:
        print_json(record)
    else:
        _print_summary(record)


def _check_files(wanted: tuple[tuple[Path | None, tuple[str, ...]], ...], inputs: list[Path], overwrite: bool) -> None:
    files = [(path, endings) for path, endings in wanted if path is not None]
    if len({path.resolve() for path, _ in files}) < len(files):
        raise InputError("Two outputs have the same name; give each a name of its own.")
    check_outputs(dict(files), inputs, overwrite)


def _read_painted(
    annotation: Path,
    volume: Volume,
    slice_range: tuple[int, int] | None,
    painted: Mapping[int, Sequence[int]] | None,
    complete: Mapping[int, Sequence[int]],
) -> dict[int, Annotation]:
    """Read what was painted on a scan, by plane, and refuse what could not be propagated in the end."""
    import numpy as np

    from napari_oneseg.io import read_labels
    from napari_oneseg.painted_planes import annotations_on, find_painted
    from napari_oneseg.screening import checked_range

    labels = read_labels(annotation, volume)
    first, last = checked_range(slice_range, volume.n_slices)
    held = np.flatnonzero(volume.to_slices(labels).any(axis=(1, 2))).tolist()
    if not held:
        raise InputError("The annotation is empty: paint at least one slice.")
    if not any(first <= index <= last for index in held):
        raise InputError(f"Nothing is painted between slices {first} and {last}; painted are {held}.")
    return annotations_on(labels, find_painted(labels, volume.axis) if painted is None else painted, complete)


def _draw(figure: Path, session: OneSegSession, result: Propagation) -> None:
    from napari_oneseg.figures import contact_sheet

    with replacing(figure) as part:
        contact_sheet(part, session.volume, result.labels, result.slice_confidence, sorted(session.annotation.slices))


def _print_summary(record: dict[str, Any]) -> None:
    from rich.table import Table

    table = Table(title="Labels")
    for heading in ("label", "volume mL", "slices"):
        table.add_column(heading, justify="right")
    for label, entry in record["labels"].items():
        table.add_row(str(label), f"{entry['volume_ml']:.2f}", "{} to {}".format(*entry["slices"]))
    console = results_console()
    console.print(table)
    reached = [index for entry in record["labels"].values() for index in entry["slices"]]
    # Where nothing was labelled there is nothing to look at, however doubtful the end of a label may have been.
    scores = {
        index: score
        for index, score in enumerate(record["confidence"])
        if min(reached) <= index <= max(reached) and index not in record["painted"] and not math.isnan(score)
    }
    seconds = sum(record["seconds"].values())
    painted = ", ".join(
        str(entry["index"]) if entry["plane"] == record["scan"]["plane"] else f"{entry['plane']} {entry['index']}"
        for entry in record["painted_slices"]
    )
    console.print(f"Painted slices: {painted}. Labelled slices: {min(reached)} to {max(reached)}.")
    if scores:
        doubtful = sorted(scores, key=scores.__getitem__)[:DOUBTFUL]
        console.print(
            f"Mean confidence: {sum(scores.values()) / len(scores):.2f}. Look first at slices "
            f"{', '.join(f'{index} ({scores[index]:.2f})' for index in doubtful)}."
        )
    if not record["scan"]["spacing_known"]:
        sides = " x ".join(f"{side:g}" for side in record["scan"]["spacing_mm"])
        console.print(f"The file does not say how large its voxels are: mL are those of {sides} mm; give --spacing.")
    if record["next"]:
        console.print(_next_line(record["next"]))
    console.print(f"{seconds:.1f} s on {record['device']}, weights {record['weights']['name']}.")


def _next_line(suggestions: list[dict[str, Any]]) -> str:
    """Say where one more painted slice would help, and whether it is worth it."""
    best, others = suggestions[0], [entry for entry in suggestions[1:] if entry["worth_it"]]
    if not best["worth_it"]:
        return f"Little is left to gain: painting slice {best['index']} as well would raise Dice by {best['gain']:.3f}."
    line = (
        f"Paint slice {best['index']} next: it should raise Dice by {best['gain']:.3f} and put "
        f"{best['corrected_ml']:.1f} mL right, most of label {best['label']}."
    )
    return line + (f" After that {', '.join(str(entry['index']) for entry in others)}." if others else "")
