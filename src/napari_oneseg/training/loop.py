"""The training loop: one for everything that is learned from, and for every objective.

The next batch is made in a second thread while the network learns from the last one. On the CPU the same seed gives the
same weights, to the bit, also if the training was killed in between and went on from its state file. On a GPU some sums
are taken in no fixed order, so the weights differ in their last digits; so do those of several processes, which add up
in another order than one.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial
from types import MethodType
from typing import Any, Generic, Literal, Protocol, Self, TypeVar, get_args

import torch
from torch import Tensor, nn

from napari_oneseg.device import has_fast_bfloat16
from napari_oneseg.errors import InputError
from napari_oneseg.training.processes import ALONE, Processes
from napari_oneseg.training.shared_norm import normalising_together
from napari_oneseg.training.state_file import LoopState, StateFile

__all__ = [
    "Batch",
    "LoopConfig",
    "Moment",
    "Plan",
    "Precision",
    "Source",
    "computing_in",
    "half_precision",
    "halving",
    "run_training",
    "warm_cosine",
]

Precision = Literal["auto", "float32", "bfloat16", "float16"]
"""Numbers the network computes with; ``auto`` is half precision on CUDA, and float32 elsewhere."""


class Batch(Protocol):
    """What a network learns from in one step."""

    def to(self, device: torch.device) -> Self:
        """Return the same batch on another device."""
        ...

    def share(self, processes: Processes) -> Self:
        """Return the samples of one process."""
        ...


B = TypeVar("B", bound=Batch)
N = TypeVar("N", bound=nn.Module)


@dataclass(frozen=True)
class Moment:
    """How far a training is: the step, from 0, and the share that is done, 0 to 1, of the steps or of the time."""

    step: int
    share: float


@dataclass(frozen=True)
class Plan:
    """What the batches of some steps are made from, such as slices chosen by what the network has learned so far.

    Attributes
    ----------
    content
        Plain values for JSON, because it is kept in the state file.
    until
        The step before which a new plan is made.
    """

    content: Any
    until: int


@dataclass(frozen=True)
class Source(Generic[N, B]):
    """Where batches come from.

    Attributes
    ----------
    batch
        Called in another thread with (random generator, step, content of the plan); everything random comes from the
        generator. Several processes each make the whole batch, and take their share of it.
    plan
        Called with (network, step) where a new plan is due; must leave the network as it is. None where batches need no
        plan.
    """

    batch: Callable[[torch.Generator, int, Any], B]
    plan: Callable[[N, int], Plan] | None = None


@dataclass(frozen=True)
class LoopConfig:
    """How a network is optimised.

    Attributes
    ----------
    learning_rate
        Of Adam.
    schedule
        From the moment to the factor on the learning rate.
    steps
        Optimisation steps; None where only the time is limited.
    seconds
        Time to learn for, not counting a step that has begun; None where only the steps are limited.
    seed
        Of the batches.
    precision
        Numbers the network computes with. Matches are always compared in float32, and so is the loss.
    keep_statistics
        Whether batch normalisation uses the statistics that it brought along, and keeps them.
    """

    learning_rate: float
    schedule: Callable[[Moment], float]
    steps: int | None = None
    seconds: float | None = None
    seed: int = 0
    precision: Precision = "auto"
    keep_statistics: bool = False

    def moment(self, step: int, seconds: float) -> Moment:
        """Return how far a training is after some steps and some time."""
        of_steps = step / self.steps if self.steps is not None else 0.0
        of_time = seconds / self.seconds if self.seconds is not None else 0.0
        return Moment(step, min(1.0, max(of_steps, of_time)))


def warm_cosine(moment: Moment, steps: int) -> float:
    """Return a factor on the learning rate: a short linear warm-up, then a cosine to zero at ``steps``."""
    warm = max(1, min(50, steps // 10))
    if moment.step < warm:
        return (moment.step + 1) / warm
    return 0.5 * (1 + math.cos(math.pi * (moment.step - warm) / max(1, steps - warm)))


def halving(moment: Moment, steps: int) -> float:
    """Return a factor on the learning rate that is halved each time ``steps`` steps are done (paper 2.2)."""
    return float(0.5 ** (moment.step // steps))


def run_training(
    network: N,
    source: Source[N, B],
    loss: Callable[[N, B, Moment], Tensor],
    config: LoopConfig,
    device: torch.device | str = "cpu",
    state_file: StateFile | None = None,
    progress: Callable[[int, int], None] | None = None,
    on_loss: Callable[[int, float], None] | None = None,
    processes: Processes = ALONE,
) -> tuple[float, ...]:
    """Train a network in place.

    Where several processes train, each of them calls this with the same; the first one reads and writes the state file,
    and calls ``progress`` and ``on_loss``.

    Parameters
    ----------
    network
        Moved to ``device``; in evaluation mode afterwards.
    source
        Makes the batches.
    loss
        The objective, from network, batch and moment to a scalar: the mean over the batch, or, where several processes
        train, what has that mean over the processes.
    config
        How long, how fast.
    device
        Where to train.
    state_file
        Where the state is kept; a state that is there already is continued.
    progress
        Called after each step with (steps done, all steps), or, where only the time is limited, with (seconds used,
        all seconds); may raise :class:`~napari_oneseg.errors.Cancelled`.
    on_loss
        Called with (step, loss) after each step.
    processes
        Who else trains this network.

    Returns
    -------
    Loss of each step.

    Raises
    ------
    InputError
        If the state file belongs to another training or is damaged, the device lacks the precision, or the training
        diverges.
    """
    _check_limits(config, processes)
    device = torch.device(device)
    half = half_precision(config.precision, device)
    _set_learning(network.to(device), config)
    optimiser = torch.optim.Adam(network.parameters(), lr=config.learning_rate)
    scaler = torch.amp.GradScaler(device.type, enabled=half is torch.float16)
    state = _begin(network, optimiser, config, state_file, processes)
    if state.scaler:
        scaler.load_state_dict(state.scaler)
    began = time.monotonic() - state.seconds

    def tell(moment: Moment) -> None:
        if state_file is not None and (moment.step + 1) % state_file.every == 0:
            state_file.write(network, optimiser, state)
        if on_loss is not None:
            on_loss(moment.step, state.losses[-1])
        if progress is not None:
            progress(*_done(config, moment.step + 1, state.seconds))

    with (
        computing_in(network, half, device),
        normalising_together(network, processes),
        processes.stopping() as stopped,
        closing(_batches(network, source, config, state, began, processes)) as batches,
    ):
        for moment, batch in batches:
            for group in optimiser.param_groups:
                group["lr"] = config.learning_rate * config.schedule(moment)
            value = loss(network, batch.to(device), moment)
            state.losses.append(_learn(network, value, optimiser, scaler, processes))
            state.seconds, state.scaler = time.monotonic() - began, scaler.state_dict()
            reason = stopped(partial(tell, moment))
            if reason is not None:
                raise reason
    if state_file is not None and processes.rank == 0:
        state_file.write(network, optimiser, state)
    network.eval()
    return tuple(state.losses)


def _check_limits(config: LoopConfig, processes: Processes) -> None:
    if config.steps is None and config.seconds is None:
        raise ValueError("a training needs a number of steps or a time")
    if config.seconds is not None and not processes.alone:
        raise ValueError("several processes need a number of steps: their clocks differ")


def _set_learning(network: nn.Module, config: LoopConfig) -> None:
    network.train()
    if config.keep_statistics:
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()


def _begin(
    network: nn.Module,
    optimiser: torch.optim.Optimizer,
    config: LoopConfig,
    state_file: StateFile | None,
    processes: Processes,
) -> LoopState:
    """Return the state to go on from, with network and optimiser brought to it, the same in all processes."""

    def read() -> LoopState:
        state = state_file.read(network, optimiser) if state_file is not None else None
        return state or LoopState(torch.Generator().manual_seed(config.seed).get_state())

    if processes.alone:
        return read()
    if state_file is not None and processes.of_first(state_file.identity) != state_file.identity:
        raise InputError("It was given other scans or options than the first process. All must see the same files.")
    state = processes.from_first(read)
    weights, moments = processes.of_first((_on_cpu(network.state_dict()), _on_cpu(optimiser.state_dict()["state"])))
    network.load_state_dict(weights)
    optimiser.load_state_dict({"state": moments, "param_groups": optimiser.state_dict()["param_groups"]})
    return state


def _on_cpu(values: Any) -> Any:
    """Return tensors, in dictionaries of dictionaries, on the CPU: a process must not load onto another one's GPU."""
    if isinstance(values, Tensor):
        return values.cpu()
    return {key: _on_cpu(value) for key, value in values.items()}


