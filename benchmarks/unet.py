"""Supervised reference points of the paper's Table 1 that can be had here: U-Nets on the abdominal MRI.

``2d`` is trained on one labelled slice per training scan: the effort that the method asks of its user, but spent on
other scans than the one to be segmented. ``3d`` is trained on all labels of all training scans. Both are MONAI's U-Net
with a Dice and cross-entropy loss, see the grey values that our network sees, and are scored by the same functions. The
scans of the training split are trained on, those of the dev split are scored, once, with the weights of the last step.

    python benchmarks/unet.py                          # both, 15 minutes each on this machine
    python benchmarks/unet.py --models 3d --steps 500  # the same steps again: the same result

How many steps fit into the time is measured first, on a network that is thrown away; the learning rate falls along a
cosine over these steps, so that a run is repeated by their number, which is in the JSON file.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from data_sets import ROOT, SETS, cases_of
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from napari_oneseg.errors import InputError, OneSegError
from napari_oneseg.evaluation.cases import Case
from napari_oneseg.evaluation.metrics import score_labels
from napari_oneseg.evaluation.protocols import CaseResult, slice_order_spacing
from napari_oneseg.evaluation.report import markdown_table, summarise, to_dict
from napari_oneseg.preprocessing import normalise

DATA = "chaos_mr_t2"
ORGANS = SETS[DATA].headline
CLASSES = len(ORGANS) + 1
TIMED_STEPS = 3
"""Steps whose time decides how many fit; one more before them does not count."""


@dataclass(frozen=True)
class Design:
    """What the two networks differ in.

    Attributes
    ----------
    patch
        Slices, rows and columns that the network sees; a 2D network sees one slice, and all of its rows and columns.
    shrink
        Factor by which rows and columns are reduced; what is found is enlarged again before it is scored.
    batch
        Patches per step.
    channels, strides
        Of the U-Net's levels.
    learning_rate
        Peak learning rate of AdamW.
    """

    patch: tuple[int, int, int]
    shrink: int
    batch: int
    channels: tuple[int, ...]
    strides: tuple[int | tuple[int, int, int], ...]
    learning_rate: float = 1e-3

    @property
    def flat(self) -> bool:
        """Whether the network is a 2D one."""
        return self.patch[0] == 1


IN_PLANE = (1, 2, 2)  # thick slices: the first levels keep them apart
DESIGNS = {
    "2d": Design((1, 256, 256), 1, 8, (16, 32, 64, 128, 256), (2, 2, 2, 2)),
    "3d": Design((24, 128, 128), 2, 1, (16, 32, 64, 128, 192), (IN_PLANE, IN_PLANE, (2, 2, 2), (2, 2, 2))),
}


def main() -> None:
    """Train and score the networks that are asked for, and print their tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("json", nargs="?", type=Path, default=ROOT / "benchmarks" / "results" / "unet.json")
    parser.add_argument("--models", default="2d,3d", help="2d, 3d, or both")
    parser.add_argument("--minutes", type=float, default=15.0, help="training time of each")
    parser.add_argument("--steps", type=int, help="training steps of each, instead of a time")
    parser.add_argument("--threads", type=int, help="CPU threads, by default all cores")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    models = options.models.split(",")
    if not set(models) <= set(DESIGNS):
        parser.error(f"--models must be of {','.join(DESIGNS)}, got {options.models}")
    if options.threads:
        torch.set_num_threads(options.threads)
    torch.use_deterministic_algorithms(True)
    record = json.loads(options.json.read_text(encoding="utf-8")) if options.json.exists() else {}
    try:
        training, testing = ([files.load() for files in cases_of(DATA, split)] for split in ("train", "dev"))
        if not training or not testing:
            raise InputError(f"The U-Nets need the scans of {DATA}, its train and its dev split.")
        for name in models:
            design = DESIGNS[name]
            network, record[name] = trained(design, training, options.minutes, options.steps, options.seed)
            results = [scored(network, design, case) for case in testing]
            record[name] |= to_dict(results, ORGANS)
            write(options.json, record)
            print(f"### {DATA}, {name} U-Net, {record[name]['steps']} steps\n")
            print(markdown_table(summarise(results, ORGANS)), end="\n\n", flush=True)
    except OneSegError as error:
        sys.exit(str(error))


