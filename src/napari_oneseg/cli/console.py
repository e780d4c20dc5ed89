"""What the subcommands say, and where: results on standard output, progress, warnings and errors on standard error.

Whatever the terminal knows of the world's letters, printing raises nothing: letters that it does not know are written
as their numbers. Where standard output takes nothing more, the command ends with one line, its files written.
"""

from __future__ import annotations

import errno
import json
import math
import os
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from io import TextIOWrapper
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
        _take_any_letter()
        with warnings.catch_warnings():
            warnings.showwarning = _show_warning
            try:
                # Nothing is returned but the code of an early exit.
                code = super().main(*args, **extra)
                if sys.stdout is not None:
                    sys.stdout.flush()
            except OneSegError as error:
                code = _complain(str(error))
            except _UsageError as error:
                code = _complain(_usage_message(error))
            except OSError as error:
                code = _complain(_system_message(error))
            except SystemExit:  # typer leaves in this way where a pipe is closed, and in no other
                code = _complain(_system_message(BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))))
            except (typer.Abort, KeyboardInterrupt):
                code = 130
        if code == 130:
            note("Stopped.")
        sys.exit(code or 0)


def _take_any_letter() -> None:
    """Have both streams write letters that their encoding lacks, and names that are none, as numbers."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _complain(message: str) -> int:
    note(f"Error: {' '.join(message.split())}")
    return 2


def _system_message(error: OSError) -> str:
    """Say what the system has refused, if that is the user's to solve; raise the error again if not."""
    if error.errno == errno.ENAMETOOLONG:
        name = os.path.basename(os.fspath(error.filename or ""))  # noqa: PTH119 - it may be bytes
        return f"The name {name[:40]!r}... is too long for this disk; choose a shorter one."
    if error.filename is None and error.errno in (errno.EPIPE, errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO):
        _let_go_of_output()
        return f"The results could not be printed ({error.strerror}); files that were to be written are complete."
    raise error


def _let_go_of_output() -> None:
    """Lead standard output to nowhere, so that Python does not try once more at its end."""
    with suppress(OSError, AttributeError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


def _usage_message(error: Any) -> str:
    context = error.ctx
    hint = f" See {context.command_path} --help." if context is not None else ""
    return f"{error.format_message().rstrip('.')}.{hint}"


def _show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    note(f"Warning: {' '.join(str(message).split())}")


def note(message: str) -> None:
    """Say something that is not the result; where nobody can hear it, the work goes on."""
    with suppress(OSError):
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
