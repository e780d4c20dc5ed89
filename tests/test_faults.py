"""What can go wrong around the program: what was painted is there afterwards, and the message says what to do.

Kills at random moments are many and slow: ``make bench-faults``.
"""

from __future__ import annotations

import errno
import functools
import io
import multiprocessing
import os
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from numpy.typing import NDArray

from napari_oneseg import scan_features, session_planes
from napari_oneseg import session as session_module
from napari_oneseg.autosave import AutosaveStore
from napari_oneseg.checkpoint import load_weights, save_weights
from napari_oneseg.config import PropagationConfig
from napari_oneseg.device import gpu_failure, memory_or_device_error
from napari_oneseg.errors import DeviceError, OutputError
from napari_oneseg.features import cache as cache_module
from napari_oneseg.features import extractor
from napari_oneseg.features.cache import FeatureCache
from napari_oneseg.features.extractor import FeatureStack, compute_features
from napari_oneseg.io import read_labels, write_labels
from napari_oneseg.session import OneSegSession
from napari_oneseg.session_file import load_session
from napari_oneseg.session_state import SessionState
from napari_oneseg.training.state_file import LoopState, StateFile
from napari_oneseg.volume import Volume
from tests.engine_fixtures import disc, moving_stack, tiny_weights

SHAPE, COUNT = (24, 24), 10
STACK = moving_stack(COUNT, SHAPE, (0, 1), scale=9.0)
VOLUME = Volume(np.random.default_rng(0).normal(size=(COUNT, *SHAPE)).astype(np.float32), (2.0, 1.0, 0.5), slice_axis=0)
WEIGHTS = tiny_weights()
CPU = torch.device("cpu")
FEATURES = compute_features(VOLUME, WEIGHTS.network, WEIGHTS.preprocessing)


def session_on(stack: FeatureStack = STACK) -> OneSegSession:
    session = OneSegSession(WEIGHTS, "cpu", propagation=PropagationConfig(window=5))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scan_features, "compute_features", lambda *_: stack)
        session.set_volume(VOLUME)
    return session


def painted(value: int) -> NDArray[np.uint8]:
    return (disc(SHAPE, (10, 10), 5) * value).astype(np.uint8)


@functools.cache
def session_with(value: int) -> OneSegSession:
    """A session in which everything says ``value``."""
    session = session_on()
    session.annotate(4, painted(value))
    session.propagate()
    return session


# A disk that is full, or closed to the user ------------------------------------------------------------------------


class Kept:
    """Something that is written in a folder: twice, the second time with a fault, and then read.

    Attributes
    ----------
    write
        Called with the folder and 1 or 2: what everything says in what is written.
    read
        Returns 1 or 2, or 0 where there is nothing; raises where there is half of something.
    """

    def __init__(self, write: Callable[[Path, int], object], read: Callable[[Path], int]) -> None:
        self.write, self.read = write, read


STORES: dict[Path, AutosaveStore] = {}


def _save_strokes(folder: Path, value: int) -> None:
    STORES.setdefault(folder, AutosaveStore(folder)).save(session_with(value).snapshot(), results=False)


def _save_results(folder: Path, value: int) -> None:
    """Keep a session whose strokes are always the same."""
    saved, results = session_with(1).snapshot(), session_with(value).state.results
    state = replace(saved.state, results=results)
    STORES.setdefault(folder, AutosaveStore(folder)).save(replace(saved, state=state))


def _save_anew(folder: Path, value: int) -> None:
    """Keep a session in a window of its own."""
    with closing(AutosaveStore(folder)) as store:
        store.save(session_with(value).snapshot(), results=False)


def _kept_states(folder: Path) -> list[SessionState]:
    store = AutosaveStore(folder)
    return [store.load(one).state for one in store.find_all(VOLUME.content_hash)]


def _strokes(folder: Path) -> int:
    values = [int(state.painted[4].max()) for state in _kept_states(folder)]
    assert sorted(values) in ([1], [2], [1, 2])
    return max(values)


def _results(folder: Path) -> int:
    (state,) = _kept_states(folder)
    assert state.painted[4].max() == 1
    (value,) = {int(result.labels.max()) for result in state.results.values()}
    return value


def _labels(folder: Path, name: str) -> int:
    path = folder / name
    return int(read_labels(path, VOLUME).max()) if path.exists() else 0


def _session(folder: Path) -> int:
    path = folder / "a.oneseg"
    return int(load_session(path).state.painted[4].max()) if path.exists() else 0


