"""The real napari, killed at bad moments: what was painted comes back when the scan is opened again."""

from __future__ import annotations

import os
import time
from pathlib import Path

import numpy as np

from tests.e2e.desktop import Desktop
from tests.e2e.program import Program, State
from tests.e2e.scans import Labels, Scan

KILLS = int(os.environ.get("ONESEG_E2E_KILLS") or 3)
MOMENTS = ("after a stroke", "in a stroke", "in a propagation")


def stroke(number: int) -> list[tuple[float, float]]:
    """Return a short stroke, (row, column), that touches none of the others."""
    row, column = 40 + 16 * (number // 6 % 8), 40 + 24 * (number % 6)
    return [(row, column + k) for k in range(0, 12, 3)]


class Victim:
    """A program on the scan of the test, on whose suggested slice strokes are drawn; they are numbered."""

    def __init__(self, desktop: Desktop, home: Path, scan: Scan) -> None:
        self.desktop = desktop
        self.program = Program(desktop, home, scan.path)
        opened = self.program.wait(lambda s: s["opened"] and not s["doing"] and s["mode"] == "paint", "the scan")
        self.index: int = opened["current"]

    def resume(self) -> None:
        offer = self.program.wait(lambda s: s["offer"], "the offer to resume")["offer"]
        assert offer.startswith("There is work on this scan")
        self.program.click("asking.yes_button")
        self.program.wait(lambda s: s["painted"] and not s["offer"], "the work")
        self.program.wait_until_quiet()

    def image(self) -> Labels:
        """Return the slice as the layer shows it."""
        return self.program.labels()[self.index]

    def draw(self, number: int) -> tuple[Labels, Labels]:
        """Draw a stroke; return the slice before and after it, as soon as it is in the layer."""
        before = self.image()
        self.program.draw(stroke(number))

        def landed(state: State) -> bool:
            taken = state["painted"] == [self.index]
            return taken and not np.array_equal(self.program.labels(state)[self.index], before)

        after = self.program.labels(self.program.wait(landed, "the stroke in the layer"))[self.index]
        return before, after

    def die(self, moment: str, number: int, random: np.random.Generator) -> None:
        """Be killed at a moment that is bad in its own way."""
        if moment == "after a stroke":
            # At once, or a little later: it may be being written.
            time.sleep(float(random.choice([0.0, random.uniform(0.0, 0.5)])))
        elif moment == "in a stroke":
            self.program.wait_until_quiet()
            self.program.draw(stroke(number), release=False)
        else:
            self.program.wait_until_quiet()
            self.program.press("shift+p")
            self.program.wait(lambda s: s["doing"] == "propagate" or s["propagated"], "the propagation")
            time.sleep(float(random.uniform(0.0, 1.0)))
        self.program.kill()
        self.desktop.let_go()


def test_a_kill_takes_no_stroke_but_the_one_being_written(desktop: Desktop, small_scan: Scan, tmp_path: Path) -> None:
    random = np.random.default_rng(int(os.environ.get("ONESEG_E2E_SEED") or 0))
    home, number, lost = tmp_path / "home", 0, 0
    may_come_back: list[Labels] = []
    for kill in range(KILLS + 1):
        victim = Victim(desktop, home, small_scan)
        try:
            if kill:
                victim.resume()
                found = [np.array_equal(victim.image(), image) for image in may_come_back]
                assert any(found), f"{np.count_nonzero(victim.image())} voxels of {np.count_nonzero(may_come_back[0])}"
                lost += not found[0]
            if kill < KILLS:
                for _ in range(int(random.integers(2, 4))):
                    before, after = victim.draw(number)
                    number += 1
                moment = MOMENTS[kill % len(MOMENTS)]
                victim.die(moment, number, random)
                number += 1
                may_come_back = [after, before] if moment == "after a stroke" else [after]
        finally:
            victim.program.close()
    (tmp_path / "measured.txt").write_text(f"{KILLS} kills, {number} strokes; the last one was lost {lost} times\n")
