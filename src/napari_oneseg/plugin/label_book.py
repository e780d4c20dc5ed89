"""How the labels of a scan are called and coloured, and which one is painted with."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from napari_oneseg.colours import colour_of
from napari_oneseg.plugin.view_model import Colour

__all__ = ["LabelBook", "LabelStyle"]

LARGEST_LABEL = 255
"""Labels that the widget makes; others come with layers that were made elsewhere."""


@dataclass(frozen=True)
class LabelStyle:
    """How a label is called and shown."""

    name: str
    colour: Colour


class LabelBook:
    """Names and colours by label; every label has one, also where none was chosen.

    Attributes
    ----------
    styles
        Those that were chosen.
    selected
        The label to paint with.
    """

    def __init__(self) -> None:
        self.styles: dict[int, LabelStyle] = {}
        self.selected = 1

    def style(self, value: int) -> LabelStyle:
        """Return how a label is called and shown."""
        return self.styles.get(value) or LabelStyle(f"Label {value}", colour_of(value))

    def values(self, shown: Collection[int]) -> list[int]:
        """Return the labels that were named, are shown or selected, ascending."""
        return sorted({*self.styles, *shown, self.selected})

    def add(self, shown: Collection[int]) -> int:
        """Make a new label, and return it."""
        used = self.values(shown)
        value = next((k for k in range(1, LARGEST_LABEL + 1) if k not in used), LARGEST_LABEL)
        self.styles[value] = self.style(value)
        return value

    def restyle(self, value: int, name: str | None = None, colour: Colour | None = None) -> None:
        """Rename or recolour a label."""
        style = self.style(value)
        self.styles[value] = LabelStyle(name or style.name, colour or style.colour)

    def remove(self, value: int, shown: Collection[int]) -> None:
        """Forget a label, and select another one if it was selected."""
        self.styles.pop(value, None)
        if self.selected == value:
            self.selected = next((k for k in self.values(shown) if k != value), 1)

    def to_dict(self) -> dict[str, Any]:
        """Return all as plain values for JSON."""
        styles = {str(k): {"name": style.name, "colour": list(style.colour)} for k, style in self.styles.items()}
        return {"labels": styles, "selected": self.selected}

    def record(self, values: Iterable[int]) -> dict[str, Any]:
        """Return names and colours of labels as an export states them, as plain values for JSON."""
        styles = {str(value): self.style(value) for value in values}
        return {
            "label_names": {value: style.name for value, style in styles.items()},
            "label_colours": {value: list(style.colour) for value, style in styles.items()},
        }

    def take(self, kept: Mapping[str, Any]) -> None:
        """Take over what :meth:`to_dict` gave."""
        for key, style in (kept.get("labels") or {}).items():
            red, green, blue, opacity = style["colour"]
            self.styles[int(key)] = LabelStyle(str(style["name"]), (red, green, blue, opacity))
        self.selected = int(kept.get("selected") or self.selected)
