"""``oneseg suggest``: which slice to paint."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from napari_oneseg.cli.console import Stages, print_json, results_console
from napari_oneseg.cli.options import Axis, Device, Image, Json, Overwrite, Range, Threads, WeightsFile, parse_range
from napari_oneseg.cli.outputs import check_outputs
from napari_oneseg.files import replacing

__all__ = ["command"]


def command(
    image: Image,
    slice_range: Range = None,
    top: Annotated[int, typer.Option(min=1, help="How many slices to list.")] = 5,
    figure: Annotated[
        Path | None, typer.Option(metavar="OUT.png", help="Also draw the best slice and all scores.")
    ] = None,
    overwrite: Overwrite = False,
    axis: Axis = None,
    weights: WeightsFile = None,
    device: Device = "auto",
    threads: Threads = None,
    as_json: Json = False,
) -> None:
    """Rank the slices of a scan by how well each stands for the others: paint the first one."""
    chosen = parse_range(slice_range)
    if figure:
        check_outputs({figure: (".png",)}, [image], overwrite)

    from napari_oneseg.io import read_volume
    from napari_oneseg.screening import checked_range
    from napari_oneseg.session import OneSegSession

    session = OneSegSession(weights, device, threads)
    stages = Stages()
    with stages.stage("read", "Reading the scan"):
        volume = read_volume(image, axis)
    first, last = checked_range(chosen, volume.n_slices)
    with stages.stage("features", "Computing features") as progress:
        session.set_volume(volume, progress)
    ranked = session.suggest_slices((first, last))
    if figure:
        from napari_oneseg.figures import suggestion_figure

        with replacing(figure) as part:
            suggestion_figure(part, volume, {entry.index: entry.score for entry in ranked}, top)
    if as_json:
        print_json(
            {
                "suggestions": [{"index": entry.index, "score": entry.score} for entry in ranked[:top]],
                "range": [first, last],
                "slice_axis": volume.axis,
                "slices": volume.n_slices,
                "seconds": stages.seconds,
            }
        )
        return
    from rich.table import Table

    table = Table("rank", "slice", "score")
    for rank, entry in enumerate(ranked[:top], start=1):
        table.add_row(str(rank), str(entry.index), f"{entry.score:.4f}", style="bold" if rank == 1 else None)
    console = results_console()
    console.print(f"Worth painting among slices {first} to {last}, best first:")
    console.print(table)
