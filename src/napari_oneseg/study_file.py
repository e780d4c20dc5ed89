"""The file in which a study keeps what was done: one JSON file, written by several programs at once.

Strategy. Nobody keeps the file's content and writes it back later. Every change locks the file, reads what is there
now, changes that and replaces the file as a whole; so what another program wrote meanwhile stays, and whoever reads
sees one state or the next. The file names scans, never where they lie.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, get_args

from napari_oneseg.errors import InputError, OutputError
from napari_oneseg.files import replacing
from napari_oneseg.process_lock import hold, release

__all__ = ["Entry", "Status", "StudyFile", "checked_entry"]

Status = Literal["open", "in progress", "done", "skipped", "failed"]
"""How far a scan is; ``failed``: it could not be read or computed."""

Entry = dict[str, Any]
"""What is kept of a scan, by fields of :class:`~napari_oneseg.study.StudyScan`; what is missing has its default."""

_FORMAT = "napari-oneseg study"
_VERSION = 1
_PATIENCE_SECONDS = 10.0
_PAUSE_SECONDS = 0.01


class StudyFile:
    """The file of a study.

    Parameters
    ----------
    path
        Where it is; it is made by the first change.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self) -> dict[str, Entry]:
        """Return what is kept of each scan, by its name; nothing where there is no file yet.

        Raises
        ------
        InputError
            If the file cannot be read, is damaged, of another version, or holds what no study has.
        """
        try:
            text = self.path.read_text(encoding="utf-8")
        except FileNotFoundError:
            return {}
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"The study file {self.path} cannot be read: {error}.") from error
        try:
            content = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise InputError(f"The study file {self.path} is damaged ({error}); restore a copy of it.") from error
        return _checked_content(content, self.path.name)

    @contextmanager
    def changing(self) -> Iterator[dict[str, Entry]]:
        """Yield what the file holds, to be changed in place; it is written when the block ends without an error.

        Raises
        ------
        InputError
            If the file cannot be used, or what is to be written is nothing that a study has.
        OutputError
            If it cannot be written, or another program does not let go of it.
        """
        lock = self._locked()
        try:
            entries = self.read()
            yield entries
            checked = {name: checked_entry(name, entry) for name, entry in sorted(entries.items())}
            content = {"format": _FORMAT, "version": _VERSION, "scans": checked}
            with replacing(self.path) as part, part.open("w", encoding="utf-8", errors="backslashreplace") as file:
                # A name that is not UTF-8 is written in the way of JSON, and comes back as it was.
                json.dump(content, file, indent=1, ensure_ascii=False, allow_nan=False)
                file.write("\n")
                file.flush()
                os.fsync(file.fileno())
        finally:
            release(lock)

    def _locked(self) -> int:
        path = self.path.with_name(f".{self.path.name}.lock")
        patience = time.monotonic() + _PATIENCE_SECONDS
        while True:
            try:
                lock = hold(path)
            except OSError as error:
                raise OutputError(f"{self.path} cannot be written: {error.strerror or error}.") from error
            if lock is not None:
                return lock
            if time.monotonic() > patience:
                raise OutputError(
                    f"{self.path} cannot be written: another program has kept it locked for "
                    f"{_PATIENCE_SECONDS:.0f} s. Close what else works on this study, then try again."
                )
            time.sleep(_PAUSE_SECONDS)


def _checked_content(content: Any, file: str) -> dict[str, Entry]:
    if not isinstance(content, dict) or content.get("format") != _FORMAT:
        raise InputError(f"{file} is no study file of this program; move it away, or give another folder or CSV file.")
    if content.get("version") != _VERSION:
        raise InputError(
            f"{file} has version {content.get('version')}, and version {_VERSION} was expected; use the version of "
            "napari-oneseg that wrote it, or a newer one."
        )
    unknown = sorted(set(content) - {"format", "version", "scans"})
    if unknown or not isinstance(content.get("scans"), dict):
        what = f"the unknown key {unknown[0]!r}" if unknown else "no scans"
        raise InputError(f"{file} holds {what}; remove what was added to it by hand, or restore a copy.")
    return {name: checked_entry(name, entry) for name, entry in content["scans"].items()}


def checked_entry(name: str, entry: Any) -> Entry:
    """Return what is kept of a scan after checking it; every key may be missing.

    Parameters
    ----------
    name
        Name of the scan, for messages.
    entry
        As read from JSON, or as given by the program.

    Raises
    ------
    InputError
        If it has an unknown key, or a value that no scan can have.
    """
    if not isinstance(entry, Mapping):
        raise InputError(f"Of scan {name} the study must keep named values, got {entry!r}.")
    for key, value in entry.items():
        if key not in _KEYS:
            raise InputError(f"Of scan {name} the study keeps {key!r}, which is unknown; known are {', '.join(_KEYS)}.")
        expected, fits = _KEYS[key]
        if not fits(value):
            raise InputError(f"Of scan {name} the study keeps {key!r} as {value!r}; expected was {expected}.")
    # As JSON has it, so that what is written is what will be read.
    plain: Entry = {key: _plain(value) for key, value in entry.items()}
    return plain


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): item for key, item in value.items()}
    return list(value) if isinstance(value, tuple) else value


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_amount(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and value >= 0


def _are_volumes(value: Any) -> bool:
    return isinstance(value, Mapping) and all(
        str(key).isdecimal() and int(key) > 0 and _is_amount(item) for key, item in value.items()
    )


_KEYS: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "status": (f"one of {', '.join(get_args(Status))}", lambda value: value in get_args(Status)),
    "notes": ("text", _is_text),
    "seconds": ("a number from 0 on", _is_amount),
    "slices_painted": ("a whole number from 0 on", _is_count),
    "corrections": ("a whole number from 0 on", _is_count),
    "volumes_ml": ("mL by label", _are_volumes),
    "mean_confidence": ("a number from 0 to 1", lambda value: value is None or (_is_amount(value) and value <= 1)),
    "suggested": ("slice indices", lambda value: isinstance(value, list | tuple) and all(map(_is_count, value))),
    "suggested_from": ("text", _is_text),
    "problem": ("text", _is_text),
}
