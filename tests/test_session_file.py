from __future__ import annotations

import io
import json
import tracemalloc
import zipfile
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from napari_oneseg import session_file
from napari_oneseg.config import PropagationConfig, ScreeningConfig
from napari_oneseg.errors import InputError, OutputError
from napari_oneseg.propagation.propagate import LabelledSlice
from napari_oneseg.session_file import DamagedSession, SavedSession, load_record, load_session, save_session
from napari_oneseg.session_state import SessionState

SHAPE = (5, 7)


def saved(seed: int = 0, largest: int = 9) -> SavedSession:
    rng = np.random.default_rng(seed)

    def image() -> np.ndarray:
        return rng.integers(0, largest, SHAPE).astype(np.min_scalar_type(largest))

    results = {
        index: LabelledSlice(index, image(), rng.random(SHAPE).astype(np.float16), score)
        for index, score in ((1, 0.25), (2, float("nan")), (4, 1 / 3))
    }
    return SavedSession(
        scan="abc",
        weights="def",
        propagation=PropagationConfig(window=7),
        screening=ScreeningConfig(min_content=0.3),
        state=SessionState(
            painted={3: image(), 0: image()},
            complete=frozenset({3}),
            frozen={5: image()},
            results=results,
            stale=frozenset({1, 4}),
            outdated=frozenset({2}),
            direction="up",
        ),
        extras={"names": {"1": "liver"}, "range": [2, 5]},
    )


def assert_same(a: SavedSession, b: SavedSession) -> None:
    for name in ("painted", "frozen"):
        first, second = getattr(a.state, name), getattr(b.state, name)
        assert first.keys() == second.keys()
        assert all(np.array_equal(first[k], second[k]) for k in first)
    assert a.state.results.keys() == b.state.results.keys()
    for index, result in a.state.results.items():
        other = b.state.results[index]
        assert other.index == index
        assert np.array_equal(result.labels, other.labels)
        assert np.array_equal(result.confidence, other.confidence)
        assert other.confidence.dtype == np.float16
        assert np.array_equal(result.score, other.score, equal_nan=True)
    for name in {entry.name for entry in fields(SavedSession)} - {"state"}:
        assert getattr(a, name) == getattr(b, name), name
    for name in {entry.name for entry in fields(SessionState)} - {"painted", "frozen", "results"}:
        assert getattr(a.state, name) == getattr(b.state, name), name


@pytest.mark.parametrize("largest", [9, 300, 70_000])
def test_round_trip(tmp_path: Path, largest: int) -> None:
    save_session(tmp_path / "a.oneseg", saved(largest=largest))
    assert_same(load_session(tmp_path / "a.oneseg"), saved(largest=largest))


def test_an_empty_session(tmp_path: Path) -> None:
    empty = SavedSession("s", "w", PropagationConfig(), ScreeningConfig(), SessionState())
    save_session(tmp_path / "a", empty)
    assert_same(load_session(tmp_path / "a"), empty)


def test_labels_of_different_types_share_a_file(tmp_path: Path) -> None:
    mixed = saved()
    wide = {1: np.full(SHAPE, 70_000, np.uint32), **mixed.state.painted}
    save_session(tmp_path / "a", replace(mixed, state=replace(mixed.state, painted=wide)))
    painted = load_session(tmp_path / "a").state.painted
    assert all(np.array_equal(painted[k], wide[k]) for k in wide)
    assert painted[0].dtype.kind == "u"


def test_images_that_lie_in_memory_by_columns(tmp_path: Path) -> None:
    painted = {2: np.asfortranarray(np.arange(35, dtype=np.uint8).reshape(SHAPE))}
    save_session(tmp_path / "a", replace(saved(), state=SessionState(painted=painted)))
    np.testing.assert_array_equal(load_session(tmp_path / "a").state.painted[2], painted[2])


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "scan.oneseg"
    save_session(path, saved())
    return path


