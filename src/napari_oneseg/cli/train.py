"""``oneseg train``: weights of one's own."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
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
from napari_oneseg.errors import InputError

if TYPE_CHECKING:
    import torch

    from napari_oneseg.checkpoint import Weights
    from napari_oneseg.training.loop import Precision
    from napari_oneseg.training.train import TrainingResult

__all__ = ["command"]

_REFINE_STEPS = 1000
"""As the shipped weights had them; a test holds that they are."""
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
        Path | None, typer.Option(metavar="FILE", help="Weights to start from; by default those that come along.")
    ] = None,
    from_scratch: Annotated[bool, typer.Option("--from-scratch", help="Start from a new network.")] = False,
    overwrite: Overwrite = False,
    device: Device = "auto",
    precision: PrecisionName = "auto",
    threads: Threads = None,
    as_json: Json = False,
) -> None:
    """Train a correspondence network: on scans without labels, or on generated anatomy.

    A training that was stopped, by whatever, goes on when the same command is given again: until it is done, its state
    lies beside the weights, as OUT.training.
    """
    if (images is not None) == generated:
        raise InputError("Give either a folder of scans to learn from, or --generated.")
    if init is not None and (generated or from_scratch):
        raise InputError(f"{'--generated' if generated else '--from-scratch'} starts from a new network; leave --init.")
    training, scans = _configs(given, generated)
    check_training_outputs(output, [] if init is None else [init], overwrite)

    import torch

    from napari_oneseg.checkpoint import load_weights
    from napari_oneseg.device import choose_device
    from napari_oneseg.training.record import training_record

    if threads is not None:
        torch.set_num_threads(threads)
    chosen = choose_device(device)
    clock = time.perf_counter()
    with _resumable(output.with_suffix(".training")) as state:
        run = _Run(chosen, precision, state)
        if images is None:
            learned = _learn_from_generated(training, refine_steps, run)
        else:
            learned = _learn_from_scans(images, None if from_scratch else load_weights(init), scans, training, run)
        kind = "--generated" if generated else "IMAGES" + " --from-scratch" * from_scratch + " --init FILE" * bool(init)
        refining = {"refine_steps": refine_steps} if generated and refine_steps != _REFINE_STEPS else {}
        provenance = {
            **learned.about,
            **training_record(
                learned.result.losses,
                learned.configs,
                training.seed,
                retyped(f"oneseg train {kind}", given | refining),
                chosen,
                time.perf_counter() - clock,
            ),
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

    device: torch.device
    precision: Precision
    state: Path


@dataclass(frozen=True)
class _Learned:
    """A trained network, what the scans must be brought to for it, its configurations, and what it learned from."""

    result: TrainingResult
    preprocessing: PreprocessingConfig
    configs: dict[str, Config]
    about: dict[str, Any]


def _learn_from_generated(training: TrainingConfig, refine_steps: int, run: _Run) -> _Learned:
    from napari_oneseg.training.recipe import train_default

    refining = RefiningConfig(steps=max(1, refine_steps), seed=training.seed)
    result = train_default(
        training,
        refining,
        refine_steps > 0,
        device=run.device,
        precision=run.precision,
        state=run.state,
        stage=loss_progress,
    )
    about = {
        "data": "generated anatomy",
        "licence": "no data of others: the anatomy is generated by this program and may be used freely",
    }
    configs: dict[str, Config] = {"training": training}
    if refine_steps:
        configs["refining"] = refining
    return _Learned(result, PreprocessingConfig(), configs, about)


def _learn_from_scans(
    folder: Path, start: Weights | None, config: SelfLearningConfig, sequences: TrainingConfig, run: _Run
) -> _Learned:
    from napari_oneseg.training.record import record_of_scans
    from napari_oneseg.training.scans import Scans, find_scans
    from napari_oneseg.training.self_learning import learn_from_scans

    preprocessing = start.preprocessing if start is not None else PreprocessingConfig()
    features = start.network.config if start is not None else FeatureConfig()
    found = find_scans(folder)
    with progress_bar("Reading the scans") as report:
        scans = Scans(found, features, preprocessing, report)
    with loss_progress("Training") as (progress, on_loss):
        result = learn_from_scans(
            scans,
            config,
            init=start.network if start is not None else None,
            sequences=sequences,
            device=run.device,
            precision=run.precision,
            state=run.state,
            progress=progress,
            on_loss=on_loss,
        )
    configs: dict[str, Config] = {"training": config}
    if config.objective != "reconstruction":
        configs["sequences"] = sequences
    return _Learned(result, preprocessing, configs, record_of_scans(len(scans), start))


@contextmanager
def _resumable(state: Path) -> Iterator[Path]:
    """Remove the state of a training when all is done; if it is stopped, say what the state is good for."""
    try:
        yield state
    except KeyboardInterrupt:
        if state.exists():
            note("The same command goes on where this training was stopped.")
        raise
    from napari_oneseg.training.recipe import refining_state

    for path in (state, refining_state(state)):
        path.unlink(missing_ok=True)
