"""What is left when the program is killed at any moment: ``make bench-faults``.

Each trial starts a process that paints and autosaves, exports, keeps features, trains or saves a session, over and
over, as the program itself does it. It notes what it has begun and what is done, and after a random time it is killed.
Then the program starts anew: what is found must be what was done last, or what was being written; no file may be half
written under its final name; and what the kill has left half written must go.
"""

from __future__ import annotations

import argparse
import itertools
import json
import multiprocessing
import os
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
import torch
from numpy.typing import NDArray

from napari_oneseg.autosave import AutosaveStore
from napari_oneseg.checkpoint import Weights
from napari_oneseg.config import FeatureConfig, PreprocessingConfig
from napari_oneseg.features import cache as cache_module
from napari_oneseg.features.cache import FeatureCache
from napari_oneseg.features.extractor import FeatureStack, compute_features
from napari_oneseg.features.resnet import FeatureNetwork
from napari_oneseg.files import tidy
from napari_oneseg.session import OneSegSession
from napari_oneseg.session_file import load_session
from napari_oneseg.training.loop import LoopConfig, Source, run_training
from napari_oneseg.training.state_file import StateFile
from napari_oneseg.volume import Volume

SHAPE = (16, 160, 160)
VOLUME = Volume(np.random.default_rng(0).integers(0, 2000, SHAPE).astype(np.int16), (3.0, 1.0, 1.0))
CPU = torch.device("cpu")
LABEL_FILES = ("a.nii.gz", "b.nrrd", "c.mha", "d.nii")
PLUGIN_PARTS = ("napari_oneseg.plugin.export", "napari_oneseg.plugin.autosaving")
KEYS = 6
"""As many files of features are written in turns."""
SETTLED = 3600.0
"""Seconds after which what is half written is taken for left over."""


