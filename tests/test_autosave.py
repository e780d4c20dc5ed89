from __future__ import annotations

import multiprocessing
import os
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import platformdirs
import pytest

from napari_oneseg import autosave
from napari_oneseg.autosave import AutosaveStore, Found
from napari_oneseg.config import PropagationConfig, ScreeningConfig
from napari_oneseg.errors import InputError, OutputError
from napari_oneseg.process_lock import hold, is_held, release
from napari_oneseg.propagation.propagate import LabelledSlice
from napari_oneseg.session_file import SavedSession
from napari_oneseg.session_state import SessionState

SHAPE = (40, 40)
SCAN = "5ca1ab1e"


def result(index: int, value: int, shape: tuple[int, int] = SHAPE) -> LabelledSlice:
    noise = np.random.default_rng(value).random(shape)
    return LabelledSlice(index, np.full(shape, value, np.uint16), noise.astype(np.float16), 0.5)


def session(value: int = 1, scan: str = SCAN, shape: tuple[int, int] = SHAPE) -> SavedSession:
    """A session in which everything says ``value``."""
    image = np.full(shape, value, np.uint16)
    state = SessionState(
        painted={3: image, 1: image},
        complete=frozenset({3}),
        frozen={5: image},
        results={index: result(index, value, shape) for index in (2, 4, 6)},
        stale=frozenset({4}),
    )
    return SavedSession(
        scan, "weights", PropagationConfig(), ScreeningConfig(), state, {"names": {"1": "liver"}, "range": [1, 6]}
    )


def values(saved: SavedSession) -> dict[str, dict[int, int]]:
    state = saved.state
    images = {
        "painted": state.painted,
        "frozen": state.frozen,
        "results": {index: one.labels for index, one in state.results.items()},
    }
    return {key: {index: int(image[0, 0]) for index, image in kind.items()} for key, kind in images.items()}


@contextmanager
def opened(folder: Path) -> Iterator[AutosaveStore]:
    store = AutosaveStore(folder)
    try:
        yield store
    finally:
        store.close()


def kept(folder: Path, saved: SavedSession | None = None) -> Path:
    """Keep a session and end the store, as a crash would."""
    with opened(folder) as store:
        return store.save(saved or session())


def older(path: Path, days: float) -> None:
    then = time.time() - 86400 * days
    os.utime(path, (then, then))


@pytest.fixture
def store(tmp_path: Path) -> Iterator[AutosaveStore]:
    with opened(tmp_path) as one:
        yield one


def test_a_session_is_found_and_loaded(store: AutosaveStore) -> None:
    kept(store.folder)
    found = store.find(SCAN)
    assert found is not None
    assert (found.scan, found.weights, found.painted, found.accepted, found.alive) == (SCAN, "weights", 2, 1, False)
    assert abs((datetime.now(UTC) - found.saved_at).total_seconds()) < 60
    loaded = store.load(found)
    assert values(loaded) == values(session())
    assert loaded.extras == session().extras
    assert loaded.state.complete == {3}
    assert loaded.state.stale == {4}
    confidence = session().state.results[2].confidence
    assert np.array_equal(loaded.state.results[2].confidence, confidence)
    store.discard(found)
    assert store.find(SCAN) is None
    assert [path.suffix for path in store.folder.iterdir()] == [".lock"]


def test_nothing_is_found_where_nothing_was_kept(tmp_path: Path) -> None:
    store = AutosaveStore(tmp_path / "none")
    assert store.find(SCAN) is None
    assert store.prune() == []
    store.discard(SCAN)
    assert not store.folder.exists()
    kept(tmp_path)
    assert AutosaveStore(tmp_path).find("other") is None


def test_sessions_in_which_nothing_was_made_are_not_offered(store: AutosaveStore) -> None:
    kept(store.folder, replace(session(), state=SessionState()))
    assert store.find(SCAN) is None


