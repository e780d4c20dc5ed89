"""The attention by other ways, in the place of the product's own: what its time is compared with.

Published implementations compute the window offset by offset: the reference map is shifted, multiplied with the
target map and summed over the channels, for each of P x P offsets and over the whole slice; a softmax over the stack
follows, and the values are shifted and weighted in the same way. Here it is written plainly, vectorised over
positions.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any
from unittest import mock

import numpy as np
import torch
from speed_floor import attention_products
from speed_machine import interleaved
from torch import Tensor
from torch.nn import functional

from napari_oneseg.propagation import sweep
from napari_oneseg.propagation.crossing import Crossing, Exchange
from napari_oneseg.propagation.exchange import by_tiles, exchange
from napari_oneseg.propagation.refining import Refining
from napari_oneseg.session import OneSegSession

__all__ = [
    "SHIFTED_STEP",
    "compare_steps",
    "greatest_difference",
    "held",
    "plugged_in",
    "shifted_attention",
    "shifted_exchange",
    "shifted_readout",
    "step_of",
]

SHIFTED_STEP = "shifted products, whole slice"

OneStep = Callable[[Crossing], Exchange]


def shifted_attention(
    query: Tensor, key: Tensor, window: int, null_bias: float | None = None
) -> tuple[Tensor, Tensor | None]:
    """Return what :func:`~napari_oneseg.propagation.attention.local_affinity` does, by shifted products.

    Parameters
    ----------
    query, key
        Features of the target and the reference slice, (C, rows, columns).

    Returns
    -------
    Weights, (P x P, rows, columns), and the share that the null match has left, (rows, columns).
    """
    scale = 1.0 / math.sqrt(len(query))
    rows, columns = query.shape[1:]
    logits = query.new_empty(window * window, rows, columns)
    for k, shifted in enumerate(_shifted(key, window)):
        logits[k] = (query * shifted).sum(0)
    logits *= scale
    inside = torch.stack(list(_shifted(torch.ones_like(query[:1]), window)))[:, 0]
    logits = logits.masked_fill_(inside == 0.0, -math.inf)
    weights = logits.softmax(0)
    if null_bias is None:
        return weights, None
    null = query.square().sum(0) * scale + null_bias
    return weights, torch.sigmoid(logits.logsumexp(0) - null)


def shifted_readout(weights: Tensor, values: Tensor, window: int) -> Tensor:
    """Return the means of values, (L, rows, columns), under weights of :func:`shifted_attention`; same shape."""
    result = torch.zeros_like(values)
    for weight, shifted in zip(weights, _shifted(values, window), strict=True):
        result += weight * shifted
    return result


def _shifted(maps: Tensor, window: int) -> Iterator[Tensor]:
    """Yield the maps, (C, rows, columns), shifted to each offset of the window, row by row; 0 from outside."""
    rows, columns = maps.shape[1:]
    padded = functional.pad(maps, (window // 2,) * 4)
    for i in range(window):
        for j in range(window):
            yield padded[:, i : i + rows, j : j + columns]


def shifted_exchange(crossing: Crossing) -> Exchange:
    """Do what :func:`~napari_oneseg.propagation.exchange.exchange` does, by shifted products over whole slices."""
    target, reference, maps, region = crossing.target, crossing.reference, crossing.maps, crossing.region
    window, null_bias, bridged, count = crossing.window, crossing.null_bias, crossing.bridged, len(crossing.bridged)
    weights, share = shifted_attention(target, reference, window, null_bias)
    matched = torch.ones_like(maps[0]) if share is None else torch.where(region, share, 1.0)
    copied = shifted_readout(weights, maps, window) * region
    arrived = copied[:count] * torch.where(bridged[:, None, None], 1.0, matched)
    weights, share = shifted_attention(reference, target, window, null_bias)
    returned = shifted_readout(weights, arrived, window)
    if share is not None:
        returned = returned * torch.where(bridged[:, None, None], 1.0, share)
    return Exchange(copied, matched, returned)


@contextmanager
def plugged_in(step: OneStep) -> Iterator[None]:
    """Have propagations use another way to copy labels to the next slice and back while the block runs."""
    with mock.patch.object(sweep, "exchange", step):
        yield


def held(step: Crossing) -> Tensor:
    """Return where what comes back is meant to hold, (rows, columns), boolean.

    These are the positions that have sent something and whose windows lie in the region or outside the slice.
    """
    left_out = (~step.region)[None].float()
    beside = functional.max_pool2d(left_out, step.window, 1, step.window // 2)[0] == 0.0
    return beside & (step.labels > 0.0).any(0)


@torch.inference_mode()
def step_of(session: OneSegSession, labels: np.ndarray) -> Crossing:
    """Return a step as a propagation of this scan makes it, from the slice that shows most labels to the next one.

    Parameters
    ----------
    session
        With a scan; its network has a refiner.
    labels
        In slice order, (n, rows, columns), 0 = background.
    """
    stack = session.features
    shown = [len(np.unique(image)) for image in labels[:-1]]
    index = max(range(len(shown)), key=lambda k: (shown[k], np.count_nonzero(labels[k])))
    values = np.unique(labels[index])[1:]
    one_hot = torch.from_numpy(np.stack([labels[index] == value for value in values])).to(stack.maps.device)
    carried = stack.grid.to_features(one_hot[None].float())[0]
    assert stack.refinement is not None
    refining = Refining(stack.refinement, session.propagation)
    reference, target = (stack.maps[k].float() for k in (index, index + 1))
    refining.learn(index, reference, carried, torch.ones(len(values), dtype=torch.bool, device=carried.device))
    refine = refining.between(index, index + 1)
    maps, region = torch.cat([carried, refine.grey_before]), refine.looked_at(carried)
    bridged = torch.zeros(len(values), dtype=torch.bool, device=carried.device)
    return Crossing(target, reference, maps, region, session.propagation.window, stack.null_bias, bridged)


@torch.inference_mode()
def compare_steps(step: Crossing, rounds: int, seconds: float) -> dict[str, Any]:
    """Time one step, both directions and all labels, by each way; and say how far the results are apart.

    Returns
    -------
    ``seconds``: of each way; ``apart``: the greatest difference from the shifted products' result; ``operations``: what
    each has to compute at least; ``region``: the share of the slice where labels can arrive.
    """
    whole = replace(step, region=torch.ones_like(step.region))
    works: Mapping[str, Callable[[], Exchange]] = {
        "exchange, where labels can be": lambda: exchange(step),
        "tiles, where labels can be": lambda: by_tiles(step),
        "exchange, whole slice": lambda: exchange(whole),
        "tiles, whole slice": lambda: by_tiles(whole),
        SHIFTED_STEP: lambda: shifted_exchange(whole),
    }
    apart, operations = {}, {}
    for name, work in works.items():
        here = step if "where" in name else whole
        apart[name] = greatest_difference(work(), shifted_exchange(here), here)
        size = step.window, len(step.target), len(step.maps), len(step.bridged)
        operations[name] = attention_products(here.region, *size)
    return {
        "seconds": interleaved(works, rounds, seconds, step.target.device),
        "apart": apart,
        "operations": operations,
        "region": float(step.region.float().mean()),
        "positions": list(step.region.shape),
        "labels": len(step.bridged),
    }


def greatest_difference(one: Exchange, other: Exchange, step: Crossing) -> float:
    """Return the greatest difference of two results where both are meant to hold."""
    region = step.region
    parts = [
        (one.copied - other.copied) * region,
        (one.matched - other.matched) * region,
        (one.returned - other.returned) * held(step),
    ]
    return max(float(part.abs().max()) for part in parts)
