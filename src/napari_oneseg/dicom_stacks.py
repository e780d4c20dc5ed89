"""Images of one DICOM series put together to scans.

A series, as DICOM calls it, is not always one scan: it may hold a localizer, several echoes, b-values or time points.
Its images are therefore split by size, pixel size and orientation, and where several still lie at the same position, by
what their headers say to tell them apart.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median

import numpy as np

from napari_oneseg.dicom import number_places
from napari_oneseg.dicom_frames import TRAITS, Frame

__all__ = ["Stack", "grouped", "places_of", "split"]

_TURNED = 1e-3  # of a component of the axes' unit vectors
_STRETCHED = 1e-3  # of the pixel's side
_PLANES = ("sagittal", "coronal", "axial")  # by the patient's axis, x, y and z, that is closest to their normal

# What sets images apart, its name and its value, and the images.
_Part = tuple[str, str, list[Frame]]


@dataclass(frozen=True, eq=False)
class Stack:
    """Parallel images of one size, and what sets them apart from others at the same positions, by name."""

    frames: list[Frame]
    told: Mapping[str, str] = field(default_factory=dict)


def split(frames: Iterable[Frame]) -> list[Stack]:
    """Split the images of a series into scans; the largest comes first among those of different orientation or size."""
    alike = _alike(frames)
    return [stack for group in alike for stack in _scans(group, _told_from(alike[0][0], group[0]))]


def _told_from(first: Frame, frame: Frame) -> dict[str, str]:
    """Say in what an image of another stack differs from one of the first, by name."""
    told = {}
    if frame.orientation and first.orientation and not _close(first.orientation, frame.orientation, _TURNED):
        normals = [np.cross(one.orientation[:3], one.orientation[3:]) for one in (first, frame) if one.orientation]
        before, plane = (_PLANES[int(np.abs(normal).argmax())] for normal in normals)
        turned = np.degrees(np.arccos(np.clip(abs(normals[0] @ normals[1]), 0, 1)))
        told["plane"] = plane if plane != before else f"{plane}, turned by {turned:.3g} degrees"
    if frame.header.shape[1:] != first.header.shape[1:]:
        told["size"] = "{} x {}".format(*frame.header.shape[1:])
    elif frame.pixel_spacing and not _close(
        first.pixel_spacing, frame.pixel_spacing, _STRETCHED * frame.pixel_spacing[0]
    ):
        told["pixels"] = "{:g} x {:g} mm".format(*frame.pixel_spacing)
    return told


def places_of(frames: Sequence[Frame]) -> dict[Frame, int]:
    """Give each of the places at which parallel images lie a number; those without a position are all at one."""
    orientation, pixel = frames[0].orientation or (1, 0, 0, 0, 1, 0), frames[0].pixel_spacing or (1, 1)
    positions = np.array([frame.position or (0, 0, 0) for frame in frames], float)
    numbers = number_places(positions, np.array(orientation, float), (pixel[0], pixel[1]))
    return dict(zip(frames, numbers.tolist(), strict=True))


def grouped(frames: Iterable[Frame], key: Callable[[Frame], Hashable]) -> list[list[Frame]]:
    """Group frames by a key, in the order in which the keys appear."""
    groups: dict[Hashable, list[Frame]] = {}
    for frame in frames:
        groups.setdefault(key(frame), []).append(frame)
    return list(groups.values())


def _alike(frames: Iterable[Frame]) -> list[list[Frame]]:
    """Put together what is parallel and of the same size; the largest stack comes first."""
    stacks: list[list[Frame]] = []
    for frame in frames:
        stack = next((stack for stack in stacks if _fit(stack[0], frame)), None)
        if stack is None:
            stacks.append([frame])
        else:
            stack.append(frame)
    return sorted(stacks, key=len, reverse=True)


def _fit(one: Frame, other: Frame) -> bool:
    if one.header.is_mosaic or other.header.is_mosaic:
        return (
            one.header.is_mosaic and other.header.is_mosaic
        )  # they turn with the patient from time point to time point
    return (
        one.header.shape[1:] == other.header.shape[1:]
        and one.header.is_grey == other.header.is_grey
        and one.header.bits[0] == other.header.bits[0]
        and one.header.modality == other.header.modality
        and (one.position is None) == (other.position is None)
        and _close(one.orientation, other.orientation, _TURNED)
        and _close(one.pixel_spacing, other.pixel_spacing, _STRETCHED * max(one.pixel_spacing or (0,)))
    )


def _close(one: tuple[float, ...] | None, other: tuple[float, ...] | None, tolerance: float) -> bool:
    if one is None or other is None:
        return one is other
    return max(abs(a - b) for a, b in zip(one, other, strict=True)) <= tolerance


def _scans(frames: list[Frame], told: dict[str, str]) -> Iterator[Stack]:
    """Tell images at the same positions apart. A single position makes no scan, however many images of it there are."""
    places = places_of(frames)
    if frames[0].header.is_mosaic or not any(places.values()):
        yield Stack(frames, told)
    else:
        yield from _told_apart(frames, places, told)


def _told_apart(frames: list[Frame], places: Mapping[Frame, int], told: dict[str, str]) -> Iterator[Stack]:
    """Split images at the same positions by what sets them apart, and yield each part with it.

    An entry that differs from slice to slice, such as a time, would tear a scan apart: each part must have neighbours.
    """
    everywhere = len({places[frame] for frame in frames})
    if everywhere == len(frames):
        yield Stack(frames, told)
        return
    # Parts with gaps come last: an entry may also differ between every other slice, as those are taken in two turns.
    parts = (
        _by_trait(frames, places, everywhere)
        or _by_number(frames, places, len(frames) // everywhere)
        or _by_trait(frames, places, 2)
    )
    if not parts:
        yield Stack(frames, told)
    for name, value, part in parts:
        yield from _told_apart(part, places, told | {name: value})


def _by_trait(frames: list[Frame], places: Mapping[Frame, int], least: int) -> list[_Part]:
    """Split by the first entry that leaves at least so many positions in each part, and fewer images at each.

    Most parts must have half of all positions: a time that some slices share makes no scan of them.
    """
    everywhere = len({places[frame] for frame in frames})
    for trait in TRAITS:
        groups = grouped(frames, lambda frame: frame.traits.get(trait, ""))  # noqa: B023 (called at once)
        counts = [len({places[frame] for frame in part}) for part in groups]
        if min(counts) >= least and 2 * median(counts) >= everywhere and sum(counts) > everywhere:
            return [(trait, part[0].traits.get(trait, "not given"), part) for part in groups]
    return []


def _by_number(frames: list[Frame], places: Mapping[Frame, int], times: int) -> list[_Part]:
    """Take the first image of each position, the second, and so on, if all have as many, with numbers of their own."""
    at_places = grouped(sorted(frames, key=lambda frame: frame.instance_number), places.__getitem__)
    numbers = {frame.instance_number for frame in frames}
    if len(numbers) < len(frames) or any(len(place) != times for place in at_places) or len(at_places) < 2:
        return []
    parts = zip(*at_places, strict=True)
    return [("image", f"{count} of {times} at each position", list(part)) for count, part in enumerate(parts, 1)]