class Journal:
    """What a process has begun and done, as numbers; a kill cannot cut a note in two.

    Parameters
    ----------
    path
        Its file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def note(self, begun: int, done: int) -> None:
        """Write down what was begun last, and what was done last."""
        if not hasattr(self, "_file"):
            self._file = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.write(self._file, begun.to_bytes(4, "little") + done.to_bytes(4, "little"))

    def last(self) -> tuple[int, int]:
        """Return what was begun last and done last, 0 where there is nothing."""
        content = self.path.read_bytes() if self.path.exists() else b""
        return int.from_bytes(content[-8:-4], "little"), int.from_bytes(content[-4:], "little")


def small_weights() -> Weights:
    """Return a network that computes quickly; it is not accuracy that counts."""
    config = FeatureConfig(
        gabor_wavelengths=(3.0, 6.0), gabor_orientations=2, gabor_size=7, width_factor=0.125, channels=16
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Weights(FeatureNetwork(config).eval(), PreprocessingConfig(working_size=64), "small", "small", {})


def new_session() -> OneSegSession:
    """Return a session on the scan."""
    session = OneSegSession(small_weights(), "cpu")
    session.set_volume(VOLUME)
    return session


# What is killed ----------------------------------------------------------------------------------------------------


def stroke(number: int) -> tuple[int, NDArray[np.uint8]]:
    """Return stroke number 1, 2 ...: a slice, and all that is painted on it then."""
    image = np.zeros(SHAPE[1] * SHAPE[2], np.uint8)
    # Each slice gets one more dot every time that it is its turn.
    image[: (number - 1) // SHAPE[0] + 1] = 1 + (number - 1) % SHAPE[0]
    return (number - 1) % SHAPE[0], image.reshape(SHAPE[1:])


def painted_after(number: int) -> dict[int, NDArray[np.uint8]]:
    """Return all painted slices after a stroke."""
    return dict(stroke(one) for one in range(max(1, number - SHAPE[0] + 1), number + 1)) if number else {}


def paint_and_autosave(folder: Path, journal: Journal) -> None:
    """Paint stroke after stroke, each once the one before is kept; results are saved beside, as the widget does it."""
    from qtpy.QtCore import QCoreApplication, QObject, QTimer, Signal

    from napari_oneseg.plugin.autosaving import Autosaver

    class Painting(QObject):
        worked = Signal()

        def __init__(self) -> None:
            super().__init__()
            self.session = new_session()

        def extras(self) -> dict[str, Any]:
            return {}

    application = QCoreApplication([])
    painting = Painting()
    painting.session.annotate(*stroke(1))
    painting.session.propagate()
    saver = Autosaver(painting, 0.02, folder)  # type: ignore[arg-type]
    numbers = itertools.count(1)
    number = 0

    def paint() -> None:
        nonlocal number
        if saver._lane.busy:  # noqa: SLF001 - a hand is slower than a disk: it has been kept when the next one begins
            return
        done, number = number, next(numbers)
        journal.note(number, done)
        painting.session.paint(dict([stroke(number)]))
        painting.worked.emit()

    timer = QTimer()
    timer.timeout.connect(paint)
    timer.start(0)
    application.exec()


def save_session(folder: Path, journal: Journal) -> None:
    """Paint, and save the session under the same name."""
    session = new_session()
    for number in itertools.count(1):
        session.paint(dict([stroke(number)]))
        journal.note(number, number - 1)
        session.save(folder / "work.oneseg")
        journal.note(number, number)


def labels_of(number: int) -> NDArray[np.uint8]:
    """Return labels that say a number, in noise that takes room when it is compressed."""
    noise = np.random.default_rng(number).integers(0, 2, SHAPE).astype(np.uint8)
    noise[0, 0, :4] = [255, *number.to_bytes(3, "big")]
    return noise


def export(folder: Path, journal: Journal) -> None:
    """Export labels in all formats, one after the other, with their records."""
    from napari_oneseg.plugin.export import export_labels
    from napari_oneseg.plugin.scan_layer import OpenScan

    scan = OpenScan(VOLUME, name="scan")
    for number in itertools.count(1):
        journal.note(number, number - 1)
        name = LABEL_FILES[number % len(LABEL_FILES)]
        export_labels(folder / name, labels_of(number), scan, {"number": number})
        journal.note(number, number)


def keep_features(folder: Path, journal: Journal) -> None:
    """Compute features and keep them, under several names; now and then all of them are deleted."""
    cache_module._SPARE = 0  # noqa: SLF001 - a disk of any size will do
    cache, weights = FeatureCache(folder), small_weights()
    features = compute_features(VOLUME, weights.network, weights.preprocessing)
    for number in itertools.count(1):
        journal.note(number, number - 1)
        key = number % KEYS
        filled = FeatureStack(torch.full_like(features.maps, key), features.grid, features.content, features.null_bias)
        cache.save(VOLUME, weights.preprocessing, f"key-{key}", filled)
        journal.note(number, number)
        if key == 0:
            cache.prune(0)


@dataclass(frozen=True)
class Pairs:
    """A batch of numbers and what is to be made of them."""

    x: torch.Tensor

    def to(self, device: torch.device) -> Pairs:
        """Return the same on a device."""
        return Pairs(self.x.to(device))

    def share(self, processes: Any) -> Pairs:
        """Return the part of one of several processes."""
        return Pairs(self.x[processes.share(len(self.x))])


STEPS = 4000
TRAINING = {"what": "killed"}


def learn(state: Path | None, steps: int, on_step: Callable[[int], None] = lambda _: None) -> list[torch.Tensor]:
    """Train a small network, from its state file if there is one; return its numbers."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = torch.nn.Sequential(torch.nn.Linear(48, 48), torch.nn.Tanh(), torch.nn.Linear(48, 48))

    def batch(generator: torch.Generator, step: int, content: Any) -> Pairs:  # noqa: ARG001 - as the loop calls it
        return Pairs(torch.randn(8, 48, generator=generator))

    def loss(network: torch.nn.Sequential, batch: Pairs, moment: Any) -> torch.Tensor:  # noqa: ARG001
        made: torch.Tensor = network(batch.x) - batch.x.flip(1)
        return made.square().mean()

    file = None if state is None else StateFile(state, TRAINING, every=1)
    config = LoopConfig(1e-3, lambda _: 1.0, steps=steps)
    run_training(network, Source(batch), loss, config, state_file=file, progress=lambda done, _: on_step(done))
    return [value.detach().clone() for value in network.state_dict().values()]


