from __future__ import annotations

import errno
import json
import multiprocessing
import os
import queue
import threading
import time
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import platformdirs
import pytest
import torch

from napari_oneseg import files, scan_features
from napari_oneseg.checkpoint import Weights
from napari_oneseg.config import PreprocessingConfig
from napari_oneseg.errors import Cancelled
from napari_oneseg.features import cache as cache_module
from napari_oneseg.features.cache import FeatureCache, user_cache
from napari_oneseg.features.extractor import FeatureStack, compute_features
from napari_oneseg.features.resnet import FeatureNetwork
from napari_oneseg.session import OneSegSession
from napari_oneseg.volume import Volume
from tests.engine_fixtures import TINY, disc

CPU = torch.device("cpu")
CONFIG = PreprocessingConfig(working_size=48)
HASH = "weights-hash"
LEFT_BEHIND = 3600.0
"""Seconds after which what is half written counts as left by a killed program."""


def network(**changes: Any) -> FeatureNetwork:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        made = FeatureNetwork(replace(TINY, refine=True, null_match=True, **changes)).eval()
        torch.nn.init.normal_(made.refiner.out.weight)  # or else refining changes nothing
    return made


def scan(value: float = 0.0, shape: tuple[int, int, int] = (6, 40, 32)) -> Volume:
    array = np.random.default_rng(0).normal(0, 20, shape).astype(np.float32)
    for z in range(shape[0]):
        array[z][disc(shape[1:], (18 + z, 16), 9)] += 200
        array[z][disc(shape[1:], (18 + z, 16), 4)] += 200
    return Volume(array + np.float32(value), (3.0, 1.0, 1.0), header={"PatientName": "Jane Doe"})


NETWORK = network()
SCAN = scan()
FEATURES = compute_features(SCAN, NETWORK, CONFIG)
SIZE = sum(array.nbytes for array in FEATURES.arrays().values())


@pytest.fixture
def cache(tmp_path: Path) -> FeatureCache:
    return FeatureCache(tmp_path / "features")


@pytest.fixture(autouse=True)
def small_disk_will_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache_module, "_SPARE", 0)


def save(cache: FeatureCache, weights: str = HASH, features: FeatureStack = FEATURES) -> None:
    cache.save(SCAN, CONFIG, weights, features)


def load(cache: FeatureCache, weights: str = HASH) -> FeatureStack | None:
    return cache.load(SCAN, NETWORK, CONFIG, weights, CPU)


def value(features: FeatureStack | None) -> float | None:
    """The value that features say everywhere."""
    if features is None:
        return None
    assert (features.maps == features.maps.flatten()[0]).all()
    return float(features.maps.flatten()[0])


def file_of(cache: FeatureCache) -> Path:
    (path,) = cache.folder.iterdir()
    return path


def older(path: Path, seconds: float) -> None:
    before = time.time() - seconds
    os.utime(path, (before, before))


def assert_same(one: FeatureStack | None, other: FeatureStack) -> None:
    assert one is not None
    assert torch.equal(one.maps, other.maps)
    assert one.maps.dtype == other.maps.dtype
    assert np.array_equal(one.content, other.content)
    assert (one.grid, one.null_bias) == (other.grid, other.null_bias)
    assert one.refinement is not None
    assert other.refinement is not None
    assert torch.equal(one.refinement.grey, other.refinement.grey)
    assert one.refinement.distance == other.refinement.distance


# Keeping and finding ---------------------------------------------------------------------------------------------


def test_what_comes_back_is_what_was_computed(cache: FeatureCache) -> None:
    assert load(cache) is None
    save(cache)
    fresh = network()
    found = cache.load(SCAN, fresh, CONFIG, HASH, CPU)
    assert_same(found, FEATURES)
    assert found is not None
    assert found.refinement is not None
    assert found.refinement.network is fresh.refiner
    assert FEATURES.null_bias is not None


def test_without_a_refiner(cache: FeatureCache) -> None:
    plain = FeatureNetwork(TINY).eval()
    features = compute_features(SCAN, plain, CONFIG)
    save(cache, features=features)
    found = cache.load(SCAN, plain, CONFIG, HASH, CPU)
    assert found is not None
    assert torch.equal(found.maps, features.maps)
    assert found.refinement is None
    assert found.null_bias is None


