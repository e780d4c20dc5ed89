"""What each part of the paper's self-learning contributes (its Table 3): learned anew without it, all else equal.

A new network learns from the scans of the train split, whose labels are not read, and is scored on the dev split: one
label at a time, painted on its largest slice (``largest``). There is no refiner and no null match, which the paper does
not have. A network that has learned nothing, and the shipped weights, are scored beside it for orientation.

Screening has two uses in the paper. Its use in training is one of the parts; its use afterwards, the choice of the one
slice that is painted, is measured with the full method alone: the suggested slice against randomly drawn ones, for all
organs at once (``volume``).

    make bench-ablation                                    # two seeds; about an hour on one core
    python benchmarks/ablation.py --seeds 0 --steps 3000   # longer

The paper learns from 256 x 256 pixels at a learning rate of 1e-4, for epochs over 130 scans. To be done within an hour,
the working grid is smaller here, the learning rate higher and the training short; batch, halving, window and losses'
weights are the paper's. Each finished training is kept in --folder and each score in the JSON file, so that an
interrupted program goes on where it stopped. Weights that learned from real scans do not belong into the repository.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from data_sets import ROOT, SETS, cases_of
from runs import Results, Run

from napari_oneseg.checkpoint import Weights, load_weights, save_weights
from napari_oneseg.config import FeatureConfig, PreprocessingConfig, SelfLearningConfig
from napari_oneseg.errors import InputError, OneSegError
from napari_oneseg.evaluation.cases import Case
from napari_oneseg.evaluation.protocols import (
    CaseResult,
    Painting,
    PaintingProtocol,
    Suggest,
    evaluate_case,
    oneseg_method,
    oneseg_suggest,
)
from napari_oneseg.evaluation.report import difference, markdown, summarise
from napari_oneseg.session import OneSegSession
from napari_oneseg.training.record import training_record
from napari_oneseg.training.scans import Scans
from napari_oneseg.training.self_learning import learn_from_scans
from napari_oneseg.training.train import new_network
from napari_oneseg.volume import Volume

FULL = "full"
DRAWS = 5
"""Randomly drawn slices that stand for an annotator without screening."""


@dataclass(frozen=True)
class Variant:
    """What a training differs in from the full method."""

    learning: Mapping[str, Any] = field(default_factory=dict)
    bottleneck: bool = True


VARIANTS = {
    FULL: Variant(),
    "without screening": Variant({"screening": False}),
    "without bottleneck": Variant(bottleneck=False),
    "without scheduled sampling": Variant({"first_weight": 1.0, "last_weight": 1.0}),
    "without cycle consistency": Variant({"cycle_weight": 0.0}),
}


@dataclass(frozen=True)
class Way:
    """How weights are scored: the name of the result, the protocol, and who suggests slices, by default the weights."""

    method: str
    protocol: PaintingProtocol = "largest"
    suggest: Suggest | None = None


@dataclass(frozen=True)
class Row:
    """One line of a table: a name, and the weights that were scored, one per seed."""

    name: str
    runs: tuple[Run, ...]


def main() -> None:
    """Train and score what is not done yet, and print the tables."""
    options = parse_options()
    torch.set_num_threads(options.threads)
    options.folder.mkdir(parents=True, exist_ok=True)
    try:
        for name in options.sets:
            bench = Bench(name, options)
            variants = [bench.variant(which, seed) for seed in options.seeds for which in VARIANTS]
            largest = rows_of([*bench.orientation(), *variants])
            volume = rows_of([entry for seed in options.seeds for entry in bench.painted_where(seed)])
            print(f"### {name} (dev), {options.steps} steps, seeds {', '.join(map(str, options.seeds))}\n")
            print(table(largest, bench.results, SETS[name].headline), end="\n\n")
            print("One slice painted for the whole scan:\n")
            print(table(volume, bench.results, SETS[name].headline), end="\n\n", flush=True)
    except OneSegError as error:
        sys.exit(str(error))


def parse_options(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    results = ROOT / "benchmarks" / "results" / "ablation.json"
    trained = Path(tempfile.gettempdir()) / "oneseg-ablation"
    parser.add_argument("json", nargs="?", type=Path, default=results, help="where results are kept")
    parser.add_argument("--sets", type=lambda text: text.split(","), default=["chaos_mr_t2"], help="data sets")
    parser.add_argument("--seeds", type=lambda text: [int(item) for item in text.split(",")], default=[0, 1])
    parser.add_argument("--steps", type=int, default=240, help="optimisation steps, in all epochs together")
    parser.add_argument("--epochs", type=int, default=3, help="the learning rate is halved after each")
    parser.add_argument("--learning-rate", type=float, default=1e-3, help="of the first epoch")
    parser.add_argument("--batch", type=int, default=2, help="pairs of slices per step")
    parser.add_argument("--working-size", type=int, default=192, help="longer side of the working grid, in pixels")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads")
    parser.add_argument("--folder", type=Path, default=trained, help="where trained weights are kept")
    options = parser.parse_args(arguments)
    if options.steps % options.epochs:
        parser.error(f"--steps must be a multiple of --epochs, {options.epochs}")
    if unknown := sorted(set(options.sets) - set(SETS)):
        parser.error(f"{', '.join(unknown)} is unknown here; there are {', '.join(SETS)}")
    return options


class Bench:
    """Trains and scores on one data set, each thing once."""

    def __init__(self, name: str, options: argparse.Namespace) -> None:
        self.name, self.options = name, options
        self.results = Results(options.json, fresh=False)
        self.preprocessing = PreprocessingConfig(working_size=options.working_size)
        files = cases_of(name, "dev")
        self.images = [case.image for case in cases_of(name, "train")]
        if not files or not self.images:
            raise InputError(f"The ablation needs the scans of {name}, its train and its dev split.")
        self.cases: list[Case] = [case.load() for case in files]

    @cached_property
    def scans(self) -> Scans:
        """Return the scans to learn from; what the trunk sees does not matter to their grid."""
        return Scans(self.images, features_of(VARIANTS[FULL]), self.preprocessing)

    def variant(self, which: str, seed: int) -> tuple[str, Run]:
        """Train a variant, and score it."""
        (run,) = self.scored(self.trained(which, seed), Way(f"{which}, seed {seed}"))
        return which, run

    def orientation(self) -> list[tuple[str, Run]]:
        """Score a network that has learned nothing, and the shipped weights without and with their refiner."""
        path = self.path("untrained")
        if not path.exists():
            save_weights(path, new_network(features_of(VARIANTS[FULL]), 0), self.preprocessing, {"data": "none"})
        plain, refined = load_weights(), load_weights()
        plain.network.refiner = None
        rows = {"untrained": load_weights(path), "shipped, no refiner": plain, "shipped": refined}
        return [(name, *self.scored(weights, Way(name))) for name, weights in rows.items()]

    def painted_where(self, seed: int) -> list[tuple[str, Run]]:
        """Score the full method with the suggested slice painted, and with random ones."""
        name = f"{FULL}, seed {seed}"
        ways = [Way(f"{name}, suggested", "volume")]
        ways += [Way(f"{name}, random {draw}", "volume", randomly(draw)) for draw in range(DRAWS)]
        names = ["suggested slice", *["random slice"] * DRAWS]
        return list(zip(names, self.scored(self.trained(FULL, seed), *ways), strict=True))

    def scored(self, weights: Weights, *ways: Way) -> list[Run]:
        """Score weights on all cases, as far as that is not done."""
        labels = tuple(SETS[self.name].headline)
        groups = [
            Run(
                self.name,
                "dev",
                way.protocol,
                1,
                labels if way.protocol == "volume" else (),
                way.method,
                weights.sha256,
            )
            for way in ways
        ]
        session = OneSegSession(weights, device="cpu")
        method, suggest = oneseg_method(session), oneseg_suggest(session)
        for case in self.cases:
            for way, group in zip(ways, groups, strict=True):
                missing = self.results.missing(run := replace(group, case=case.name), labels)
                if missing:
                    result = evaluate_case(method, case, Painting(way.protocol), missing, way.suggest or suggest)
                    self.results.add(run, missing, result)
                    shown = " ".join(f"{score.label}:{score.dice:.3f}" for score in result.scores)
                    say(f"{case.name} {way.method} {way.protocol} ({result.seconds:.1f} s) {shown}")
        return groups

    def trained(self, which: str, seed: int) -> Weights:
        """Return a variant's weights, trained if they are not at hand."""
        path, variant, options = self.path(f"{which}-{seed}"), VARIANTS[which], self.options
        if path.exists():
            return load_weights(path)
        config = SelfLearningConfig(
            epochs=options.epochs,
            epoch_steps=options.steps // options.epochs,
            batch=options.batch,
            learning_rate=options.learning_rate,
            seed=seed,
            **variant.learning,
        )
        features, state, start = features_of(variant), path.with_suffix(".training"), time.perf_counter()
        report = log_progress(path.stem, options.steps)
        result = learn_from_scans(self.scans, config, features, state=state, on_loss=report)
        seconds = time.perf_counter() - start
        record = training_record(
            result.losses, {"training": config}, seed, "benchmarks/ablation.py", torch.device("cpu"), seconds
        )
        save_weights(path, result.network, self.preprocessing, {"data": f"{self.name}/train", **record})
        state.unlink()
        say(f"{path.stem}: trained in {seconds:.0f} s, final loss {record['final_loss']:.4f}")
        return load_weights(path)

    def path(self, name: str) -> Path:
        """Return where weights are kept; other options have other files."""
        options = self.options
        settings = f"{options.steps}x{options.batch}-{options.epochs}-{options.learning_rate:g}-{options.working_size}"
        return Path(options.folder) / f"{self.name}-{settings}-{name.replace(' ', '-')}.safetensors"


