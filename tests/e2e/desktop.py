"""A screen of its own with a window manager, and hands: mouse and keyboard by XTEST, as a user's would come."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

from PIL import Image, ImageGrab

SIZE = (1400, 900)
TOOLS = ("Xvfb", "openbox", "xdotool")

# Programs fill the screen, dialogs do not.
_WINDOW_MANAGER = """<?xml version="1.0" encoding="UTF-8"?>
<openbox_config xmlns="http://openbox.org/3.4/rc">
  <focus><focusNew>yes</focusNew><followMouse>no</followMouse></focus>
  <applications>
    <application type="normal"><decor>no</decor><maximized>yes</maximized></application>
  </applications>
</openbox_config>
"""


def missing_tools() -> list[str]:
    """Return which of the programs that this needs are not installed."""
    return [tool for tool in TOOLS if shutil.which(tool) is None]


class Desktop:
    """An X server without a screen; close it."""

    def __init__(self, folder: Path) -> None:
        read, write = os.pipe()
        size = "x".join(map(str, SIZE))
        self._server = subprocess.Popen(
            ["Xvfb", "-displayfd", str(write), "-screen", "0", f"{size}x24", "+extension", "GLX", "-nolisten", "tcp"],
            pass_fds=[write],
            stderr=subprocess.DEVNULL,
        )
        os.close(write)
        with os.fdopen(read) as answer:
            number = answer.readline().strip()
        if not number:
            raise RuntimeError("Xvfb did not start")
        self.display = f":{number}"
        self.environment = os.environ | {"DISPLAY": self.display, "QT_QPA_PLATFORM": "xcb"}
        self.environment.pop("WAYLAND_DISPLAY", None)
        config = folder / "openbox.xml"
        config.write_text(_WINDOW_MANAGER)
        self._manager = subprocess.Popen(
            ["openbox", "--config-file", str(config)],
            env=self.environment | {"HOME": str(folder)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def close(self) -> None:
        for process in (self._manager, self._server):
            process.terminate()
            process.wait(10)

    # Hands -----------------------------------------------------------------------------------------------------------

    def do(self, *words: object) -> None:
        """Run commands of xdotool, several in a row."""
        subprocess.run(["xdotool", *map(str, words)], env=self.environment, check=True, timeout=120)

    def click(self, x: float, y: float) -> None:
        self.do("mousemove", round(x), round(y), "sleep", 0.05, "click", 1)

    def scroll(self, x: float, y: float, down: bool) -> None:
        self.do("mousemove", round(x), round(y), "click", 5 if down else 4)

    def press(self, key: str) -> None:
        """Press a key, or several together such as ``ctrl+shift+z``."""
        self.do("key", "--clearmodifiers", key)

    def activate(self, name: str) -> None:
        """Bring a window to the front, by its title, and give it the focus."""
        self.do("search", "--onlyvisible", "--name", name, "windowactivate")

    def type(self, text: str) -> None:
        self.do("type", "--delay", 15, text)

    def drag(self, points: Iterable[Sequence[float]], seconds: float = 0.06, release: bool = True) -> None:
        """Draw with the left button held, through points of the screen.

        Slowly: of movements that come faster than the window is drawn, Qt leaves some out.
        """
        first, *others = [(round(x), round(y)) for x, y in points]
        words: list[object] = ["mousemove", *first, "sleep", 0.05, "mousedown", 1, "sleep", seconds]
        for point in others:
            words += ["mousemove", *point, "sleep", seconds]
        self.do(*words, *(["mouseup", 1] if release else []))

    def let_go(self) -> None:
        self.do("mouseup", 1)

    # Eyes ------------------------------------------------------------------------------------------------------------

    def picture(self, path: Path) -> Path:
        """Photograph the screen, in as few colours as keep it true, so that the file stays small."""
        image = ImageGrab.grab(xdisplay=self.display).convert("RGB")
        # By coverage of the colours, not of the pixels: the few that mark something count as much as the greys.
        image.quantize(256, Image.Quantize.MAXCOVERAGE, kmeans=1, dither=Image.Dither.NONE).save(path, optimize=True)
        return path

    def wait_for_windows(self, name: str, seconds: float = 90.0) -> float:
        """Wait until a window with this in its title is on the screen; return when it was seen."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            search = ["xdotool", "search", "--onlyvisible", "--name", name]
            if subprocess.run(search, env=self.environment, capture_output=True, check=False).stdout:
                return time.monotonic()
            time.sleep(0.05)
        raise TimeoutError(f"no window named {name}")
