"""Trainings that the tests run once in one process and once in several; as a script, by each of several processes.

``process_runs.py FOLDER all DEVICES NODES`` writes what comes out as FOLDER/NAME-RANK.safetensors;
``process_runs.py FOLDER slow DEVICES NODES`` is there to be stopped.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from napari_oneseg.config import AnatomyConfig, FeatureConfig, RefiningConfig, SelfLearningConfig, TrainingConfig
from napari_oneseg.training import train
from napari_oneseg.training.pairs import PairBatch
from napari_oneseg.training.processes import Processes, launch
from napari_oneseg.training.recipe import with_refiner
from napari_oneseg.training.refine import rollout_loss, teach_refiner
from napari_oneseg.training.rollouts import rollout_batch
from napari_oneseg.training.self_learning import learn_from_scans, reconstruction_loss
from napari_oneseg.training.sequences import SequenceBatch, generated_batch
from napari_oneseg.training.shared_norm import normalising_together
from napari_oneseg.training.state_file import StateFile
from napari_oneseg.training.train import new_network, sequence_loss, train_on_generated
from tests.engine_fixtures import TINY
from tests.training.scan_fixtures import SMALL, make_scan

FEATURES = FeatureConfig(gabor_wavelengths=(4.0,), gabor_orientations=2, gabor_size=7, width_factor=0.125, channels=16)
ANATOMY = AnatomyConfig(slices=10, size=48, regions=(3, 5), organs=(2, 3), vessels=(0, 1))
REFINING = RefiningConfig(steps=4, batch=4, per_volume=2, steps_along=(2, 4), slices=10, crop=48)
STEPS = 6
Learned = dict[str, Tensor]


def result(network: torch.nn.Module, losses: tuple[float, ...]) -> Learned:
    learned = {key: value.contiguous() for key, value in network.state_dict().items()}
    return {**learned, "losses": torch.tensor(losses, dtype=torch.float64)}


def gradients(processes: Processes) -> Learned:
    """Return loss and gradient of each objective, in so many digits that no rounding hides a mistake."""
    found: Learned = {}
    network = new_network(replace(FEATURES, refine=True), 0).double().train()
    assert network.refiner is not None
    torch.nn.init.constant_(network.refiner.out.weight, 0.05)  # untaught, it would stop the gradient
    batches = generator(), generator()
    sequences = generated_batch(batches[0], 2, TrainingConfig(batch=4, sequence=3, crop=48, foreground=0.8), ANATOMY)
    runs = rollout_batch(batches[1], 2, REFINING, ANATOMY)
    objectives = {
        "sequences": lambda: sequence_loss(network, double(sequences).share(processes), 7, processes),
        "runs": lambda: rollout_loss(network, network.refiner, double(runs).share(processes), 7, processes),
        "pairs": lambda: reconstruction_loss(network, pairs().share(processes), 7, 0.7, 0.2),
    }
    with normalising_together(network, processes):
        for name, objective in objectives.items():
            network.zero_grad()
            loss = objective()
            loss.backward()
            processes.average_gradients(network)
            found[name] = processes.mean(loss.detach()).reshape(1)
            named = network.named_parameters()
            found |= {f"{name}.{key}": value.grad.contiguous() for key, value in named if value.grad is not None}
    return found | {f"statistics.{key}": value for key, value in network.named_buffers() if "gabor" not in key}


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(3)


def pairs() -> PairBatch:
    return PairBatch(torch.rand(4, 3, 1, 48, 48, generator=generator(), dtype=torch.float64))


def double(batch: SequenceBatch) -> SequenceBatch:
    return SequenceBatch(batch.slices.double(), batch.labels.double(), batch.distances.double())


def generated(
    processes: Processes, folder: Path | None = None, progress: Callable[[int, int], None] | None = None
) -> Learned:
    config = TrainingConfig(steps=STEPS, batch=4, sequence=3, crop=48, foreground=0.8)
    state = folder / "generated.training" if folder is not None else None
    learned = train_on_generated(config, FEATURES, ANATOMY, state=state, processes=processes, progress=progress)
    return result(learned.network, learned.losses)


def refined(processes: Processes) -> Learned:
    network = with_refiner(new_network(FEATURES, 0), 0)
    return result(network, teach_refiner(network, REFINING, ANATOMY, processes=processes))


def on_scans(processes: Processes) -> Learned:
    learned = learn_from_scans(
        [make_scan(seed, 10) for seed in range(2)],
        SelfLearningConfig(objective="both", epochs=2, epoch_steps=3, batch=2),
        TINY,
        preprocessing=SMALL,
        sequences=TrainingConfig(batch=2, sequence=3, crop=32),
        processes=processes,
    )
    return result(learned.network, learned.losses)


RUNS: dict[str, Callable[[Processes], Learned]] = {
    "gradients": gradients,
    "generated": generated,
    "refined": refined,
    "on_scans": on_scans,
}


def slow(processes: Processes, folder: Path) -> None:
    """Train with a state after each step, and take a while from the third on; tell by files who and how far it is."""
    (folder / f"pid-{processes.rank}").write_text(str(os.getpid()))
    train.StateFile = partial(StateFile, every=1)  # type: ignore[misc,assignment]

    def progress(done: int, _total: int) -> None:
        if done >= 2:
            (folder / "begun").touch()
            time.sleep(0.5)

    try:
        generated(processes, folder, progress)
    except KeyboardInterrupt:
        (folder / f"stopped-{processes.rank}").touch()
        sys.exit(130)


def main() -> None:
    folder, run, devices, nodes = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
    processes = launch(torch.device("cpu"), devices, nodes)
    torch.set_num_threads(1)
    if run == "slow":
        slow(processes, folder)
        return
    for name, learn in RUNS.items():
        save_file(learn(processes), folder / f"{name}-{processes.rank}.safetensors")


if __name__ == "__main__":
    main()
