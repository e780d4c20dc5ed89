"""What a newly painted or corrected slice re-opens."""

from __future__ import annotations

from collections.abc import Collection

from napari_oneseg.volume import Annotation

__all__ = ["closed_range", "reopened_range"]


def reopened_range(
    annotation: Annotation, index: int, count: int, labels: Collection[int] | None = None
) -> tuple[int, int]:
    """Return the slices whose labels depend on slice ``index``, as first and last, both included.

    A label's values between two of its anchors depend on these two only. So whatever is painted on a slice reaches up
    to the next anchor on either side, and for a label that has none there, to the end of the scan. The anchors
    themselves are included: they are where a new propagation of the range sets out.

    Parameters
    ----------
    annotation
        With the painted slice included.
    index
        The slice that was painted or corrected.
    count
        Slices of the scan.
    labels
        The labels that were changed there, by default all of them.
    """
    first, last = index, index
    for label in annotation.labels:
        if labels is not None and label not in labels:
            continue
        anchors = annotation.anchors(label)
        first = min(first, max((a for a in anchors if a < index), default=0))
        last = max(last, min((a for a in anchors if a > index), default=count - 1))
    return first, last


def closed_range(annotation: Annotation, first: int, last: int) -> tuple[int, int]:
    """Return the smallest range round ``first`` to ``last`` that can be propagated without its surroundings.

    That is a range at whose ends every label is known that has an anchor beyond. Different labels have different
    anchors: a range that ends at an anchor of one label may cut another one off from the anchor it comes from.

    Parameters
    ----------
    annotation
        What is painted now.
    first, last
        The slices to be computed anew, both included.
    """
    tables = [annotation.anchors(label) for label in annotation.labels]
    while True:
        below = [max(a for a in table if a < first) for table in tables if table[0] < first and first not in table]
        above = [min(a for a in table if a > last) for table in tables if table[-1] > last and last not in table]
        if not below and not above:
            return first, last
        first, last = min([first, *below]), max([last, *above])