def _keep_features(folder: Path, value: int) -> None:
    filled = FeatureStack(torch.full_like(FEATURES.maps, value), FEATURES.grid, FEATURES.content)
    # Another name each time, as a file is never changed.
    FeatureCache(folder).save(VOLUME, WEIGHTS.preprocessing, f"hash-{value}", filled)


def _features_kept(folder: Path) -> int:
    found = 0
    for value in (1, 2):
        one = FeatureCache(folder).load(VOLUME, WEIGHTS.network, WEIGHTS.preprocessing, f"hash-{value}", CPU)
        if one is not None:
            assert (one.maps == value).all()
            found = value
    return found


def _save_weights(folder: Path, value: int) -> None:
    save_weights(folder / "a.safetensors", WEIGHTS.network, WEIGHTS.preprocessing, {"value": value})


def _weights(folder: Path) -> int:
    path = folder / "a.safetensors"
    return int(load_weights(path).provenance["value"]) if path.exists() else 0


def _state_file(folder: Path) -> tuple[StateFile, torch.nn.Linear, torch.optim.Optimizer]:
    network = torch.nn.Linear(40, 40)
    return StateFile(folder / "a.training", {"test": 1}), network, torch.optim.Adam(network.parameters())


def _train(folder: Path, value: int) -> None:
    file, *learning = _state_file(folder)
    file.write(*learning, LoopState(torch.Generator().get_state(), [0.5] * value))


def _trained(folder: Path) -> int:
    file, *learning = _state_file(folder)
    state = file.read(*learning)
    return 0 if state is None else len(state.losses)


def _export(name: str) -> Kept:
    def write(folder: Path, value: int) -> None:
        # Noise, which takes room compressed as well.
        noise = np.random.default_rng(value).integers(0, 2, VOLUME.array.shape) * value
        write_labels(folder / name, noise.astype(np.uint8), VOLUME)

    return Kept(write, lambda folder: _labels(folder, name))


KEPT = {
    "strokes": Kept(_save_strokes, _strokes),
    "results": Kept(_save_results, _results),
    "strokes of a new window": Kept(_save_anew, _strokes),
    "session file": Kept(lambda folder, value: session_with(value).save(folder / "a.oneseg"), _session),
    "features": Kept(_keep_features, _features_kept),
    "weights": Kept(_save_weights, _weights),
    "state of a training": Kept(_train, _trained),
    "NIfTI": _export("a.nii.gz"),
    "plain NIfTI": _export("a.nii"),
    "NRRD": _export("a.nrrd"),
    "MetaImage": _export("a.mha"),
}


@pytest.fixture(autouse=True)
def small_disk_will_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache_module, "_SPARE", 0)


def attempt(kept: Kept, folder: Path) -> list[str]:
    """Write a second time; return what the user is told."""
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        try:
            kept.write(folder, 2)
        except OutputError as error:
            return [str(error)]
    return [str(one.message) for one in warned]


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.rglob("*") if path.suffix != ".lock"}


