"""What the user chose in napari's Preferences: the manifest declares it, napari keeps and checks it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from napari.settings import get_plugin_settings
from napari.utils.notifications import show_warning
from qtpy.QtGui import QKeySequence

__all__ = ["SHORTCUTS", "Settings", "read_settings"]

_PLUGIN = "napari-oneseg"

SHORTCUTS = {"propagate": "Shift+P", "next": "Shift+N", "accept": "Shift+A", "suggest": "Shift+S"}
"""Default keys by action; neither napari nor its labels layers use them."""


@dataclass(frozen=True)
class Settings:
    """The user's settings; a test holds that the defaults are those of the manifest.

    Attributes
    ----------
    device
        What to compute on: auto, cpu, cuda or mps.
    default_range
        Slices on each side of the painted one that a propagation covers at first; 0 for the whole scan.
    live
        Whether every stroke is propagated at once.
    autosave
        Whether work is kept while it is done.
    autosave_seconds
        How many seconds after a change it is kept at the latest, 1 to 600.
    shortcuts
        Keys by action (propagate, next, accept, suggest), as Qt writes them; empty for none.
    """

    device: str = "auto"
    default_range: int = 0
    live: bool = False
    autosave: bool = True
    autosave_seconds: int = 5
    shortcuts: Mapping[str, str] = field(default_factory=SHORTCUTS.copy)


def read_settings() -> Settings:
    """Return the settings, to be called on the GUI thread.

    napari itself replaces values in its files that the manifest does not allow. For a shortcut that is no key, or that
    is given twice, the user is told, and it gets its default or none. Where napari has no settings of this plugin, as
    when it is imported without being installed, all have their defaults.
    """
    try:
        kept: Any = get_plugin_settings(_PLUGIN)
    except KeyError:
        return Settings()
    return Settings(
        device=kept.computing.device,
        default_range=kept.propagation.default_range,
        live=kept.propagation.live,
        autosave=kept.safety.autosave,
        autosave_seconds=kept.safety.autosave_seconds,
        shortcuts=_usable({action: getattr(kept.keyboard, action) for action in SHORTCUTS}),
    )


def _usable(wanted: Mapping[str, str]) -> dict[str, str]:
    usable: dict[str, str] = {}
    for action, text in wanted.items():
        # napari writes Shift-P where Qt writes Shift+P.
        key = _as_qt(text) or _as_qt(text.replace("-", "+"))
        if text.strip() and not key:
            key = SHORTCUTS[action]
            show_warning(f"OneSeg: the shortcut '{text}' for '{action}' is no key such as Shift+P; {key} is used.")
        if key and key in usable.values():
            show_warning(f"OneSeg: the shortcut {key} is given twice; '{action}' has none now. See Preferences.")
            key = ""
        usable[action] = key
    return usable


def _as_qt(text: str) -> str:
    return QKeySequence(text.strip()).toString()
