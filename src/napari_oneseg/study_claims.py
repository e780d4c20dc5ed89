"""Who works on which scan of a study, so that two windows never work on one scan at the same time.

A claim is a lock on an empty file beside the results. It ends with the program that holds it, whatever has ended it;
the file stays, and its time tells on which scans somebody has worked last.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from napari_oneseg.errors import OutputError
from napari_oneseg.process_lock import hold, is_held, release

__all__ = ["Claims"]

_FOLDER = ".claims"
_ENDING = ".lock"


class Claims:
    """The claims of one window on scans of a study.

    Parameters
    ----------
    results
        The study's folder for results.
    """

    def __init__(self, results: Path) -> None:
        self._folder = results / _FOLDER
        self._held: dict[str, int] = {}

    def take(self, name: str) -> bool:
        """Claim a scan; return False if another window holds it.

        Raises
        ------
        OutputError
            If the folder for results cannot be written.
        """
        if name in self._held:
            return True
        path = self._path(name)
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            lock = hold(path)
            if lock is not None:
                path.touch()
        except OSError as error:
            raise OutputError(
                f"The folder for results, {self._folder.parent}, cannot be written: {error.strerror or error}. "
                "Work on a copy of the study, or ask for the right to write there."
            ) from error
        if lock is None:
            return False
        self._held[name] = lock
        return True

    def give_back(self, but: str | None = None) -> None:
        """Let other windows have all that is held, but for one scan."""
        for name in self._held.keys() - {but}:
            release(self._held.pop(name))

    def held_elsewhere(self, names: Iterable[str]) -> frozenset[str]:
        """Return those of some scans that other windows hold."""
        return frozenset(name for name in names if name not in self._held and is_held(self._path(name)))

    def latest(self) -> list[str]:
        """Return the scans that were ever claimed, the last one first."""
        ages = {}
        with suppress(OSError):  # nothing was claimed yet
            ages = {
                path.name.removesuffix(_ENDING): path.stat().st_mtime_ns for path in self._folder.glob(f"*{_ENDING}")
            }
        return sorted(ages, key=ages.__getitem__, reverse=True)

    def _path(self, name: str) -> Path:
        return self._folder / f"{name}{_ENDING}"
