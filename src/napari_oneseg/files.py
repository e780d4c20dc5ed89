"""Files are written under another name and get their own only when they are complete."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from napari_oneseg.errors import OutputError
from napari_oneseg.process_lock import hold, is_held, release

__all__ = ["replacing", "scratch_folder", "settle", "tidy", "why_not_written"]

_PREFIX, _LOCK = ".oneseg-", ".lock"
_SETTLED_SECONDS = 60.0
"""What is younger may be in the making, also where the disk knows no locks and nobody seems to hold it."""


@contextmanager
def replacing(path: Path, durable: bool = True) -> Iterator[Path]:
    """Yield a name on the same disk to write to; the file gets its own name when the block ends without an error.

    The name lies in a folder of its own, so that whatever was begun goes with it, and so that the file gets the
    permissions of any new file.

    Parameters
    ----------
    path
        The file.
    durable
        Whether to wait until the disk has it: for what cannot be made again.

    Raises
    ------
    OutputError
        If writing fails; nothing is left behind, and an older file stays as it was.
    """
    try:
        with scratch_folder(path.parent) as folder:
            part = folder / path.name
            yield part
            if durable:
                settle(part)
            part.replace(path)
    except OutputError:
        raise
    except OSError as error:
        raise OutputError(f"{path} was not written: {why_not_written(error, path.parent)}.") from error


@contextmanager
def scratch_folder(parent: Path) -> Iterator[Path]:
    """Yield a new folder in another one, which goes when the block ends.

    If the program is killed before, the folder stays until somebody writes there the next time: :func:`tidy`.
    """
    tidy(parent)
    # What cannot be removed now, as on a disk that was taken away, is for tidy as well.
    with tempfile.TemporaryDirectory(prefix=_PREFIX, dir=parent, ignore_cleanup_errors=True) as name:
        folder = Path(name)
        lock = hold(folder / _LOCK)
        try:
            yield folder
        finally:
            if lock is not None:
                release(lock)


def tidy(parent: Path) -> None:
    """Remove what killed programs have left half written in a folder; what others are writing stays."""
    for folder in parent.glob(f"{_PREFIX}*"):
        with suppress(OSError):  # its program has just ended its writing, or it is not ours to remove
            changed = max(path.stat().st_mtime for path in (folder, *folder.iterdir()))
            if changed < time.time() - _SETTLED_SECONDS and not is_held(folder / _LOCK):
                shutil.rmtree(folder, ignore_errors=True)


def settle(path: Path) -> None:
    """Wait until the disk has a file; some say only then that they are full."""
    with path.open("r+b") as file:
        os.fsync(file.fileno())


def why_not_written(error: OSError, folder: Path) -> str:
    """Say in plain words why a file could not be written into a folder, and what to do."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return "the disk is full, or takes no file of that size; make room or choose another folder"
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return f"there is no permission to write into {folder}; choose another folder"
    if error.errno == errno.ENAMETOOLONG:
        return "the name is too long for this disk; choose a shorter one"
    return f"{error.strerror or error}; choose another folder"