class _Disk:
    """Fails from the n-th call on that needs room, as a disk does that has become full."""

    def __init__(self, patch: pytest.MonkeyPatch, room: int) -> None:
        self.room, self.calls = room, 0
        real_open, real_image = io.open, sitk.WriteImage

        def opened(file: Any, mode: str = "r", *args: Any, **options: Any) -> Any:
            if not set(mode) & set("wax+"):
                return real_open(file, mode, *args, **options)
            self.take()
            raw = _Raw(self, file, mode.replace("b", "").replace("t", ""))
            buffered = io.BufferedRandom(raw) if "+" in mode else io.BufferedWriter(raw)
            return buffered if "b" in mode else io.TextIOWrapper(buffered, encoding="utf-8")

        def image(*args: Any, **options: Any) -> None:
            real_image(*args, **options)
            try:
                self.take()
            except OSError as error:  # as ITK tells it
                raise RuntimeError("itk::ERROR: ImageIO could not write") from error

        patch.setattr(io, "open", opened)
        patch.setattr("builtins.open", opened)
        patch.setattr(sitk, "WriteImage", image)
        for name in ("fsync", "replace", "mkdir", "rename"):
            patch.setattr(os, name, self.taking(getattr(os, name)))

    def take(self) -> None:
        self.calls += 1
        if self.calls > self.room:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def taking(self, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            self.take()
            return real(*args, **options)

        return call


class _Raw(io.FileIO):
    def __init__(self, disk: _Disk, file: Any, mode: str) -> None:
        super().__init__(file, mode)
        self.disk = disk

    def write(self, data: Any) -> int:
        self.disk.take()
        return super().write(data)


@pytest.mark.parametrize("what", KEPT)
def test_a_disk_that_becomes_full_at_any_call(tmp_path: Path, what: str) -> None:
    """Every call that needs room fails in turn: the old is there, whole; or the new, where all went well."""
    kept = KEPT[what]
    kept.write(tmp_path, 1)
    before = names(tmp_path)
    told = 0
    for room in range(200):
        with pytest.MonkeyPatch.context() as patch:
            disk = _Disk(patch, room)
            sentences = attempt(kept, tmp_path)
        if disk.calls <= room:
            break
        (sentence,) = sentences
        told += any(word in sentence for word in FULL_DISK)
        assert kept.read(tmp_path) == 1
        assert names(tmp_path) == before, "nothing half written"
    else:
        pytest.fail("it never came to an end")
    assert told == room > 2, "each failure was told, and there were some"
    assert kept.read(tmp_path) == 2


FULL_DISK = ("the disk is full", "the disk is probably full", "kept on disk (No space left on device)")
_SMALL_DISK = """
import os, pathlib, sys
sys.path.insert(0, {repository!r})
from tests.test_faults import FULL_DISK, KEPT, attempt, cache_module, names

cache_module._SPARE = -(1 << 30)  # else it would not even try
disk = pathlib.Path(sys.argv[1])
for what, kept in KEPT.items():
    folder = disk / what
    folder.mkdir()
    kept.write(folder, 1)
    before = names(folder)
    told = trials = 0
    free = 0
    while True:
        left = os.statvfs(disk).f_bavail * 4096 - free
        free += 4096
        (disk / "filler").write_bytes(bytes(left))
        sentences = attempt(kept, folder)
        (disk / "filler").unlink()
        if not sentences:
            break
        trials += 1
        told += any(word in sentences[0] for word in FULL_DISK)
        assert kept.read(folder) == 1, what
        assert names(folder) == before, (what, names(folder))
    assert kept.read(folder) == 2, what
    print(what.replace(" ", "_"), trials, told)
"""


def test_a_disk_that_is_really_full(tmp_path: Path) -> None:
    """A small disk, on which room for one page after another is left."""
    if sys.platform != "linux":
        pytest.skip("needs Linux, to mount a small disk")
    disk = tmp_path / "disk"
    disk.mkdir()
    script = tmp_path / "script.py"
    script.write_text(_SMALL_DISK.format(repository=str(Path(__file__).parents[1])))
    # In a name space of its own: nobody else sees the disk, and it goes with the process.
    mounted = f"mount -t tmpfs -o size=4m tmpfs {disk} && exec {sys.executable} {script} {disk}"
    command = ["unshare", "--mount", "sh", "-c", mounted]
    tried = subprocess.run(["unshare", "--mount", "true"], capture_output=True, check=False)
    if tried.returncode:
        pytest.skip("needs the right to mount a small disk")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "TMPDIR": str(tmp_path)}
    done = subprocess.run(command, env=environment, capture_output=True, encoding="utf-8", check=False)
    assert done.returncode == 0, done.stderr
    found = {what: (int(trials), int(told)) for what, trials, told in map(str.split, done.stdout.splitlines())}
    assert found.keys() == {what.replace(" ", "_") for what in KEPT}
    for what, (trials, told) in found.items():
        assert told == trials > 0, what


@contextmanager
def as_another_user() -> Iterator[None]:
    """Root may write everywhere: within the block it is not root."""
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)


@pytest.mark.skipif(os.name != "posix", reason="permissions are those of POSIX systems")
@pytest.mark.parametrize("what", KEPT)
def test_a_folder_that_is_closed(what: str) -> None:
    kept = KEPT[what]
    # Not pytest's own folder, which another user cannot enter.
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "closed"
        folder.mkdir()
        kept.write(folder, 1)
        before = names(folder)
        for path in (*folder.rglob("*"), folder, folder.parent):
            path.chmod(0o555 if path.is_dir() else 0o444)
        with as_another_user():
            (sentence,) = attempt(kept, folder)
        for path in (folder.parent, folder):
            path.chmod(0o755)
        assert "permission" in sentence.lower()
        assert kept.read(folder) == 1
        assert names(folder) == before


# Two windows on one scan -------------------------------------------------------------------------------------------


def _window(pipe: Connection, folder: Path, value: int) -> None:
    """Paint slices as they are asked for, keep them, and tell how many others are at work on the scan."""
    session, store = session_on(), AutosaveStore(folder)
    while (index := pipe.recv()) is not None:
        session.annotate(index, painted(value))
        store.save(session.snapshot())
        pipe.send(sum(one.alive for one in store.find_all(session.volume.content_hash)))