def train(folder: Path, journal: Journal) -> None:
    """Go on with a training; its state is written after each step."""
    learn(folder / "a.training", STEPS, lambda done: journal.note(done + 1, done))
    journal.note(STEPS, STEPS)
    time.sleep(60)


# What is found -----------------------------------------------------------------------------------------------------


@dataclass
class Found:
    """What a kill has left.

    Attributes
    ----------
    lost
        Things that were done and are not there: strokes, files, steps.
    unfinished
        Whether what was being written is not there, as it should be when the kill came before its end.
    apart
        Label files whose record is that of another one.
    wrong
        What else is wrong, a sentence each.
    """

    lost: int = 0
    unfinished: bool = False
    apart: int = 0
    wrong: list[str] = field(default_factory=list)


def _counted(found: int, begun: int, done: int) -> Found:
    """Compare a number that was found with what was begun and done."""
    if found > begun:
        return Found(wrong=[f"{found} was found, but nothing after {begun} was begun"])
    return Found(max(0, done - found), found < begun)


def after_autosaving(folder: Path, begun: int, done: int) -> Found:
    """Take up the session as the widget does, and see which stroke it ends with."""
    store = AutosaveStore(folder)
    store.prune()
    kept = [one for one in store.find_all(VOLUME.content_hash) if not one.alive]
    if not kept:
        store.close()
        return Found(done, True)
    session = new_session()
    session.restore(store.load(kept[0]))
    last = next(
        (n for n in (begun, done, *range(done, -1, -1)) if _same(session.state.painted, painted_after(n))), None
    )
    results = len(session.state.results)
    for one in kept:
        store.discard(one)
    store.close()
    if last is None:
        return Found(done, wrong=["strokes of different moments"])
    counted = _counted(last, begun, done)
    if results not in (0, SHAPE[0]):
        counted.wrong.append(f"{results} propagated slices of {SHAPE[0]}")
    return counted


def _same(one: Any, other: dict[int, NDArray[np.uint8]]) -> bool:
    return one.keys() == other.keys() and all(np.array_equal(one[key], other[key]) for key in other)


def after_saving(folder: Path, begun: int, done: int) -> Found:
    """Load the session file."""
    path = folder / "work.oneseg"
    if not path.exists():
        tidy(folder)
        return _counted(0, begun, done)
    state = load_session(path).state
    last = next((n for n in (begun, done, *range(done, -1, -1)) if _same(state.painted, painted_after(n))), None)
    path.unlink()
    tidy(folder)  # as the next time that it is saved does
    return _counted(last, begun, done) if last is not None else Found(done, wrong=["strokes of different moments"])


def after_exporting(folder: Path, begun: int, done: int) -> Found:
    """Read all label files with SimpleITK, and their records."""
    found = Found(unfinished=True)
    for place, name in enumerate(LABEL_FILES):
        path = folder / name
        record = path.with_name(path.name.split(".")[0] + ".json")
        last = next((n for n in range(done, 0, -1) if n % len(LABEL_FILES) == place), 0)
        number = 0
        if path.exists():
            array = sitk.GetArrayFromImage(sitk.ReadImage(str(path)))
            number = int.from_bytes(bytes(array[0, 0, 1:4]), "big")
            if number not in (last, begun) or not np.array_equal(array, labels_of(number)):
                found.wrong.append(f"{path.name} says {number}; {last} was done and {begun} begun")
        told = json.loads(record.read_text(encoding="utf-8"))["number"] if record.exists() else 0
        # The two files get their names one after the other.
        found.apart += told != number
        found.lost += number < last
        found.unfinished &= number != begun
        path.unlink(missing_ok=True)
        record.unlink(missing_ok=True)
    tidy(folder)  # as the next export does
    return found


