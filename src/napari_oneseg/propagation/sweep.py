"""One sweep: soft labels travel from slice to slice in one direction (paper 1.2).

Strategy. A sweep visits the slices in order and carries, for every label on its own, a map of probabilities and a map
of reliabilities. Each label sets out from the first slice on which it is known (an *anchor*), is renewed at each
further anchor, and beyond its last anchor goes on until it has ended. Between two anchors that both show it, it cannot
have ended, so there the null match takes nothing from it. A label knows nothing of the others, so that
labels painted on different slices can travel together; they meet only when a slice is decided. Where a slice settles
all of them, as a corrected one does, the sweep is cut into legs that need not wait for each other.

What a step has copied is refined by what the slice itself shows, where the network has learned to
(:mod:`napari_oneseg.propagation.refining`).

Reliability is forward-backward agreement: after a step, what arrived is carried back, and where it does not return to
where it came from, it cannot be trusted. Agreements multiply along the way. Where labels are refined, it is how certain
the copy was before: refining takes away the doubts that would multiply.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from napari_oneseg.config import PropagationConfig
from napari_oneseg.features.refiner import Refinement
from napari_oneseg.propagation.attention import (
    LocalAffinity,
    local_affinity,
    readout,
    tiles_holding,
    tiles_within_reach,
)
from napari_oneseg.propagation.crossing import Crossing
from napari_oneseg.propagation.exchange import exchange
from napari_oneseg.propagation.refining import TRACE, RefineStep, Refining

__all__ = ["Carried", "Leg", "PaintedMaps", "legs", "step", "sweep"]


@dataclass(frozen=True)
class PaintedMaps:
    """A painted slice on the feature grid.

    Attributes
    ----------
    occupancy
        Share of each label in each position, shape (L, rows, columns), 0 to 1.
    anchored
        Which labels this slice settles, shape (L,), boolean: those painted here, or all on a complete slice.
    """

    occupancy: Tensor
    anchored: Tensor


@dataclass(frozen=True)
class Carried:
    """What has arrived on a slice.

    Attributes
    ----------
    labels
        Probability of each label, shape (L, rows, columns), 0 to 1.
    reliability
        How far what arrived can be trusted, same shape, 0 to 1.
    """

    labels: Tensor
    reliability: Tensor


def step(
    target: Tensor,
    reference: Tensor,
    carried: Carried,
    window: int,
    null_bias: float | None = None,
    bridged: Tensor | None = None,
    refine: RefineStep | None = None,
) -> tuple[Carried, Tensor]:
    """Carry labels over to the next slice (paper eq. 8), and back to see whether they return.

    Parameters
    ----------
    target, reference
        Features of the two slices, shape (C, rows, columns).
    carried
        Labels on the reference slice.
    window
        Side of the attention window, odd.
    null_bias
        Bias of the attention's null match, if there is to be one; what it wins becomes background.
    bridged
        Labels that cannot have ended here, and take nothing from the null match, shape (L,), boolean; none by default.
    refine
        Refines what was copied; by default it stays as it is.

    Returns
    -------
    The labels on the target slice, and for each label the mean agreement of this step over the label, shape (L,).
    """
    if bridged is None:
        bridged = torch.zeros(len(carried.labels), dtype=torch.bool, device=carried.labels.device)
    if refine is not None:
        return _refined_step(target, reference, carried.labels, window, null_bias, bridged, refine)
    present = (carried.labels > TRACE).any(0)
    forward = local_affinity(target[None], reference[None], window, tiles_within_reach(present, window), null_bias)
    arrived, _ = _copied(forward, carried.labels, bridged)
    # Agreement matters where a label came from; elsewhere next to nothing was sent and next to nothing returns.
    backward = local_affinity(reference[None], target[None], window, tiles_holding(present), null_bias)
    agreement = _agreement(_copied(backward, arrived, bridged)[0], carried.labels)
    # The null match's share says nothing of the way: the reliability is that of what was copied.
    every = torch.ones_like(bridged)
    reliability = _copied(forward, carried.reliability * agreement, every, fill=1.0)[0]
    return Carried(arrived, reliability.clamp(0.0, 1.0)), _mean_over(carried.labels, agreement)


def _refined_step(
    target: Tensor,
    reference: Tensor,
    labels: Tensor,
    window: int,
    null_bias: float | None,
    bridged: Tensor,
    refine: RefineStep,
) -> tuple[Carried, Tensor]:
    """Do what :func:`step` does where what was copied is refined."""
    # The grey values are copied along, as if there were no null match: the refiner compares them with what is there.
    maps = torch.cat([labels, refine.grey_before])
    region = refine.looked_at(labels)
    count = len(labels)
    both = exchange(Crossing(target, reference, maps, region, window, null_bias, bridged))
    matched = torch.where(bridged[:, None, None], 1.0, both.matched)
    arrived, copied_grey = both.copied[:count] * matched, both.copied[count:]
    # A refined label is sharp wherever it went. What was copied, before it was refined, tells how sure that is.
    certainty = (2.0 * arrived - 1.0).abs()
    refined = refine(target, labels, arrived, matched, copied_grey)
    return Carried(refined, certainty), _mean_over(labels, _agreement(both.returned, labels))


def _agreement(returned: Tensor, sent: Tensor) -> Tensor:
    return 1.0 - (returned - sent).abs()


def _mean_over(labels: Tensor, values: Tensor) -> Tensor:
    """Return the mean of values, (L, rows, columns), over each label, shape (L,)."""
    return (values * labels).sum((1, 2)) / labels.sum((1, 2)).clamp_min(1e-6)


def _copied(affinity: LocalAffinity, maps: Tensor, whole: Tensor, fill: float = 0.0) -> tuple[Tensor, Tensor]:
    """Read maps (L, rows, columns) out, those marked in ``whole`` (L,) as if there were no null match.

    Returns the copies, and the share that the null match has left of each.
    """
    fills = torch.full((1, len(maps) + 1, 1, 1), fill, device=maps.device)
    fills[:, -1] = 1.0
    copied = readout(affinity, torch.cat([maps, torch.ones_like(maps[:1])])[None], fills)[0]
    matched = copied[-1:]
    spared = whole[:, None, None]
    return torch.where(spared, copied[:-1] / matched.clamp_min(1e-30), copied[:-1]), torch.where(spared, 1.0, matched)


@dataclass(frozen=True)
class Leg:
    """A part of a sweep that depends on nothing before it.

    Attributes
    ----------
    order
        The slices that are visited. Something is painted on the first one.
    beyond
        For each of them, which labels have their last anchor before it, shape (L,), boolean.
    bridged
        For each of them, which labels the next anchor from there on shows, shape (L,), boolean.
    """

    order: Sequence[int]
    beyond: Sequence[Tensor]
    bridged: Sequence[Tensor]


def legs(order: Sequence[int], painted: Mapping[int, PaintedMaps]) -> list[Leg]:
    """Cut a sweep where a slice settles every label, as a corrected one does.

    What arrives on such a slice counts for nothing, so the leg that sets out there need not wait for it. The legs visit
    each slice once, from the first painted one on: before it there is nothing to carry.

    Parameters
    ----------
    order
        Indices of neighbouring slices, ascending or descending.
    painted
        Painted slices by index; at least one of them in ``order``.
    """
    last = _last_anchors(order, painted)
    beyond, bridged = [last < position for position in range(len(order))], _bridged(order, painted)
    starts = [k for k, index in enumerate(order) if index in painted and bool(painted[index].anchored.all())]
    first = next(k for k, index in enumerate(order) if index in painted)
    cuts = sorted({first, *starts, len(order)})
    return [Leg(order[a:b], beyond[a:b], bridged[a:b]) for a, b in pairwise(cuts)]


def sweep(
    features: Sequence[Tensor] | Tensor,
    leg: Leg,
    painted: Mapping[int, PaintedMaps],
    config: PropagationConfig,
    null_bias: float | None = None,
    refinement: Refinement | None = None,
    beside: Callable[[int], Tensor] | None = None,
) -> Iterator[tuple[int, Carried]]:
    """Visit the slices of a leg in order and yield what arrives on each.

    On a painted slice its own labels are yielded as painted.

    Parameters
    ----------
    features
        Features by slice, each (C, rows, columns).
    leg
        One of those that :func:`legs` gives.
    painted
        Painted slices by index.
    config
        Window and stopping rule.
    null_bias
        As in :func:`step`.
    refinement
        Refines copied labels; by default they stay as they are.
    beside
        As in :class:`~napari_oneseg.propagation.refining.Refining`.

    Yields
    ------
    Slice index, and the labels that arrived there.
    """
    refining = None if refinement is None else Refining(refinement, config, beside)
    start = leg.order[0]
    carried, area = None, painted[start].occupancy.sum((1, 2))
    reference = features[start]
    for position, index in enumerate(leg.order):
        features_here = _channels_last(features[index])
        if carried is not None and bool((carried.labels > TRACE).any()):
            refine = None if refining is None else refining.between(leg.order[position - 1], index)
            carried, agreement = step(
                features_here, reference, carried, config.window, null_bias, leg.bridged[position], refine
            )
            ended = leg.beyond[position] & (
                (carried.labels.sum((1, 2)) < config.end_area * area) | (agreement < config.end_agreement)
            )
            carried = Carried(carried.labels * ~ended[:, None, None], carried.reliability)
        if index in painted:
            here = painted[index]
            if refining is not None and position + 1 < len(leg.order):
                refining.learn(index, features_here, here.occupancy, here.anchored)
            area = torch.where(here.anchored, here.occupancy.sum((1, 2)), area)
            carried = _renewed(carried, here)
        assert carried is not None  # the first slice is painted
        reference = features_here
        yield index, carried


def _channels_last(features: Tensor) -> Tensor:
    """Return features, (C, rows, columns), in single precision with the channels last in memory.

    What is looked at round a position then lies together.
    """
    # As a matrix: torch transposes those several times faster than it permutes three axes.
    flat = features.float().flatten(1).t().contiguous()
    return flat.view(*features.shape[1:], -1).permute(2, 0, 1)


def _renewed(carried: Carried | None, painted: PaintedMaps) -> Carried:
    """Replace what arrived on a painted slice by what was painted there."""
    if carried is None:
        return Carried(painted.occupancy, torch.ones_like(painted.occupancy))
    anchored = painted.anchored[:, None, None]
    # A voxel that was painted as one label is no other one.
    free = 1.0 - painted.occupancy.sum(0).clamp(max=1.0)
    return Carried(
        torch.where(anchored, painted.occupancy, carried.labels * free),
        torch.where(anchored, torch.ones_like(carried.reliability), carried.reliability),
    )


def _last_anchors(order: Sequence[int], painted: Mapping[int, PaintedMaps]) -> Tensor:
    """Return, for each label, the position in ``order`` of its last anchor, shape (L,); -1 where it has none."""
    first = next(iter(painted.values()))
    last = torch.full(first.anchored.shape, -1, dtype=torch.long, device=first.anchored.device)
    for position, index in enumerate(order):
        if index in painted:
            last[painted[index].anchored] = position
    return last


def _bridged(order: Sequence[int], painted: Mapping[int, PaintedMaps]) -> list[Tensor]:
    """Return, for each position in ``order``, which labels the next anchor from there on shows, each (L,)."""
    shown = torch.zeros_like(next(iter(painted.values())).anchored)
    positions = []
    for index in reversed(order):
        if index in painted:
            here = painted[index]
            shown = torch.where(here.anchored, here.occupancy.flatten(1).any(1), shown)
        positions.append(shown)
    return positions[::-1]
