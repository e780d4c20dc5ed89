"""How the labels of a scan are called and coloured, and which one is painted with."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

from qtpy.QtCore import QObject, Signal

from napari_oneseg.colours import colour_of
from napari_oneseg.plugin.view_model import Colour

__all__ = ["LARGEST_LABEL", "LabelBook", "LabelStyle"]

LARGEST_LABEL = 255
"""Labels that the widget makes; others come with layers that were made elsewhere."""


@dataclass(frozen=True)
class LabelStyle:
    """How a label is called and shown."""

    name: str
    colour: Colour


class LabelBook(QObject):
    """Names and colours by label; every label has one, also where none was chosen.

    Parameters
    ----------
    shown
        Returns the labels that some slice shows.

    Attributes
    ----------
    selected
        The label to paint with.
    """

    styled = Signal()
    """Names or colours have changed, or the label to paint with."""
    changed = Signal()
    """The user has changed something that views show."""
    worked = Signal()
    """A name or a colour was chosen that is to be kept."""

    def __init__(self, shown: Callable[[], Collection[int]], parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._shown = shown
        self.reset()

    def reset(self) -> None:
        """Begin with another scan."""
        self._chosen: dict[int, LabelStyle] = {}
        # Undo brings voxels back, and with them what they were called.
        self._removed: dict[int, LabelStyle] = {}
        self.selected = 1

    @property
    def styles(self) -> dict[int, LabelStyle]:
        """Those that were chosen, by label; of a label that was removed, while some slice shows it again."""
        shown = self._shown() if self._removed else ()
        return self._chosen | {value: style for value, style in self._removed.items() if value in shown}

    def style(self, value: int) -> LabelStyle:
        """Return how a label is called and shown."""
        return self.styles.get(value) or LabelStyle(f"Label {value}", colour_of(value))

    @property
    def values(self) -> list[int]:
        """Labels that were named, are shown or selected, ascending."""
        return sorted({*self.styles, *self._shown(), self.selected})

    def select(self, value: int) -> None:
        """Paint with a label from now on."""
        if value > 0 and value != self.selected:
            self.selected = value
            self.styled.emit()
            self.changed.emit()

    def add(self) -> int:
        """Make a new label, select it, and return it."""
        # The number of a label that may come back is not given to another one.
        used = {*self.values, *self._removed}
        value = next((k for k in range(1, LARGEST_LABEL + 1) if k not in used), LARGEST_LABEL)
        self._chosen[value] = self.style(value)
        self.select(value)
        return value

    def restyle(self, value: int, name: str | None = None, colour: Colour | None = None) -> None:
        """Rename or recolour a label."""
        style = self.style(value)
        styles = self._removed if value in self._removed else self._chosen
        styles[value] = LabelStyle(name or style.name, colour or style.colour)
        self.styled.emit()
        self.worked.emit()
        self.changed.emit()

    def remove(self, value: int) -> None:
        """Forget a label that no slice shows any more, and select another one if it was selected."""
        if value in self.styles:
            self._removed[value] = self.styles[value]
        self._chosen.pop(value, None)
        if self.selected == value:
            self.selected = next((k for k in self.values if k != value), 1)
        self.styled.emit()

    def to_dict(self) -> dict[str, Any]:
        """Return all as plain values for JSON."""
        styles = {str(k): {"name": style.name, "colour": list(style.colour)} for k, style in self.styles.items()}
        return {"labels": styles, "selected": self.selected}

    def record(self) -> dict[str, Any]:
        """Return names and colours of all labels as an export states them, as plain values for JSON."""
        styles = {str(value): self.style(value) for value in self.values}
        return {
            "label_names": {value: style.name for value, style in styles.items()},
            "label_colours": {value: list(style.colour) for value, style in styles.items()},
        }

    def take(self, kept: Mapping[str, Any]) -> None:
        """Take over what :meth:`to_dict` gave."""
        for key, style in (kept.get("labels") or {}).items():
            red, green, blue, opacity = style["colour"]
            self._chosen[int(key)] = LabelStyle(str(style["name"]), (red, green, blue, opacity))
        self.selected = int(kept.get("selected") or self.selected)
        self.styled.emit()
