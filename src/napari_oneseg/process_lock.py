"""Locks that end with the process that holds them, whatever has ended it: the operating system takes them back.

A process number would not do: it is given anew, and it says nothing on a folder that two machines share.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

__all__ = ["hold", "is_held", "release"]


def hold(path: Path) -> int | None:
    """Make a file and lock it until :func:`release`, or until this process ends.

    Returns
    -------
    What :func:`release` takes; None if another one, of this or of another process, holds the file. On a disk that knows
    no locks, the file is made and nobody holds it.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    if _locked_by_another(descriptor, shared=False):
        os.close(descriptor)
        return None
    return descriptor


def release(descriptor: int) -> None:
    """Give a lock back."""
    os.close(descriptor)


def is_held(path: Path) -> bool:
    """Return whether anybody holds a file; where that cannot be told, it is taken to be held."""
    try:
        descriptor = os.open(path, os.O_RDWR)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    try:
        return _locked_by_another(descriptor, shared=True)
    finally:
        os.close(descriptor)


if sys.platform == "win32":
    import msvcrt

    def _locked_by_another(descriptor: int, shared: bool) -> bool:  # noqa: ARG001 - there are no shared ones here
        try:
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        except PermissionError:
            return True
        except OSError:
            return False
        return False

else:
    import fcntl

    def _locked_by_another(descriptor: int, shared: bool) -> bool:
        """Try to lock; two that only look do not take each other for the owner, because their locks are shared."""
        try:
            fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except OSError:
            return False
        return False
