"""``oneseg demo``: the whole way on a generated scan, whose true labels are known."""

from __future__ import annotations

import os
import sys
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from napari_oneseg.cli.console import Stages, note, print_json, results_console
from napari_oneseg.cli.options import Device, Json, Threads, WeightsFile
from napari_oneseg.cli.outputs import check_outputs, make_folder, write_json
from napari_oneseg.errors import InputError
from napari_oneseg.files import replacing

if TYPE_CHECKING:
    from napari_oneseg.phantom import Phantom
    from napari_oneseg.session import OneSegSession, Propagation

__all__ = ["command"]

FILES = {"scan.nii.gz": (".nii.gz",), "labels.nii.gz": (".nii.gz",), "demo.png": (".png",), "report.json": (".json",)}
"""What is written without a viewer, with the endings that the names have."""


def command(
    headless: Annotated[bool, typer.Option("--headless", help="Write files instead of opening napari.")] = False,
    output: Annotated[
        Path,
        typer.Option(
            "--output", "-o", metavar="FOLDER", help="Folder for the files; those of an earlier demo are replaced."
        ),
    ] = Path("oneseg-demo"),
    seed: Annotated[int, typer.Option(min=0, help="Which patient to generate.")] = 0,
    weights: WeightsFile = None,
    device: Device = "auto",
    threads: Threads = None,
    as_json: Json = False,
) -> None:
    """Show the whole way on a generated abdominal scan: suggest a slice, paint it, carry the labels, score them.

    Opens napari where there is a screen; otherwise, and with --headless, writes scan, labels, picture and scores.
    """
    if not headless and not _has_screen():
        note("There is no screen: writing files instead of opening napari.")
        headless = True
    if headless:
        make_folder(output)
        check_outputs({output / name: endings for name, endings in FILES.items()}, overwrite=True)

    from napari_oneseg.phantom import phantom
    from napari_oneseg.session import OneSegSession

    session = OneSegSession(weights, device, threads)
    stages = Stages()
    with stages.stage("generate", "Generating a scan"):
        sample = phantom(seed)
    with stages.stage("features", "Computing features") as progress:
        session.set_volume(sample.volume, progress)
    index = session.suggest_slices(_rough_range(sample), top=1)[0].index
    # The suggested slice is painted as a person would: with everything that it shows.
    session.annotate(index, sample.volume.to_slices(sample.labels)[index])
    if headless:
        with stages.stage("propagate", "Carrying labels") as progress:
            result = session.propagate(progress=progress)
        record = _write(output, sample, session, result, stages)
        print_json(record) if as_json else _print_summary(record, output)
    else:
        _open_viewer(sample, session)


def _rough_range(sample: Phantom) -> tuple[int, int]:
    """Return the slices that show the most organs: what a person knows, who knows roughly where they lie."""
    import numpy as np

    truth = sample.volume.to_slices(sample.labels)
    shown = np.array([len(np.unique(image)) for image in truth])
    richest = np.flatnonzero(shown == shown.max())
    return int(richest[0]), int(richest[-1])


def _has_screen() -> bool:
    if sys.platform != "linux":
        return True
    return any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY"))


def _open_viewer(sample: Phantom, session: OneSegSession) -> None:
    # By name, because nothing of the core may depend on the viewer.
    try:
        viewer = import_module("napari_oneseg.plugin.demo")
    except ImportError as error:
        raise InputError(
            f"napari cannot be opened ({error}); install napari-oneseg[pyqt6] or give --headless."
        ) from error
    viewer.show(sample, session.annotation)


def _write(
    folder: Path, sample: Phantom, session: OneSegSession, result: Propagation, stages: Stages
) -> dict[str, Any]:
    import numpy as np

    from napari_oneseg.evaluation.metrics import score_labels
    from napari_oneseg.figures import contact_sheet
    from napari_oneseg.io import write_image, write_labels
    from napari_oneseg.provenance import propagation_record

    volume, painted = sample.volume, session.annotation
    truth = volume.to_slices(sample.labels)
    with stages.stage("write", "Writing"):
        write_image(folder / "scan.nii.gz", np.asarray(volume.array, dtype=np.float32), volume)
        write_labels(folder / "labels.nii.gz", volume.from_slices(result.labels), volume)
        with replacing(folder / "demo.png") as part:
            (index,) = painted.slices
            heading = f"One painted slice of {volume.n_slices} (slice {index}), carried through the scan"
            contact_sheet(part, volume, result.labels, result.slice_confidence, [index], sample.names, heading)
    scores = score_labels(result.labels, truth, (volume.slice_spacing, *volume.in_plane_spacing), painted.labels)
    record = propagation_record(session, result, seconds=stages.seconds)
    record["names"] = dict(sample.names)
    record["scores"] = [asdict(score) for score in scores]
    record["not_painted"] = sorted(set(sample.names) - set(painted.labels))
    write_json(folder / "report.json", record)
    return record


def _print_summary(record: dict[str, Any], folder: Path) -> None:
    from rich.table import Table

    from napari_oneseg.evaluation.report import METRICS

    names, volumes = record["names"], record["labels"]
    table = Table(title=f"Painted: slice {record['painted'][0]} of {record['scan']['slices']}; against the true labels")
    table.add_column("organ")
    for heading in ("volume mL", *(heading for heading, _ in METRICS.values())):
        table.add_column(heading, justify="right")
    for score in record["scores"]:
        cells = [f"{score[key]:.{decimals}f}" for key, (_, decimals) in METRICS.items()]
        table.add_row(names[score["label"]], f"{volumes[score['label']]['volume_ml']:.1f}", *cells)
    console = results_console()
    console.print(table)
    if record["not_painted"]:
        console.print(f"Not on the painted slice: {', '.join(names[label] for label in record['not_painted'])}.")
    console.print(f"{sum(record['seconds'].values()):.1f} s on {record['device']}.")
    console.print(f"Written to {folder}: {', '.join(FILES)}.")