def test_two_windows_keep_their_own_strokes(tmp_path: Path) -> None:
    """Two processes paint the same scan in turns; then one is killed and one ends."""
    folder = tmp_path / "autosave"
    context = multiprocessing.get_context("spawn")
    pipes, windows = [], []
    for value in (1, 2):
        mine, other = context.Pipe()
        windows.append(context.Process(target=_window, args=(other, folder, value), daemon=True))
        windows[-1].start()
        pipes.append(mine)

    def stroke(window: int, index: int) -> int:
        pipes[window].send(index)
        return int(pipes[window].recv())

    assert [stroke(0, 0), stroke(1, 0)] == [0, 1], "the second sees that the first is at work"
    assert [[stroke(0, k), stroke(1, k)] for k in range(1, 6)] == [[1, 1]] * 5
    windows[0].kill()
    pipes[1].send(None)
    for window in windows:
        window.join()
    store = AutosaveStore(folder)
    found = store.find_all(VOLUME.content_hash)
    assert [one.alive for one in found] == [False, False]
    states = [store.load(one).state for one in found]
    assert {int(state.painted[0].max()) for state in states} == {1, 2}
    for state in states:
        assert sorted(state.painted) == [0, 1, 2, 3, 4, 5]
        assert len({int(image.max()) for image in state.painted.values()}) == 1


# A GPU that is full, or fails --------------------------------------------------------------------------------------

FULL = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    RuntimeError("MPS backend out of memory (MPS allocated: 9 GB)"),
]
FAILED = [
    RuntimeError("CUDA error: unspecified launch failure\nCompile with `TORCH_USE_CUDA_DSA`"),
    RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR"),
    RuntimeError("No CUDA GPUs are available"),
]
if hasattr(torch, "AcceleratorError"):
    FAILED.append(torch.AcceleratorError("the device is lost"))
GPU = torch.device("cuda")


def told(error: RuntimeError) -> str:
    sentence = gpu_failure(error, GPU)
    assert sentence is not None
    return sentence


@pytest.mark.parametrize("error", FULL + FAILED, ids=lambda error: str(error)[:20])
def test_what_is_said_of_a_gpu(error: RuntimeError) -> None:
    assert "the CPU is used instead" in told(error)
    assert ("memory of cuda is full" in told(error)) == (error in FULL)
    assert "\n" not in told(error)
    assert gpu_failure(error, CPU) is None
    for_the_user = memory_or_device_error(error)
    assert isinstance(for_the_user, DeviceError)
    assert "Choose the CPU as the device" in str(for_the_user)
    assert "nothing that was painted is lost" in str(for_the_user)


@pytest.mark.parametrize(
    "error", [RuntimeError("shapes cannot be multiplied"), ValueError("CUDA error"), KeyError("a")]
)
def test_defects_are_no_failures_of_a_gpu(error: Exception) -> None:
    assert memory_or_device_error(error) is None
    assert gpu_failure(RuntimeError("shapes cannot be multiplied"), GPU) is None