def test_files_name_no_one(store: AutosaveStore, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = store.save(session())
    assert {one.name.split("-")[0] for one in store.folder.iterdir() if one.suffix != ".lock"} == {SCAN}
    assert path.parent == store.folder
    monkeypatch.setattr(platformdirs, "user_data_path", lambda *_, **__: tmp_path / "data")
    assert AutosaveStore().folder == tmp_path / "data" / "autosave"
    if os.name == "posix":
        folder = kept(tmp_path / "new").parent
        assert folder.stat().st_mode & 0o077 == 0, "labels are the patient's too"


def test_what_lives_is_told_from_what_has_ended(store: AutosaveStore) -> None:
    with opened(store.folder) as other:
        other.save(session(2))
        found = store.find(SCAN)
        assert found is not None
        assert found.alive
        store.save(session(1))
        assert [one.path for one in store.find_all(SCAN)] == [found.path], "one's own is not offered"
        assert values(store.load(found)) == values(session(2)), "neither overwrites the other's"
        store.discard(SCAN)
        assert found.path.exists()
    assert not store.find_all(SCAN)[0].alive


def test_the_newest_that_has_ended_comes_first(store: AutosaveStore) -> None:
    paths = [kept(store.folder, session(value)) for value in (1, 2, 3)]
    for path, days in zip(paths, (2, 1, 3), strict=True):
        older(path, days)
    with opened(store.folder) as other:
        living = other.save(session(4))
        assert [one.path for one in store.find_all(SCAN)] == [living, paths[1], paths[0], paths[2]]
        found = store.find(SCAN)
        assert found is not None
        assert found.path == paths[1]


def test_a_closed_store_can_be_used_again(store: AutosaveStore) -> None:
    first = store.save(session(1))
    store.close()
    second = store.save(session(2))
    assert second != first
    assert [one.path for one in store.find_all(SCAN)] == [first]
    assert values(store.load(store.find_all(SCAN)[0])) == values(session(1))


# Strokes and results ---------------------------------------------------------------------------------------------


def test_results_of_another_moment_are_stale(tmp_path: Path) -> None:
    before = session(1)
    changed = {**before.state.results, 4: result(4, 2), 8: result(8, 2)}
    del changed[6]
    after = replace(before, state=replace(before.state, results=changed, stale=frozenset()))
    with opened(tmp_path) as store:
        store.save(before)
        store.save(after, results=False)
        found = AutosaveStore(tmp_path).find(SCAN)
        assert found is not None
        loaded = AutosaveStore(tmp_path).load(found)
        assert values(loaded)["results"] == {2: 1, 4: 1}, "slices that nobody has any more are dropped"
        assert loaded.state.stale == {4}
        store.save(after)
        loaded = AutosaveStore(tmp_path).load(found)
        assert values(loaded)["results"] == {2: 1, 4: 2, 8: 2}
        assert loaded.state.stale == set()
        # And back again, as an undo does.
        store.save(before, results=False)
        loaded = AutosaveStore(tmp_path).load(found)
        assert values(loaded)["results"] == {2: 1, 4: 2}
        assert loaded.state.stale == {4}


def test_frozen_slices_are_never_stale(tmp_path: Path) -> None:
    before = session(1)
    frozen = {**before.state.frozen, 2: before.state.results[2].labels}
    again = {index: result(index, 2) for index in before.state.results}
    with opened(tmp_path) as store:
        store.save(before)
        store.save(replace(before, state=replace(before.state, frozen=frozen, results=again)), results=False)
        loaded = store.load(replace(_found_by_path(store), alive=False))
    assert loaded.state.stale == {4, 6}


def _found_by_path(store: AutosaveStore) -> Found:
    found = AutosaveStore(store.folder).find(SCAN)
    assert found is not None
    return found


def test_a_thread_that_comes_late_replaces_no_stroke(store: AutosaveStore) -> None:
    store.save(session(1), order=1)
    store.save(session(3), results=False, order=3)
    store.save(session(2), order=2)
    loaded = store.load(_found_by_path(store))
    assert values(loaded)["painted"] == {1: 3, 3: 3}
    assert loaded.state.stale == {2, 4, 6}, "the results are older"
    store.save(session(3), order=4)
    assert values(store.load(_found_by_path(store)))["results"] == {2: 3, 4: 3, 6: 3}
    store.save(session(5, scan="other"), order=0)
    store.discard(SCAN)
    store.save(session(1), order=1)
    assert values(store.load(_found_by_path(store)))["painted"] == {1: 1, 3: 1}


def test_results_are_written_only_when_they_have_changed(store: AutosaveStore, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[str] = []
    real = autosave.save_session
    monkeypatch.setattr(autosave, "save_session", lambda path, one: (written.append(path.suffix), real(path, one)))
    one = session()
    store.save(one)
    store.save(replace(one, state=replace(one.state, painted={})))
    assert written == [".oneseg", ".results", ".oneseg"]
    store.save(replace(one, scan="other"))
    store.discard(SCAN)
    store.save(one)
    assert written[3:] == [".oneseg", ".results"] * 2


def test_strokes_do_not_wait_for_results(store: AutosaveStore, monkeypatch: pytest.MonkeyPatch) -> None:
    writing, go_on = threading.Event(), threading.Event()
    real = autosave.save_session

    def slow(path: Path, one: SavedSession) -> None:
        if path.suffix == ".results":
            writing.set()
            assert go_on.wait(30)
        real(path, one)

    monkeypatch.setattr(autosave, "save_session", slow)
    thread = threading.Thread(target=store.save, args=(session(1),))
    thread.start()
    assert writing.wait(30)
    store.save(session(2), results=False)
    go_on.set()
    thread.join()
    loaded = AutosaveStore(store.folder).load(_found_by_path(store))
    assert values(loaded)["painted"] == {1: 2, 3: 2}
    assert loaded.state.stale == {2, 4, 6}


def test_a_full_disk_keeps_what_was_kept(store: AutosaveStore, monkeypatch: pytest.MonkeyPatch) -> None:
    store.save(session(1))
    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
        with pytest.raises(OutputError, match="the disk is full"):
            store.save(session(2))
    assert values(AutosaveStore(store.folder).load(_found_by_path(store))) == values(session(1))
    blocked = store.folder / "file"
    blocked.touch()
    with pytest.raises(OutputError, match="cannot be kept"):
        AutosaveStore(blocked / "below").save(session())


# Damage ----------------------------------------------------------------------------------------------------------


def test_damaged_files_are_set_aside(store: AutosaveStore) -> None:
    bad, good = kept(store.folder, session(1)), kept(store.folder, session(2))
    content = bad.read_bytes()[:-30]
    bad.write_bytes(content)
    with pytest.warns(UserWarning, match=r"set aside as .*\.oneseg\.damaged"):
        found = store.find(SCAN)
    assert found is not None
    assert found.path == good
    assert bad.with_name(bad.name + ".damaged").read_bytes() == content
    assert bad.with_name(bad.stem + ".results.damaged").exists(), "what belongs to it stays with it"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(store.find_all(SCAN)) == 1


def test_strokes_whose_arrays_are_damaged(store: AutosaveStore) -> None:
    path = kept(store.folder)
    found = store.find(SCAN)
    assert found is not None
    content = bytearray(path.read_bytes())
    place = content.index(b"painted.npy") + 20
    content[place : place + 20] = bytes(20)
    path.write_bytes(content)
    with pytest.raises(InputError, match="may be damaged"):
        store.load(found)
    assert path.with_name(path.name + ".damaged").exists()
    assert store.find(SCAN) is None


@pytest.mark.parametrize("damage", ["cut", "missing"])
def test_without_its_results_the_strokes_are_kept(store: AutosaveStore, damage: str) -> None:
    results = kept(store.folder).with_suffix(".results")
    found = store.find(SCAN)
    assert found is not None
    if damage == "cut":
        results.write_bytes(results.read_bytes()[:100])
        with pytest.warns(UserWarning, match="set aside"):
            loaded = store.load(found)
        assert results.with_name(results.name + ".damaged").exists()
    else:
        results.unlink()
        loaded = store.load(found)
    assert values(loaded) == {**values(session()), "results": {}}
    assert loaded.state.stale == set()
    assert store.find(SCAN) == found


def test_what_cannot_be_read_now_stays(store: AutosaveStore, monkeypatch: pytest.MonkeyPatch) -> None:
    path = kept(store.folder)
    with monkeypatch.context() as patch:
        patch.setattr("zipfile.ZipFile", lambda *_: (_ for _ in ()).throw(PermissionError(13, "Permission denied")))
        with pytest.warns(UserWarning, match="left out: .*Permission denied"):
            assert store.find(SCAN) is None
    assert store.find(SCAN) is not None
    assert path.exists()


# Letting go ------------------------------------------------------------------------------------------------------


def test_the_oldest_go_first(store: AutosaveStore) -> None:
    paths = [kept(store.folder, session(value)) for value in (1, 2, 3, 4)]
    for path, days in zip(paths, (1, 2, 3, 100), strict=True):
        older(path, days)
        older(path.with_suffix(".results"), days)
    own = store.save(session(5))
    size = sum(path.stat().st_size for path in (paths[0], paths[0].with_suffix(".results")))
    gone = {paths[2], paths[2].with_suffix(".results")} | {paths[3], paths[3].with_suffix(".results")}
    assert set(store.prune(keep_bytes=2 * size + size // 2)) == gone
    assert store.prune() == []
    assert len(store.prune(keep_bytes=0)) == 2
    assert [one.path for one in store.find_all(SCAN)] == [paths[0]], "the newest one stays"
    assert own.exists()
    assert len(store.prune(keep_days=0.5)) == 2


def test_damaged_files_grow_old_too(store: AutosaveStore) -> None:
    path = kept(store.folder)
    path.write_bytes(b"")
    with pytest.warns(UserWarning, match="set aside"):
        store.find(SCAN)
    assert store.prune() == []
    for one in store.folder.glob("*.damaged"):
        older(one, 100)
    assert len(store.prune()) == 2


def test_what_killed_programs_leave_over_is_removed(store: AutosaveStore) -> None:
    ended = kept(store.folder)
    living = store.save(session())
    for name in ("a", "b", "c", "d"):
        (store.folder / f".oneseg-{name}").mkdir()
    (store.folder / ".oneseg-a" / ended.name).touch()
    held = hold(store.folder / ".oneseg-b" / ".lock")
    assert held is not None
    (store.folder / ".oneseg-d" / ended.name).touch()
    orphan = store.folder / "other-0000.results"
    orphan.touch()
    (store.folder / "0001.lock").touch()
    (store.folder / "0002.lock").touch()
    locks = {one.name for one in store.folder.glob("*.lock")}
    for path in (*store.folder.glob(".oneseg-[ab]/*"), *store.folder.iterdir()):
        if path.name not in (".oneseg-d", "0002.lock"):
            older(path, 1)
    assert store.prune() == []
    assert {path.name for path in store.folder.glob(".oneseg-*")} == {".oneseg-b", ".oneseg-d"}
    release(held)
    assert {one.name for one in store.folder.glob("*.lock")} == locks - {"0001.lock"}
    assert not orphan.exists()
    assert living.with_suffix(".results").exists()
    assert ended.with_suffix(".results").exists()


def test_the_next_program_tidies_up_too(tmp_path: Path) -> None:
    (tmp_path / ".oneseg-a").mkdir()
    older(tmp_path / ".oneseg-a", 1)
    kept(tmp_path)
    assert not (tmp_path / ".oneseg-a").exists()


def test_a_file_that_cannot_be_deleted(store: AutosaveStore, monkeypatch: pytest.MonkeyPatch) -> None:
    kept(store.folder)
    found = store.find(SCAN)
    assert found is not None
    monkeypatch.setattr(Path, "unlink", lambda *_, **__: (_ for _ in ()).throw(PermissionError(13, "in use")))
    with pytest.raises(OutputError, match="was not deleted: in use"):
        store.discard(found)
    store.prune(keep_days=0)


# Locks -----------------------------------------------------------------------------------------------------------


def test_locks(tmp_path: Path) -> None:
    path = tmp_path / "a.lock"
    assert not is_held(path)
    mine = hold(path)
    assert mine is not None
    assert is_held(path)
    assert hold(path) is None
    release(mine)
    assert not is_held(path)


@pytest.mark.skipif(os.name != "posix", reason="locks are made otherwise")
def test_a_disk_without_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fcntl.flock", lambda *_: (_ for _ in ()).throw(OSError(95, "Operation not supported")))
    with opened(tmp_path) as store:
        path = store.save(session(1))
        part = tmp_path / ".oneseg-x"
        part.mkdir()
        (part / path.name).touch()
        with opened(tmp_path) as other:
            other.save(session(2))
            assert [one.alive for one in other.find_all(SCAN)] == [False]
        assert part.exists(), "it may be in the making"
        store.save(session(3))
        assert values(store.load(_found_by_path(other)))["painted"]


# Kills -----------------------------------------------------------------------------------------------------------

BIG = (200, 200)


def _save_for_ever(folder: Path, journal: Path, pause: float) -> None:
    """Save sessions that count upwards, and note each that is complete."""
    store = AutosaveStore(folder)
    note = os.open(journal, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for value in range(1, 60_000):
        store.save(session(value, shape=BIG))
        os.write(note, value.to_bytes(4, "little"))
        time.sleep(pause)


def _last(journal: Path) -> int:
    content = journal.read_bytes() if journal.exists() else b""
    return int.from_bytes(content[-4:], "little")


@pytest.fixture(scope="module")
def processes() -> multiprocessing.context.BaseContext:
    if os.name != "posix":
        return multiprocessing.get_context("spawn")
    # Children come from a process that has imported everything already.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["napari_oneseg.autosave"])
    return context


def _started(
    processes: multiprocessing.context.BaseContext, folder: Path, name: str, pause: float = 0.0
) -> tuple[multiprocessing.process.BaseProcess, Path]:
    journal = folder.parent / name
    child = processes.Process(target=_save_for_ever, args=(folder, journal, pause), daemon=True)  # type: ignore[attr-defined]
    child.start()
    deadline = time.monotonic() + 60
    while not _last(journal):
        assert time.monotonic() < deadline
        time.sleep(0.001)
    return child, journal


def test_no_kill_loses_more_than_the_last_save(tmp_path: Path, processes: multiprocessing.context.BaseContext) -> None:
    random = np.random.default_rng(0)
    folder = tmp_path / "store"
    cut_off = 0
    with opened(folder) as store:
        for run in range(32):
            child, journal = _started(processes, folder, f"journal{run}")
            time.sleep(random.uniform(0.0, 0.05))
            child.kill()
            child.join()
            child.close()
            found = store.find(SCAN)
            assert found is not None
            assert not found.alive
            loaded = store.load(found)  # warns, and so fails, if anything is damaged
            last = _last(journal)
            shown = values(loaded)
            now = shown["painted"][3]
            assert now in (last, last + 1)
            assert shown["painted"] == {1: now, 3: now}
            assert shown["frozen"] == {5: now}
            assert set(shown["results"]) == {2, 4, 6}
            fresh = {index for index, value in shown["results"].items() if value == now}
            assert loaded.state.stale == {4} | ({2, 4, 6} - fresh)
            store.discard(found)
            cut_off += now != last or bool(list(folder.glob(".oneseg-*")))
        for part in folder.glob(".oneseg-*"):
            for path in (*part.iterdir(), part):
                older(path, 1)
        store.prune()
    assert cut_off > 10, "most moments lie within a save"
    assert {path.suffix for path in folder.iterdir()} <= {".lock"}


def test_two_programs_on_one_scan(tmp_path: Path, processes: multiprocessing.context.BaseContext) -> None:
    folder = tmp_path / "store"
    first, journal = _started(processes, folder, "first")
    second, _ = _started(processes, folder, "second", pause=0.01)
    store = AutosaveStore(folder)
    assert [one.alive for one in store.find_all(SCAN)] == [True, True]
    first.kill()
    first.join()
    found = store.find(SCAN)
    assert found is not None
    assert not found.alive
    assert values(store.load(found))["painted"][3] - _last(journal) in (0, 1)
    assert [one.alive for one in store.find_all(SCAN)].count(True) == 1
    store.discard(found)
    assert second.is_alive()
    second.kill()
    second.join()
    assert [one.alive for one in store.find_all(SCAN)] == [False]
