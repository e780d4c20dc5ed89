"""Options that several subcommands share, and how what was typed becomes values."""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from napari_oneseg.config import Config, describe
from napari_oneseg.errors import InputError

__all__ = [
    "Axis",
    "Device",
    "Frame",
    "Image",
    "Json",
    "Overwrite",
    "Range",
    "SeriesName",
    "Spacing",
    "Threads",
    "WeightsFile",
    "config_options",
    "parse_axis",
    "parse_numbers",
    "parse_places",
    "parse_range",
    "parse_spacing",
]

Image = Annotated[
    Path,
    typer.Argument(metavar="IMAGE", help="The scan: a NIfTI, NRRD or MetaImage file, or the folder of a DICOM series."),
]
Axis = Annotated[
    Literal["axial", "coronal", "sagittal", "0", "1", "2"] | None,
    typer.Option(
        help="The plane of the slices, or the axis across it: 0 for axial, 1 for coronal, 2 for sagittal slices; by "
        "default slices lie across the axis of the largest spacing."
    ),
]
Device = Annotated[str, typer.Option(help="Where to compute: auto, cpu, cuda, cuda:N or mps.")]
Frame = Annotated[
    int | None, typer.Option(min=0, metavar="N", help="Which volume of a 4D scan (time, diffusion), counted from 0.")
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of text, and nothing else.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace output files that exist already.")]
Range = Annotated[
    str | None,
    typer.Option("--range", metavar="FIRST:LAST", help="Slices to consider, both included; all by default."),
]
SeriesName = Annotated[
    str | None,
    typer.Option("--series", metavar="NAME", help="Which DICOM series of several: its number, description or UID."),
]
Spacing = Annotated[
    str | None,
    typer.Option(metavar="Z,Y,X", help="Voxel size in mm, in the file's order of axes, where the file says none."),
]
Threads = Annotated[int | None, typer.Option(min=1, help="CPU threads to compute with; all cores by default.")]
WeightsFile = Annotated[
    Path | None, typer.Option("--weights", metavar="FILE", help="Weights file; by default the one that comes along.")
]


def parse_axis(text: str | None) -> int | None:
    """Return the slice axis that ``--axis`` names, by its number or its plane; None stays None."""
    if text is None:
        return None
    from napari_oneseg.planes import plane_axis  # numpy comes along

    return int(text) if text in ("0", "1", "2") else plane_axis(text)


def parse_range(text: str | None) -> tuple[int, int] | None:
    """Read ``FIRST:LAST``, both included; None stays None.

    Raises
    ------
    InputError
        If the text has another form.
    """
    if text is None:
        return None
    first, colon, last = text.partition(":")
    if not (colon and _is_index(first) and _is_index(last)):
        raise InputError(f"--range must be FIRST:LAST, for instance 20:45, got {text!r}.")
    return int(first), int(last)


def parse_places(text: str | None, option: str, main: int) -> dict[int, list[int]] | None:
    """Read slices such as ``12,coronal:127``, a plane's name before those of other planes; None stays None.

    Parameters
    ----------
    main
        The axis across which slices lie whose plane is not named.

    Returns
    -------
    Indices by the axis that the slices lie across.

    Raises
    ------
    InputError
        If the text has another form.
    """
    if text is None:
        return None
    from napari_oneseg.planes import plane_axis  # numpy comes along

    places: dict[int, list[int]] = {}
    for part in text.split(","):
        name, colon, index = part.strip().rpartition(":")
        if not _is_index(index):
            raise InputError(f"{option} must be slices separated by commas, such as 18,coronal:127, got {text!r}.")
        places.setdefault(plane_axis(name) if colon else main, []).append(int(index))
    return places


def parse_numbers(text: str | None, option: str, least: int = 0) -> tuple[int, ...] | None:
    """Read whole numbers separated by commas, such as ``12,30``; None stays None.

    Raises
    ------
    InputError
        If the text has another form, or a number is below ``least`` or stands there twice.
    """
    if text is None:
        return None
    parts = text.split(",")
    numbers = tuple(int(part) for part in parts if _is_index(part))
    if len(numbers) < len(parts) or min(numbers) < least or len(set(numbers)) < len(numbers):
        raise InputError(
            f"{option} must be different whole numbers from {least} on, separated by commas (12,30), got {text!r}."
        )
    return numbers


def parse_spacing(text: str | None) -> tuple[float, float, float] | None:
    """Read a voxel size ``Z,Y,X`` in mm; None stays None.

    Raises
    ------
    InputError
        If it is not three numbers above 0.
    """
    if text is None:
        return None
    try:
        sides = [float(part) for part in text.split(",")]
    except ValueError:
        sides = []
    if len(sides) != 3 or not all(math.isfinite(side) and side > 0 for side in sides):
        raise InputError(f"--spacing must be Z,Y,X in mm, with decimal points, for instance 3,0.8,0.8, got {text!r}.")
    return sides[0], sides[1], sides[2]


def _is_index(text: str) -> bool:
    # isdecimal alone takes the digits of all scripts.
    return text.strip().isascii() and text.strip().isdecimal()


def config_options(name: str, config: type[Config]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a subcommand one option per parameter of a configuration, with its documentation and its default.

    Parameters
    ----------
    name
        The subcommand's own parameter that takes the configuration.
    config
        The configuration, whose parameters are plain numbers or texts.
    """

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        signature = inspect.signature(command, eval_str=True)
        options = [
            inspect.Parameter(
                key,
                inspect.Parameter.KEYWORD_ONLY,
                default=default,
                annotation=Annotated[type(default), typer.Option(help=doc)],
            )
            for key, default, doc in describe(config)
        ]
        own = [parameter for key, parameter in signature.parameters.items() if key != name]

        @functools.wraps(command)
        def with_config(**values: Any) -> None:
            chosen = {option.name: values.pop(option.name) for option in options}
            command(**values, **{name: config(**chosen)})

        parameters = [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in own] + options
        # Functions have no such attribute until it is set, so mypy does not know it; inspect, and so typer, reads it.
        with_config.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
        with_config.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        return with_config

    return decorate
