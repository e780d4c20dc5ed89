"""The session that ``batch propagate`` leaves for the window: labels and confidence, ready to be corrected.

It lies in a folder of its own, so that it never takes the place of what was made in the window. A hash in it says what
was painted when it was made; as soon as that is something else, in the window or in the label file, it counts no more.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from napari_oneseg.batch_records import digest_of, make_folder
from napari_oneseg.errors import InputError
from napari_oneseg.session import OneSegSession
from napari_oneseg.session_file import SavedSession, load_record, load_session, save_session
from napari_oneseg.study_scans import SESSION_ENDING

__all__ = ["is_propagated_from", "load_propagated", "propagated_path", "save_propagated"]

_FOLDER = "propagated"
_PAINTING = "painting_sha256"


def propagated_path(results: Path, name: str) -> Path:
    """Return where the session that was propagated from a scan's painting is kept."""
    return results / _FOLDER / f"{name}{SESSION_ENDING}"


def save_propagated(path: Path, session: OneSegSession, extras: Mapping[str, Any], painting: str) -> None:
    """Write a session after its propagation, so that the window can go on with it.

    Parameters
    ----------
    path
        As of :func:`propagated_path`; an older file is replaced.
    session
        The session.
    extras
        What the session brought along, such as names of labels. The slice to begin at is added: where the user has left
        it, else the painted slice in the middle.
    painting
        :func:`~napari_oneseg.batch_records.digest_of` the file that the session was painted in.

    Raises
    ------
    OutputError
        If it cannot be written; an older file stays as it was.
    """
    painted = sorted(session.annotation.slices)
    begin = {"slice": painted[len(painted) // 2]} if painted else {}
    kept = {**begin, **extras, _PAINTING: painting}
    make_folder(path.parent)
    save_session(path, replace(session.snapshot(), extras=kept))


def is_propagated_from(path: Path, painting: str) -> bool:
    """Return whether there is a session that was propagated from what has that hash."""
    with suppress(InputError):
        extras = load_record(path).get("extras")
        return isinstance(extras, dict) and extras.get(_PAINTING) == painting
    return False


def load_propagated(results: Path, name: str, painting: Path) -> SavedSession | None:
    """Return what was propagated from a painting; None where it was not, or was painted on since.

    Parameters
    ----------
    results
        The study's folder for results.
    name
        The scan.
    painting
        What is painted on it now: a session or a label file.
    """
    path = propagated_path(results, name)
    # Whoever needs the painting itself will say what is wrong with it.
    with suppress(InputError):
        if path.exists() and is_propagated_from(path, digest_of(painting)):
            return load_session(path)
    return None
