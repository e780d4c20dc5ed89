"""A few hundred damaged and hostile files; ``make bench-fuzz`` tries as many as one likes."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
import fuzz
from mutations import mutate, write_originals

pytestmark = [
    # Reset to measure the memory of each trial; only Linux has it.
    pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux"),
    # The forked processes start no threads, and take no lock that one of this process may hold.
    pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning"),
]

TRIALS = 80
READERS = ["NIfTI", "NRRD", "MHA", "DICOM", "session", "weights"]


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, fuzz.Reader]:
    return fuzz.fuzz(READERS, TRIALS, tmp_path_factory.mktemp("fuzz"), data=None)


@pytest.mark.parametrize("name", READERS)
def test_no_file_brings_a_reader_down(found: dict[str, fuzz.Reader], name: str) -> None:
    assert found[name].failures == []
    assert found[name].trials == TRIALS
    # Many mutations do harm, not all: the files are really read.
    assert found[name].outcomes["refused"] > TRIALS // 5
    assert found[name].outcomes["refused"] < TRIALS


def crash(path: Path) -> None:
    os.kill(os.getpid(), signal.SIGSEGV)


def hang(path: Path) -> None:
    time.sleep(60)


def grow(path: Path) -> int:
    return len(b"1" * (300 << 20))


def exhaust(path: Path) -> int:
    return len(bytearray(4 << 30))


def stumble(path: Path) -> None:
    raise ZeroDivisionError


@pytest.mark.parametrize(
    ("reader", "outcome"),
    [(crash, "crash"), (hang, "hang"), (grow, "memory"), (exhaust, "memory"), (stumble, "traceback")],
)
def test_every_kind_of_failure_is_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reader: Callable[[Path], object], outcome: str
) -> None:
    original = tmp_path / "honest.nii"
    original.write_bytes(bytes(400))
    opened: list[Path] = []

    def first_honest(path: Path) -> object:
        # The honest file is opened once, by the same function.
        opened.append(path)
        return reader(path) if len(opened) > 1 else None

    monkeypatch.setattr(fuzz, "readers", lambda folder: {"broken": first_honest})
    monkeypatch.setattr(fuzz, "write_originals", lambda folder, data: {"broken": [original]})
    monkeypatch.setattr(fuzz, "TIME_LIMIT", 2.0)
    found = fuzz.fuzz(["broken"], 1, tmp_path, data=None)["broken"]
    assert [failure["outcome"] for failure in found.failures] == [outcome]


def test_a_trial_can_be_repeated(tmp_path: Path) -> None:
    originals = write_originals(tmp_path, None)
    first, again, other = (fuzz.trial("NIfTI", index, originals) for index in (7, 7, 8))
    assert first == again != other


def test_mutations_differ_from_the_honest_file(tmp_path: Path) -> None:
    for path in write_originals(tmp_path, None)["session"]:
        content = path.read_bytes()
        changed = [mutate(np.random.default_rng(seed), content, path.name)[1] != content for seed in range(30)]
        assert np.mean(changed) > 0.8
