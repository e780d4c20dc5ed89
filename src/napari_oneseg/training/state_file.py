"""The file that a training goes on from after it was stopped: tensors and one JSON entry, never a pickle.

What decides the further course is in it, to the bit: the network, the optimiser's moments, the state of the random
generator, and what the batches are being made from. What identifies the training is in it too, so that a file of
another one is refused instead of being continued with other options.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from napari_oneseg.errors import InputError
from napari_oneseg.files import replacing
from napari_oneseg.native import plain_path

__all__ = ["LoopState", "StateFile", "parameter_hash"]

_FORMAT = "napari-oneseg training state"
_VERSION = "1"


@dataclass
class LoopState:
    """How far a training is.

    Attributes
    ----------
    generator
        State of the random generator before the next batch is made.
    losses
        Loss of each step so far; their number is the next step.
    plan
        What the batches are made from, plain values for JSON, and the step before which it is made anew; see
        :class:`~napari_oneseg.training.loop.Plan`.
    scaler
        State of the gradient scaler.
    seconds
        Time used so far.
    """

    generator: Tensor
    losses: list[float] = field(default_factory=list)
    plan: tuple[Any, int] | None = None
    scaler: dict[str, Any] = field(default_factory=dict)
    seconds: float = 0.0


def parameter_hash(network: nn.Module) -> str:
    """Return the SHA-256 of all parameters and buffers of a network: two starts of a training agree or differ by it."""
    digest = hashlib.sha256()
    for tensor in network.state_dict().values():
        digest.update(tensor.detach().cpu().contiguous().numpy().data)
    return digest.hexdigest()


@dataclass(frozen=True)
class StateFile:
    """Where a training keeps its state.

    Parameters
    ----------
    path
        The file.
    identity
        What the training is: configurations and data, plain values for JSON.
    every
        A state is written each time this many steps are done.
    """

    path: Path
    identity: Mapping[str, Any]
    every: int = 50

    def write(self, network: nn.Module, optimiser: torch.optim.Optimizer, state: LoopState) -> None:
        """Write a state; the file of the one before is replaced only when the new one is complete.

        Raises
        ------
        ~napari_oneseg.errors.OutputError
            If the file cannot be written.
        """
        tensors = {f"network.{key}": value for key, value in network.state_dict().items()}
        for index, moments in optimiser.state_dict()["state"].items():
            tensors |= {f"optimiser.{index}.{key}": value for key, value in moments.items()}
        tensors |= {"generator": state.generator, "losses": torch.tensor(state.losses, dtype=torch.float64)}
        metadata = {
            "format": _FORMAT,
            "version": _VERSION,
            "identity": json.dumps(dict(self.identity)),
            "plan": json.dumps(state.plan),
            "scaler": json.dumps(state.scaler),
            "seconds": json.dumps(state.seconds),
        }
        with replacing(self.path) as part:
            part.write_bytes(save({key: value.detach().cpu().contiguous() for key, value in tensors.items()}, metadata))

    def read(self, network: nn.Module, optimiser: torch.optim.Optimizer) -> LoopState | None:
        """Bring network and optimiser to the state that the file holds, and return the rest of it.

        Returns
        -------
        None if there is no file.

        Raises
        ------
        InputError
            If the file is damaged, holds something else, or belongs to a training with another identity.
        """
        if not self.path.is_file():
            return None
        try:
            with plain_path(self.path) as plain, safe_open(plain, framework="pt") as file:
                metadata = file.metadata() or {}
                tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - not a dictionary
            if (metadata["format"], metadata["version"]) != (_FORMAT, _VERSION):
                raise InputError(f"it holds {metadata['format']} {metadata['version']}")
            differences = list(_differences(json.loads(metadata["identity"]), _as_json(self.identity)))
            if not differences:
                _fill(network, optimiser, tensors)
                return LoopState(
                    tensors["generator"].clone(),
                    tensors["losses"].tolist(),
                    _plan(json.loads(metadata["plan"])),
                    json.loads(metadata["scaler"]),
                    float(json.loads(metadata["seconds"])),
                )
        except (SafetensorError, OSError, KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
            reason = str(error).splitlines()[0]
            raise InputError(
                f"{self.path} is no state of a training that can be continued: {reason}. Delete it to begin anew."
            ) from error
        raise InputError(
            f"{self.path} is the state of another training: {'; '.join(differences[:3])}. Give the same data and "
            "options as then to continue it, or delete the file to begin anew."
        )


def _fill(network: nn.Module, optimiser: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Copy tensors into a network and its optimiser."""
    network.load_state_dict(
        {key.removeprefix("network."): value for key, value in tensors.items() if key.startswith("network.")}
    )
    moments: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        kind, _, rest = key.partition(".")
        if kind == "optimiser":
            index, _, name = rest.partition(".")
            # A copy in memory of torch's own: the file's may be aligned otherwise, and sums then be rounded otherwise.
            moments.setdefault(int(index), {})[name] = value.clone()
    optimiser.load_state_dict({"state": moments, "param_groups": optimiser.state_dict()["param_groups"]})


def _plan(values: Any) -> tuple[Any, int] | None:
    if values is None:
        return None
    content, until = values
    return content, int(until)


def _as_json(values: Mapping[str, Any]) -> Any:
    """Return values as they come back from JSON: tuples as lists, keys as texts."""
    return json.loads(json.dumps(dict(values)))


def _differences(there: Any, here: Any, name: str = "") -> Iterator[str]:
    """Yield a description of each value that differs between two dictionaries of plain values."""
    if isinstance(there, dict) and isinstance(here, dict):
        for key in sorted(there.keys() | here.keys()):
            yield from _differences(there.get(key), here.get(key), f"{name}.{key}" if name else key)
    elif there != here:
        yield f"{name} is {there} there and {here} here"
