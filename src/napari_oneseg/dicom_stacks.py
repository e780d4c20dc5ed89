"""Images of one DICOM series put together to scans.

A series, as DICOM calls it, is not always one scan: it may hold a localizer, several echoes, b-values or time points.
Its images are therefore split by size, pixel size and orientation, and where several still lie at the same position, by
what their headers say to tell them apart.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from napari_oneseg.dicom_frames import TRAITS, Frame

__all__ = ["Stack", "grouped", "split"]

_TURNED = 1e-3  # of a component of the axes' unit vectors
_STRETCHED = 1e-3  # of the pixel's side

# What sets images apart, its name and its value, and the images.
_Part = tuple[str, str, list[Frame]]


@dataclass(frozen=True, eq=False)
class Stack:
    """Parallel images of one size, and what sets them apart from others at the same positions, by name."""

    frames: list[Frame]
    told: Mapping[str, str] = field(default_factory=dict)


def split(frames: Iterable[Frame]) -> list[Stack]:
    """Split the images of a series into scans; the largest comes first among those of different orientation or size."""
    return [stack for alike in _alike(frames) for stack in _told_apart(alike, {})]


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


def _told_apart(frames: list[Frame], told: dict[str, str]) -> Iterator[Stack]:
    """Split images at the same positions by what sets them apart, and yield each part with it.

    An entry that differs from slice to slice, such as a time, would tear a scan apart: each part must have neighbours.
    """
    if not _repeated(frames):
        yield Stack(frames, told)
        return
    everywhere = len(_positions(frames))
    # Parts with gaps come last: an entry may also differ between every other slice, as those are taken in two turns.
    parts = _by_trait(frames, everywhere) or _by_number(frames, len(frames) // everywhere) or _by_trait(frames, 2)
    if not parts:
        yield Stack(frames, told)
    for name, value, part in parts:
        yield from _told_apart(part, told | {name: value})


def _by_trait(frames: list[Frame], least: int) -> list[_Part]:
    """Split by the first entry that leaves at least so many positions in each part, and fewer images at each."""
    for trait in TRAITS:
        groups = grouped(frames, lambda frame: frame.traits.get(trait, ""))  # noqa: B023 (called at once)
        if sum(map(_repeated, groups)) < _repeated(frames) and all(len(_positions(part)) >= least for part in groups):
            return [(trait, part[0].traits.get(trait, "not given"), part) for part in groups]
    return []


def _by_number(frames: list[Frame], times: int) -> list[_Part]:
    """Take the first image of each position, the second, and so on, if all have as many, with numbers of their own."""
    places = grouped(sorted(frames, key=lambda frame: frame.instance_number), _place)
    numbers = {frame.instance_number for frame in frames}
    if len(numbers) < len(frames) or any(len(place) != times for place in places) or len(places) < 2:
        return []
    parts = zip(*places, strict=True)
    return [("image", f"{count} of {times} at each position", list(part)) for count, part in enumerate(parts, 1)]


def _place(frame: Frame) -> Hashable:
    return None if frame.position is None else tuple(round(number, 2) for number in frame.position)


def _positions(frames: Iterable[Frame]) -> set[Hashable]:
    return {_place(frame) for frame in frames}


def _repeated(frames: list[Frame]) -> int:
    """Count the images that lie where another one lies."""
    return 0 if frames[0].position is None else len(frames) - len(_positions(frames))