def trained(
    design: Design, cases: Sequence[Case], minutes: float, steps: int | None, seed: int
) -> tuple[nn.Module, dict[str, Any]]:
    """Train a network, and say how."""
    patches = [patch_source(case, design) for case in cases]
    if steps is None:
        start = time.perf_counter()
        train(design, patches, 1, seed)
        once = time.perf_counter() - start
        start = time.perf_counter()
        train(design, patches, TIMED_STEPS, seed)
        each = min(once, (time.perf_counter() - start) / TIMED_STEPS)
        steps = max(1, round(60 * minutes / each))
    start = time.perf_counter()
    network = train(design, patches, steps, seed, log_progress(steps))
    record = {
        "steps": steps,
        "seconds": round(time.perf_counter() - start, 1),
        "seed": seed,
        "threads": torch.get_num_threads(),
        "parameters": sum(values.numel() for values in network.parameters()),
        "trained_on": {case.name: painted_slices(case, design) for case in cases},
    }
    return network, record


def train(
    design: Design,
    sources: Sequence[tuple[Tensor, Tensor]],
    steps: int,
    seed: int,
    on_loss: Callable[[int, float], None] | None = None,
) -> nn.Module:
    """Train a network from the start; the same seed, steps and threads give the same weights."""
    loss_of = monai("losses").DiceCELoss(to_onehot_y=True, softmax=True, batch=True)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = monai("networks.nets").UNet(
            spatial_dims=2 if design.flat else 3,
            in_channels=1,
            out_channels=CLASSES,
            channels=design.channels,
            strides=design.strides,
            num_res_units=2,
        )
    optimiser = torch.optim.AdamW(network.parameters(), lr=design.learning_rate, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: 0.5 * (1 + math.cos(math.pi * step / steps)))
    network.train()
    for step, (image, labels) in enumerate(batches(design, sources, steps, torch.Generator().manual_seed(seed))):
        loss = loss_of(network(image), labels)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 12.0)
        optimiser.step()
        schedule.step()
        if on_loss is not None:
            on_loss(step, float(loss.detach()))
    return network.eval()


def painted_slices(case: Case, design: Design) -> list[int]:
    """Return the slices whose labels are trained on: all, or for 2D the one that shows most of all organs.

    That is where the organs' areas, each relative to its largest, sum up to most.
    """
    if not design.flat:
        return list(range(len(case.reference)))
    areas = np.stack([np.count_nonzero(case.reference == label, axis=(1, 2)) for label in ORGANS])
    return [int((areas / np.maximum(areas.max(axis=1, keepdims=True), 1)).sum(axis=0).argmax())]