@pytest.mark.parametrize(
    "error", [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")]
)
def test_what_is_said_of_a_full_memory(error: Exception) -> None:
    assert "The computer's memory is full" in str(memory_or_device_error(error))


@pytest.mark.parametrize("error", FAILED, ids=lambda error: str(error)[:20])
def test_features_come_from_the_cpu_at_once_where_a_gpu_fails(
    monkeypatch: pytest.MonkeyPatch, error: RuntimeError
) -> None:
    real, tried = extractor._run, []

    def run(slices: Any, network: Any, grid: Any, device: torch.device, batch: int, progress: Any) -> Any:
        tried.append(device.type)
        if device.type != "cpu":
            raise error
        return real(slices, network, grid, device, batch, progress)

    monkeypatch.setattr(extractor, "_run", run)
    with pytest.warns(UserWarning, match="cuda has failed"):
        features = compute_features(VOLUME, WEIGHTS.network, WEIGHTS.preprocessing, "cuda")
    assert tried == ["cuda", "cpu"]
    assert torch.equal(features.maps, FEATURES.maps)


def test_a_network_stays_on_the_cpu_when_a_copy_goes_to_a_gpu() -> None:
    there = extractor._ready(WEIGHTS.network, torch.device("meta"))
    assert {one.device.type for one in there.parameters()} == {"meta"}
    assert {one.device.type for one in WEIGHTS.network.parameters()} == {"cpu"}
    assert extractor._ready(WEIGHTS.network, CPU) is WEIGHTS.network
    assert extractor._ready(there, torch.device("meta")) is there


class OnGpu(FeatureStack):
    """Features in the memory of a GPU, from which they can be taken back or not."""

    def __init__(self, stack: FeatureStack, error: RuntimeError) -> None:
        super().__init__(torch.empty(stack.maps.shape, device="meta"), stack.grid, stack.content)
        self.__dict__.update(stack=stack, error=error)

    def to(self, device: torch.device) -> FeatureStack:
        if any(self.error is one for one in FAILED):
            raise self.error
        return self.stack


def failing_on_gpu(patch: pytest.MonkeyPatch, name: str, error: RuntimeError, after: int = 0) -> None:
    """Have a stage of the session fail on the GPU, after it has given some of what it gives."""
    module = session_planes if name == "propagate_slices" else session_module
    real = getattr(module, name)

    def stage(features: FeatureStack, *args: Any) -> Any:
        if not isinstance(features, OnGpu):
            return real(features, *args)
        if name != "propagate_slices":
            raise error
        return part(features, *args)

    def part(features: OnGpu, *args: Any) -> Iterator[Any]:
        for _, result in zip(range(after), real(features.stack, *args), strict=False):
            yield result
        raise error

    patch.setattr(module, name, stage)
    patch.setattr(scan_features, "compute_features", lambda *_: STACK)


@pytest.mark.parametrize("after", [0, 3])
@pytest.mark.parametrize("error", FULL + FAILED, ids=lambda error: str(error)[:20])
def test_a_propagation_goes_on_with_the_cpu(monkeypatch: pytest.MonkeyPatch, error: RuntimeError, after: int) -> None:
    session = session_on()
    session.annotate(4, painted(1))
    session.annotate(7, painted(2))
    session._open_scan.stack = OnGpu(STACK, error)
    failing_on_gpu(monkeypatch, "propagate_slices", error, after)
    with pytest.warns(UserWarning, match="the CPU is used instead") as warned:
        labels = session.propagate().labels
    assert len(warned) == 1
    expected = session_on()
    expected.set_annotation(session.annotation)
    assert np.array_equal(labels, expected.propagate().labels)
    assert np.array_equal(session.state.painted[4], painted(1))
    with warnings.catch_warnings(action="error"):  # once: it stays with the CPU
        session.propagate()


@pytest.mark.parametrize("error", [FULL[0], FAILED[0]], ids=["full", "failed"])
def test_suggestions_and_ranges_go_on_with_the_cpu(monkeypatch: pytest.MonkeyPatch, error: RuntimeError) -> None:
    expected = session_on()
    for module, name, ask in (
        (session_module, "rank_slices", lambda session: session.suggest_slices(top=3)),
        (scan_features, "coarse_grey", lambda session: session.locate(4, 10, 10)),
    ):
        session = session_on()
        session._open_scan.stack = OnGpu(STACK, error)
        with monkeypatch.context() as patch:
            # The grey values come from the volume, with the features behind it.
            real = getattr(module, name)

            def stage(*args: Any, real: Any = real) -> Any:
                if any(isinstance(one, OnGpu) for one in args):
                    raise error
                return real(*args)

            patch.setattr(module, name, stage)
            patch.setattr(scan_features, "compute_features", lambda *_: STACK)
            with pytest.warns(UserWarning, match="the CPU is used instead"):
                found = ask(session)
        assert found == ask(expected)
        assert session.features is STACK


def test_a_defect_is_not_taken_for_a_failed_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    session = session_on()
    session.annotate(4, painted(1))
    session._open_scan.stack = OnGpu(STACK, FULL[0])
    failing_on_gpu(monkeypatch, "propagate_slices", RuntimeError("shapes cannot be multiplied"))
    with pytest.raises(RuntimeError, match="shapes"):
        session.propagate()
    assert np.array_equal(session.state.painted[4], painted(1))


def test_features_of_a_failed_gpu_are_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def lost(*_: object) -> None:
        raise FAILED[0]

    monkeypatch.setattr(cache_module, "_write", lost)
    cache = FeatureCache(tmp_path / "features")
    on_gpu = FeatureStack(torch.empty(FEATURES.maps.shape, device="meta"), FEATURES.grid, FEATURES.content)
    cache.save(VOLUME, WEIGHTS.preprocessing, "hash", on_gpu)
    assert not list(cache.folder.iterdir())
    with pytest.raises(RuntimeError, match="CUDA"):
        cache.save(VOLUME, WEIGHTS.preprocessing, "hash", FEATURES)
