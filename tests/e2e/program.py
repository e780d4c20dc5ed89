"""napari with the widget, started as a user starts it and used by mouse and keyboard; what it shows is only read."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.e2e.desktop import Desktop

State = dict[str, Any]
WATCHED = Path(__file__).with_name("watched_napari.py")
PATIENCE = 120.0
"""Seconds until a test gives up on what should take one: computers are slow, and others use them too."""


class Program:
    """One run of napari.

    Parameters
    ----------
    desktop
        Its screen.
    home
        An empty folder, or that of an earlier run.
    scan
        The file to open.
    """

    def __init__(self, desktop: Desktop, home: Path, scan: Path) -> None:
        self.desktop = desktop
        home.mkdir(exist_ok=True)
        self.folder = home.with_name(f"{home.name}-told-{time.monotonic_ns()}")
        self.folder.mkdir()
        places = {
            "HOME": home, "XDG_CONFIG_HOME": home / "config", "XDG_DATA_HOME": home / "data",
            "XDG_CACHE_HOME": home / "cache", "XDG_STATE_HOME": home / "state", "NAPARI_CONFIG": home / "napari.yaml",
        }  # fmt: skip
        environment = desktop.environment | {name: str(place) for name, place in places.items()}
        environment["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
        # As a user has it: the cores of the computer, and no test's settings.
        for name in ("OMP_NUM_THREADS", "PYTEST_CURRENT_TEST", "MPLBACKEND"):
            environment.pop(name, None)
        self.log = self.folder / "log"
        self.started = time.monotonic()
        # The file first: what follows --with are a plugin and its widgets.
        command = ["--plugin", "napari-oneseg", str(scan), "--with", "napari-oneseg", "OneSeg"]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-P", str(WATCHED), str(self.folder), *command],
                env=environment,
                cwd=home,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    # What it shows ---------------------------------------------------------------------------------------------------

    def state(self, after: float = 0.0) -> State:
        """Return what was written down last, not older than a time."""
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            if self.process.poll() is not None:
                raise AssertionError(f"napari ended with {self.process.returncode}:\n{self.words()}")
            if "Traceback" in (words := self.words()):
                raise AssertionError(f"napari has caught an exception:\n{words}")
            if (self.folder / "state.json").exists():
                state: State = json.loads((self.folder / "state.json").read_text())
                if state["t"] > after:
                    return state
            time.sleep(0.02)
        raise AssertionError(f"napari does not answer:\n{self.words()}")

    def wait(self, condition: Callable[[State], Any], what: str, seconds: float = PATIENCE) -> State:
        """Wait until the program shows something."""
        began = now = time.monotonic()
        state: State = {}
        while now < began + seconds:
            state = self.state(after=now if state else began)
            if condition(state):
                return state
            now = state["t"]
        brief = {key: value for key, value in state.items() if key not in {"controls", "canvas"}}
        raise AssertionError(f"waited in vain: {what}\n{brief}\n{self.words()}")

    def wait_until_quiet(self) -> State:
        """Wait until nothing is computed or saved, and what was computed is shown."""
        quiet = 0

        def rests(state: State) -> bool:
            nonlocal quiet
            quiet = quiet + 1 if not (state["doing"] or state["busy"] or state["saving"]) else 0
            return quiet > 3

        return self.wait(rests, "the end of all work")

    def labels(self, state: State | None = None) -> NDArray[np.integer[Any]]:
        """Return the array of the painted layer, (z, y, x)."""
        array: NDArray[np.integer[Any]] = np.load(self.folder / (state or self.state())["labels"])
        return array

    def words(self) -> str:
        """Return what the program has printed, without colours."""
        return re.sub(r"\x1b\[[0-9;]*m", "", self.log.read_text(errors="replace"))

    def gaps(self, since: float, until: float) -> list[dict[str, Any]]:
        """Return when the window could not answer, between two times."""
        lines = (self.folder / "gaps.jsonl").read_text().splitlines()
        return [gap for line in lines if since <= (gap := json.loads(line))["at"] < until]

    # What a user does ------------------------------------------------------------------------------------------------

    def click(self, name: str) -> None:
        """Click a control, ``step.control``; unfold its step and scroll to it before."""
        x, y = self._middle(name)
        self.desktop.click(x, y)

    def _middle(self, name: str) -> tuple[float, float]:
        before: list[int] = []
        end = time.monotonic() + PATIENCE
        state = self.state()
        while time.monotonic() < end:
            state = self.state(after=time.monotonic())
            controls = state["controls"]
            control, header = controls[name], controls.get(_header_of(name))
            box = control["box"]
            if control["whole"] and box == before:  # steps that fold or unfold may still move it
                if not control["enabled"]:
                    before = []
                    continue
                return box[0] + box[2] / 2, box[1] + box[3] / 2
            before = box
            if control["whole"]:
                continue
            if header is not None and not header.get("open") and control is not header and header["whole"]:
                left, top, width, height = header["box"]
                self.desktop.click(left + width / 2, top + height / 2)
                self.state(after=time.monotonic() + 0.3)
                continue
            self._scroll_to(controls, name if control["shown"] else _header_of(name))
        raise AssertionError(f"{name} cannot be clicked: {state['controls'][name]}")

    def _scroll_to(self, controls: dict[str, Any], name: str) -> None:
        """Turn the wheel over the panel one notch towards a control."""
        left, top, width, height = controls["view.area"]["box"]
        steps = [key for key, value in controls.items() if key.endswith(".header")]
        seen = [steps.index(key) for key in steps if controls[key]["box"][3]]
        mine = steps.index(_header_of(name))
        part = controls[name]["box"]
        down = part[1] > top + height / 2 if part[3] else not seen or mine >= min(seen)
        # Over the scroll bar's side of the panel there is no control that takes the wheel.
        self.desktop.scroll(left + width - 6, top + height / 2, down)

    def place(self, state: State, row: float, column: float) -> tuple[float, float]:
        """Return where the middle of a pixel of the slice lies on the screen."""
        canvas = state["canvas"]
        (x, y), (down_x, down_y), (right_x, right_y) = canvas["origin"], canvas["per_row"], canvas["per_column"]
        return x + row * down_x + column * right_x, y + row * down_y + column * right_y

    def draw(self, points: Sequence[Sequence[float]], release: bool = True) -> None:
        """Draw through pixels (row, column) of the slice on screen."""
        state = self.state(after=time.monotonic())
        self.desktop.drag([self.place(state, row, column) for row, column in points], release=release)

    def press(self, key: str) -> None:
        """Press a key; where the window manager has left the program without the focus, give it back before."""
        if not self.state(after=time.monotonic())["active"]:
            self.desktop.activate("napari")
            self.wait(lambda s: s["active"], "the focus")
        self.desktop.press(key)

    def leave(self) -> int:
        """Leave the program by its key, which napari asks to be pressed twice; return what it ended with."""
        self.press("ctrl+q")
        self.wait(lambda s: s["modal"] == "ConfirmCloseDialog", "napari's question")
        self.press("ctrl+q")
        return self.process.wait(PATIENCE)

    # The end ---------------------------------------------------------------------------------------------------------

    def kill(self) -> None:
        """End it as a crash does."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(30)

    def close(self) -> None:
        """Make sure that it has ended."""
        if self.process.poll() is None:
            self.kill()


def _header_of(name: str) -> str:
    return f"{name.partition('.')[0]}.header"