def _batches(
    network: N, source: Source[N, B], config: LoopConfig, state: LoopState, began: float, processes: Processes
) -> Generator[tuple[Moment, B], None, None]:
    """Yield moment and batch of each step that is left, and keep the state's plan and generator up to date."""
    generator = torch.Generator()
    generator.set_state(state.generator)

    def make(step: int, content: Any) -> tuple[B, Tensor]:
        batch = source.batch(generator, step, content).share(processes)
        return batch, generator.get_state()

    with ThreadPoolExecutor(1) as pool:
        coming: Future[tuple[B, Tensor]] | None = None
        while (moment := config.moment(len(state.losses), time.monotonic() - began)).share < 1.0:
            step = moment.step
            if source.plan is not None and (state.plan is None or step >= state.plan[1]):
                plan = source.plan(network, step)
                # Devices that round differently may choose differently.
                state.plan = processes.of_first((plan.content, plan.until))
            content, until = state.plan or (None, None)
            batch, state.generator = (coming or pool.submit(make, step, content)).result()
            # The batch after the last one of a plan has to wait for what the network learns from this one.
            more = (config.steps is None or step + 1 < config.steps) and (until is None or step + 1 < until)
            coming = pool.submit(make, step + 1, content) if more else None
            yield moment, batch


def _learn(
    network: nn.Module,
    loss: Tensor,
    optimiser: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
    processes: Processes,
) -> float:
    """Take one optimisation step, and return the loss."""
    value = float(processes.mean(loss.detach()))
    if not math.isfinite(value):
        raise InputError(f"The training diverged: its loss became {value}. Give a smaller learning rate.")
    optimiser.zero_grad(set_to_none=True)
    scaler.scale(loss).backward()
    processes.average_gradients(network)
    scaler.unscale_(optimiser)
    torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
    scaler.step(optimiser)
    scaler.update()
    return value


