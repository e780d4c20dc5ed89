"""What the readers make of damaged and hostile files: ``make bench-fuzz``.

Each trial mutates an honest file and gives it to its reader in another process, with a limit on its memory and 10 s of
time. A reader may open the file, as when only a grey value changed, or refuse it with an error meant for the user. A
signal, a hang, memory beyond the limit, or any other error is a failure. It is listed with its trial, which ``--only``,
``--first`` and ``--trials 1`` repeat.
"""

from __future__ import annotations

import argparse
import faulthandler
import json
import multiprocessing as mp
import os
import re
import resource
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parent))
from mutations import mutate, write_originals

from napari_oneseg.checkpoint import load_weights
from napari_oneseg.errors import OneSegError
from napari_oneseg.io import read_labels, read_volume
from napari_oneseg.session_file import load_session

TIME_LIMIT = 10.0
# Beyond four times what an honest file needs, and what the libraries allocate on their own.
SPARE_MEMORY = 128 << 20
# Not "Bits Allocated", an entry that may be missing in a DICOM file.
_WANTED_TOO_MUCH = re.compile(r"memory|bad.?alloc|\ballocat(e|ion)\b", re.IGNORECASE)
FAILURES = ("crash", "hang", "memory", "traceback")


@dataclass
class Reader:
    """What was found about one reader."""

    trials: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    failures: list[dict[str, Any]] = field(default_factory=list)
    opened_other: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0


def readers(folder: Path) -> dict[str, Callable[[Path], Any]]:
    """Return what opens each kind of file; what it returns is compared with the honest file's."""
    volume = read_volume(folder / "scan-1.nii")

    def scan(path: Path) -> Any:
        return read_volume(path).array

    def dicom(path: Path) -> Any:
        """Read a series in which one file is the given one."""
        series = folder / "dicom" / path.stem.partition("-")[0]
        with tempfile.TemporaryDirectory(dir=folder) as mixed:
            for other in series.iterdir():
                os.link(path if other.name == path.name else other, Path(mixed) / other.name)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                return read_volume(mixed).array

    return {
        "NIfTI": scan,
        "NRRD": scan,
        "MHA": scan,
        "DICOM": dicom,
        "labels": lambda path: read_labels(path, volume),
        "session": lambda path: {k: result.labels for k, result in load_session(path).state.results.items()},
        "weights": lambda path: {k: v.numpy() for k, v in load_weights(path).network.state_dict().items()},
    }


def same(first: Any, second: Any) -> bool:
    """Whether two readings agree, voxel for voxel."""
    if isinstance(first, dict):
        return first.keys() == second.keys() and all(same(first[key], second[key]) for key in first)
    return bool(np.array_equal(first, second))


def trial(name: str, index: int, originals: dict[str, list[Path]]) -> tuple[Path, str, bytes]:
    """Return the honest file, the mutation and its result; the same for the same number."""
    rng = np.random.default_rng([sum(name.encode()), index])
    path = originals[name][int(rng.integers(len(originals[name])))]
    kind, content = mutate(rng, path.read_bytes(), path.name)
    return path, kind, content


