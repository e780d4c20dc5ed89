"""What ``oneseg demo`` shows in napari: the widget at work on a generated scan, with one slice painted already."""

from __future__ import annotations

from typing import TYPE_CHECKING

import napari
import numpy as np
from napari.layers import Image

from napari_oneseg.orientation import shown
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
    volume = sample.volume
    turned, orientation = shown(volume)
    slices = np.zeros(volume.slices.shape, np.uint8)
    for index, image in annotation.slices.items():
        slices[index] = image
    painted = turned.to_slices(orientation.to_shown(volume.from_slices(slices)))
    widget = OneSegWidget(viewer)
    widget.saver.enabled = False  # nobody wants to be asked about it the next time
    viewer.window.add_dock_widget(widget, name="OneSeg")
    controller = widget.controller

    def begin() -> None:
        controller.opened.disconnect(begin)
        for label, name in sample.names.items():
            controller.book.restyle(label, name=name)
        images = {index: image for index, image in enumerate(painted) if image.any()}
        controller.adopt(images)
        widget.painter.attach(widget.painter.layer)
        controller.propagate()
        index = min(images)
        widget.link.go_to(index)
        widget.view.notify(
            f"A generated scan. Slice {index} was painted; the others were labelled from it. Move the slider, correct "
            "a slice, press Update.",
            "info",
        )

    controller.opened.connect(begin)
    data, kwargs, _ = scan_layer_data(volume, "Phantom")
    viewer.add_layer(Image(data, **kwargs))
    return widget


def show(sample: Phantom, annotation: Annotation) -> None:
    """Open napari with the demonstration, and wait until it is closed."""
    viewer = napari.Viewer(title="oneseg demo")
    build(viewer, sample, annotation)
    napari.run()