def patch_source(case: Case, design: Design) -> tuple[Tensor, Tensor]:
    """Return the slices to train on and their labels, both (slices, rows, columns), on the network's grid."""
    chosen = painted_slices(case, design)
    reference = torch.from_numpy(case.reference[chosen].astype(np.float32))[None]
    size = [side // design.shrink for side in case.reference.shape[1:]]
    return grey_slices(case, design)[chosen], functional.interpolate(reference, size=size, mode="nearest-exact")[0]


def grey_slices(case: Case, design: Design) -> Tensor:
    """Return the scan as the network sees it, (n, rows, columns)."""
    volume = case.volume
    grey = torch.from_numpy(np.ascontiguousarray(volume.to_slices(normalise(volume.array, padding=volume.padding))))
    size = [side // design.shrink for side in grey.shape[1:]]
    return functional.interpolate(grey[None], size=size, mode="bilinear", antialias=True, align_corners=False)[0]


def batches(
    design: Design, sources: Sequence[tuple[Tensor, Tensor]], steps: int, generator: torch.Generator
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield batches of altered patches, (batch, 1, [slices,] rows, columns), every scan in its turn."""
    turns: list[int] = []
    for _ in range(steps):
        samples = []
        for _ in range(design.batch):
            turns = turns or torch.randperm(len(sources), generator=generator).tolist()
            samples.append(altered(*cropped(*sources[turns.pop()], design, generator), generator))
        image, labels = (torch.stack(maps)[:, None] for maps in zip(*samples, strict=True))
        yield (image[:, :, 0], labels[:, :, 0]) if design.flat else (image, labels)


def cropped(image: Tensor, labels: Tensor, design: Design, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Cut a patch out at random, (slices, rows, columns); what is missing in a small scan is background."""
    starts = [
        int(torch.randint(max(1, side - wanted + 1), (1,), generator=generator))
        for side, wanted in zip(image.shape, design.patch, strict=True)
    ]
    box = tuple(slice(start, start + wanted) for start, wanted in zip(starts, design.patch, strict=True))
    image, labels = image[box], labels[box]
    missing = [wanted - side for side, wanted in zip(image.shape, design.patch, strict=True)]
    pad = [0, missing[2], 0, missing[1], 0, missing[0]]
    return functional.pad(image, pad, value=-1.0), functional.pad(labels, pad)


def altered(image: Tensor, labels: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Turn, scale, shift and brighten a patch at random; left stays left, which tells the kidneys apart."""

    def draw(low: float, high: float) -> float:
        return low + (high - low) * float(torch.rand(1, generator=generator))

    angle, scale = math.radians(draw(-15, 15)), draw(0.85, 1.18)
    cosine, sine = math.cos(angle) / scale, math.sin(angle) / scale
    turn = torch.tensor([[cosine, -sine, draw(-0.1, 0.1)], [sine, cosine, draw(-0.1, 0.1)]])
    grid = functional.affine_grid(turn[None], [1, 1, *image.shape[1:]], align_corners=False)
    moved = functional.grid_sample(image[None], grid, padding_mode="border", align_corners=False)[0]
    moved = moved * draw(0.8, 1.25) + draw(-0.15, 0.15)
    moved += draw(0.0, 0.08) * torch.randn(moved.shape, generator=generator)
    return moved, functional.grid_sample(labels[None], grid, mode="nearest", align_corners=False)[0]


@torch.inference_mode()
def scored(network: nn.Module, design: Design, case: Case) -> CaseResult:
    """Segment a scan and score it."""
    start = time.perf_counter()
    labels = segmented(network, design, case)
    seconds = time.perf_counter() - start
    scores = score_labels(labels, case.reference, slice_order_spacing(case.volume), ORGANS)
    return CaseResult(case.name, scores, {}, seconds)


def segmented(network: nn.Module, design: Design, case: Case) -> NDArray[np.uint8]:
    """Return labels in slice order, (n, rows, columns)."""
    grey = grey_slices(case, design)
    if design.flat:
        logits = torch.cat([network(part[:, None]) for part in grey.split(design.batch)])
    else:
        slide = monai("inferers").sliding_window_inference
        found = slide(grey[None, None], design.patch, 1, network, overlap=0.5, mode="gaussian")
        logits = found[0].movedim(0, 1)
    size = case.reference.shape[1:]
    decided = [
        functional.interpolate(part[None], size=size, mode="bilinear", align_corners=False)[0].argmax(0)
        for part in logits
    ]
    return torch.stack(decided).to(torch.uint8).numpy()


def monai(module: str) -> Any:
    """Import a module of MONAI, or say how to get it."""
    import importlib

    try:
        return importlib.import_module(f"monai.{module}")
    except ImportError as error:
        raise InputError('The U-Nets need MONAI. Install it with: pip install "napari-oneseg[bench]"') from error


def log_progress(steps: int) -> Callable[[int, float], None]:
    """Return what reports the mean loss, some twenty times in all."""
    losses: list[float] = []

    def report(step: int, loss: float) -> None:
        losses.append(loss)
        if len(losses) >= max(1, steps // 20):
            print(f"step {step + 1} of {steps}, loss {sum(losses) / len(losses):.3f}", file=sys.stderr, flush=True)
            losses.clear()

    return report


def write(path: Path, record: dict[str, Any]) -> None:
    """Write the record; nothing half-written stays."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    part.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    part.replace(path)


if __name__ == "__main__":
    main()
