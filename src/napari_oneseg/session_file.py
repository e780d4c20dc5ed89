"""The file a session is kept in: a zip of arrays with one JSON entry, never a pickle.

Neither the scan's path nor anything from its header is stored, only the hash of its content.
"""

from __future__ import annotations

import io
import json
import math
import os
import tokenize
import warnings
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast, get_args

import numpy as np
from numpy.typing import NDArray

from napari_oneseg.config import Direction, PropagationConfig, ScreeningConfig
from napari_oneseg.errors import InputError, SessionError
from napari_oneseg.files import replacing
from napari_oneseg.propagation.propagate import LabelledSlice
from napari_oneseg.session_state import SessionState
from napari_oneseg.volume import Annotation, Volume

__all__ = ["DamagedSession", "SavedSession", "load_record", "load_session", "save_session"]

_FORMAT = "napari-oneseg session"
_VERSION = 1
# A file with painted slices of other planes: a program that does not know of them must not drop them silently.
_VERSION_ACROSS = 2
# What the standard library and numpy raise on a file that was cut, overwritten or put together wrongly; a wrong bit in
# a zip header can also claim a password (RuntimeError) or an unknown compression (NotImplementedError), and one in an
# array's header can make it what Python cannot parse (SyntaxError, TokenError).
_DAMAGED = (
    OSError, ValueError, KeyError, TypeError, AttributeError, EOFError, RuntimeError, NotImplementedError,
    OverflowError, MemoryError, SyntaxError, tokenize.TokenError, zipfile.BadZipFile, zlib.error,
)  # fmt: skip
# Zeros pack a thousandfold, so a small file may unpack to anything: more than this no session holds.
_LARGEST_RECORD = 64 << 20
_LARGEST_ARRAYS = 8 << 30
_BLOCK = 1 << 24
# Which entry of the record lists the slices of each array.
_SLICES_OF = {"painted": "painted", "frozen": "frozen", "labels": "results", "confidence": "results"}
# The planes across rows and columns have arrays of their own shape; files of before there were any have none.
_ACROSS = {"across_rows": 1, "across_columns": 2}


class DamagedSession(InputError):
    """A session file whose content makes no sense; reading it again will not help."""


@dataclass(frozen=True, eq=False)
class SavedSession:
    """What a session file holds.

    Attributes
    ----------
    scan
        Content hash of the scan in the order in which it was painted: the patient's.
    weights
        SHA-256 of the weights file.
    propagation, screening
        Parameters.
    state
        What was made.
    extras
        Plain values for JSON that are kept along, such as the names and colours of the labels.
    slice_axis
        The axis that the slices follow each other along; None where the file does not say so, because it was made
        before there was one order of slices (:mod:`napari_oneseg.session_order`).
    """

    scan: str
    weights: str
    propagation: PropagationConfig
    screening: ScreeningConfig
    state: SessionState
    extras: Mapping[str, Any] = field(default_factory=dict)
    slice_axis: int | None = None

    def state_on(self, volume: Volume, weights: str) -> SessionState:
        """Return what was made, for a scan and the weights that are used now.

        Raises
        ------
        ~napari_oneseg.errors.SessionError
            If it was made on another scan.
        ~napari_oneseg.errors.InputError
            If it does not fit the scan that it names.

        Warns
        -----
        UserWarning
            If labels were propagated with other weights; they are stale.
        """
        if self.scan != volume.content_hash:
            raise SessionError(
                "The session file belongs to another scan, or to another slice axis of this one"
                f"{'' if self.slice_axis is None else f' (it was made along axis {self.slice_axis})'}. Open the scan "
                "it was made on."
            )
        rows, columns = volume.slices.shape[1:]
        if not self.state.fits(volume.n_slices, (rows, columns)):
            raise InputError("The session file is damaged: its slices do not fit the scan that it names.")
        if self.weights == weights or not self.state.results:
            return self.state
        # stacklevel: whoever called OneSegSession.restore.
        warnings.warn("The session was made with other weights. Its labels are kept and marked as stale.", stacklevel=3)
        return self.state.out_of_date()


