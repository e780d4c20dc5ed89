"""From a study to what its panel shows, and what is said on the way through it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_oneseg.plugin.reviewing import out_of_date
from napari_oneseg.plugin.view_model import StudyRow, StudyState

if TYPE_CHECKING:
    from napari_oneseg.plugin.controller import Controller
    from napari_oneseg.plugin.study_desk import Worklist
    from napari_oneseg.study import StudyScan

__all__ = ["doubt_about_done", "nothing_left", "study_state"]

_UNFINISHED = ("open", "in progress")
_IN_USE = "in use"


def study_state(
    worklist: Worklist,
    here: str | None,
    is_open: bool,
    seconds: float,
    painted: int | None,
    notes: str | None,
    busy: str,
) -> StudyState:
    """Return what the panel shows.

    Parameters
    ----------
    worklist
        The scans.
    here
        The scan at hand.
    is_open
        Whether it is the one in the viewer.
    seconds
        Time that was counted on it and is not in the list yet.
    painted
        How many of its slices are painted just now; None where that is not known.
    notes
        Notes on it that are not in the list yet, None where there are none.
    busy
        What is going on; empty where nothing is.
    """
    rows = tuple(
        _row(scan, scan.name in worklist.elsewhere, *((seconds, painted) if scan.name == here else (0.0, None)))
        for scan in worklist.scans
    )
    finished = sum(row.finished for row in rows)
    scan = worklist.find(here)
    text = busy
    if scan is not None and not busy:
        status = next(row.status for row in rows if row.name == here)
        text = f"{here}: {status}" + ("" if is_open or scan.status == "failed" else ", not in the viewer")
    elif here is not None and not busy:
        text = f"{here}: its file was taken away"
    return StudyState(
        title=worklist.title,
        summary=f"{finished} of {len(rows)} finished",
        rows=rows,
        here=here,
        text=text,
        problem=scan.problem if scan is not None and not is_open and not busy else "",
        notes=notes if notes is not None else scan.notes if scan is not None else "",
        can_finish=is_open and not busy,
        is_busy=bool(busy),
    )


def _row(scan: StudyScan, in_use: bool, seconds: float, painted: int | None) -> StudyRow:
    minutes = (scan.seconds + seconds) / 60
    slices = scan.slices_painted if painted is None else painted
    status = _IN_USE if in_use else scan.status
    said = [f"{scan.name}: {'another window works on it' if in_use else scan.status}"]
    if scan.problem:
        said.append(scan.problem)
    if scan.notes:
        said.append(f"Notes: {scan.notes}")
    if scan.mean_confidence is not None:
        said.append(f"Mean confidence {100 * scan.mean_confidence:.0f} %")
    return StudyRow(
        scan.name,
        status,
        str(slices) if slices else "",
        f"{minutes:.1f}" if minutes >= 0.05 else "",
        "\n".join(said),
        finished=scan.status not in _UNFINISHED,
    )


def nothing_left(worklist: Worklist, here: str | None) -> str:
    """Say why there is no next scan."""
    unfinished = [scan for scan in worklist.scans if scan.status in _UNFINISHED and scan.name != here]
    if unfinished:
        return "All scans that are left are being worked on in other windows."
    at_hand = worklist.find(here)
    if at_hand is not None and at_hand.status in _UNFINISHED:
        return "This is the last scan that is not finished; 'Done' writes its labels."
    return "All scans of the study are finished. 'Save summary…' writes the tables; any scan can be opened again."


def doubt_about_done(controller: Controller) -> str:
    """Return what speaks against the open scan being done; empty where nothing does."""
    state, table = controller.state, controller.table
    if state is None or table is None:
        return ""
    if not table.values:
        return "Nothing is labelled on this scan."
    if old := out_of_date(state):
        return f"{len(old)} slices are out of date; 'Update' renews them."
    if not state.results:
        return "Nothing was propagated: only what is painted would be written."
    return ""
