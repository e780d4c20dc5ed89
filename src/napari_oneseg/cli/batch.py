"""``oneseg batch``: a step of the work done for all scans of a study."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from napari_oneseg.cli.console import note, print_json, progress_bar, results_console
from napari_oneseg.cli.options import Device, Json, Overwrite, WeightsFile, config_options
from napari_oneseg.cli.outputs import check_outputs
from napari_oneseg.config import PropagationConfig
from napari_oneseg.errors import InputError

if TYPE_CHECKING:
    from rich.table import Table

    from napari_oneseg.batch import Outcome, Settings, Stage
    from napari_oneseg.study import Study

__all__ = ["app"]

app = typer.Typer(
    rich_markup_mode="markdown",
    add_completion=False,
    pretty_exceptions_enable=False,
)

StudyPath = Annotated[
    Path,
    typer.Argument(
        metavar="STUDY",
        help="Folder of scans, or CSV file with a column scan and, as far as there are any, annotation, reference, "
        "name, notes.",
    ),
]
Workers = Annotated[
    int | None,
    typer.Option(min=1, help="Processes that work at once; by default one for each core, four at most."),
]
Threads = Annotated[
    int | None, typer.Option(min=1, help="CPU threads that each worker uses: 1, or what the cluster has set.")
]
Scheduler = Annotated[
    str | None,
    typer.Option(metavar="ADDRESS", help="Let the workers of this dask cluster do it, for instance tcp://node1:8786."),
]
Retries = Annotated[int, typer.Option(min=0, help="How often a scan that failed is tried again.")]
Anew = Annotated[bool, typer.Option("--anew", help="Also compute what is there already and unchanged.")]


@app.callback(invoke_without_command=True)
def _batch(context: typer.Context) -> None:
    """Work on all scans of a study at once.

    What is there and unchanged is kept, so the same command goes on where it was stopped. A scan that cannot be used is
    reported, and the rest is done. Exit code 1: some scans failed.
    """
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


@app.command()
def suggest(
    study: StudyPath,
    workers: Workers = None,
    scheduler: Scheduler = None,
    retries: Retries = 1,
    anew: Anew = False,
    weights: WeightsFile = None,
    device: Device = "auto",
    threads: Threads = None,
    as_json: Json = False,
) -> None:
    """Find the slice to paint first on every scan.

    It is kept in the study, so that each scan opens at its slice; its features are kept as well, so that it opens at
    once.
    """
    _run("suggest", _Asked(study, workers, scheduler, retries, anew, as_json, weights, device, threads))


@app.command()
@config_options("propagation", PropagationConfig)
def propagate(
    study: StudyPath,
    propagation: PropagationConfig,
    workers: Workers = None,
    scheduler: Scheduler = None,
    retries: Retries = 1,
    anew: Anew = False,
    weights: WeightsFile = None,
    device: Device = "auto",
    threads: Threads = None,
    as_json: Json = False,
) -> None:
    """Carry the painted labels through every scan on which something was painted.

    The labels of each scan, and a record of how they were made, are written into the study's results folder.
    """
    _run("propagate", _Asked(study, workers, scheduler, retries, anew, as_json, weights, device, threads, propagation))


@app.command()
def evaluate(
    study: StudyPath,
    workers: Workers = None,
    scheduler: Scheduler = None,
    retries: Retries = 1,
    anew: Anew = False,
    as_json: Json = False,
) -> None:
    """Score the labels of every scan that has a reference."""
    _run("evaluate", _Asked(study, workers, scheduler, retries, anew, as_json))


@app.command()
def summary(
    study: StudyPath,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE.csv", help="Also write the results as CSV.")
    ] = None,
    effort: Annotated[
        Path | None, typer.Option(metavar="FILE.csv", help="Also write minutes and slices per scan as CSV.")
    ] = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Show how far a study is: volumes, confidence and painted slices of every scan, and what they cost in time."""
    files = {path: (".csv",) for path in (output, effort) if path is not None}
    check_outputs(files, [study], overwrite)

    from napari_oneseg.study import open_study
    from napari_oneseg.study_report import effort_rows, summary_rows, write_effort, write_summary

    scans = open_study(study).scans
    if output is not None:
        write_summary(output, scans)
    if effort is not None:
        write_effort(effort, scans)
    if as_json:
        print_json({"scans": summary_rows(scans), "effort": effort_rows(scans)})
        return
    results_console().print(_table("Results", summary_rows(scans)))
    if worked := effort_rows(scans):
        results_console().print(_table("Effort", worked))


@dataclass(frozen=True)
class _Asked:
    """What was typed."""

    study: Path
    workers: int | None
    scheduler: str | None
    retries: int
    anew: bool
    as_json: bool
    weights: Path | None = None
    device: str = "cpu"
    threads: int | None = None
    propagation: PropagationConfig = field(default_factory=PropagationConfig)


