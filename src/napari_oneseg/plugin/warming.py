"""What napari imports and compiles when the first labels and the first shape are shown, done before they are.

It takes one and a half seconds, in which the window would not answer.
"""

from __future__ import annotations

import numpy as np
from napari.layers import Labels, Shapes
from napari.utils.transforms import Affine

from napari_oneseg.colours import colour_of
from napari_oneseg.plugin.viewer_link import colormap

__all__ = ["read_units", "warm_up"]


def read_units() -> None:
    """Have napari read the table of units, on the GUI thread and before :func:`warm_up` begins; 0.3 s.

    Of two threads that begin with a layer at the same time, one finds that table half read: a scan that is opened in
    that moment fails with "'pixel' is not defined".
    """
    Affine(ndim=3)


def warm_up() -> None:
    """Use once, on layers that nobody sees, what colours labels and draws shapes; in a thread."""
    labels = Labels(np.zeros((1, 2, 2), np.uint8))
    labels.colormap = colormap({}, colour_of, [1])
    corners = np.array([[0, 0, 0], [0, 0, 2], [0, 2, 2], [0, 2, 0]], float)
    Shapes([corners], shape_type="polygon", face_color="transparent").to_masks((1, 3, 3))