def peak_memory() -> int:
    """Return the most memory that this process had in use since :func:`forget_peak`, in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) << 10


def forget_peak() -> None:
    """Let the kernel measure the peak anew."""
    Path("/proc/self/clear_refs").write_text("5")


def address_space() -> int:
    """Return how much memory this process has reserved, in bytes."""
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()


def attempt(read: Callable[[Path], Any], path: Path, honest: Any) -> tuple[str, str]:
    """Read a file; return the outcome and what was said."""
    try:
        result = read(path)
    except OneSegError as error:
        reasons = f"{error.__cause__!r} {error.__context__!r}"
        return ("memory" if _WANTED_TOO_MUCH.search(reasons) else "refused"), str(error)[:300]
    except MemoryError:
        return "memory", traceback.format_exc()[-600:]
    except BaseException:  # noqa: BLE001 - any of them is a finding
        return "traceback", traceback.format_exc()[-900:]
    return ("opened" if same(result, honest) else "opened, other values"), ""


def work(pipe: Connection, folder: Path, originals: dict[str, list[Path]]) -> None:
    """Run trials as they are asked for, until the other side closes."""
    warnings.simplefilter("ignore")
    # The libraries' own complaints would fill the terminal, and so would dumps of what is counted here.
    faulthandler.disable()
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    opens = readers(folder)
    honest = {path: opens[name](path) for name, paths in originals.items() for path in paths}
    limit = address_space() + (1 << 30)
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    with tempfile.TemporaryDirectory(dir=folder) as own:
        while True:
            try:
                name, index = pipe.recv()
            except EOFError:
                return
            path, kind, content = trial(name, index, originals)
            mutated = Path(own) / path.name
            mutated.write_bytes(content)
            pipe.send(("began", kind, path.name))
            del content
            forget_peak()
            before = peak_memory()
            outcome, said = attempt(opens[name], mutated, honest[path])
            used = peak_memory() - before
            if used > SPARE_MEMORY + 4 * path.stat().st_size and outcome in (
                "opened",
                "opened, other values",
                "refused",
            ):
                outcome, said = "memory", f"{used >> 20} MiB; {outcome} {said}"
            pipe.send((outcome, said))


class Worker:
    """A process that runs trials, replaced when it died or hangs."""

    def __init__(self, folder: Path, originals: dict[str, list[Path]]) -> None:
        self._made_of = folder, originals
        self._start()

    def _start(self) -> None:
        self._pipe, other = mp.Pipe()
        self._process = mp.get_context("fork").Process(target=work, args=(other, *self._made_of), daemon=True)
        self._process.start()
        other.close()

    def run(self, name: str, index: int) -> tuple[str, str, str, str]:
        """Return outcome, what was said, mutation and file."""
        kind = file = "?"
        try:
            self._pipe.send((name, index))
            # Making the file, and starting anew, may take a while; reading it may not.
            _, kind, file = self._pipe.recv()
            if self._pipe.poll(TIME_LIMIT):
                return (*self._pipe.recv(), kind, file)
            self.stop()
            outcome = "hang", f"more than {TIME_LIMIT:.0f} s"
        except (EOFError, ConnectionResetError, BrokenPipeError):
            self._process.join()
            outcome = "crash", f"exit code {self._process.exitcode}"
        self._start()
        return (*outcome, kind, file)

    def stop(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.join()
        self._pipe.close()


def fuzz(
    names: list[str], trials: int, folder: Path, data: Path | None, seconds: float = float("inf"), first: int = 0
) -> dict[str, Reader]:
    """Try each reader on so many files, in turns, until the time is over."""
    originals = write_originals(folder, data)
    found = {name: Reader() for name in names}
    worker = Worker(folder, originals)
    start = time.monotonic()
    try:
        for name, index in _turns(names, first, trials):
            if time.monotonic() - start > seconds:
                break
            began = time.monotonic()
            outcome, said, kind, file = worker.run(name, index)
            reader = found[name]
            reader.trials += 1
            reader.seconds += time.monotonic() - began
            reader.outcomes[outcome] += 1
            if outcome in FAILURES:
                reader.failures.append(
                    {"trial": index, "file": file, "mutation": kind, "outcome": outcome, "said": said}
                )
            if outcome == "opened, other values":
                reader.opened_other[f"{file}: {kind}"] += 1
    finally:
        worker.stop()
    return found


def _turns(names: list[str], first: int, trials: int) -> Iterator[tuple[str, int]]:
    for index in range(first, first + trials):
        for name in names:
            yield name, index


def table(found: dict[str, Reader]) -> str:
    """Return what was found as a table in Markdown."""
    columns = ("refused", "opened", "opened, other values", *FAILURES)
    lines = ["| reader | trials | " + " | ".join(columns) + " |", "|---" * (2 + len(columns)) + "|"]
    for name, reader in found.items():
        counts = " | ".join(f"{reader.outcomes[column]:,}" for column in columns)
        lines.append(f"| {name} | {reader.trials:,} | {counts} |")
    return "\n".join(lines)


def main() -> None:
    """Read the command line, run, print the table, and write every failure to a file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=20_000, help="trials for each reader")
    parser.add_argument("--first", type=int, default=0, help="number of the first trial")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="stop after so many seconds")
    parser.add_argument("--only", nargs="*", help="readers to try; by default all")
    parser.add_argument("--data", type=Path, help="folder of real scans (see shared/data/MANIFEST.md)")
    parser.add_argument("--out", type=Path, help="JSON file to write")
    options = parser.parse_args()
    # A process that is forked while others compute may wait for them for ever.
    torch.set_num_threads(1)
    names = options.only or ["NIfTI", "NRRD", "MHA", "DICOM", "labels", "session", "weights"]
    with tempfile.TemporaryDirectory(prefix="oneseg-fuzz-") as folder:
        found = fuzz(names, options.trials, Path(folder), options.data, options.seconds, options.first)
    print(table(found))
    if options.out:
        record = {name: {**vars(reader), "outcomes": dict(reader.outcomes)} for name, reader in found.items()}
        options.out.write_text(json.dumps(record, indent=1))
    for name, reader in found.items():
        for failure in reader.failures[:20]:
            print(name, json.dumps(failure))
    sys.exit(any(reader.failures for reader in found.values()))


if __name__ == "__main__":
    main()
