"""What the tests of the plugin share: a small scan, and an engine that works when it is told to."""

from __future__ import annotations

import queue
from pathlib import Path

import numpy as np
from napari.layers import Image
from numpy.typing import NDArray

from napari_oneseg.plugin import work
from napari_oneseg.plugin.controller import Controller
from napari_oneseg.plugin.engine import Engine, Job, Report
from napari_oneseg.plugin.scan_layer import describe_layer, scan_layer_data
from napari_oneseg.volume import Volume
from tests.engine_fixtures import disc, moving_stack, tiny_weights

COUNT, SHAPE = 10, (32, 40)
WEIGHTS = tiny_weights()
STACK = moving_stack(COUNT, SHAPE, (0, 1))
"""Features in which each position has one clear match, one column further in the next slice."""


def small_scan(seed: int = 0) -> Volume:
    """A bright bar with texture in a dark surrounding, along all slices."""
    random = np.random.default_rng(seed)
    texture = random.normal(0, 40, SHAPE)
    array = np.stack([np.roll(texture, k, 0) for k in range(COUNT)]) + 300
    array[:, disc(SHAPE, (16, 20), 9)] += 500
    return Volume(array.astype(np.int16), (3.0, 1.0, 0.5), slice_axis=0)


def scan_layer(seed: int = 0, name: str = "scan") -> Image:
    data, kwargs, _ = scan_layer_data(small_scan(seed), name)
    return Image(data, **kwargs)


def painted(label: int = 1, centre: tuple[float, float] = (16, 20), radius: float = 6) -> NDArray[np.uint8]:
    image = np.zeros(SHAPE, np.uint8)
    image[disc(SHAPE, centre, radius)] = label
    return image


class HandEngine(Engine):
    """Does its jobs on this thread, when :meth:`work` is called, or at once."""

    def __init__(self, at_once: bool = True) -> None:
        super().__init__()
        self.at_once = at_once

    def submit(self, job: Job) -> Job:
        self._jobs.append(job)
        if self.at_once:
            self.work()
        return job

    def work(self) -> None:
        """Do all jobs, and hand out their answers."""
        while self._jobs:
            job = self._jobs[0]
            job.run()
            while job in self._jobs:
                self._poll()


def opened_scan() -> work.OpenedScan:
    return work.open_scan(describe_layer(scan_layer()), None, "cpu", WEIGHTS, None, Report(queue.SimpleQueue()))


def new_controller(engine: Engine | None = None) -> Controller:
    controller = Controller(engine or HandEngine())
    controller.weights = WEIGHTS
    return controller


def opened_controller(engine: Engine | None = None) -> Controller:
    controller = new_controller(engine)
    controller.open(describe_layer(scan_layer()))
    if isinstance(engine, HandEngine):
        engine.work()
    return controller


def no_file(path: Path) -> bool:
    return not any(path.iterdir())
