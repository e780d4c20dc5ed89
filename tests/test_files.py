from __future__ import annotations

import errno
import multiprocessing
import os
import time
from pathlib import Path

import pytest

from napari_oneseg import files
from napari_oneseg.errors import OutputError
from napari_oneseg.files import replacing, scratch_folder, settle, tidy, why_not_written
from napari_oneseg.process_lock import hold, release

AGED = 3600.0
"""Seconds after which nobody is writing any more."""


def age(folder: Path) -> None:
    """Make a folder as old as a killed program's."""
    for path in (*folder.rglob("*"), folder):
        then = time.time() - AGED
        os.utime(path, (then, then))


def left_over(parent: Path, name: str = ".oneseg-left") -> Path:
    """Make what a killed program leaves."""
    folder = parent / name
    folder.mkdir()
    (folder / ".lock").touch()
    (folder / "a.json").write_text("half")
    return folder


def write(path: Path, content: str = "new", durable: bool = True) -> None:
    with replacing(path, durable) as part:
        part.write_text(content)


def test_a_file_is_replaced_as_a_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text("old")
    with replacing(path) as part:
        part.write_text("new")
        assert path.read_text() == "old"
        assert (part.parent.parent, part.name) == (tmp_path, path.name)
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("failing", ["fsync", "replace", "mkdir"])
def test_whatever_fails_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str) -> None:
    path = tmp_path / "a.json"
    path.write_text("old")

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, failing, full)
        with pytest.raises(OutputError, match=r"a\.json was not written: the disk is full, .*; make room or choose"):
            write(path)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_what_can_be_made_again_waits_for_no_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[int] = []
    monkeypatch.setattr(os, "fsync", waited.append)
    write(tmp_path / "a", durable=False)
    assert not waited
    write(tmp_path / "b")
    assert len(waited) == 1
    settle(tmp_path / "a")
    assert len(waited) == 2


def test_what_was_left_goes_with_the_next_write(tmp_path: Path) -> None:
    folder = left_over(tmp_path)
    write(tmp_path / "a.json")
    assert folder.exists(), "it may be in the making on a disk without locks"
    age(folder)
    other = tmp_path / ".other"
    other.mkdir()
    age(other)
    write(tmp_path / "a.json")
    assert {path.name for path in tmp_path.iterdir()} == {"a.json", ".other"}


def test_what_somebody_is_writing_stays(tmp_path: Path) -> None:
    with scratch_folder(tmp_path) as folder:
        age(folder)
        tidy(tmp_path)
        assert folder.exists()
    assert not folder.exists()
    folder = left_over(tmp_path)
    mine = hold(folder / ".lock")
    assert mine is not None
    age(folder)
    tidy(tmp_path)
    assert folder.exists()
    release(mine)
    tidy(tmp_path)
    assert not folder.exists()


def test_a_file_that_grows_is_not_left_over(tmp_path: Path) -> None:
    folder = left_over(tmp_path)
    age(folder)
    (folder / "a.json").write_text("more of it")
    tidy(tmp_path)
    assert folder.exists()


def test_folders_of_before_there_were_locks(tmp_path: Path) -> None:
    folder = left_over(tmp_path)
    (folder / ".lock").unlink()
    age(folder)
    tidy(tmp_path)
    assert not folder.exists()


def test_nothing_but_folders_of_that_name_is_removed(tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    kept.mkdir()
    (kept / "a.json").touch()
    file = tmp_path / ".oneseg-file"
    file.touch()
    link = tmp_path / ".oneseg-link"
    link.symlink_to(kept, target_is_directory=True)
    for path in (file, kept):
        age(path)
    tidy(tmp_path)
    assert (kept / "a.json").exists()
    assert file.exists()


def _hang(folder: Path) -> None:
    with replacing(folder / "a.json") as part:
        part.write_text("half")
        (folder / "begun").touch()
        time.sleep(60)


def test_a_kill_leaves_the_old_file_and_what_the_next_write_removes(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("old")
    child = multiprocessing.get_context("spawn").Process(target=_hang, args=(tmp_path,), daemon=True)
    child.start()
    deadline = time.monotonic() + 60
    while not (tmp_path / "begun").exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    (folder,) = tmp_path.glob(".oneseg-*")
    age(folder)
    tidy(tmp_path)
    assert folder.exists(), "its program lives"
    child.kill()
    child.join()
    assert (tmp_path / "a.json").read_text() == "old"
    write(tmp_path / "b.json")
    assert {path.name for path in tmp_path.iterdir()} == {"a.json", "b.json", "begun"}


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (errno.ENOSPC, "the disk is full"),
        (errno.EDQUOT, "the disk is full"),
        (errno.EFBIG, "takes no file of that size"),
        (errno.EACCES, "there is no permission to write into results"),
        (errno.EROFS, "there is no permission to write into results"),
        (errno.ENOENT, "No such file or directory; choose another folder"),
    ],
)
def test_reasons(number: int, said: str) -> None:
    assert said in why_not_written(OSError(number, os.strerror(number)), Path("results"))


def test_a_file_that_cannot_be_removed_does_no_harm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = left_over(tmp_path)
    age(folder)
    monkeypatch.setattr(files, "is_held", lambda _: (_ for _ in ()).throw(PermissionError(13, "in use")))
    write(tmp_path / "a.json")
    assert (tmp_path / "a.json").read_text() == "new"
