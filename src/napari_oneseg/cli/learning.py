"""What the subcommands that train have in common: their options, their progress, and what they leave behind."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from napari_oneseg.cli.console import note, print_json, progress_bar, results_console
from napari_oneseg.cli.outputs import check_outputs
from napari_oneseg.config import Config, PreprocessingConfig, describe

if TYPE_CHECKING:
    from napari_oneseg.training.train import TrainingResult

__all__ = [
    "Output",
    "PrecisionName",
    "check_training_outputs",
    "choice_options",
    "loss_progress",
    "retyped",
    "save_training",
]

Output = Annotated[
    Path,
    typer.Option(
        "--output",
        "-o",
        metavar="OUT.safetensors",
        help="Weights file to write; its loss curve goes beside it, as OUT.loss.csv and OUT.loss.png.",
    ),
]
PrecisionName = Annotated[
    Literal["auto", "float32", "bfloat16", "float16"],
    typer.Option(help="Numbers the network computes with; auto is half precision on CUDA, and float32 elsewhere."),
]


def choice_options(
    name: str, choices: Mapping[str, type[Config]]
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a subcommand one option per parameter of several configurations, of which it uses one or another.

    Parameters
    ----------
    name
        The subcommand's own parameter that takes what was typed: a dictionary of the options that were given.
    choices
        Configurations by what they are for. A parameter of several of them is one option.
    """
    kinds: dict[str, type] = {}
    texts: dict[str, dict[str, list[str]]] = {}
    for purpose, config in choices.items():
        for key, default, doc in describe(config):
            kinds[key] = type(default)
            texts.setdefault(key, {}).setdefault(doc.rstrip("."), []).append(f"{default} {purpose}")
    options = {
        key: inspect.Parameter(
            key,
            inspect.Parameter.KEYWORD_ONLY,
            default=None,
            annotation=Annotated[
                kind | None,
                typer.Option(help=" ".join(f"{doc} (default: {', '.join(of)})." for doc, of in texts[key].items())),
            ],
        )
        for key, kind in kinds.items()
    }

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        signature = inspect.signature(command, eval_str=True)
        own = [parameter for key, parameter in signature.parameters.items() if key != name]

        @functools.wraps(command)
        def with_given(**values: Any) -> None:
            typed = {key: values.pop(key) for key in options}
            command(**values, **{name: {key: value for key, value in typed.items() if value is not None}})

        parameters = [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in own]
        parameters += list(options.values())
        # Functions have no such attribute until it is set, so mypy does not know it; inspect, and so typer, reads it.
        with_given.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
        with_given.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        return with_given

    return decorate


def check_training_outputs(output: Path, inputs: list[Path], overwrite: bool) -> None:
    """Refuse weights, or a loss curve beside them, that could not be written in the end; see :func:`check_outputs`."""
    from napari_oneseg.training.curve import curve_paths

    check_outputs({output: (".safetensors",)}, inputs, overwrite)
    check_outputs(dict.fromkeys(curve_paths(output), (".csv", ".png")), inputs, overwrite)


@contextmanager
def loss_progress(name: str) -> Iterator[tuple[Callable[[int, int], None], Callable[[int, float], None]]]:
    """Show a bar with the loss beside it while the block runs.

    Yields
    ------
    What a training calls with (done, total), and with (step, loss).
    """
    with progress_bar(name) as report:
        running, seen = 0.0, 0

        def on_loss(step: int, loss: float) -> None:
            nonlocal running, seen
            if seen == 0 and step > 0:
                note(f"The training goes on where it was stopped, after step {step - 1}.")
            seen += 1
            running += (loss - running) / min(seen, 20)  # a mean over about the last twenty steps

        def progress(done: int, total: int) -> None:
            report(done, total, description=f"{name}, loss {running:.3f}")

        yield progress, on_loss


def save_training(
    output: Path,
    result: TrainingResult,
    preprocessing: PreprocessingConfig,
    provenance: Mapping[str, Any],
    as_json: bool,
) -> None:
    """Write weights and loss curve, and say how the training ended."""
    from napari_oneseg.checkpoint import save_weights
    from napari_oneseg.training.curve import save_curve

    save_weights(output, result.network, preprocessing, provenance)
    save_curve(output, result.losses)
    if as_json:
        print_json(dict(provenance))
    else:
        results_console().print(
            f"{len(result.losses)} steps in {provenance['seconds']} s, final loss {provenance['final_loss']:.4f}."
        )


def retyped(command: str, given: Mapping[str, Any]) -> str:
    """Return a command line with the options that were given."""
    words = [command]
    for key, value in given.items():
        option = key.replace("_", "-")
        words.append(f"--{'' if value else 'no-'}{option}" if isinstance(value, bool) else f"--{option} {value}")
    return " ".join(words)