def test_missing(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no session file"):
        load_session(tmp_path / "none")


def test_the_record_alone(path: Path) -> None:
    record = load_record(path)
    assert (record["scan"], record["painted"], record["frozen"]) == ("abc", [0, 3], [5])
    assert record["extras"] == saved().extras
    # Its arrays are not looked at.
    rewritten(path, labels=b"")
    assert load_record(path) == record


def test_files_without_extras_are_read(path: Path) -> None:
    with zipfile.ZipFile(path) as archive:
        meta = json.loads(archive.read("session.json"))
        del meta["extras"]
    rewritten(path, json.dumps(meta))
    assert load_session(path).extras == {}


def test_what_may_be_readable_later_is_not_called_damaged(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def locked(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patch:
        patch.setattr(zipfile, "ZipFile", locked)
        with pytest.raises(InputError, match="Permission denied") as caught:
            load_record(path)
        assert not isinstance(caught.value, DamagedSession)
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(DamagedSession):
        load_record(path)


@pytest.mark.parametrize("keep", [0, 1, 30, 400, -40, -1])
def test_truncated(path: Path, keep: int) -> None:
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(InputError, match="may be damaged"):
        load_session(path)


def test_any_damaged_byte_is_noticed_or_harmless(path: Path) -> None:
    """Whatever a wrong byte does to the zip, it ends in an InputError or in the same session."""
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    refused = 0
    places = rng.choice(len(whole), 600, replace=False)
    for place in places:
        damaged = bytearray(whole)
        damaged[place] ^= int(rng.integers(1, 256))
        path.write_bytes(damaged)
        try:
            loaded = load_session(path)
        except InputError:
            refused += 1
        else:
            assert_same(loaded, saved())
    assert refused > 300


def rewritten(path: Path, meta: Any = None, **arrays: bytes | None) -> None:
    """Replace entries of the file; a dictionary changes keys of the JSON entry."""
    with zipfile.ZipFile(path) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    if isinstance(meta, str):
        entries["session.json"], meta = meta.encode(), None
    if isinstance(meta, dict):
        meta = {**json.loads(entries["session.json"]), **meta}
    if meta is not None:
        entries["session.json"] = json.dumps(meta).encode()
    entries.update({f"{name}.npy": content for name, content in arrays.items()})  # type: ignore[dict-item]
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in entries.items():
            if content is not None:
                archive.writestr(name, content)


def npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


class Trap:
    """Does harm when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return pytest.fail, ("a pickle was opened",)


def test_a_pickle_inside_is_not_opened(path: Path) -> None:
    rewritten(path, painted=npy(np.array([Trap()], dtype=object)))
    with pytest.raises(InputError, match="may be damaged"):
        load_session(path)


@pytest.mark.parametrize(
    "meta",
    [
        [],
        3,
        {"complete": [1]},
        {"painted": [0]},
        {"painted": ["0", "3"]},
        {"painted": [-1, 3], "complete": []},
        {"results": [1, 2, 2.5]},
        {"scores": [1.0]},
        {"scores": ["1", 0.5, 0.5]},
        {"scan": None},
        {"stale": None},
        {"outdated": [0]},
        {"outdated": 3},
        {"direction": "sideways"},
        {"extras": [1]},
        {"propagation": {"window": 4}},
        {"propagation": {"unknown": 4}},
    ],
)
def test_entries_that_contradict_each_other(path: Path, meta: Any) -> None:
    rewritten(path, meta)
    with pytest.raises(InputError):
        load_session(path)


def test_arrays_that_contradict_each_other(path: Path) -> None:
    whole = path.read_bytes()
    for array in (
        np.zeros((2, 5, 8), np.uint8),
        np.zeros((2, 5), np.uint8),
        np.zeros((2, *SHAPE), np.float32),
        np.zeros((3, *SHAPE), np.uint8),
        np.asfortranarray(np.zeros((2, *SHAPE), np.uint8)),
    ):
        path.write_bytes(whole)
        rewritten(path, painted=npy(array))
        with pytest.raises(InputError, match=r"contradict|claim"):
            load_session(path)
    path.write_bytes(whole)
    rewritten(path, labels=None)
    with pytest.raises(InputError, match="may be damaged"):
        load_session(path)


def claiming(shape: str, body: bytes = b"", kind: str = "|u1") -> bytes:
    text = f"{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode() + body


@pytest.mark.parametrize(
    "content",
    [
        claiming("(2, 5, 7)", bytes(64 << 20)),
        claiming("(2, 4194304, 8)", bytes(64 << 20)),
        claiming("(2, 1000000, 1000000)"),
        claiming("(-2, -5, 7)", bytes(70)),
        claiming("(2, 5, 7", bytes(70)),
        claiming("(2, 5, 7)", bytes(70), kind="|O"),
    ],
    ids=["long", "large", "huge", "negative", "unclosed", "objects"],
)
def test_an_array_that_is_not_what_it_claims_costs_no_memory(path: Path, content: bytes) -> None:
    rewritten(path, painted=content)
    del content
    tracemalloc.start()
    try:
        with pytest.raises(DamagedSession):
            load_session(path)
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()


def test_a_record_that_unpacks_to_more_than_a_session_holds(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session_file, "_LARGEST_RECORD", 1000)
    rewritten(path, {"extras": {"long": " " * 1000}})
    with pytest.raises(DamagedSession, match="too large"):
        load_record(path)


def test_arrays_that_unpack_to_more_than_a_session_holds(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session_file, "_LARGEST_ARRAYS", 300)
    with pytest.raises(DamagedSession, match="more than any session"):
        load_session(path)


def test_another_program_or_version(path: Path) -> None:
    rewritten(path, {"version": 3})
    with pytest.raises(InputError, match="version 1 or 2, got napari-oneseg session 3"):
        load_session(path)
    rewritten(path, {"format": "other"})
    with pytest.raises(InputError, match="Expected a session file"):
        load_session(path)


@pytest.mark.parametrize("what", ["replace", "write"])
def test_a_full_disk_keeps_the_old_file(path: Path, monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    before = path.read_bytes()

    def fail(*_args: object, **_options: object) -> None:
        raise OSError(28, "No space left on device")

    if what == "replace":
        monkeypatch.setattr(Path, "replace", fail)
    else:
        monkeypatch.setattr(zipfile.ZipFile, "writestr", fail)
    with pytest.raises(OutputError, match="the disk is full"):
        save_session(path, saved(1))
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


def test_nothing_is_left_behind_by_a_defect(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zipfile.ZipFile, "writestr", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        save_session(tmp_path / "a", saved())
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="was not written"):
        save_session(tmp_path / "none" / "a", saved())
