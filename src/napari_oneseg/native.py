"""Names and numbers as libraries outside Python understand them: names in UTF-8, decimal points.

A name that is not UTF-8 (old archives and network disks leave such names) comes to Python with surrogates in it; handed
on as it is, it ends the whole process in SimpleITK and fails in others. And napari sets the system's locale, in which
the C library reads "3.75" as 3 where the decimal sign is a comma. So every call that gives a path to a library which
opens the file itself, or lets one read or write numbers as text, is wrapped here.
"""

from __future__ import annotations

import ctypes
import locale
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from napari_oneseg.errors import OutputError

__all__ = ["decimal_points", "is_plain", "plain_path"]

_WITH_DATA_BESIDE = (".mhd", ".nhdr")
_CATEGORY = 2
"""Some category of the C library; newlocale sets the others to "C" as well."""
_process_locale = threading.RLock()


def is_plain(path: Path) -> bool:
    """Whether a path can be given to other libraries as it is: whether it can be written as UTF-8."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        return False
    return True


@contextmanager
def plain_path(path: Path) -> Iterator[Path]:
    """Yield a name for a file that every library can open: its own, or a link's in a temporary folder.

    Parameters
    ----------
    path
        A file that is there, or one to be written into a folder that is there; its ending stays.

    Raises
    ------
    OutputError
        If the folder for temporary files has such a name itself.
    """
    if is_plain(path):
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="oneseg-") as name:
        folder = Path(name)
        if not is_plain(folder):
            raise OutputError(
                f"The folder for temporary files, {folder.parent}, has a name that is not UTF-8; set TMPDIR to another."
            )
        parent = path.parent.resolve()
        if is_plain(Path(path.name)):
            # The folder, so that files beside it are found as well.
            (folder / "folder").symlink_to(parent, target_is_directory=True)
            yield folder / "folder" / path.name
            return
        if path.name.lower().endswith(_WITH_DATA_BESIDE):
            for beside in parent.iterdir():
                (folder / beside.name).symlink_to(beside)
        plain = folder / f"plain{''.join(filter(str.isascii, ''.join(path.suffixes[-2:])))}"
        plain.symlink_to(parent / path.name)
        yield plain


@contextmanager
def decimal_points() -> Iterator[None]:
    """Have the C library read and write numbers with a decimal point while the block runs, whatever the locale.

    Only this thread is changed, so that others, Qt's for instance, go on as they were. Where the system can do that for
    the whole process only (Windows), one thread at a time does it.
    """
    library = _posix_library()
    if library is None:
        with _process_locale:
            before = locale.setlocale(locale.LC_NUMERIC)
            locale.setlocale(locale.LC_NUMERIC, "C")
            try:
                yield
            finally:
                locale.setlocale(locale.LC_NUMERIC, before)
        return
    before = library.uselocale(_c_locale())
    try:
        yield
    finally:
        library.uselocale(before)


@cache
def _posix_library() -> Any:
    """Return the C library if it keeps a locale for each thread, None otherwise."""
    library = None if sys.platform == "win32" else ctypes.CDLL(None)
    if library is None or not hasattr(library, "uselocale"):
        return None
    library.uselocale.argtypes, library.uselocale.restype = [ctypes.c_void_p], ctypes.c_void_p
    library.newlocale.argtypes = [ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p]
    library.newlocale.restype = ctypes.c_void_p
    return library


@cache
def _c_locale() -> int:
    """Return the C library's handle of the locale "C", made once and kept."""
    handle = _posix_library().newlocale(_CATEGORY, b"C", None)
    if not handle:
        raise OSError("The locale C is missing.")
    return int(handle)