def features_of(variant: Variant) -> FeatureConfig:
    """Return the paper's network, which has neither null match nor refiner."""
    return FeatureConfig(null_match=False, refine=False, bottleneck=variant.bottleneck)


def randomly(draw: int) -> Suggest:
    """Return a source of slices that are drawn at random from the whole scan, the same ones in each run."""

    def prepare(volume: Volume) -> Callable[[tuple[int, int] | None], int]:
        random = np.random.default_rng([draw, *volume.array.shape])
        return lambda _range: int(random.integers(len(volume.slices)))

    return prepare


def rows_of(scored: Sequence[tuple[str, Run]]) -> list[Row]:
    """Return one row for each name."""
    names = dict.fromkeys(name for name, _ in scored)
    return [Row(name, tuple(run for other, run in scored if other == name)) for name in names]


def table(rows: Sequence[Row], results: Results, organs: Mapping[int, str]) -> str:
    """Return Dice over the whole scan / over the organ's own slices: the mean over the runs, and each run's own.

    The difference is that to the full method, or to the first row where it is not among them.
    """
    scores = {row.name: averaged([results.of(run, list(organs)) for run in row.runs]) for row in rows}
    yardstick = scores.get(FULL) or next(iter(scores.values()))
    lines = []
    for row in rows:
        summaries = summarise(scores[row.name], organs)
        means = [f"{item.metrics['dice'].mean:.3f} / {item.metrics['extent_dice'].mean:.3f}" for item in summaries]
        gain = difference(scores[row.name], yardstick)
        each = [summarise(results.of(run, list(organs)))[-1].metrics["dice"].mean for run in row.runs]
        shown = "-" if scores[row.name] is yardstick else f"{gain.mean:+.3f} ({gain.low:+.3f} to {gain.high:+.3f})"
        lines.append([row.name, means[-1], *means[:-1], shown, ", ".join(f"{mean:.3f}" for mean in each)])
    return markdown(["", "mean", *organs.values(), "difference, whole scan", "each run"], lines)


def averaged(runs: Sequence[Sequence[CaseResult]]) -> list[CaseResult]:
    """Return each score's mean over several runs on the same cases, so that intervals are those of scans."""
    return [
        CaseResult(
            same[0].case,
            tuple(
                replace(
                    scores[0],
                    dice=statistics.fmean(score.dice for score in scores),
                    extent_dice=statistics.fmean(score.extent_dice for score in scores),
                )
                for scores in zip(*(result.scores for result in same), strict=True)
            ),
            {},
            sum(result.seconds for result in same),
        )
        for same in zip(*runs, strict=True)
    ]


def log_progress(name: str, steps: int) -> Callable[[int, float], None]:
    """Return what reports the mean loss, some ten times in all."""
    losses: list[float] = []

    def report(step: int, loss: float) -> None:
        losses.append(loss)
        if len(losses) >= max(1, steps // 10):
            say(f"{name}: step {step + 1} of {steps}, loss {statistics.fmean(losses):.4f}")
            losses.clear()

    return report


def say(text: str) -> None:
    """Report progress beside the tables."""
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
