"""Several processes that train one network together, each on a device of its own.

Lightning Fabric starts and connects them: on one computer, on several, under ``fabric run``, torchrun or SLURM. What
they say to each other is here, and is little. Each makes the same batch and takes its share of it, so what is random
belongs to the sample and not to the process; before each step the gradients, three megabytes, are averaged. So all of
them hold the same weights all the time, and come to those of a single process, but for rounding.
"""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import TypeVar, cast

import torch
from torch import Tensor, distributed, nn

from napari_oneseg.errors import Cancelled, InputError, OneSegError

__all__ = ["ALONE", "Processes", "check_share", "is_started_outside", "launch"]

T = TypeVar("T")
_GO_ON, _INTERRUPTED, _FAILED = 0, 1, 2


@dataclass(frozen=True)
class Processes:
    """The processes of a training, seen from one of them.

    Attributes
    ----------
    rank
        Number of this process, from 0. The first one reads and writes the state, and reports.
    count
        Number of processes.
    device
        Where this one computes.
    """

    rank: int = 0
    count: int = 1
    device: torch.device = torch.device("cpu")  # noqa: RUF009 - a device never changes

    @property
    def alone(self) -> bool:
        """Whether there is nobody to talk to."""
        return self.count == 1

    def share(self, number: int) -> slice:
        """Return which of ``number`` samples are this process's.

        Raises
        ------
        InputError
            If they cannot be shared out evenly.
        """
        check_share(number, self.count)
        each = number // self.count
        return slice(self.rank * each, (self.rank + 1) * each)

    def mean(self, value: Tensor) -> Tensor:
        """Return the mean of a tensor over the processes; no gradient goes through it."""
        if self.alone:
            return value
        total = value.detach().to(torch.promote_types(value.dtype, torch.float32), copy=True)
        distributed.all_reduce(total)
        return total / self.count

    def of_first(self, value: T) -> T:
        """Return the first process's value, in all of them."""
        if self.alone:
            return value
        said = [value]
        distributed.broadcast_object_list(said, 0)
        return said[0]

    def from_first(self, make: Callable[[], T]) -> T:
        """Return what the first process makes, in all of them; so is an error that is the user's."""
        if self.alone:
            return make()
        made: T | OneSegError | None = None
        if self.rank == 0:
            try:
                made = make()
            except OneSegError as error:
                made = error
        made = self.of_first(made)
        if isinstance(made, OneSegError):
            raise made
        return cast("T", made)

    def average_gradients(self, network: nn.Module) -> None:
        """Replace each gradient by its mean over the processes, all of them in one message."""
        if self.alone:
            return
        gradients = [parameter.grad for parameter in network.parameters() if parameter.grad is not None]
        means = self.mean(torch.cat([gradient.flatten() for gradient in gradients]))
        for gradient, mean in zip(gradients, means.split([gradient.numel() for gradient in gradients]), strict=True):
            gradient.copy_(mean.view_as(gradient))

    @contextmanager
    def stopping(self) -> Iterator[Callable[[Callable[[], None]], BaseException | None]]:
        """Let all processes stop after the same step, whichever of them is asked to: by Ctrl+C, or by its progress.

        A process that ended in the middle of a step would leave the others waiting for it. A second Ctrl+C ends this
        one at once all the same.

        Yields
        ------
        To be called after each step, in all processes, with what the first one is to call; returns what is to be
        raised, None to go on. A single process is stopped at once, as ever.
        """
        asked = threading.Event()

        def interrupt(_signal: int, _frame: FrameType | None) -> None:
            asked.set()
            signal.signal(signal.SIGINT, before)

        def agree(tell: Callable[[], None]) -> BaseException | None:
            if self.alone:
                tell()
                return None
            reason: BaseException | None = None
            if self.rank == 0:
                try:
                    tell()
                except OneSegError as error:
                    reason = error
            if reason is None and asked.is_set():
                reason = KeyboardInterrupt()
            state = _GO_ON if reason is None else _INTERRUPTED if isinstance(reason, KeyboardInterrupt) else _FAILED
            said = torch.tensor(state, device=self.device)
            distributed.all_reduce(said, distributed.ReduceOp.MAX)
            if reason is not None or int(said) == _GO_ON:
                return reason
            return KeyboardInterrupt() if int(said) == _INTERRUPTED else Cancelled("The training was stopped.")

        if self.alone or threading.current_thread() is not threading.main_thread():
            yield agree
            return
        before = signal.signal(signal.SIGINT, interrupt)
        try:
            yield agree
        finally:
            signal.signal(signal.SIGINT, before)


ALONE = Processes()
"""A training of one process, as it is without Lightning Fabric."""


def check_share(batch: int, count: int) -> None:
    """Refuse a batch that cannot be shared out evenly.

    Raises
    ------
    InputError
        If a process would get more than another.
    """
    if batch % count:
        raise InputError(
            f"A batch of {batch} cannot be shared out evenly to {count} processes; give a multiple of {count} as "
            "--batch."
        )


def is_started_outside() -> bool:
    """Return whether ``fabric run`` or torchrun has started this process as one of several."""
    return "LOCAL_WORLD_SIZE" in os.environ and int(os.environ.get("WORLD_SIZE", "1")) > 1


def launch(device: torch.device, devices: int = 1, nodes: int = 1) -> Processes:
    """Start the other processes of a training, and connect with them.

    On one computer this starts the running command once more for each further device. On several, the same command is
    started on each, or a launcher starts all processes; how many there are is then its matter.

    Parameters
    ----------
    device
        What kind of device to train on: of that kind, the first ``devices``; on the CPU, so many processes.
    devices
        Devices on each computer.
    nodes
        Computers.

    Raises
    ------
    InputError
        If Lightning Fabric is not installed, or there are not so many devices.
    """
    try:
        import lightning_fabric
    except ImportError as error:
        raise InputError(
            "Training on several devices needs Lightning Fabric. Install it: pip install 'napari-oneseg[cluster]'."
        ) from error
    if device.index or device.type not in ("cpu", "cuda"):
        raise InputError(f"Several devices are the first ones of cuda, or processes on the cpu; got {device}.")
    number: int | str = devices
    by_fabric = "LT_CLI_USED" in os.environ
    if by_fabric:
        # It has connected the processes, hands its own numbers on, and refuses others beside them.
        number, nodes = "auto", 1
    elif is_started_outside():
        number = int(os.environ["LOCAL_WORLD_SIZE"])
        nodes = int(os.environ["WORLD_SIZE"]) // number
    elif device.type == "cuda" and torch.cuda.device_count() < devices:
        raise InputError(f"This computer has {torch.cuda.device_count()} CUDA devices; {devices} were asked for.")
    # It announces each process; what there is to say, the training says itself.
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
    fabric = lightning_fabric.Fabric(accelerator=device.type, devices=number, num_nodes=nodes, strategy="ddp")
    if not by_fabric:
        fabric.launch()
    return Processes(fabric.global_rank, fabric.world_size, fabric.device)