def save_session(path: str | os.PathLike[str], session: SavedSession) -> None:
    """Write a session file under a temporary name and rename it.

    Raises
    ------
    ~napari_oneseg.errors.OutputError
        If the file cannot be written; a file of that name stays as it was.
    """
    state = session.state
    results = [state.results[index] for index in sorted(state.results)]
    meta = {
        "format": _FORMAT,
        "version": _VERSION_ACROSS if state.across else _VERSION,
        "scan": session.scan,
        "weights": session.weights,
        "propagation": session.propagation.to_dict(),
        "screening": session.screening.to_dict(),
        "painted": sorted(state.painted),
        "complete": sorted(state.complete),
        "frozen": sorted(state.frozen),
        "results": [result.index for result in results],
        "scores": [None if np.isnan(result.score) else result.score for result in results],
        "stale": sorted(state.stale),
        "outdated": None if state.outdated is None else sorted(state.outdated),
        "direction": state.direction,
        "slice_axis": session.slice_axis,
        "extras": dict(session.extras),
    }
    across = {name: state.across[axis] for name, axis in _ACROSS.items() if axis in state.across}
    if across:
        meta |= {name: sorted(annotation.slices) for name, annotation in across.items()}
        meta["across_complete"] = {name: sorted(annotation.complete) for name, annotation in across.items()}
    arrays = {
        "painted": _stacked([state.painted[index] for index in sorted(state.painted)]),
        "frozen": _stacked([state.frozen[index] for index in sorted(state.frozen)]),
        "labels": _stacked([result.labels for result in results]),
        "confidence": _stacked([result.confidence for result in results]),
    }
    for name, annotation in across.items():
        arrays[name] = _stacked([annotation.slices[index] for index in sorted(annotation.slices)])
    with replacing(Path(path)) as part, zipfile.ZipFile(part, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        archive.writestr("session.json", json.dumps(meta))
        for name, array in arrays.items():
            buffer = io.BytesIO()
            np.save(buffer, array, allow_pickle=False)
            archive.writestr(f"{name}.npy", buffer.getbuffer())


def load_session(path: str | os.PathLike[str]) -> SavedSession:
    """Read a session file.

    Raises
    ------
    InputError
        If the file is missing, damaged (:class:`DamagedSession`), or not a session.
    """
    with _opened(Path(path)) as (archive, meta):
        return _assembled(meta, _arrays(archive, meta))


def load_record(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read a session file's JSON entry alone: which slices there are, without their arrays. Raises the same."""
    with _opened(Path(path)) as (_, meta):
        return meta


@contextmanager
def _opened(path: Path) -> Iterator[tuple[zipfile.ZipFile, dict[str, Any]]]:
    """Open a session file and read its JSON entry; what goes wrong within the block is an InputError as well."""
    if not path.is_file():
        raise InputError(f"There is no session file {path}.")
    try:
        with zipfile.ZipFile(path) as archive:
            if archive.getinfo("session.json").file_size > _LARGEST_RECORD:
                raise ValueError("its record is too large")
            meta = json.loads(archive.read("session.json"))
            _check_version(meta)
            yield archive, meta
    except InputError:
        raise
    except _DAMAGED as error:
        # What a disk or a lock does not let through now may be readable the next time.
        kind = InputError if isinstance(error, OSError) else DamagedSession
        raise kind(f"{path} is not a readable session file, it may be damaged ({error}).") from error


@dataclass(frozen=True)
class _Claim:
    """What an array's header says of it, before any memory is set aside for it."""

    file: io.BufferedIOBase
    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    @property
    def bytes(self) -> int:
        # In Python's integers, which do not overflow.
        return math.prod(self.shape) * self.dtype.itemsize


def _arrays(archive: zipfile.ZipFile, meta: dict[str, Any]) -> dict[str, NDArray[Any]]:
    """Read the arrays, after what their headers claim was compared with the record and with each other."""
    with ExitStack() as stack:
        claims = {}
        for name in (*_SLICES_OF, *(name for name in _ACROSS if name in meta)):
            entry = archive.getinfo(f"{name}.npy")
            file = cast(io.BufferedIOBase, stack.enter_context(archive.open(entry)))
            claims[name] = _claim(file, entry.file_size)
        _check_slices(meta, claims)
        if sum(claim.bytes for claim in claims.values()) > _LARGEST_ARRAYS:
            raise ValueError("it holds more than any session does")
        return {name: _read(claim) for name, claim in claims.items()}


def _claim(file: io.BufferedIOBase, size: int) -> _Claim:
    if np.lib.format.read_magic(file) != (1, 0):
        raise ValueError("its arrays are of an unknown kind")
    shape, by_columns, dtype = np.lib.format.read_array_header_1_0(file)
    claim = _Claim(file, shape, dtype)
    if dtype.kind not in "uf" or by_columns or len(shape) != 3 or min(shape) < 0 or claim.bytes != size - file.tell():
        raise ValueError("its arrays are not what they claim to be")
    return claim


def _read(claim: _Claim) -> NDArray[Any]:
    array: NDArray[Any] = np.empty(claim.shape, claim.dtype)
    content = array.reshape(-1).view(np.uint8).data
    # In blocks, so that nothing is held twice; at the last one zipfile compares the checksum.
    while len(content):
        read = claim.file.readinto(content[:_BLOCK])
        if not read:
            raise EOFError("it is cut off")
        content = content[read:]
    return array


def _assembled(meta: dict[str, Any], arrays: dict[str, NDArray[Any]]) -> SavedSession:
    results = {
        index: LabelledSlice(index, labels, confidence, float("nan") if score is None else score)
        for index, labels, confidence, score in zip(
            meta["results"], arrays["labels"], arrays["confidence"], meta["scores"], strict=True
        )
    }
    return SavedSession(
        scan=meta["scan"],
        weights=meta["weights"],
        propagation=PropagationConfig.from_dict(meta["propagation"]),
        screening=ScreeningConfig.from_dict(meta["screening"]),
        state=SessionState(
            painted=dict(zip(meta["painted"], arrays["painted"], strict=True)),
            complete=frozenset(meta["complete"]),
            frozen=dict(zip(meta["frozen"], arrays["frozen"], strict=True)),
            results=results,
            stale=frozenset(meta["stale"]),
            # Files of before there was such a choice have none: all labels are.
            outdated=None if meta.get("outdated") is None else frozenset(meta["outdated"]),
            direction=meta["direction"],
            across={
                axis: Annotation(
                    dict(zip(meta[name], arrays[name], strict=True)), frozenset(meta["across_complete"][name])
                )
                for name, axis in _ACROSS.items()
                if name in meta
            },
        ),
        # Files of before there were any have none.
        extras=meta.get("extras", {}),
        slice_axis=meta.get("slice_axis"),
    )


def _check_version(meta: dict[str, Any]) -> None:
    if meta.get("format") != _FORMAT or meta.get("version") not in (_VERSION, _VERSION_ACROSS):
        raise InputError(
            f"Expected a session file of version {_VERSION} or {_VERSION_ACROSS}, got {meta.get('format')} "
            f"{meta.get('version')}."
        )


def _check_slices(meta: dict[str, Any], claims: Mapping[str, _Claim]) -> None:
    """Refuse what no session can have written, before it does harm further on."""
    across = [name for name in _ACROSS if name in meta]
    shapes = {claims[name].shape[1:] for name in _SLICES_OF if claims[name].shape[0]}
    indices = [index for key in ("painted", "complete", "frozen", "results", "stale") for index in meta[key]]
    indices += [index for name in across for index in meta[name]]
    kinds = {claim.dtype.kind for name, claim in claims.items() if name != "confidence"}
    scores = [score for score in meta["scores"] if score is not None]
    sound = (
        len(shapes) <= 1
        and kinds == {"u"}
        and (claims["confidence"].dtype.kind == "f" or not meta["results"])
        and all(claims[name].shape[0] == len(meta[key]) for name, key in _SLICES_OF.items())
        and all(claims[name].shape[0] == len(meta[name]) > 0 for name in across)
        and all(set(meta["across_complete"][name]) <= set(meta[name]) for name in across)
        and len(meta["scores"]) == len(meta["results"])
        and all(isinstance(score, int | float) for score in scores)
        and isinstance(meta["scan"], str)
        and isinstance(meta["weights"], str)
        and all(isinstance(index, int) and index >= 0 for index in indices)
        and set(meta["complete"]) <= set(meta["painted"])
        and all(isinstance(label, int) and label > 0 for label in meta.get("outdated") or ())
        and meta["direction"] in get_args(Direction)
        and isinstance(meta.get("extras", {}), dict)
        and meta.get("slice_axis") in (None, 0, 1, 2)
    )
    if not sound:
        raise ValueError("its slices contradict each other")


def _stacked(images: list[NDArray[Any]]) -> NDArray[Any]:
    # By rows, as they are read: images that were painted as a transposed view would be stacked by columns.
    return np.ascontiguousarray(np.stack(images)) if images else np.zeros((0, 0, 0), np.uint8)
