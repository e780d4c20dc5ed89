"""From opening a scan to the exported labels in the real napari, with mouse and keyboard only."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import ndimage

from tests.e2e.desktop import SIZE, Desktop
from tests.e2e.program import Program, State
from tests.e2e.scans import Labels, Mask, Scan, largest_part, shown_labels, strokes_over
from tests.plugin.layer_fixtures import same_grid

LONGEST_MS = 100.0
"""How long the GUI thread may compute at a stretch during a propagation; 10 to 30 ms are usual, most of it drawing."""


class Tour:
    """The steps of one tour, each of which leaves the program at rest.

    ``times`` holds what the steps took, ``phases`` when they ran.
    """

    def __init__(self, desktop: Desktop, scan: Scan, home: Path, pictures: Path) -> None:
        self.desktop, self.scan, self.pictures = desktop, scan, pictures
        self.name = scan.path.name.partition(".")[0]
        self.times: dict[str, float] = {}
        self.phases: dict[str, tuple[float, float]] = {}
        self.program = Program(desktop, home, scan.path)
        self.shot = 0

    def picture(self, name: str) -> None:
        """Photograph the screen, the mouse out of the way."""
        self.shot += 1
        left, top, width, _ = self.program.state()["canvas"]["box"]
        # By way of the canvas, where napari takes away what it draws at the mouse.
        way = [(left + width - 40, top + 40), (left + width - 20, top + 20), (SIZE[0] // 2, SIZE[1] - 8)]
        for x, y in way:
            self.desktop.do("mousemove", x, y, "sleep", 0.2)
        self.desktop.picture(self.pictures / f"{self.name}-{self.shot}-{name}.png")

    def open(self) -> State:
        program = self.program
        window = self.desktop.wait_for_windows("napari")
        self.times["start of napari"] = window - program.started
        state = program.wait(lambda s: s["opened"] and s["marked"] is not None, "a suggested slice")
        self.times["window to suggestion"] = state["t"] - window
        self.times["features"] = state["feature_seconds"]
        program.wait_until_quiet()
        self.phases["open"] = window, time.monotonic()
        self.picture("open")
        return state

    def go(self, index: int) -> int:
        """Click in the strip where a slice should be; return the slice shown then, which may be the next one."""
        state = self.program.state()
        left, top, width, _ = state["controls"]["view.strip"]["box"]
        count = state["shape"][0]
        self.desktop.click(left + 3 + (width - 6) * (index + 0.5) / count, top + 60)
        there = self.program.wait(lambda s: s["current"] != state["current"], "another slice, clicked in the strip")
        assert abs(there["current"] - index) <= 1
        self.program.wait_until_quiet()
        return int(there["current"])

    def choose_slice(self) -> int:
        """Look elsewhere, by a click in the strip, then come back to the suggestion."""
        program, state = self.program, self.program.state()
        best = state["suggested"][0]
        assert state["current"] == state["marked"] == best
        self.go(best + 5)
        program.press("shift+s")
        program.wait(lambda s: s["current"] == best, "the suggested slice again")
        program.click("paint.paint_button")
        program.wait(lambda s: s["mode"] == "paint", "the brush")
        return int(best)

    def paint(self, index: int) -> Labels:
        """Paint two organs; take the second back and make it again."""
        program = self.program
        self.painted_slice = index
        first, second = self.scan.masks(index)
        self.painted_organs = [int(self.scan.truth[index][mask][0]) for mask in (first, second)]
        self.cover(first, 1, index)
        assert program.wait(lambda s: s["painted"] == [index], "the slice as painted")["marked"] is None
        program.click("target.add_button")
        program.wait(lambda s: s["selected_label"] == 2, "a second label")
        one, both = self.cover(second, 2, index)
        assert not np.delete(both, index, axis=0).any()
        program.press("ctrl+z")
        self.labels_when(lambda labels: np.array_equal(labels, one), "the second stroke taken back")
        program.press("ctrl+shift+z")
        self.labels_when(lambda labels: np.array_equal(labels, both), "the second stroke made again")
        self.picture("painted")
        return both

    def cover(self, mask: Mask, value: int, index: int) -> tuple[Labels, Labels]:
        """Paint an organ, with more than one stroke if need be; return the layer before and after the last one."""
        program, brush = self.program, self.program.state()["brush"]
        before = after = program.labels()
        for _ in range(5):
            program.draw(strokes_over(mask & (after[index] != value), brush))
            before = after
            self.labels_when(partial(differ, before), "a stroke in the layer")
            after = program.labels(program.wait_until_quiet())
            painted = after[index] == value
            if np.count_nonzero(painted & mask) > 0.7 * np.count_nonzero(mask):
                break
        else:
            raise AssertionError("the strokes do not come to lie where they were drawn")
        near = ndimage.binary_dilation(mask, iterations=2)
        assert np.count_nonzero(painted & ~near) < 0.2 * np.count_nonzero(mask)
        return before, after

    def propagate(self, painted: Labels, index: int) -> Labels:
        """By the key, taken back, made again; then by the button."""
        program = self.program
        began = time.monotonic()
        program.press("shift+p")
        count = painted.shape[0]
        state = program.wait(lambda s: len(s["propagated"]) >= count - 1 and not s["doing"], "labels in all slices")
        self.times["key to propagated"] = state["t"] - began
        done = program.labels(program.wait_until_quiet())
        self.phases["propagate"] = began, time.monotonic()
        # Of the time between two events, only what this thread computed says something on a computer that is shared.
        assert max((gap["ran_ms"] for gap in program.gaps(*self.phases["propagate"])), default=0.0) < LONGEST_MS
        assert np.array_equal(done[index], painted[index])
        assert np.count_nonzero(done.any(axis=(1, 2))) > 3
        self.go(index + 5)
        self.picture("propagated")
        program.press("ctrl+z")
        self.labels_when(lambda labels: np.array_equal(labels, painted), "the whole propagation taken back")
        program.press("ctrl+shift+z")
        self.labels_when(lambda labels: np.array_equal(labels, done), "the propagation made again")
        program.press("ctrl+z")
        self.labels_when(lambda labels: np.array_equal(labels, painted), "the whole propagation taken back")
        program.click("propagate.propagate_button")
        program.wait(lambda s: len(s["propagated"]) >= count - 1 and not s["doing"], "labels, by the button")
        program.wait_until_quiet()
        self.labels_when(lambda labels: np.array_equal(labels, done), "the same labels by the button")
        return done

    def check(self, done: Labels) -> None:
        """Go to the most doubtful slice and look at the confidence; correct it; renew what follows from it."""
        program, state = self.program, self.program.state()
        doubtful = state["to_check"][0]
        program.press("shift+n")
        program.wait(lambda s: s["current"] == doubtful, "the most doubtful slice")
        program.click("review.confidence_box")
        program.wait_until_quiet()
        self.picture("review")
        program.click("review.confidence_box")
        program.wait_until_quiet()
        value = self.choose_missing(doubtful, done)
        missing = self.missing(doubtful, done, value)
        program.draw(strokes_over(missing, program.state()["brush"]) if missing.sum() > 20 else [(90, 90), (94, 99)])
        state = program.wait(lambda s: s["corrected"] == [doubtful], "the stroke as a correction")
        assert state["stale"]
        corrected = program.labels(program.wait_until_quiet())
        assert np.count_nonzero(corrected[doubtful] != done[doubtful]) > 10
        assert np.array_equal(np.delete(corrected, doubtful, axis=0), np.delete(done, doubtful, axis=0))
        self.picture("correction")
        program.click("propagate.propagate_button")
        program.wait(lambda s: not s["stale"] and not s["doing"], "the neighbours of the correction renewed")
        renewed = program.labels(program.wait_until_quiet())
        assert np.array_equal(renewed[doubtful], corrected[doubtful])
        program.press("shift+n")
        program.wait(lambda s: s["current"] not in {doubtful, None}, "the next slice to check")
        accepted = self.go(self.painted_slice + 2)
        program.press("shift+a")
        program.wait(lambda s: s["accepted"] == [accepted], "the slice accepted")
        # What was accepted is a source of labels, as what was painted is.
        program.press("shift+p")
        program.wait(lambda s: not s["stale"] and not s["doing"], "its neighbours renewed")
        program.wait_until_quiet()

    def missing(self, index: int, labels: Labels, value: int) -> Mask:
        """Return where an organ was left out on a slice: what a user would correct."""
        organ = self.scan.truth[index] == self.painted_organs[value - 1]
        return largest_part(ndimage.binary_opening(organ & (labels[index] != value), iterations=2))

    def choose_missing(self, index: int, labels: Labels) -> int:
        """Select, with napari's own keys, the label of which most is missing on a slice."""
        value = 1 if self.missing(index, labels, 1).sum() >= self.missing(index, labels, 2).sum() else 2
        if value == 1:
            self.program.press("minus")
        self.program.wait(lambda s: s["selected_label"] == value, "the label selected by key")
        return value

    def export(self) -> tuple[Path, Labels, State]:
        """Answer the dialog by keyboard: a name of one's own, and once more over the file that is there."""
        program, path = self.program, self.scan.path.with_name("result.nii.gz")
        state = program.wait_until_quiet()
        labels = program.labels(state)
        began = time.monotonic()
        for again in (False, True):
            program.click("export.export_button")
            program.wait(lambda s: s["modal"] == "QFileDialog", "the export dialog")
            if not again:
                self.picture("export")
            program.press("ctrl+a")
            self.desktop.type(str(path))
            program.press("Return")
            if again:
                program.wait(lambda s: s["modal"] == "QMessageBox", "the question whether to replace the file")
                path.with_name("result.json").unlink()
                program.press("alt+y")
            program.wait(lambda s: not s["modal"] and path.with_name("result.json").exists(), "the files")
            program.wait(lambda s: not s["unsaved"] and not s["doing"], "the word that they are written")
        program.wait_until_quiet()
        self.phases["export"] = began, time.monotonic()
        self.picture("exported")
        return path, labels, state

    def labels_when(self, condition: Any, what: str) -> Labels:
        """Wait until the layer shows something; return its array."""
        found: list[Labels] = []

        def holds(state: State) -> bool:
            if state["labels"] is None:
                return False
            labels = self.program.labels(state)
            if condition(labels):
                found.append(labels)
            return bool(found)

        self.program.wait(holds, what)
        return found[0]

    def report(self) -> str:
        """Return what was measured, as text."""
        load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
        lines = [f"{self.scan.path.name}; load {load}"]
        lines += [f"  {name}: {seconds:.2f} s" for name, seconds in self.times.items()]
        for name, (since, until) in self.phases.items():
            gaps = sorted(self.program.gaps(since, until), key=lambda gap: -gap["ms"])
            lines.append(f"  {name}: {sum(gap['ms'] > 50 for gap in gaps)} gaps over 50 ms")
            for gap in gaps[:8]:
                times = f"{gap['ms']:.0f} ms (ran {gap['ran_ms']:.0f}, waited {gap['waited_ms']:.0f})"
                lines.append(f"    {times}: {gap['where'][0][0] if gap['where'] else '?'}")
        return "\n".join(lines) + "\n"


