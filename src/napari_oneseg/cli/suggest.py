"""``oneseg suggest``: which slice to paint."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

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
    parse_axis,
    parse_range,
    parse_spacing,
)
from napari_oneseg.cli.outputs import check_outputs
from napari_oneseg.errors import InputError
from napari_oneseg.files import replacing

if TYPE_CHECKING:
    from napari_oneseg.screening import PlaneSuggestion

__all__ = ["command"]


def command(
    image: Image,
    slice_range: Range = None,
    point: Annotated[
        str | None,
        typer.Option(metavar="SLICE,ROW,COLUMN", help="A voxel in the target, which gives a rough range of slices."),
    ] = None,
    top: Annotated[int, typer.Option(min=1, help="How many slices to list.")] = 5,
    figure: Annotated[
        Path | None, typer.Option(metavar="OUT.png", help="Also draw the best slice and all scores.")
    ] = None,
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
    """Rank the slices of a scan, or of the target's range, for painting: paint the first one."""
    chosen, clicked, size = parse_range(slice_range), _parse_point(point), parse_spacing(spacing)
    if chosen and clicked:
        raise InputError("Give --range or --point, not both: the point gives a range.")
    if figure:
        check_outputs({figure: (".png",)}, [image], overwrite)

    from napari_oneseg.features.cache import user_cache
    from napari_oneseg.io import read_volume
    from napari_oneseg.provenance import file_place, scan_record
    from napari_oneseg.screening import checked_range, checked_voxel
    from napari_oneseg.session import OneSegSession

    session = OneSegSession(weights, device, threads, cache=user_cache())
    stages = Stages()
    planes: list[PlaneSuggestion] = []
    with stages.stage("read", "Reading the scan"):
        volume = read_volume(image, parse_axis(axis), series, frame, size)
    chosen = chosen and checked_range(chosen, volume.n_slices)
    clicked = clicked and checked_voxel(clicked, volume.slices.shape)
    with stages.stage("features", "Computing features") as progress:
        session.set_volume(volume, progress)
        session.keep_features()
    with stages.stage("suggest", "Looking for slices"):
        if clicked:
            chosen = session.locate(*clicked)
            planes = session.suggest_planes(*clicked)
            session.keep_features()
        ranked = session.suggest_slices(chosen)
    first, last = checked_range(chosen, volume.n_slices)
    if figure:
        from napari_oneseg.figures import suggestion_figure

        with replacing(figure) as part:
            suggestion_figure(part, volume, {entry.index: entry.score for entry in ranked}, top)
    if as_json:
        print_json(
            {
                "suggestions": [
                    {"index": entry.index, "score": entry.score, **file_place(volume, entry.index)}
                    for entry in ranked[:top]
                ],
                "planes": [
                    {
                        "plane": entry.extent.name,
                        "axis": entry.extent.plane,
                        "index": entry.extent.index,
                        "range": [entry.extent.first, entry.extent.last],
                        "extent_mm": entry.extent.millimetres,
                        "reason": entry.reason,
                        **file_place(replace(volume, slice_axis=entry.extent.plane), entry.extent.index),
                    }
                    for entry in planes
                ],
                "range": [first, last],
                "point": clicked,
                "slice_axis": volume.axis,
                "slices": volume.n_slices,
                "scan": scan_record(volume),
                "seconds": stages.seconds,
            }
        )
        return
    from rich.table import Table

    table = Table("rank", "slice", "score")
    for rank, entry in enumerate(ranked[:top], start=1):
        table.add_row(str(rank), str(entry.index), f"{entry.score:.4f}", style="bold" if rank == 1 else None)
    console = results_console()
    if clicked:
        console.print(f"What lies there spans roughly slices {first} to {last}.")
        console.print("Planes to paint it in, best first:")
        for found in planes:
            console.print(f"  {found.extent.name}, slice {found.extent.index}: {found.reason}")
    console.print(f"Worth painting among slices {first} to {last}, best first:")
    console.print(table)


def _parse_point(text: str | None) -> tuple[int, int, int] | None:
    """Read ``SLICE,ROW,COLUMN``; None stays None."""
    if text is None:
        return None
    parts = [part.strip() for part in text.split(",")]
    if len(parts) != 3 or not all(part.isascii() and part.isdecimal() for part in parts):
        raise InputError(f"--point must be SLICE,ROW,COLUMN, counted from 0, for instance 20,130,95, got {text!r}.")
    return int(parts[0]), int(parts[1]), int(parts[2])
