"""What the subcommands say, and where: results on standard output, progress, warnings and errors on standard error."""

from __future__ import annotations

import json
import math
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from typer.core import TyperGroup

from napari_oneseg.errors import OneSegError

__all__ = ["OneSegGroup", "Stages", "note", "print_json", "progress_bar", "results_console", "to_json"]

# The base of all errors in the way a command was typed; typer keeps it in a private module.
_UsageError: type[Exception] = typer.BadParameter.__bases__[0]


class OneSegGroup(TyperGroup):
    """Turns errors that are the user's to solve into one line and an exit code; defects keep their traceback."""

    def main(self, *args: Any, standalone_mode: bool = True, **extra: Any) -> Any:
        """Run the command line and leave with its exit code."""
        extra["standalone_mode"] = False
        if not standalone_mode:
            return super().main(*args, **extra)
        with warnings.catch_warnings():
            warnings.showwarning = _show_warning
            try:
                # Nothing is returned but the code of an early exit.
                code = super().main(*args, **extra)
            except OneSegError as error:
                code = _complain(str(error))
            except _UsageError as error:
                code = _complain(_usage_message(error))
            except (typer.Abort, KeyboardInterrupt):
                code = 130
        if code == 130:
            typer.echo("Stopped.", err=True)
        sys.exit(code or 0)


def _complain(message: str) -> int:
    typer.echo(f"Error: {' '.join(message.split())}", err=True)
    return 2


def _usage_message(error: Any) -> str:
    context = error.ctx
    hint = f" See {context.command_path} --help." if context is not None else ""
    return f"{error.format_message().rstrip('.')}.{hint}"


def _show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    note(f"Warning: {' '.join(str(message).split())}")


def note(message: str) -> None:
    """Say something that is not the result."""
    typer.echo(message, err=True)


def results_console() -> Console:
    """Return the console for results; made anew, so that it follows a redirected standard output."""
    console = Console(highlight=False)
    # Into a file or a pipe tables go unbroken.
    return console if console.is_terminal else Console(highlight=False, width=160)


def to_json(record: Any) -> str:
    """Return JSON as every reader understands it: NaN, which JSON does not know, becomes null."""
    return json.dumps(_plain(record), indent=2, allow_nan=False)


def print_json(record: Any) -> None:
    """Print a record as JSON on standard output, and nothing else there."""
    typer.echo(to_json(record))


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


@contextmanager
def progress_bar(description: str) -> Iterator[Callable[..., None]]:
    """Show a bar on standard error while the block runs, if that is a terminal.

    Yields
    ------
    Called with (done, total), and optionally ``description=`` to change the text beside the bar.
    """
    console = Console(stderr=True)
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(description, total=None)

        def report(done: int, total: int, description: str | None = None) -> None:
            bar.update(task, completed=done, total=total, description=description)

        yield report


class Stages:
    """The stages of a command, with a progress bar each.

    Attributes
    ----------
    seconds
        How long each stage took, by its name.
    """

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str, description: str) -> Iterator[Callable[..., None]]:
        """Measure a stage and yield what to report its progress to."""
        clock = time.perf_counter()
        with progress_bar(description) as report:
            yield report
        self.seconds[name] = round(time.perf_counter() - clock, 3)