def _run(stage: Stage, asked: _Asked) -> None:
    """Do a stage for all scans, print what came of it, and leave with code 1 if any failed."""
    scheduler = asked.scheduler
    if scheduler and asked.workers:
        raise InputError("Give --workers or --scheduler, not both: a cluster has its own workers.")

    from napari_oneseg.batch import Settings, tasks_of
    from napari_oneseg.batch_workers import cluster_crew, default_workers, local_crew, run_batch
    from napari_oneseg.study import open_study

    study = open_study(asked.study)
    threads = asked.threads if scheduler else asked.threads or 1
    weights = asked.weights and asked.weights.absolute()
    settings = Settings(weights, asked.device, threads, asked.propagation, asked.anew)
    _check(settings, scheduler)
    tasks, left_out = tasks_of(study, stage, settings)
    if not tasks:
        raise InputError(f"There is nothing to {stage}: {_counted(left_out.values())}.")
    count = min(asked.workers or default_workers(), len(tasks))
    crew = cluster_crew(scheduler) if scheduler else local_crew(count, threads or 1)
    began = time.perf_counter()
    with progress_bar("Scans") as progress:
        progress(0, len(tasks))
        outcomes = run_batch(study, tasks, crew, asked.retries, progress)
    seconds = round(time.perf_counter() - began, 3)
    study.refresh()
    if asked.as_json:
        print_json(_record(stage, outcomes, left_out, seconds))
    else:
        _print(stage, study, outcomes, left_out)
        by = "a cluster" if scheduler else f"{count} worker{'s' if count > 1 else ''}"
        results_console().print(f"{_counted(outcome.status for outcome in outcomes)}; {seconds:.1f} s with {by}.")
    if any(outcome.status == "failed" for outcome in outcomes):
        raise typer.Exit(1)


def _check(settings: Settings, scheduler: str | None) -> None:
    """Refuse what no task could use, before they are given out; on a cluster only its workers know."""
    if scheduler is None:
        from napari_oneseg.checkpoint import load_weights
        from napari_oneseg.device import choose_device

        load_weights(settings.weights)
        choose_device(settings.device)


def _record(stage: Stage, outcomes: Sequence[Outcome], left_out: dict[str, str], seconds: float) -> dict[str, Any]:
    scans = [{key: value for key, value in asdict(outcome).items() if key != "scores"} for outcome in outcomes]
    record: dict[str, Any] = {"stage": stage, "scans": scans, "left_out": left_out, "seconds": seconds}
    scored = [outcome.scores for outcome in outcomes if outcome.scores is not None]
    if scored:
        from napari_oneseg.evaluation.report import to_dict

        record["scores"] = to_dict(scored)
    return record


def _print(stage: Stage, study: Study, outcomes: Sequence[Outcome], left_out: dict[str, str]) -> None:
    console = results_console()
    rows = [_row(stage, study, outcome) for outcome in outcomes]
    console.print(_table(stage, rows))
    scored = [outcome.scores for outcome in outcomes if outcome.scores is not None]
    if scored:
        from napari_oneseg.evaluation.report import rich_table, summarise

        console.print(rich_table(summarise(scored), f"{len(scored)} scans"))
    for outcome in outcomes:
        for remark in outcome.remarks:
            note(f"{outcome.name}: {remark}")
        if outcome.problem:
            note(f"{outcome.name} failed: {outcome.problem}")
    if left_out:
        console.print(f"Left out: {_counted(left_out.values())}.")


def _row(stage: Stage, study: Study, outcome: Outcome) -> dict[str, Any]:
    scan = study[outcome.name]
    row: dict[str, Any] = {"scan": outcome.name, "result": outcome.status, "s": f"{outcome.seconds:.1f}"}
    failed = outcome.status == "failed"
    if stage == "suggest":
        row["paint slice"] = "" if failed else ", ".join(map(str, scan.suggested[:3]))
    elif stage == "propagate":
        row["painted"] = "" if failed else scan.slices_painted
        row["mL by label"] = (
            "" if failed else ", ".join(f"{label}: {volume:.1f}" for label, volume in scan.volumes_ml.items())
        )
        row["confidence"] = "" if failed or scan.mean_confidence is None else f"{scan.mean_confidence:.2f}"
    return row


def _table(title: str, rows: Sequence[dict[str, Any]]) -> Table:
    from rich.markup import escape
    from rich.table import Table

    table = Table(title=title)
    for heading in rows[0]:
        table.add_column(heading.replace("_", " "))
    for row in rows:
        cells = ["" if value is None else escape(str(value)) for value in row.values()]
        table.add_row(*cells, style="red" if "failed" in (row.get("result"), row.get("status")) else None)
    return table


def _counted(words: Iterable[str]) -> str:
    return ", ".join(f"{count} {word}" for word, count in Counter(words).items())
