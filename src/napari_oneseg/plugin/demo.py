"""What ``oneseg demo`` shows in napari: the widget at work on a generated scan, with one slice painted already."""

from __future__ import annotations

from typing import TYPE_CHECKING

import napari
from napari.layers import Image

from napari_oneseg.plugin.scan_layer import scan_layer_data
from napari_oneseg.plugin.widget import OneSegWidget

if TYPE_CHECKING:
    from napari_oneseg.phantom import Phantom
    from napari_oneseg.volume import Annotation

__all__ = ["build", "show"]


def build(viewer: napari.Viewer, sample: Phantom, annotation: Annotation) -> OneSegWidget:
    """Open the scan with the widget beside it; once it is open, the painted slices are taken and carried on.

    Parameters
    ----------
    viewer
        An empty viewer.
    sample
        The generated scan.
    annotation
        Painted slices, in the order of the scan's own slices.
    """
    widget = OneSegWidget(viewer)
    widget.saver.enabled = False  # nobody wants to be asked about it the next time
    viewer.window.add_dock_widget(widget, name="OneSeg")
    controller = widget.controller

    def begin() -> None:
        controller.opened.disconnect(begin)
        for label, name in sample.names.items():
            controller.book.restyle(label, name=name)
        controller.adopt(annotation.slices)
        widget.painter.attach(widget.painter.layer)
        controller.propagate()
        index = min(annotation.slices)
        widget.link.go_to(index)
        widget.view.notify(
            f"A generated scan. Slice {index} was painted; the others were labelled from it. Move the slider, correct "
            "a slice, press Update.",
            "info",
        )

    controller.opened.connect(begin)
    data, kwargs, _ = scan_layer_data(sample.volume, "Phantom")
    viewer.add_layer(Image(data, **kwargs))
    return widget


def show(sample: Phantom, annotation: Annotation) -> None:
    """Open napari with the demonstration, and wait until it is closed."""
    viewer = napari.Viewer(title="oneseg demo")
    build(viewer, sample, annotation)
    napari.run()
