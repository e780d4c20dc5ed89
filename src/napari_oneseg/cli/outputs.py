"""Files that a subcommand writes: checked before the computation, replaced only when they are complete."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from napari_oneseg.cli.console import to_json
from napari_oneseg.errors import InputError, OutputError
from napari_oneseg.files import replacing

__all__ = ["check_outputs", "make_folder", "write_json"]


def check_outputs(
    outputs: Mapping[Path, tuple[str, ...]], inputs: Iterable[Path] = (), overwrite: bool = False
) -> None:
    """Refuse output files that could not be written in the end, before hours of work are spent on them.

    Parameters
    ----------
    outputs
        The files to write, each with the endings that its name may have.
    inputs
        Files that are read; they are never replaced.
    overwrite
        Whether files that exist may be replaced.

    Raises
    ------
    InputError
        If a name has another ending, exists already, or is that of an input.
    OutputError
        If a folder is missing or may not be written to.
    """
    sources = {path.resolve() for path in inputs}
    for path, endings in outputs.items():
        if not path.name.lower().endswith(endings):
            raise InputError(f"{path} cannot be written: its name must end in {', '.join(endings)}.")
        if path.resolve() in sources:
            raise InputError(f"{path} is read by this command and would be lost; choose another name for the output.")
        if path.is_dir():
            raise OutputError(f"{path} cannot be written: it is a folder; give the name of a file.")
        if path.exists() and not overwrite:
            raise InputError(f"{path} exists already; give --overwrite to replace it, or another name.")
        if not path.parent.is_dir():
            raise OutputError(f"{path} cannot be written: the folder {path.parent} does not exist; create it first.")
        if not os.access(path.parent, os.W_OK | os.X_OK):
            raise OutputError(f"{path} cannot be written: there is no permission to write into {path.parent}.")


def make_folder(folder: Path) -> None:
    """Create a folder for results, if need be.

    Raises
    ------
    OutputError
        If it cannot be created.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"The folder {folder} cannot be created: {error.strerror or error}.") from error


def write_json(path: Path, record: Any) -> None:
    """Write a record as JSON.

    Raises
    ------
    OutputError
        If the file cannot be written.
    """
    with replacing(path) as part:
        part.write_text(to_json(record) + "\n", encoding="utf-8")
