"""What the panels show, as plain values: the controller makes them, the panels paint them, neither knows the other."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "Choice",
    "Colour",
    "LabelRow",
    "ReviewState",
    "SliceRow",
    "StepState",
    "StripData",
    "StudyRow",
    "StudyState",
]

Colour = tuple[float, float, float, float]
"""Red, green, blue, opacity, each 0 to 1."""


@dataclass(frozen=True)
class StepState:
    """How far one step is.

    Attributes
    ----------
    kind
        ``off``: cannot be used yet; ``ready``: the next thing to do; ``optional``: can be used, but nothing asks for
        it; ``busy``: being computed; ``done``; ``attention``: the user should look at it.
    text
        One short line.
    progress
        0 to 1 while busy, None where it is not known.
    can_cancel
        Whether a Cancel button is offered while busy.
    """

    kind: Literal["off", "ready", "optional", "busy", "done", "attention"] = "off"
    text: str = ""
    progress: float | None = None
    can_cancel: bool = False


@dataclass(frozen=True)
class Choice:
    """An entry of a list to choose from."""

    key: Hashable
    text: str
    tip: str = ""


@dataclass(frozen=True)
class LabelRow:
    """One label of the target table.

    Attributes
    ----------
    value
        Number in the labels layer, 1 or greater.
    volume_ml
        Volume in mL, None before anything was painted.
    slices
        First and last slice that show it, None where none does.
    """

    value: int
    name: str
    colour: Colour
    volume_ml: float | None = None
    slices: tuple[int, int] | None = None


@dataclass(frozen=True)
class SliceRow:
    """A slice with what speaks for it, as in the list of suggestions."""

    index: int
    title: str
    reason: str = ""


@dataclass(frozen=True)
class ReviewState:
    """What the review step shows about the slice on screen and the whole scan.

    Attributes
    ----------
    text
        One line on the slice on screen, such as "Slice 17: propagated, confidence 64 %".
    accepted
        Whether the slice on screen is accepted (frozen).
    n_accepted, n_labelled
        Accepted slices, and slices with labels.
    next_to_paint
        Slices that would gain most if they were painted next, best first; the reason holds the expected gain.
    hint
        One line, such as that little is left to gain; empty where nothing is to be said.
    undo, redo
        What would be taken back, or made again, in a few words; empty where nothing can.
    """

    text: str = ""
    accepted: bool = False
    n_accepted: int = 0
    n_labelled: int = 0
    next_to_paint: tuple[SliceRow, ...] = ()
    hint: str = ""
    undo: str = ""
    redo: str = ""


@dataclass(frozen=True)
class StudyRow:
    """One scan of a study.

    Attributes
    ----------
    name
        What it is called.
    status
        How far it is, in one or two words.
    slices, minutes
        Slices painted, and time worked on it, as texts; empty where there are none.
    tip
        What else there is to say, such as why it failed.
    finished
        Whether nothing is to be done on it any more.
    """

    name: str
    status: str
    slices: str = ""
    minutes: str = ""
    tip: str = ""
    finished: bool = False


@dataclass(frozen=True)
class StudyState:
    """What the study panel shows.

    Attributes
    ----------
    title
        What the study is called.
    summary
        How far it is, such as "3 of 18 finished".
    rows
        The scans.
    here
        The scan at hand, None where none is.
    text
        One line on it, or on what is going on.
    problem
        Why it could not be opened; empty where it could.
    notes
        The user's notes on it.
    can_finish
        Whether it is open, so that it can be done.
    is_busy
        Whether something is going on that has to be waited for.
    """

    title: str = ""
    summary: str = ""
    rows: tuple[StudyRow, ...] = ()
    here: str | None = None
    text: str = ""
    problem: str = ""
    notes: str = ""
    can_finish: bool = False
    is_busy: bool = False


@dataclass(frozen=True, eq=False)
class StripData:
    """What the slice strip shows along the scan.

    Attributes
    ----------
    n_slices
        Slices of the scan.
    score
        Shape (n,), float, 0 to 1: how much painting the slice is worth; None before it is known.
    areas
        Label value to area per slice in mm2, shape (n,).
    confidence
        Shape (n,), float, 0 to 1, NaN where there is nothing; None before a propagation.
    painted, frozen, corrected, stale
        Slice indices.
    suggested
        Suggested slices, best first.
    range
        First and last slice of the target, both included; None for the whole scan.
    colours
        Colour of each label.
    """

    n_slices: int
    score: NDArray[np.float32] | None = None
    areas: Mapping[int, NDArray[np.float32]] = field(default_factory=dict)
    confidence: NDArray[np.float32] | None = None
    painted: frozenset[int] = frozenset()
    frozen: frozenset[int] = frozenset()
    corrected: frozenset[int] = frozenset()
    stale: frozenset[int] = frozenset()
    suggested: tuple[int, ...] = ()
    range: tuple[int, int] | None = None
    colours: Mapping[int, Colour] = field(default_factory=dict)
