"""The colours in which labels are shown, in pictures and in the viewer."""

from __future__ import annotations

__all__ = ["COLOURS", "colour_of"]

# Bright on grey and far apart from each other, also for most who are colour-blind.
COLOURS = (
    "#ff6b5e", "#4cc9f0", "#7ae582", "#c77dff", "#ff9f1c", "#2ec4b6", "#f15bb5", "#9bf6ff", "#b5e48c", "#a0a4ff",
    "#ffadad", "#00a6fb", "#d4a373", "#e0aaff",
)  # fmt: skip


def colour_of(label: int) -> tuple[float, float, float, float]:
    """Return the colour of a label from 1 on as red, green, blue, opacity, each 0 to 1; they repeat after 14."""
    text = COLOURS[(label - 1) % len(COLOURS)]
    red, green, blue = (int(text[k : k + 2], 16) / 255 for k in (1, 3, 5))
    return red, green, blue, 1.0
