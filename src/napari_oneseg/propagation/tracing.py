"""Where a label on a propagated slice came from: its copying, walked backwards.

Strategy. What arrives at a position is a weighted mean over a window of the neighbouring slice, whose weights come from
the same affinity each time it is asked for. So a unit of mass, set down on the voxel in question, is handed back
through the transposed weights, slice by slice, until it lies on a painted slice: there it is the share that each place
has in the copy. Only the tiles that hold mass are computed. On the way back up, the label is carried through the same
weights, so that the way is known that leads to the label, and not to what lies beside it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from napari_oneseg.config import Direction, PropagationConfig
from napari_oneseg.errors import AnnotationError, InputError
from napari_oneseg.features.extractor import FeatureStack
from napari_oneseg.propagation.attention import TILE, LocalAffinity, local_affinity, readout, tiles_holding
from napari_oneseg.propagation.enlarging import resizing
from napari_oneseg.propagation.propagate import Anchors
from napari_oneseg.slice_range import checked_range
from napari_oneseg.volume import Annotation

__all__ = ["Source", "Trace", "trace"]

_LEFT_BEHIND = 0.002
"""Share of the mass that may be lost in a step, with the tiles that hold least: tails would grow over the slice."""


@dataclass(frozen=True, eq=False)
class Source:
    """A painted slice from which a voxel has its label.

    Attributes
    ----------
    index
        The painted slice.
    share
        Its share in the decision, 0 to 1; those of all sources add up to 1.
    places
        How much each pixel has contributed, shape (rows, columns), float32, adding up to ``share``.
    centre, peak
        Row and column of the centre of mass of ``places``, and of its greatest value.
    path
        The way from the voxel to the painted slice, both included: slice, row and column, shape (steps, 3), float32.
    copied
        How much of the label has arrived at the voxel from this slice, 0 to 1, as if nothing had been refined.
    """

    index: int
    share: float
    places: NDArray[np.float32]
    centre: tuple[float, float]
    peak: tuple[int, int]
    path: NDArray[np.float32]
    copied: float


@dataclass(frozen=True, eq=False)
class Trace:
    """Where a voxel has its label from.

    Attributes
    ----------
    at
        The voxel: slice, row, column.
    label
        Its label; None where it was asked for whatever was copied.
    sources
        One or two painted slices, the greater share first; none where nothing of the label was copied there.
    """

    at: tuple[int, int, int]
    label: int | None
    sources: tuple[Source, ...]


def trace(
    stack: FeatureStack,
    annotation: Annotation,
    at: tuple[int, int, int],
    label: int | None = None,
    config: PropagationConfig | None = None,
    slice_range: tuple[int, int] | None = None,
    direction: Direction = "both",
) -> Trace:
    """Find the places on the nearest painted slices that a voxel's label was copied from.

    It follows the copying alone. What the refiner has changed after each copy is not seen, and a voxel that only the
    refiner has given the label may have a source of which next to nothing was ``copied``. The shares of two sources
    follow from how near each is and from how much was copied from it; how well the two directions agreed, by which
    propagation weighs them too, is left out.

    Parameters
    ----------
    stack
        Features of the scan.
    annotation
        The painted slices, as they were when the label was propagated.
    at
        The voxel: slice, row, column, in slice order.
    label
        The label to follow; by default whatever was copied, background too.
    config
        The window.
    slice_range, direction
        As they were given to :func:`~napari_oneseg.propagation.propagate.propagate`.

    Raises
    ------
    InputError
        If the voxel lies outside the scan.
    AnnotationError
        If the label was painted nowhere.
    """
    index, row, column = at
    rows, columns = stack.grid.source
    if not (0 <= index < len(stack.maps) and 0 <= row < rows and 0 <= column < columns):
        raise InputError(f"There is no voxel {at}: the scan has {len(stack.maps)} slices of {rows} x {columns} pixels.")
    if label is not None and label not in annotation.labels:
        raise AnnotationError(f"Label {label} was painted nowhere; painted are {list(annotation.labels)}.")
    first, last = checked_range(slice_range, len(stack.maps))
    anchors = _anchors(annotation, label, first, last)
    if index in anchors.indices:
        return Trace(at, label, _itself(annotation, at, label))
    below = max((a for a in anchors.indices if a < index), default=None)
    above = min((a for a in anchors.indices if a > index), default=None)
    share = anchors.share_from_below(index)
    ways = {"up": (below, above, share), "down": (above, below, 1.0 - share)}
    if direction != "both":
        ways = {direction: (*ways[direction][:2], 1.0)}
    window = (config or PropagationConfig()).window
    found = []
    for anchor, beyond, weight in ways.values():
        if anchor is not None and weight > 0.0:
            # Between two slices that show it a label cannot end, and the null match takes nothing from it.
            bias = None if beyond in anchors.shown else stack.null_bias
            source = _Way(stack, annotation, label, window, bias).back(at, anchor)
            if source.copied > 0.0:
                found.append((source, weight * source.copied))
    total = sum(part for _, part in found)
    sources = [
        replace(source, share=part / total, places=source.places * np.float32(part / total / source.copied))
        for source, part in found
    ]
    return Trace(at, label, tuple(sorted(sources, key=lambda source: -source.share)))


def _anchors(annotation: Annotation, label: int | None, first: int, last: int) -> Anchors:
    if label is not None:
        return Anchors.of(annotation, label, first, last)
    indices = tuple(index for index in sorted(annotation.slices) if first <= index <= last)
    return Anchors(indices, frozenset(indices))


def _itself(annotation: Annotation, at: tuple[int, int, int], label: int | None) -> tuple[Source, ...]:
    """Return the source of a voxel that was painted itself."""
    index, row, column = at
    image = annotation.slices[index]
    if label is not None and image[row, column] != label:
        return ()
    places = np.zeros(image.shape, np.float32)
    places[row, column] = 1.0
    path = np.array([at], np.float32)
    return (Source(index, 1.0, places, (float(row), float(column)), (row, column), path, 1.0),)


@dataclass(frozen=True, eq=False)
class _Step:
    """One copying from slice to slice, where it matters.

    Attributes
    ----------
    box
        Rows and columns of the feature grid that were looked at.
    affinity
        The attention within the box.
    """

    box: tuple[slice, slice]
    affinity: LocalAffinity

    def copied(self, values: Tensor) -> Tensor:
        """Copy from the reference slice: (rows, columns) of the feature grid to the same."""
        out = torch.zeros_like(values)
        out[self.box] = readout(self.affinity, values[self.box][None, None])[0, 0]
        return out

    def handed_back(self, mass: Tensor) -> Tensor:
        """Hand mass on the target slice, (rows, columns), back to where it was copied from."""
        out = torch.zeros_like(mass)
        inside = mass[self.box][None, None]
        # Copying is linear in what is copied: its gradient is its transpose.
        with torch.enable_grad():
            values = torch.zeros_like(inside, requires_grad=True)
            out[self.box] = torch.autograd.grad(readout(self.affinity, values), values, inside)[0][0, 0]
        return out


@dataclass(frozen=True, eq=False)
class _Way:
    """What a walk back from a voxel needs: features, paintings, the label, the window, and the null match."""

    stack: FeatureStack
    annotation: Annotation
    label: int | None
    window: int
    null_bias: float | None

    @torch.no_grad()
    def back(self, at: tuple[int, int, int], anchor: int) -> Source:
        """Walk from a voxel to a painted slice; the places of what is returned add up to what was copied."""
        index, row, column = at
        order = range(index, anchor, 1 if anchor > index else -1)
        steps: list[_Step] = []
        masses = [self._set_down(row, column)]
        for target in order:
            reference = target + order.step
            steps.append(self._step(target, reference, masses[-1]))
            masses.append(_without_tails(steps[-1].handed_back(masses[-1]) * self._free(reference, anchor)))
        rows, columns = (
            resizing(*sizes) for sizes in zip(self.stack.grid.source, self.stack.grid.features, strict=True)
        )
        painted = self._painted(anchor)
        # The painted pixels were averaged to the feature grid: the mass on a position lies on the pixels it stands for.
        places = (rows.T @ masses[-1].cpu() @ columns) * painted
        copied = float(places.sum())
        centre, peak = (float(row), float(column)), row * painted.shape[1] + column
        if copied > 0.0:
            centre, peak = _centre(places), int(places.argmax())
        middle = self._path(masses, steps, painted, [*order, anchor])
        path = np.array([at, *middle, (anchor, *centre)], np.float32)
        where = peak // painted.shape[1], peak % painted.shape[1]
        return Source(anchor, 0.0, places.numpy(), centre, where, path, copied)

    def _set_down(self, row: int, column: int) -> Tensor:
        """Return a unit of mass on the positions of the feature grid that a voxel's label is interpolated from."""
        grid = self.stack.grid
        rows, columns = (resizing(*sizes) for sizes in zip(grid.features, grid.source, strict=True))
        return torch.outer(rows[row], columns[column]).to(self.stack.maps.device)

    def _step(self, target: int, reference: int, mass: Tensor) -> _Step:
        box = _box(mass > 0.0, self.window // 2)
        query, key = (self.stack.maps[(k, slice(None), *box)].float() for k in (target, reference))
        tiles = tiles_holding(mass[box] > 0.0)
        return _Step(box, local_affinity(query[None], key[None], self.window, tiles, self.null_bias))

    def _painted(self, index: int) -> Tensor:
        """Return where a slice shows the label, shape (rows, columns) of the scan, 0 or 1."""
        image = self.annotation.slices[index]
        return torch.from_numpy(np.ones(image.shape, bool) if self.label is None else image == self.label).float()

    def _free(self, index: int, anchor: int) -> Tensor | float:
        """Return how much room other labels, painted on a slice on the way, have left, on the feature grid."""
        if index == anchor or index not in self.annotation.slices:
            return 1.0
        painted = torch.from_numpy(self.annotation.slices[index] > 0).to(self.stack.maps.device)
        return 1.0 - self.stack.grid.to_features(painted[None, None].float())[0, 0].clamp(max=1.0)

    def _path(
        self, masses: Sequence[Tensor], steps: Sequence[_Step], painted: Tensor, slices: Sequence[int]
    ) -> list[tuple[float, float, float]]:
        """Return slice, row and column of the places passed on the way, from the voxel's end on."""
        grid = self.stack.grid
        scale = [source / own for source, own in zip(grid.source, grid.features, strict=True)]
        label = grid.to_features(painted.to(self.stack.maps.device)[None, None])[0, 0]
        path: list[tuple[float, float, float]] = []
        for k in range(len(steps) - 1, 0, -1):
            label = steps[k].copied(label * self._free(slices[k + 1], slices[-1]))
            shown = (masses[k] * label).cpu()
            if float(shown.sum()) > 0.0:
                row, column = ((c + 0.5) * s - 0.5 for c, s in zip(_centre(shown), scale, strict=True))
                path.append((slices[k], row, column))
        return path[::-1]


def _without_tails(mass: Tensor) -> Tensor:
    """Leave out the tiles that hold least: a tile costs the same, however little it holds."""
    rows, columns = mass.shape
    padded = functional.pad(mass, (0, -columns % TILE, 0, -rows % TILE))
    held = functional.avg_pool2d(padded[None, None], TILE)[0, 0]
    ascending, order = held.flatten().sort()
    kept = torch.ones_like(ascending)
    kept[order[ascending.cumsum(0) <= _LEFT_BEHIND * ascending.sum()]] = 0.0
    return mass * kept.view(held.shape).repeat_interleave(TILE, 0).repeat_interleave(TILE, 1)[:rows, :columns]


def _box(mask: Tensor, margin: int) -> tuple[slice, slice]:
    """Return rows and columns of the tiles round a mask, with all that their windows reach."""
    spans = []
    for along, size in ((1, mask.shape[0]), (0, mask.shape[1])):
        places = mask.any(along).nonzero().flatten()
        first, last = (int(places[0]), int(places[-1])) if len(places) else (0, 0)
        start = max(0, first - margin) // TILE * TILE
        spans.append(slice(start, min(size, (last // TILE + 1) * TILE + margin)))
    return spans[0], spans[1]


def _centre(mass: Tensor) -> tuple[float, float]:
    """Return row and column of the centre of a mass, (rows, columns), that is not nothing."""
    total = mass.sum()
    rows, columns = (torch.arange(size, dtype=mass.dtype) for size in mass.shape)
    return float((mass.sum(1) * rows).sum() / total), float((mass.sum(0) * columns).sum() / total)
