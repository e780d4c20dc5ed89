"""From the controller to what the panels show, in words that need no manual."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from napari_oneseg.plugin.controller import Controller
from napari_oneseg.plugin.reviewing import out_of_date
from napari_oneseg.plugin.view_model import LabelRow, ReviewState, SliceRow, StepState, StripData

if TYPE_CHECKING:
    from napari_oneseg.session_state import SessionState

__all__ = [
    "label_rows",
    "painted_slices",
    "propagate_action",
    "review",
    "slice_text",
    "steps",
    "strip",
    "suggestions",
    "summary",
]

_SHOWN_SUGGESTIONS = 5


def steps(controller: Controller) -> dict[str, StepState]:
    """Return the state of each step by its name in the view."""
    opened, doing = controller.opened_scan, controller.doing
    if opened is None:
        waiting = dict.fromkeys(
            ("target", "suggest", "paint", "propagate", "review", "export", "adapt"), StepState("off")
        )
        if doing == "open":
            return waiting | {"scan": _busy(controller, "Looking at the scan")}
        return waiting | {"scan": StepState("ready", "Open a scan, or choose one of the layers.")}
    state, table = opened.session.state, controller.table
    assert table is not None
    painted, propagated = bool(state.annotation.labels), bool(state.results)
    n_slices = table.n_slices
    slice_range = controller.target.range
    where = f"slices {slice_range[0]} to {slice_range[1]}" if slice_range else "whole scan"
    return {
        "scan": StepState("done", f"{n_slices} slices"),
        "target": _busy(controller, "Looking where it ends") if doing == "locate" else StepState("done", where),
        "suggest": _suggest_state(controller),
        "paint": StepState("done" if painted else "ready", _painted_text(painted_slices(controller))),
        "propagate": _propagate_state(controller),
        "review": _review_state(controller) if propagated else StepState("off", "After the propagation"),
        "export": _busy(controller, "Writing") if doing == "export" else _export_state(controller),
        "adapt": StepState("optional", "Optional"),
    }


def _busy(controller: Controller, text: str) -> StepState:
    # Never unknown: a bar that moves by itself keeps a computer without a graphics card busy with drawing the window.
    progress = controller.job.progress if controller.job else None
    return StepState("busy", text, progress or 0.0, can_cancel=True)


def _suggest_state(controller: Controller) -> StepState:
    if controller.doing == "suggest":
        return _busy(controller, "Comparing the slices")
    best = controller.target.best
    if not best:
        return StepState("attention", "No slice stands out; paint where the target is largest.")
    index = best[0].index
    painted = bool(painted_slices(controller))
    return StepState("done" if painted else "ready", f"Paint slice {index}" if not painted else f"Slice {index}")


def _propagate_state(controller: Controller) -> StepState:
    if controller.doing == "propagate":
        return _busy(controller, "Carrying the labels from slice to slice")
    state, table = controller.state, controller.table
    assert state is not None
    assert table is not None
    if not controller.can_propagate:
        return StepState("off", "Paint a slice first.")
    if old := out_of_date(state):
        return StepState("attention", f"{_slices(len(old))} out of date")
    if state.results:
        return StepState("done", f"{_slices(int(table.labelled.sum()))} labelled")
    return StepState("ready", "Ready")


def _review_state(controller: Controller) -> StepState:
    left, table = controller.to_check(), controller.table
    assert table is not None
    if not left:
        return StepState("done", "All slices are accepted or painted.")
    # Where a label might be and none was set, something may be missing.
    empty = int((~table.labelled[left]).sum())
    return StepState("ready", f"{_slices(len(left))} to check" + (f", {empty} of them empty" if empty else ""))


def _export_state(controller: Controller) -> StepState:
    state, table = controller.state, controller.table
    assert state is not None
    assert table is not None
    if not table.values:
        return StepState("off", "Nothing to export yet")
    if not controller.unsaved:
        return StepState("done", "Exported")
    if not state.results:
        return StepState("optional", "Only what is painted so far")
    return StepState("ready", "Not exported since the last change")


def _slices(count: int) -> str:
    return f"{count} slice" if count == 1 else f"{count} slices"


def painted_slices(controller: Controller) -> list[int]:
    """Return the slices that the user has painted or corrected."""
    return sorted(controller.state.painted) if controller.state else []


def _painted_text(slices: Sequence[int]) -> str:
    if not slices:
        return "Nothing is painted yet"
    return f"Slice {slices[0]} is painted" if len(slices) == 1 else f"{len(slices)} slices are painted"


def label_rows(controller: Controller) -> list[LabelRow]:
    """Return the labels of the target table."""
    table = controller.table
    rows = []
    for value in controller.book.values if table else []:
        style = controller.book.style(value)
        assert table is not None
        rows.append(LabelRow(value, style.name, style.colour, table.volume_ml(value), table.extent(value)))
    return rows


def suggestions(controller: Controller) -> list[SliceRow]:
    """Return the best slices with what speaks for them."""
    ranking = controller.target.ranking
    if ranking is None:
        return []
    count = controller.table.n_slices if controller.table else 0
    rows = []
    for place, suggestion in enumerate(ranking.best[:_SHOWN_SUGGESTIONS]):
        if ranking.slice_range is not None:
            reason = f"shows {100 * max(0.0, suggestion.score):.0f} % of what the range holds"
        else:
            reason = "most like all the others" if place == 0 else "next most like the others"
        reason += f", at {100 * suggestion.index / max(1, count - 1):.0f} % of the scan"
        rows.append(SliceRow(suggestion.index, f"Slice {suggestion.index}", reason))
    return rows


def propagate_action(controller: Controller) -> tuple[str, bool]:
    """Return the text of the main button, and whether it can be pressed."""
    state = controller.state
    if state is None:
        return "Propagate", False
    text = "Update" if state.results and out_of_date(state) else "Propagate"
    return text, controller.can_propagate and not controller.doing


def slice_text(controller: Controller, index: int) -> str:
    """Return one line on a slice."""
    state, table = controller.state, controller.table
    if state is None or table is None or not 0 <= index < table.n_slices:
        return ""
    said = []
    if index in state.frozen:
        said.append("accepted")
    elif index in state.painted:
        said.append("corrected" if index in state.complete else "painted")
    elif np.isfinite(table.confidence[index]):
        found = "propagated" if table.labelled[index] else "left empty"
        said.append(f"{found}, confidence {100 * table.confidence[index]:.0f} %")
    elif index in state.results:
        said.append("no label here")
    if index in out_of_date(state):
        said.append("out of date")
    best = controller.target.best
    if best and best[0].index == index and not said:
        said.append("suggested, paint here")
    return f"Slice {index}: {', '.join(said)}" if said else f"Slice {index}"


def _next_to_paint(controller: Controller, state: SessionState) -> list[SliceRow]:
    """Return the slices that would gain most if they were painted next."""
    return [
        SliceRow(found.index, f"Slice {found.index}", f"about {100 * found.gain:+.1f} % overlap expected")
        for found in controller.target.next_slices
        if found.worth_it and found.index not in state.painted and found.index not in state.frozen
    ]


def review(controller: Controller) -> ReviewState:
    """Return what the review step shows."""
    state, table, session = controller.state, controller.table, controller.session
    if state is None or table is None or session is None:
        return ReviewState()
    rows = _next_to_paint(controller, state)
    hint = "Painting another slice would gain little." if controller.target.next_slices and not rows else ""
    return ReviewState(
        text=slice_text(controller, controller.current),
        accepted=controller.current in state.frozen,
        n_accepted=len(state.frozen),
        n_labelled=len(state.frozen) + len(controller.to_check()),
        next_to_paint=tuple(rows),
        hint=hint,
        undo=session.undoable,
        redo=session.redoable,
    )


def summary(controller: Controller) -> str:
    """Return what an export would hold, in one or two lines."""
    state, table = controller.state, controller.table
    if state is None or table is None or not table.values:
        return ""
    style = controller.book.style
    volumes = ", ".join(f"{style(value).name} {table.volume_ml(value):.1f} mL" for value in table.values)
    old = out_of_date(state)
    stale = f"\n{_slices(len(old))} out of date: press Update first." if old else ""
    return volumes + stale


def _worth_painting(controller: Controller) -> tuple[int, ...]:
    """Return the slices to paint: the first one by the look of the scan, the next ones by what would gain most."""
    if controller.state is not None and controller.state.results:
        return tuple(row.index for row in _next_to_paint(controller, controller.state))
    best = controller.target.best
    return tuple(suggestion.index for suggestion in best[:3])


def strip(controller: Controller) -> StripData | None:
    """Return what the slice strip shows, None where no scan is open."""
    state, table = controller.state, controller.table
    if state is None or table is None:
        return None
    values = table.values
    return StripData(
        n_slices=table.n_slices,
        score=controller.target.ranking.scores if controller.target.ranking else None,
        areas={value: area for value, area in table.areas.items() if value in values},
        confidence=table.confidence if state.results or controller.doing == "propagate" else None,
        painted=frozenset(state.painted) - state.complete,
        frozen=frozenset(state.frozen),
        corrected=frozenset(state.complete),
        stale=out_of_date(state),
        suggested=_worth_painting(controller),
        range=controller.target.range,
        colours={value: controller.book.style(value).colour for value in values},
    )
