"""``oneseg train``: weights of one's own."""

from __future__ import annotations

import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from napari_oneseg.cli.console import note, progress_bar
from napari_oneseg.cli.learning import (
    Output,
    PrecisionName,
    check_training_outputs,
    choice_options,
    loss_progress,
    retyped,
    save_training,
)
from napari_oneseg.cli.options import Device, Json, Overwrite, Threads
from napari_oneseg.config import (
    Config,
    FeatureConfig,
    PreprocessingConfig,
    RefiningConfig,
    SelfLearningConfig,
    TrainingConfig,
    describe,
)
from napari_oneseg.errors import InputError, OneSegError

if TYPE_CHECKING:
    import torch

    from napari_oneseg.checkpoint import Weights
    from napari_oneseg.training.loop import Precision
    from napari_oneseg.training.processes import Processes
    from napari_oneseg.training.train import TrainingResult

__all__ = ["command"]

_REFINE_STEPS = 1000
"""As the shipped weights had them; a test holds that they are."""
_MEMORY = 2.0
"""As :data:`~napari_oneseg.training.scans.KEPT_BYTES`; a test holds that they are."""
_OF_SEQUENCES = {"sequence", "crop", "foreground"}
"""What supervoxels have from the configuration of generated anatomy, beside the options of both."""


@choice_options("given", {"with --generated": TrainingConfig, "for scans": SelfLearningConfig})
def command(
    output: Output,
    given: dict[str, Any],
    images: Annotated[
        Path | None,
        typer.Argument(
            metavar="IMAGES",
            help="Folder of scans to learn from: image files, and a sub-folder for each DICOM series. No labels.",
        ),
    ] = None,
    generated: Annotated[
        bool, typer.Option("--generated", help="Learn from generated anatomy instead; needs no data.")
    ] = False,
    refine_steps: Annotated[
        int, typer.Option(min=0, help="With --generated: steps for the refiner after those for the features; 0: none.")
    ] = _REFINE_STEPS,
    init: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Weights to start from; by default those that come along, with --generated a new network.",
        ),
    ] = None,
    from_scratch: Annotated[bool, typer.Option("--from-scratch", help="Start from a new network.")] = False,
    memory: Annotated[
        float, typer.Option(min=0, metavar="GB", help="Gigabytes of scans to keep in memory; the rest is read anew.")
    ] = _MEMORY,
    overwrite: Overwrite = False,
    device: Device = "auto",
    precision: PrecisionName = "auto",
    devices: Annotated[
        int,
        typer.Option(
            min=1,
            help="Devices on each computer, with a process each, that share the batch; needs the extra `cluster`.",
        ),
    ] = 1,
    nodes: Annotated[
        int, typer.Option(min=1, help="Computers; the same command is started on each, or by a cluster's launcher.")
    ] = 1,
    threads: Threads = None,
    as_json: Json = False,
) -> None:
    """Train a correspondence network: on scans without labels, or on generated anatomy.

    A training that was stopped, by whatever, goes on when the same command is given again: until it is done, its state
    lies beside the weights, as OUT.training.
    """
    if (images is not None) == generated:
        raise InputError("Give either a folder of scans to learn from, or --generated.")
    if init is not None and from_scratch:
        raise InputError("--from-scratch starts from a new network; leave --init.")
    training, scans = _configs(given, generated)
    check_training_outputs(output, [] if init is None else [init], overwrite)

    import torch

    from napari_oneseg.checkpoint import load_weights
    from napari_oneseg.device import choose_device
    from napari_oneseg.training.record import training_record

    processes = _start(choose_device(device), devices, nodes, _batches(training, scans, generated))
    if threads is not None:
        torch.set_num_threads(threads)
    clock = time.perf_counter()
    with _speaking(processes), _resumable(output.with_suffix(".training"), processes) as state:
        run = _Run(processes, precision, state)
        start = None if from_scratch or (generated and init is None) else load_weights(init)
        if images is None:
            learned = _learn_from_generated(training, refine_steps, start, run)
        else:
            learned = _learn_from_scans(images, round(memory * 1e9), start, scans, training, run)
        if processes.rank > 0:
            return
        kind = "--generated" if generated else "IMAGES"
        kind += " --from-scratch" * from_scratch + " --init FILE" * bool(init)
        refining = {"refine_steps": refine_steps} if generated and refine_steps != _REFINE_STEPS else {}
        provenance = {
            **learned.about,
            **training_record(
                learned.result.losses,
                learned.configs,
                training.seed,
                retyped(f"oneseg train {kind}", given | refining),
                processes.device,
                time.perf_counter() - clock,
            ),
            **({} if processes.alone else {"processes": processes.count}),
        }
        save_training(output, learned.result, learned.preprocessing, provenance, as_json)


