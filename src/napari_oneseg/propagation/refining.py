"""Refining the labels of one sweep: each label is looked at on its own, in a box round it.

The refiner knows a label by what it looked like on the anchor that it comes from, so a sweep learns each label's
appearance anew at each of its anchors.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from napari_oneseg.config import PropagationConfig
from napari_oneseg.features.part_classifier import PartClassifier, find_parts
from napari_oneseg.features.refiner import FLOOR, Appearance, LabelRefiner, Refinement, corrected
from napari_oneseg.propagation.support import drop_unsupported

__all__ = ["TRACE", "RefineStep", "Refining"]

TRACE = 1e-3
"""Less of a label than this is nothing: it keeps the soft tails of a label from growing over the whole slice."""

# A refined label is sharp: what is left below this, the floor included, is not carried on.
_REFINED_TRACE = 0.01


class Refining:
    """What one sweep has learned of its labels' appearance.

    Parameters
    ----------
    refinement
        Refiner and grey values of the scan.
    config
        Window, whose reach is how far a label may grow in one step, and the support that its parts need.
    beside
        Gives the share of labels that stay where they are, by slice, shape (rows, columns), 0 to 1; none by default.
    """

    def __init__(
        self, refinement: Refinement, config: PropagationConfig, beside: Callable[[int], Tensor] | None = None
    ) -> None:
        self.refinement = refinement
        self._beside = beside
        self.config = config
        self.appearance: Appearance | None = None
        self.usual_support: NDArray[np.float64] = np.empty(0)
        self.painted_area: Tensor | None = None

    def learn(self, index: int, features: Tensor, occupancy: Tensor, anchored: Tensor) -> None:
        """Take the appearance of the labels that slice ``index`` settles and shows.

        Parameters
        ----------
        index
            The painted slice.
        features
            Its features, shape (C, rows, columns).
        occupancy, anchored
            As in :class:`~napari_oneseg.propagation.sweep.PaintedMaps`.
        """
        seen = self.refinement.network.describe(features[None], self.grey(index)[None], occupancy[None])
        self.appearance = seen.where(anchored[None] & seen.known, self.appearance)
        # From an anchor a label sets out anew.
        before = self.usual_support if len(self.usual_support) else np.full(len(anchored), np.nan)
        self.usual_support = np.where(anchored.cpu().numpy(), np.nan, before)
        area = occupancy.sum((1, 2))
        known = anchored & seen.known[0]
        self.painted_area = area if self.painted_area is None else torch.where(known, area, self.painted_area)

    def between(self, before: int, index: int) -> RefineStep:
        """Return what refines a step from slice ``before`` to slice ``index``."""
        if self.appearance is None:
            raise ValueError("no label has set out yet: learn an anchor first")
        beside = None if self._beside is None else self._beside(index)
        regions = self.refinement.regions(index)
        return RefineStep(self, self.appearance, self.grey(before), self.grey(index), beside, regions)

    def grey(self, index: int) -> Tensor:
        """Return the grey values of a slice on the feature grid, shape (1, rows, columns)."""
        return self.refinement.grey[index].float()


@dataclass(frozen=True, eq=False)
class RefineStep:
    """Refines what was copied from one slice to the next.

    Attributes
    ----------
    refining
        The sweep's refiner.
    appearance
        Of its labels.
    grey_before, grey
        Grey values of the reference and of the target slice, shape (1, rows, columns).
    beside
        Share of labels that stay where they are on the target slice, shape (rows, columns), 0 to 1.
    regions
        Regions of the target slice, shape (scales, rows, columns); None where the refiner needs none.
    """

    refining: Refining
    appearance: Appearance
    grey_before: Tensor
    grey: Tensor
    beside: Tensor | None = None
    regions: Tensor | None = None

    def looked_at(self, before: Tensor) -> Tensor:
        """Return the positions of the target slice that are looked at, (rows, columns), boolean.

        Parameters
        ----------
        before
            Labels on the reference slice, shape (L, rows, columns), 0 to 1.
        """
        region = torch.zeros(before.shape[1:], dtype=torch.bool, device=before.device)
        for box in self._boxes(before):
            if box is not None:
                region[box] = True
        return region

    def _boxes(self, before: Tensor) -> list[tuple[slice, slice] | None]:
        return [_box(label > TRACE, self.refining.config.window // 2) for label in before]

    def __call__(
        self, features: Tensor, before: Tensor, copied: Tensor, matched: Tensor, copied_grey: Tensor
    ) -> Tensor:
        """Return the refined labels.

        Parameters
        ----------
        features
            Of the target slice, shape (C, rows, columns).
        before
            Labels on the reference slice, shape (L, rows, columns), 0 to 1.
        copied, matched
            What was copied of them, and the share that the null match has left, same shape.
        copied_grey
            Grey values copied from the reference slice, shape (1, rows, columns).
        """
        network, area = self.refining.refinement.network, self.refining.painted_area
        assert area is not None  # learn was called
        correction, floor = torch.zeros_like(copied), torch.zeros_like(copied)
        beside = torch.zeros_like(copied[0]) if self.beside is None else self.beside
        together = copied.sum(0) + beside
        distance = torch.tensor([self.refining.refinement.distance], device=copied.device)
        further = self._further(network, before, copied, area)
        classifier = network.part_classifier
        seen = None
        for k, box in enumerate(self._boxes(before)):
            if box is None:
                continue
            own, others, match, looks, grey, came = (
                maps[(None, slice(None), *box)]
                for maps in (
                    copied[k : k + 1],
                    (together - copied[k])[None],
                    matched[k : k + 1],
                    features,
                    self.grey,
                    copied_grey,
                )
            )
            appearance = self.appearance.only(k)
            more = None if further is None else further[(slice(None), slice(k, k + 1), slice(None), *box)]
            answer, looked = network(own, others, match, looks, grey, came, appearance, distance, more)
            correction[(k, *box)] = answer[0, 0]
            floor[(k, *box)] = FLOOR
            if classifier is not None:
                seen = copied.new_zeros(len(copied), looked.shape[2], *copied.shape[1:]) if seen is None else seen
                seen[(k, slice(None), *box)] = looked[0, 0]
        refined = corrected(copied[None], correction[None], floor[None], beside[None, None])[0]
        if classifier is not None and seen is not None:
            refined = self._classified(classifier, refined, seen, further, copied, matched, area, distance)
        refined = self._supported(refined, copied)
        return torch.where(refined < _REFINED_TRACE, 0.0, refined)

    def _further(self, network: LabelRefiner, before: Tensor, copied: Tensor, area: Tensor) -> Tensor | None:
        if self.regions is None:
            return None
        # What was copied holds only where the slice is looked at.
        looked_at = copied * self.looked_at(before)
        return network.further_maps(looked_at[None], self.regions[None], area[None])

    def _supported(self, refined: Tensor, copied: Tensor) -> Tensor:
        refining, config = self.refining, self.refining.config
        refined, refining.usual_support = drop_unsupported(
            refined, copied, refining.usual_support, config.support, config.least_support
        )
        return refined

    def _classified(
        self,
        classifier: PartClassifier,
        refined: Tensor,
        seen: Tensor,
        further: Tensor | None,
        copied: Tensor,
        matched: Tensor,
        area: Tensor,
        distance: Tensor,
    ) -> Tensor:
        parts = find_parts(refined[None])
        if not len(parts):
            return refined
        refining = self.refining
        usual = torch.from_numpy(refining.usual_support).to(area)[None]
        odds, _ = classifier(
            parts, seen[None], further, copied[None], matched.expand_as(copied)[None], usual, area[None], distance
        )
        return refined * parts.without((odds > refining.config.keep_odds).cpu().numpy())[0]


def _box(mask: Tensor, margin: int) -> tuple[slice, slice] | None:
    """Return rows and columns of the smallest box round a mask, widened; None where the mask is empty."""
    spans = []
    for along, size in ((1, mask.shape[0]), (0, mask.shape[1])):
        places = mask.any(along).nonzero().flatten()
        if not len(places):
            return None
        # An even start keeps the coarse half of the refiner on one grid, wherever the box begins.
        first = max(0, int(places[0]) - margin) // 2 * 2
        spans.append(slice(first, min(size, int(places[-1]) + 1 + margin)))
    return spans[0], spans[1]
