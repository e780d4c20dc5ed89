"""Where the patient's right, left, front, back, head and feet lie on the canvas, and the head kept up."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from napari.components.overlays import TextOverlay
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

if TYPE_CHECKING:
    import napari

__all__ = ["OrientationMarkers", "letters_of"]

# Along x to the left, y to the back and z to the head: what lies there, and what lies at the other end.
_ENDS = (("L", "R"), ("P", "A"), ("H", "F"))
_PLACES = ("top_center", "bottom_center", "middle_left", "middle_right")
_FONT_SIZE = 14.0


def letters_of(directions: NDArray[np.float64]) -> list[tuple[str, str]]:
    """Return, for each axis, the letters of what lies towards its end and towards its beginning.

    Parameters
    ----------
    directions
        Shape (3, 3): a column per axis, its rows x to the patient's left, y to the back, z to the head. Of an oblique
        axis the patient's axis counts that is nearest to it, each of them once.
    """
    patient, axes = linear_sum_assignment(-np.abs(directions))
    letters = [("", "")] * 3
    for row, axis in zip(patient.tolist(), axes.tolist(), strict=True):
        end, beginning = _ENDS[row]
        letters[axis] = (end, beginning) if directions[row, axis] > 0 else (beginning, end)
    return letters


class OrientationMarkers:
    """Letters at the borders of the canvas, and a camera that shows head, or front, up and the patient's right left.

    Both follow the plane on screen. In 3D, and where no scan is followed, there are no letters, and the camera is as
    the user had it.

    Parameters
    ----------
    viewer
        The viewer.
    """

    def __init__(self, viewer: napari.Viewer) -> None:
        self._viewer = viewer
        self._letters: list[tuple[str, str]] | None = None
        self._users: Any = None
        self._own: Any = None
        self._overlays: dict[str, TextOverlay] = {}
        viewer.dims.events.order.connect(self._turn)
        viewer.dims.events.ndisplay.connect(self._turn)
        viewer.scene.camera.events.orientation.connect(self._mark)

    def follow(self, directions: NDArray[np.float64] | None) -> None:
        """Mark where a scan lies: the directions of napari's last three axes, as for :func:`letters_of`; None to stop.

        Where it is not known how a scan lies in the patient, no letters are better than guessed ones.
        """
        self._letters = None if directions is None else letters_of(directions)
        self._turn()

    def close(self) -> None:
        """Leave the viewer as it was."""
        self.follow(None)
        self._viewer.dims.events.order.disconnect(self._turn)
        self._viewer.dims.events.ndisplay.disconnect(self._turn)
        self._viewer.scene.camera.events.orientation.disconnect(self._mark)

    def _ends(self) -> tuple[tuple[str, str], tuple[str, str]] | None:
        """Return the letters of the axes that are shown from row to row and from column to column."""
        dims = self._viewer.dims
        shown = [axis - (dims.ndim - 3) for axis in dims.displayed]
        if self._letters is None or len(shown) != 2 or min(shown) < 0:
            return None
        return self._letters[shown[0]], self._letters[shown[1]]

    def _turn(self, _event: Any = None) -> None:
        """Show the plane on screen as radiologists do: head or front up, the patient's right on the left."""
        camera, ends = self._viewer.scene.camera, self._ends()
        if self._own is not None and camera.orientation != self._own:
            self._own = self._users = None  # the user has turned it since: that holds
        if ends is None:
            if self._own is not None:
                camera.orientation, self._own, self._users = self._users, None, None
        else:
            self._users = self._users or camera.orientation
            (below, _), (beside, _) = ends
            camera.orientation2d = ("up" if below in "HA" else "down", "left" if beside in "RA" else "right")
            self._own = camera.orientation
        self._mark()

    def _mark(self, _event: Any = None) -> None:
        """Write the letters."""
        overlays, ends = self._viewer.canvas.overlays, self._ends()
        if ends is None:
            for place in self._overlays:
                overlays.pop(_key(place), None)
            self._overlays.clear()
            return
        vertical, horizontal = map(str, self._viewer.scene.camera.orientation2d)
        (bottom, top), (right, left) = ends
        if vertical == "up":
            bottom, top = top, bottom
        if horizontal == "left":
            right, left = left, right
        for place, letter in zip(_PLACES, (top, bottom, left, right), strict=True):
            if place not in self._overlays:
                self._overlays[place] = TextOverlay(position=place, font_size=_FONT_SIZE, visible=True)
                overlays[_key(place)] = self._overlays[place]
            self._overlays[place].text = letter


def _key(place: str) -> str:
    # napari lists overlays without the underscore in its menus.
    return f"_oneseg_{place}"