def differ(before: Labels, labels: Labels) -> bool:
    return not np.array_equal(before, labels)


@pytest.fixture(params=["phantom", "chaos"])
def tour(request: pytest.FixtureRequest, desktop: Desktop, tmp_path: Path, pictures: Path) -> Iterator[Tour]:
    scan: Scan = request.getfixturevalue(f"{request.param}_scan")
    one = Tour(desktop, scan, tmp_path / "home", pictures)
    yield one
    one.program.close()


def test_from_opening_a_scan_to_its_labels(tour: Tour) -> None:
    try:
        tour.open()
        index = tour.choose_slice()
        painted = tour.paint(index)
        done = tour.propagate(painted, index)
        tour.check(done)
        path, labels, state = tour.export()
    except BaseException:
        tour.desktop.picture(tour.pictures / "failed.png")
        raise
    (tour.pictures / f"{tour.name}-measured.txt").write_text(tour.report())
    np.testing.assert_array_equal(shown_labels(path), labels)
    same_grid(path, tour.scan.path)
    record = json.loads(path.with_name("result.json").read_text())
    assert record["accepted"] == state["accepted"]
    assert record["not_up_to_date"] == state["stale"] == []
    assert record["export"]["file"] == path.name
    for value in (1, 2):
        assert record["labels"][str(value)]["voxels"] == np.count_nonzero(labels == value)
    assert tour.program.leave() == 0
    assert "Traceback" not in tour.program.words()
