"""What the command palette offers: each opens the widget if need be, and does what its button does."""

from __future__ import annotations

from typing import TYPE_CHECKING

# Under this name napari finds the viewer to hand over, when it reads the annotations.
import napari.viewer

if TYPE_CHECKING:
    from napari_oneseg.plugin.widget import OneSegWidget

__all__ = ["accept_slice", "export", "next_slice_to_check", "propagate", "suggest_slice", "undo", "widget_of"]

_PLUGIN, _WIDGET = "napari-oneseg", "OneSeg"


def propagate(viewer: napari.viewer.Viewer) -> None:
    """Carry the painted labels through the scan."""
    widget_of(viewer).propagate()


def suggest_slice(viewer: napari.viewer.Viewer) -> None:
    """Show the slice most worth painting."""
    widget_of(viewer).go_to_suggestion()


def next_slice_to_check(viewer: napari.viewer.Viewer) -> None:
    """Show the most doubtful slice that was not accepted yet."""
    widget_of(viewer).next_slice_to_check()


def accept_slice(viewer: napari.viewer.Viewer) -> None:
    """Accept the slice on screen."""
    widget_of(viewer).accept_slice()


def export(viewer: napari.viewer.Viewer) -> None:
    """Write the labels into a file."""
    widget_of(viewer).export()


def undo(viewer: napari.viewer.Viewer) -> None:
    """Take the last step back."""
    widget_of(viewer).undo()


def widget_of(viewer: napari.viewer.Viewer) -> OneSegWidget:
    """Return the viewer's widget, brought to the front; it is made if there is none."""
    _, widget = viewer.window.add_plugin_dock_widget(_PLUGIN, _WIDGET)
    made: OneSegWidget = widget
    return made
