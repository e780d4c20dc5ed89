"""The command ``oneseg``: one file per subcommand.

Only light packages are imported here; torch, SimpleITK and matplotlib are loaded by the subcommand that needs them, so
that ``oneseg --help`` answers at once.
"""

from __future__ import annotations

from typing import Annotated

import typer

from napari_oneseg import __version__
from napari_oneseg.cli import adapt, batch, demo, evaluate, info, propagate, suggest, train
from napari_oneseg.cli.console import OneSegGroup
from napari_oneseg.threads import wait_politely

__all__ = ["app", "main"]

app = typer.Typer(
    cls=OneSegGroup,
    rich_markup_mode="markdown",
    add_completion=False,
    # A defect shows Python's own traceback, which can be sent to the developers as it is.
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"napari-oneseg {__version__}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def _oneseg(
    context: typer.Context,
    version: Annotated[  # noqa: ARG001 - its callback does all
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Label a 3D scan by painting one slice.

    Slices are counted from 0 along the slice axis, as in the array. Exit codes: 0 done, 1 some scans of a
    batch failed, 2 something that was given cannot be used (one line on standard error says what), 130 stopped by
    Ctrl+C.
    """
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


for _name, _module in {
    "suggest": suggest,
    "propagate": propagate,
    "evaluate": evaluate,
    "demo": demo,
    "adapt": adapt,
    "train": train,
    "info": info,
}.items():
    app.command(_name)(_module.command)
app.add_typer(batch.app, name="batch")


def main() -> None:
    """Run the command line; the entry point of ``oneseg``."""
    wait_politely()
    app(prog_name="oneseg")