def _configs(given: dict[str, Any], generated: bool) -> tuple[TrainingConfig, SelfLearningConfig]:
    """Sort what was typed into the two configurations, and refuse what would have no effect."""
    of_training = {key for key, *_ in describe(TrainingConfig)}
    of_scans = {key for key, *_ in describe(SelfLearningConfig)}
    scans = SelfLearningConfig(**{key: value for key, value in given.items() if key in of_scans})
    if generated:
        allowed, way = of_training, "with --generated"
    elif scans.objective == "reconstruction":
        allowed, way = of_scans, "with scans, unless --objective is supervoxels or both,"
    else:
        allowed, way = of_scans | _OF_SEQUENCES, "with scans"
    for key in given:
        if key not in allowed:
            raise InputError(f"--{key.replace('_', '-')} has no effect {way} and must be left out.")
    return TrainingConfig(**{key: value for key, value in given.items() if key in of_training}), scans


@dataclass(frozen=True)
class _Run:
    """Where and how a training runs."""

    processes: Processes
    precision: Precision
    state: Path


@dataclass(frozen=True)
class _Learned:
    """A trained network, what the scans must be brought to for it, its configurations, and what it learned from."""

    result: TrainingResult
    preprocessing: PreprocessingConfig
    configs: dict[str, Config]
    about: dict[str, Any]


def _learn_from_generated(training: TrainingConfig, refine_steps: int, start: Weights | None, run: _Run) -> _Learned:
    from napari_oneseg.training.recipe import train_default
    from napari_oneseg.training.record import record_of_generated

    refining = RefiningConfig(steps=max(1, refine_steps), seed=training.seed)
    # The next batch that can be shared out evenly.
    count = run.processes.count
    refining = replace(refining, batch=-(-refining.batch // count) * count)
    result = train_default(
        training,
        refining,
        refine_steps > 0,
        device=run.processes.device,
        precision=run.precision,
        state=run.state,
        stage=loss_progress if run.processes.rank == 0 else None,
        processes=run.processes,
        init=None if start is None else start.network,
    )
    configs: dict[str, Config] = {"training": training}
    if refine_steps:
        configs["refining"] = refining
    preprocessing = PreprocessingConfig() if start is None else start.preprocessing
    return _Learned(result, preprocessing, configs, record_of_generated(start))


def _learn_from_scans(
    folder: Path,
    memory: int,
    start: Weights | None,
    config: SelfLearningConfig,
    sequences: TrainingConfig,
    run: _Run,
) -> _Learned:
    from napari_oneseg.training.record import record_of_scans
    from napari_oneseg.training.scans import Scans, find_scans
    from napari_oneseg.training.self_learning import learn_from_scans

    preprocessing = start.preprocessing if start is not None else PreprocessingConfig()
    features = start.network.config if start is not None else FeatureConfig()
    found = find_scans(folder)
    first = run.processes.rank == 0
    with progress_bar("Reading the scans") if first else nullcontext() as report:
        scans = Scans(found, features, preprocessing, report, memory)
    with loss_progress("Training") if first else nullcontext((None, None)) as (progress, on_loss):
        result = learn_from_scans(
            scans,
            config,
            init=start.network if start is not None else None,
            sequences=sequences,
            device=run.processes.device,
            precision=run.precision,
            state=run.state,
            progress=progress,
            on_loss=on_loss,
            processes=run.processes,
        )
    configs: dict[str, Config] = {"training": config}
    if config.objective != "reconstruction":
        configs["sequences"] = sequences
    return _Learned(result, preprocessing, configs, record_of_scans(len(scans), start))


def _batches(training: TrainingConfig, scans: SelfLearningConfig, generated: bool) -> list[int]:
    """Return how many samples make a step, by what is learned."""
    if generated:
        return [training.batch]
    of_objective = {"reconstruction": [scans.batch], "supervoxels": [training.batch]}
    return of_objective.get(scans.objective, [scans.batch, training.batch])


def _start(device: torch.device, devices: int, nodes: int, batches: list[int]) -> Processes:
    """Start the processes of a training, unless one is enough."""
    from napari_oneseg.training.processes import Processes, check_share, is_started_outside, launch

    if devices * nodes == 1 and not is_started_outside():
        return Processes(device=device)
    for batch in batches:
        check_share(batch, devices * nodes)
    return launch(device, devices, nodes)


@contextmanager
def _speaking(processes: Processes) -> Iterator[None]:
    """Let the first process do the talking; of an error that another one meets, say where it was met."""
    if processes.rank == 0:
        yield
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        try:
            yield
        except KeyboardInterrupt:
            sys.exit(130)
        except OneSegError as error:
            note(f"Process {processes.rank}: {error}")
            sys.exit(2)


@contextmanager
def _resumable(state: Path, processes: Processes) -> Iterator[Path]:
    """Remove the state of a training when all is done; if it is stopped, say what the state is good for."""
    try:
        yield state
    except KeyboardInterrupt:
        if processes.rank == 0 and state.exists():
            note("The same command goes on where this training was stopped.")
        raise
    if processes.rank > 0:
        return
    from napari_oneseg.training.recipe import refining_state

    for path in (state, refining_state(state)):
        path.unlink(missing_ok=True)
