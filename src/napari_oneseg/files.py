"""Files are written under another name and get their own only when they are complete."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from napari_oneseg.errors import OutputError

__all__ = ["replacing"]


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a name on the same disk to write to; the file gets its own name when the block ends without an error.

    The name lies in a folder of its own, so that whatever was begun goes with it, and so that the file gets the
    permissions of any new file.

    Raises
    ------
    OutputError
        If writing fails; nothing is left behind, and an older file stays as it was.
    """
    try:
        with tempfile.TemporaryDirectory(prefix=".oneseg-", dir=path.parent) as folder:
            part = Path(folder) / path.name
            yield part
            part.replace(path)
    except OutputError:
        raise
    except OSError as error:
        raise OutputError(f"{path} was not written: {error.strerror or error}.") from error