def after_keeping(folder: Path, begun: int, done: int) -> Found:
    """Load all features that are there."""
    cache, weights = FeatureCache(folder), small_weights()
    found = Found(unfinished=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for key in range(KEYS):
            features = cache.load(VOLUME, weights.network, weights.preprocessing, f"key-{key}", CPU)
            if features is not None and not (features.maps == key).all():
                found.wrong.append(f"the features of {key} are others")
            expected = [n for n in range(max(1, done - done % KEYS), done + 1) if n % KEYS == key and key]
            found.lost += features is None and bool(expected)
            found.unfinished &= features is None or key != begun % KEYS
    cache.prune(0)
    return found


def after_training(folder: Path, begun: int, done: int) -> Found:
    """Read the state; go on from it, and compare with a training that was not killed."""
    path = folder / "a.training"
    steps: list[int] = []
    if not path.exists():
        return Found(done, True)
    file = StateFile(path, TRAINING)
    network = torch.nn.Sequential(torch.nn.Linear(48, 48), torch.nn.Tanh(), torch.nn.Linear(48, 48))
    state = file.read(network, torch.optim.Adam(network.parameters()))
    assert state is not None
    counted = _counted(len(state.losses), begun, done)
    further = len(state.losses) + 3
    if further <= STEPS:
        kept = path.read_bytes()
        gone_on = learn(path, further, steps.append)
        whole = _undisturbed(further)
        path.write_bytes(kept)
        if not all(torch.equal(one, other) for one, other in zip(gone_on, whole, strict=True)):
            counted.wrong.append(f"after {further} steps the numbers are others than without the kill")
    tidy(folder)  # as the next state that is written does
    return counted


_WHOLE: dict[int, list[torch.Tensor]] = {}


def _undisturbed(steps: int) -> list[torch.Tensor]:
    if steps not in _WHOLE:
        _WHOLE[steps] = learn(None, steps)
    return _WHOLE[steps]


ACTIVITIES: dict[str, tuple[Callable[[Path, Journal], None], Callable[[Path, int, int], Found]]] = {
    "painting and autosave": (paint_and_autosave, after_autosaving),
    "saving a session": (save_session, after_saving),
    "exporting": (export, after_exporting),
    "keeping features": (keep_features, after_keeping),
    "training": (train, after_training),
}


# Killing -----------------------------------------------------------------------------------------------------------


@dataclass
class Outcome:
    """What was found about one activity.

    Attributes
    ----------
    kills, cut_off, done
        Kills; those in the middle of a write; things that were done in all.
    unfinished, lost
        How often what was being written is not there; things that were done and are not there.
    left_over
        Files half written that were still there after the next start.
    apart
        Label files beside the record of an older one: a kill between the two renamings.
    wrong
        What else was wrong, a sentence each.
    """

    kills: int = 0
    cut_off: int = 0
    done: int = 0
    unfinished: int = 0
    lost: int = 0
    left_over: int = 0
    apart: int = 0
    wrong: list[str] = field(default_factory=list)


def _run(activity: str, folder: Path, journal: Path) -> None:
    torch.set_num_threads(1)
    ACTIVITIES[activity][0](folder, Journal(journal))


def kill_once(activity: str, folder: Path, context: Any, rng: np.random.Generator, outcome: Outcome) -> None:
    """Start an activity, kill it at a random moment, and see what is left."""
    journal = Journal(folder.parent / f"journal-{outcome.kills}")
    before = Journal(folder.parent / f"journal-{outcome.kills - 1}").last()[1] if activity == "training" else 0
    child = context.Process(target=_run, args=(activity, folder, journal.path), daemon=True)
    child.start()
    deadline = time.monotonic() + 120
    while journal.last()[1] == 0:
        if time.monotonic() > deadline or not child.is_alive():
            raise RuntimeError(f"{activity} did not begin")
        time.sleep(0.001)
    time.sleep(rng.uniform(0.0, 0.3))
    child.kill()
    child.join()
    begun, done = journal.last()
    outcome.kills += 1
    outcome.done += done - before
    left = list(folder.glob(".oneseg-*"))
    outcome.cut_off += bool(left)
    for path in (*itertools.chain.from_iterable(one.iterdir() for one in left), *left):
        then = time.time() - SETTLED
        os.utime(path, (then, then))
    try:
        found = ACTIVITIES[activity][1](folder, begun, done)
    except Exception as error:  # noqa: BLE001 - a file that cannot be read is a finding
        found = Found(wrong=[f"{type(error).__name__}: {error}"])
    outcome.unfinished += found.unfinished
    outcome.lost += found.lost
    outcome.apart += found.apart
    outcome.left_over += len(list(folder.glob(".oneseg-*")))
    outcome.wrong += [f"kill {outcome.kills}: {sentence}" for sentence in found.wrong]


def run(kills: int, folder: Path, names: list[str] | None = None, seed: int = 0) -> dict[str, Outcome]:
    """Kill each activity so often, in turns."""
    if os.name == "posix":
        # Children come from a process that has imported everything already; before Python 3.13 it looks here for it.
        os.environ["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parent), *filter(None, sys.path)])
        context: Any = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["faults", "torch._dynamo", *PLUGIN_PARTS])
    else:
        context = multiprocessing.get_context("spawn")
    outcomes = {name: Outcome() for name in names or ACTIVITIES}
    rng = np.random.default_rng(seed)
    for name in outcomes:
        (folder / name / "files").mkdir(parents=True)
    for _ in range(kills):
        for name, outcome in outcomes.items():
            kill_once(name, folder / name / "files", context, rng, outcome)
    return outcomes


def table(outcomes: dict[str, Outcome]) -> str:
    """Return what was found as a table in Markdown."""
    total = Outcome()
    for outcome in outcomes.values():
        for key, value in asdict(outcome).items():
            setattr(total, key, getattr(total, key) + value)
    heads = ("killed while", "kills", "within a write", "done before", "being written, not there", "lost")
    lines = ["| " + " | ".join((*heads, "left half written", "old record", "wrong")) + " |", "|---" * 9 + "|"]
    for name, outcome in {**outcomes, "all": total}.items():
        counts = (
            outcome.kills, outcome.cut_off, outcome.done, outcome.unfinished, outcome.lost, outcome.left_over,
            outcome.apart, len(outcome.wrong),
        )  # fmt: skip
        lines.append(f"| {name} | " + " | ".join(f"{count:,}" for count in counts) + " |")
    return "\n".join(lines)


def main() -> None:
    """Read the command line, run, print the table, and write it to a file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=60, help="kills of each activity")
    parser.add_argument("--only", nargs="*", choices=list(ACTIVITIES), help="activities; by default all")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--out", type=Path, help="JSON file to write; by default benchmarks/results/faults.json")
    options = parser.parse_args()
    torch.set_num_threads(1)
    sys.path.insert(0, str(Path(__file__).parent))
    import faults  # so that other processes find what they are to do under this name

    with tempfile.TemporaryDirectory(prefix="oneseg-faults-") as folder:
        outcomes = faults.run(options.kills, Path(folder), options.only, options.seed)
    print(table(outcomes))
    out = options.out or Path(__file__).parent / "results" / "faults.json"
    record = {"kills": options.kills, "seed": options.seed, "activities": {k: asdict(v) for k, v in outcomes.items()}}
    out.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    wrong = [f"{name}: {sentence}" for name, outcome in outcomes.items() for sentence in outcome.wrong]
    for sentence in wrong[:40]:
        print(sentence)
    sys.exit(bool(wrong) or any(outcome.lost or outcome.left_over for outcome in outcomes.values()))


if __name__ == "__main__":
    main()