def test_whatever_else_decides_the_features_has_a_file_of_its_own(
    cache: FeatureCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(cache)
    assert cache.load(scan(1.0), NETWORK, CONFIG, HASH, CPU) is None
    assert cache.load(replace(SCAN, spacing=(3.0, 1.0, 1.1)), NETWORK, CONFIG, HASH, CPU) is None
    assert cache.load(replace(SCAN, padding=(-3.0, -2.0)), NETWORK, CONFIG, HASH, CPU) is None
    assert cache.load(SCAN, NETWORK, replace(CONFIG, contrast_limit=3.0), HASH, CPU) is None
    assert cache.load(SCAN, NETWORK, CONFIG, "other weights", CPU) is None
    assert cache.load(SCAN, NETWORK, CONFIG, HASH, torch.device("cuda")) is None
    for where, name in ((cache_module, "_FORMAT_VERSION"), (cache_module, "__version__"), (torch, "__version__")):
        with monkeypatch.context() as patch:
            patch.setattr(where, name, "another")
            assert load(cache) is None
    assert_same(load(cache), FEATURES)


def test_the_format_version_stands_for_these_features() -> None:
    """If this fails because features are computed in another way now, raise _FORMAT_VERSION and renew the numbers."""
    assert cache_module._FORMAT_VERSION == "2"
    maps = FEATURES.maps.float()
    assert FEATURES.refinement is not None
    found = [maps.mean(), maps.std(), maps[3, 5].std(), FEATURES.refinement.grey.float().std(), FEATURES.content[2]]
    assert [float(number) for number in found] == pytest.approx([-0.0601, 0.0962, 0.04, 0.4175, 0.3628], abs=1e-3)


def test_a_spacing_that_differs_below_the_hash_gets_its_own_grid(cache: FeatureCache) -> None:
    save(cache)
    nearly = replace(SCAN, spacing=(3.0001, 1.0, 1.0))
    assert nearly.content_hash == SCAN.content_hash
    found = cache.load(nearly, NETWORK, CONFIG, HASH, CPU)
    assert found is not None
    assert found.null_bias == compute_features(nearly, NETWORK, CONFIG).null_bias != FEATURES.null_bias


def test_nothing_names_the_patient_or_a_place(cache: FeatureCache) -> None:
    save(cache)
    path = file_of(cache)
    content = path.read_bytes()
    assert cache_module._NAME.fullmatch(path.name)
    assert SCAN.content_hash not in path.name
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    assert set(header) == {"__metadata__", "maps", "content", "grey"}
    assert set(header["__metadata__"]) == {"key", "crc32"}
    assert b"Doe" not in content
    if os.name == "posix":
        assert cache.folder.stat().st_mode & 0o077 == 0


# In a session ----------------------------------------------------------------------------------------------------


def new_session(cache: FeatureCache | None) -> OneSegSession:
    return OneSegSession(Weights(network(), CONFIG, "tiny", HASH, {}), "cpu", cache=cache)


def no_computing(*_: object) -> FeatureStack:
    raise AssertionError("this was done before")


def made_of(session: OneSegSession) -> tuple[object, ...]:
    """What comes of the features: all that a user would see."""
    painted = np.zeros(SCAN.slices.shape[1:], np.uint8)
    painted[disc(painted.shape, (20, 16), 9)] = 1
    session.annotate(2, painted)
    result = session.propagate()
    return session.suggest_slices(), result.labels.tobytes(), result.confidence.tobytes(), session.locate(2, 20, 16)


def test_the_second_session_computes_nothing(cache: FeatureCache, monkeypatch: pytest.MonkeyPatch) -> None:
    first = new_session(cache)
    first.set_volume(SCAN)
    assert not cache.folder.exists(), "writing waits until it is asked for"
    first.keep_features()
    monkeypatch.setattr(scan_features, "compute_features", no_computing)
    calls: list[tuple[int, int]] = []
    second = new_session(cache)
    second.set_volume(SCAN, lambda *call: calls.append(call))
    assert calls == [(6, 6)]
    assert_same(second.features, first.features)
    assert made_of(second) == made_of(first)


def test_features_are_written_once(cache: FeatureCache, monkeypatch: pytest.MonkeyPatch) -> None:
    save(cache)
    monkeypatch.setattr(cache_module, "_write", no_computing)
    save(cache)
    monkeypatch.setattr(cache, "save", no_computing)
    session = new_session(cache)
    session.set_volume(SCAN)
    session.keep_features()


def test_cancelling_leaves_the_session_as_it_was(cache: FeatureCache, monkeypatch: pytest.MonkeyPatch) -> None:
    def cancel(done: int, total: int) -> None:
        raise Cancelled("stop")

    save(cache)
    session = new_session(cache)
    other = scan(5.0)
    session.set_volume(other)
    monkeypatch.setattr(scan_features, "compute_features", no_computing)
    with pytest.raises(Cancelled):
        session.set_volume(SCAN, cancel)
    assert session.volume is other
    session.keep_features()
    assert cache.load(other, NETWORK, CONFIG, HASH, CPU) is not None


def test_reading_tells_how_far_it_is(cache: FeatureCache, monkeypatch: pytest.MonkeyPatch) -> None:
    save(cache)
    monkeypatch.setattr(cache_module, "_BLOCK", SIZE // 3)
    calls: list[tuple[int, int]] = []
    assert cache.load(SCAN, NETWORK, CONFIG, HASH, CPU, lambda *call: calls.append(call)) is not None
    assert calls[-1] == (6, 6)
    assert len(calls) in (3, 4)
    assert calls == sorted(calls)


def test_without_a_cache_nothing_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    session = new_session(None)
    session.set_volume(SCAN)
    monkeypatch.setattr(FeatureCache, "save", no_computing)
    session.keep_features()


def test_what_was_computed_is_kept_once(cache: FeatureCache, monkeypatch: pytest.MonkeyPatch) -> None:
    session = new_session(cache)
    session.set_volume(SCAN)
    session.keep_features()
    monkeypatch.setattr(cache, "save", no_computing)
    session.keep_features()


def test_the_widget_opens_a_scan_again_without_computing(
    cache: FeatureCache, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pytest.importorskip("napari")
    from napari.layers import Image

    from napari_oneseg.plugin.engine import Report
    from napari_oneseg.plugin.scan_layer import describe_layer, scan_layer_data
    from napari_oneseg.plugin.work import open_scan

    monkeypatch.setattr(cache_module, "user_cache", lambda: cache)
    data, options, _ = scan_layer_data(SCAN, "scan")
    snapshot = describe_layer(Image(data, **options))
    weights = Weights(network(), CONFIG, "tiny", HASH, {})
    opened = []
    for _ in range(2):
        opened.append(open_scan(snapshot, None, "cpu", weights, None, Report(queue.SimpleQueue())))
        for thread in threading.enumerate():
            if thread.name == "oneseg-keep":
                assert not thread.daemon
                thread.join()
        monkeypatch.setattr(scan_features, "compute_features", no_computing)
    assert_same(opened[1].session.features, opened[0].session.features)
    assert opened[1].ranking is not None


# Damage ----------------------------------------------------------------------------------------------------------


def spoiled(cache: FeatureCache, path: Path, content: bytes) -> None:
    """Put other content in the file's place: it is found out, and removed."""
    path.write_bytes(content)
    assert load(cache) is None
    assert not path.exists()


def test_a_file_cut_off_anywhere_is_not_used(cache: FeatureCache) -> None:
    save(cache)
    path = file_of(cache)
    content = path.read_bytes()
    random = np.random.default_rng(0)
    for length in [*range(0, 600, 7), *random.integers(0, len(content), 60), len(content) - 1]:
        spoiled(cache, path, content[:length])
    spoiled(cache, path, content + b"\0")
    spoiled(cache, path, content[:1000] + bytes(len(content) - 1000))
    save(cache)
    assert_same(load(cache), FEATURES)


def test_a_changed_byte_anywhere_changes_no_result(cache: FeatureCache) -> None:
    save(cache)
    path = file_of(cache)
    content = path.read_bytes()
    header = 8 + int.from_bytes(content[:8], "little")
    random = np.random.default_rng(0)
    places = [*range(header), *random.integers(header, len(content), 100), len(content) - 1]
    for place in places:
        wrong = bytearray(content)
        wrong[place] ^= int(random.integers(1, 256))
        path.write_bytes(wrong)
        found = load(cache)
        if found is None:
            assert not path.exists()
        else:  # what surrounds the header's values means nothing
            assert place < header
            assert_same(found, FEATURES)
        del found  # as long as it is mapped, not every system lets the file be written


def test_a_sound_file_that_does_not_fit_is_not_used(cache: FeatureCache) -> None:
    small = Volume(SCAN.array[:3], SCAN.spacing)
    save(cache, features=compute_features(small, NETWORK, CONFIG))
    spoiled(cache, file_of(cache), file_of(cache).read_bytes())
    save(cache, features=replace(FEATURES, maps=FEATURES.maps.float()))
    spoiled(cache, file_of(cache), file_of(cache).read_bytes())
    save(cache, features=replace(FEATURES, refinement=None))
    spoiled(cache, file_of(cache), file_of(cache).read_bytes())


def test_a_file_under_another_name_is_not_used(cache: FeatureCache) -> None:
    save(cache)
    path = file_of(cache)
    save(cache, "other")
    (other,) = set(cache.folder.iterdir()) - {path}
    spoiled(cache, path, other.read_bytes())


# Space -----------------------------------------------------------------------------------------------------------


def named(cache: FeatureCache, weights: str) -> Path:
    return cache._path(cache_module._key(SCAN, CONFIG, weights, CPU))


def kept(cache: FeatureCache, names: str) -> str:
    return "".join(name for name in names if named(cache, name).exists())


def age(cache: FeatureCache, names: str) -> None:
    """Make it long ago that these files were used, the first one longest."""
    for place, name in enumerate(names):
        older(named(cache, name), 100 - place)


def test_the_least_recently_used_goes_first(cache: FeatureCache) -> None:
    save(cache)
    cache.limit = round(3.5 * file_of(cache).stat().st_size)
    file_of(cache).unlink()
    for name in "abc":
        save(cache, name)
    age(cache, "abc")
    assert kept(cache, "abc") == "abc"
    assert load(cache, "a") is not None
    save(cache, "d")
    assert kept(cache, "abcd") == "acd"
    age(cache, "cad")
    save(cache, "c")
    save(cache, "e")
    assert kept(cache, "abcde") == "cde"
    assert sum(path.stat().st_size for path in cache.folder.iterdir()) <= cache.limit
    cache.limit //= 3
    cache.prune()
    assert len(list(cache.folder.iterdir())) == 1


def test_a_scan_that_would_take_most_of_the_cache_is_not_kept(cache: FeatureCache) -> None:
    cache.limit = 2 * SIZE - 1
    save(cache)
    assert not cache.folder.exists()
    cache.limit = 2 * SIZE
    save(cache)
    assert load(cache) is not None


def test_the_disk_is_not_filled(cache: FeatureCache, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache_module, "_SPARE", 1000)
    free = SIZE + 1000
    monkeypatch.setattr(cache_module.shutil, "disk_usage", lambda _: SimpleNamespace(free=free))
    save(cache)
    assert not list(cache.folder.iterdir())
    free += 1
    save(cache)
    assert load(cache) is not None


def test_only_what_is_its_own_is_deleted(cache: FeatureCache) -> None:
    cache.folder.mkdir()
    foreign = [cache.folder / name for name in ("model.safetensors", "notes.txt", "0123.safetensors")]
    for path in foreign:
        path.write_bytes(bytes(1000))
        older(path, 1e6)
    save(cache)
    cache.prune(0)
    assert sorted(cache.folder.iterdir()) == sorted(foreign)


def test_what_killed_programs_have_left_over_is_removed(cache: FeatureCache) -> None:
    parts = [cache.folder / f".oneseg-{name}" for name in ("left", "new", "growing")]
    for part in parts:
        part.mkdir(parents=True)
        (part / "part").write_bytes(bytes(1000))
    left, new, growing = parts
    for path in (left / "part", left, growing):
        older(path, LEFT_BEHIND)
    save(cache)
    assert not left.exists()
    assert new.exists()
    assert growing.exists()
    assert load(cache) is not None


# Where nothing can be written ------------------------------------------------------------------------------------


def refuse(code: int) -> Callable[..., Any]:
    def refused(*_: object, **__: object) -> None:
        raise OSError(code, os.strerror(code))

    return refused


def test_a_full_disk_is_said_once_and_leaves_nothing(cache: FeatureCache, monkeypatch: pytest.MonkeyPatch) -> None:
    real = cache_module._write

    def full(file: Any, key: str, arrays: dict[str, torch.Tensor]) -> None:
        real(file, key, {"maps": arrays["maps"][:2]})
        refuse(errno.ENOSPC)()

    monkeypatch.setattr(cache_module, "_write", full)
    with pytest.warns(UserWarning, match="could not be kept on disk") as told:
        save(cache)
    assert os.strerror(errno.ENOSPC) in str(told[0].message)
    assert str(cache.folder) not in str(told[0].message)
    save(cache)  # a second warning would be an error
    assert not list(cache.folder.iterdir())
    assert load(cache) is None


def test_a_folder_that_can_only_be_read(cache: FeatureCache, monkeypatch: pytest.MonkeyPatch) -> None:
    save(cache)
    monkeypatch.setattr(files.tempfile, "TemporaryDirectory", refuse(errno.EROFS))
    monkeypatch.setattr(os, "utime", refuse(errno.EROFS))
    monkeypatch.setattr(Path, "unlink", refuse(errno.EROFS))
    assert_same(load(cache), FEATURES)
    with pytest.warns(UserWarning, match=os.strerror(errno.EROFS)):
        save(cache, "other")
    path = file_of(cache)
    path.write_bytes(path.read_bytes()[:-1])
    assert load(cache) is None


def test_a_folder_that_really_can_only_be_read(cache: FeatureCache) -> None:
    save(cache)
    cache.folder.chmod(0o500)
    if os.access(cache.folder, os.W_OK):
        pytest.skip("needs a system and a user to whom a folder can be closed")
    try:
        assert_same(load(cache), FEATURES)
        with pytest.warns(UserWarning, match="Permission denied"):
            save(cache, "other")
        cache.folder.chmod(0o000)
        assert load(cache) is None
        save(cache, "other")
    finally:
        cache.folder.chmod(0o700)


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    cache = FeatureCache(tmp_path / "file" / "features")
    with pytest.warns(UserWarning, match="could not be kept on disk"):
        save(cache)
    assert load(cache) is None
    session = new_session(cache)
    session.set_volume(SCAN)
    session.keep_features()
    assert torch.equal(session.features.maps, FEATURES.maps)


def test_a_disk_that_fails_while_it_is_read(cache: FeatureCache, monkeypatch: pytest.MonkeyPatch) -> None:
    save(cache)
    monkeypatch.setattr(cache_module, "_blocks", refuse(errno.EIO))
    assert load(cache) is None
    assert file_of(cache).exists()


def test_a_gpu_without_room_is_left_to_the_computation(cache: FeatureCache, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(error: RuntimeError) -> None:
        def failing(*_: object) -> None:
            raise error

        monkeypatch.setattr(cache_module, "restore_features", failing)

    def load_on_gpu() -> FeatureStack | None:
        return cache.load(SCAN, NETWORK, CONFIG, HASH, torch.device("cuda"))

    monkeypatch.setattr(cache_module, "_key", lambda *_: 64 * "a")
    save(cache)
    for error in (torch.OutOfMemoryError("full"), RuntimeError("CUDA error: unspecified launch failure")):
        fail(error)
        assert load_on_gpu() is None
        assert file_of(cache).exists()
    fail(RuntimeError("a defect"))
    with pytest.raises(RuntimeError, match="a defect"):
        load_on_gpu()


# The user's own --------------------------------------------------------------------------------------------------


def test_where_the_users_cache_lies(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert user_cache() is None, "tests leave the user's own cache alone"
    for off in ("off", "OFF"):
        monkeypatch.setenv("ONESEG_CACHE", off)
        assert user_cache.__wrapped__() is None
    monkeypatch.setenv("ONESEG_CACHE", str(tmp_path))
    moved = user_cache.__wrapped__()
    assert moved is not None
    assert moved.folder == tmp_path / "features"
    assert moved.limit == 4 * 1024**3
    monkeypatch.delenv("ONESEG_CACHE")
    own = user_cache.__wrapped__()
    assert own is not None
    assert own.folder == Path(platformdirs.user_cache_dir("napari-oneseg", appauthor=False)) / "features"


# Several programs ------------------------------------------------------------------------------------------------

VALUES = 12
"""As many files are written in turn; in each, everything says the same."""
LONG = Volume(np.tile(SCAN.array, (20, 1, 1)), SCAN.spacing)
LONG_FEATURES = compute_features(LONG, NETWORK, CONFIG)


def load_value(cache: FeatureCache, expected: int) -> FeatureStack | None:
    return cache.load(LONG, NETWORK, CONFIG, f"weights-{expected}", CPU)


def _save_for_ever(folder: Path, started: Path) -> None:
    cache_module._SPARE = 0
    cache = FeatureCache(folder)
    filled = [replace(LONG_FEATURES, maps=torch.full_like(LONG_FEATURES.maps, expected)) for expected in range(VALUES)]
    for step in range(1_000_000):
        cache.save(LONG, CONFIG, f"weights-{step % VALUES}", filled[step % VALUES])
        started.touch()
        if step % VALUES == VALUES - 1:
            cache.prune(0)


@pytest.fixture(scope="module")
def processes() -> Any:
    if os.name != "posix":
        return multiprocessing.get_context("spawn")
    # Children come from a process that has imported everything already.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["napari_oneseg.autosave", __name__])
    return context


def started(processes: Any, folder: Path, name: str) -> Any:
    mark = folder.parent / name
    child = processes.Process(target=_save_for_ever, args=(folder, mark), daemon=True)
    child.start()
    deadline = time.monotonic() + 120
    while not mark.exists():
        assert time.monotonic() < deadline
        assert child.is_alive()
        time.sleep(0.001)
    return child


def all_right(cache: FeatureCache) -> int:
    """Read everything there is; return how many were found. A wrong one, an error or a warning fails."""
    found = 0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for expected in range(VALUES):
            seen = value(load_value(cache, expected))
            assert seen in (None, expected)
            found += seen is not None
    return found


def test_killed_at_random_moments(cache: FeatureCache, processes: Any) -> None:
    random = np.random.default_rng(0)
    cut_off = 0
    for run in range(12):
        before = set(cache.folder.glob(".oneseg-*"))
        child = started(processes, cache.folder, f"run{run}")
        time.sleep(random.uniform(0.0, 0.03))
        child.kill()
        child.join()
        all_right(cache)
        cut_off += bool(set(cache.folder.glob(".oneseg-*")) - before)
    assert cut_off > 3, "many moments lie within a write"
    for part in cache.folder.glob(".oneseg-*"):
        for path in (*part.iterdir(), part):
            older(path, LEFT_BEHIND)
    cache.prune()
    assert all(cache_module._NAME.fullmatch(path.name) for path in cache.folder.iterdir())
    cache.prune(0)
    assert not list(cache.folder.iterdir())


def test_several_programs_write_the_same_and_delete_while_others_read(cache: FeatureCache, processes: Any) -> None:
    children = [started(processes, cache.folder, name) for name in ("first", "second")]
    found = 0
    mapped: list[FeatureStack | None] = []
    began = time.monotonic()
    # Until there was enough of it, on a busy machine too.
    while time.monotonic() < began + (2.0 if found > 20 else 60.0):
        mapped = [load_value(cache, expected) for expected in range(VALUES)]
        cache.prune(0)  # what is in use stays readable
        assert all(seen in (None, expected) for expected, seen in enumerate(map(value, mapped)))
        found += sum(one is not None for one in mapped)
    assert found > 20
    assert all(child.is_alive() for child in children)
    for child in children:
        child.kill()
        child.join()
    all_right(cache)