def _done(config: LoopConfig, step: int, seconds: float) -> tuple[int, int]:
    if config.steps is not None:
        return step, config.steps
    assert config.seconds is not None  # run_training
    total = max(1, round(config.seconds))
    return min(total, round(seconds)), total


def half_precision(precision: Precision, device: torch.device) -> torch.dtype | None:
    """Return the type that the network computes with where that is not float32."""
    if precision not in get_args(Precision):
        raise InputError(f"The precision must be one of {', '.join(get_args(Precision))}, got {precision!r}.")
    if precision == "auto" and device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
    if precision in ("auto", "float32"):
        return None
    if device.type == "cuda":
        return torch.bfloat16 if precision == "bfloat16" else torch.float16
    if precision == "bfloat16" and device.type == "cpu" and has_fast_bfloat16():
        return torch.bfloat16
    raise InputError(f"This {device.type} does not compute in {precision}; use auto or float32.")


@contextmanager
def computing_in(network: nn.Module, half: torch.dtype | None, device: torch.device) -> Iterator[None]:
    """Let the network, and only it, compute in half precision within the block.

    What follows it compares dot products whose small differences decide.
    """
    if half is None:
        yield
        return

    def forward(self: nn.Module, *inputs: Tensor) -> Tensor:
        with torch.autocast(device.type, half):
            features: Tensor = type(self).forward(self, *inputs)
        return features.float()

    # A method, so that a copy of the network calls the copy.
    network.forward = MethodType(forward, network)
    try:
        yield
    finally:
        del network.forward
