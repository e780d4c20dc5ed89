"""Segmentations of 3D Slicer whose segments lie in several layers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from napari_oneseg.errors import AnnotationError
from napari_oneseg.io import read_labels
from napari_oneseg.volume import Volume

SHAPE = (5, 6, 7)


def scan() -> Volume:
    grey = np.random.default_rng(0).integers(0, 900, SHAPE).astype(np.int16)
    return Volume(grey, (3, 0.8, 0.7), (20, 15, 10), np.diag([-1.0, -1.0, 1.0])[:, ::-1].copy())


def layer(value: int, first: int, last: int) -> NDArray[np.uint8]:
    labels = np.zeros(SHAPE, np.uint8)
    labels[first:last, 1:4, 2:5] = value
    return labels


def written(path: Path, layers: list[NDArray[np.uint8]], segments: list[tuple[str, int, int]]) -> Path:
    lines = "".join(
        f"Segment{index}_Name:={name}\nSegment{index}_LabelValue:={value}\nSegment{index}_Layer:={place}\n"
        for index, (name, value, place) in enumerate(segments)
    )
    head = (
        f"NRRD0004\ntype: uint8\ndimension: 4\nsizes: {len(layers)} 7 6 5\nkinds: list domain domain domain\n"
        "space: right-anterior-superior\nspace directions: none (0.7,0,0) (0,0.8,0) (0,0,3)\n"
        f"space origin: (-20,-15,10)\n{lines}encoding: raw\n\n"
    )
    path.write_bytes(head.encode() + np.stack(layers, -1).tobytes())
    return path


def test_segments_that_do_not_overlap_become_one_label_image(tmp_path: Path) -> None:
    layers = [layer(1, 0, 2), layer(2, 2, 4), layer(7, 4, 5)]
    path = written(tmp_path / "s.seg.nrrd", layers, [("liver", 1, 0), ("spleen", 2, 1), ("kidney", 7, 2)])
    np.testing.assert_array_equal(read_labels(path, scan()), sum(layers))


@pytest.mark.parametrize(
    ("layers", "segments"),
    [
        ([layer(1, 0, 3), layer(2, 2, 4)], [("liver", 1, 0), ("tumour", 2, 1)]),
        ([layer(1, 0, 3), layer(1, 1, 2)], [("liver", 1, 0), ("tumour", 1, 1)]),
        ([layer(1, 0, 2), layer(1, 3, 5)], [("liver", 1, 0), ("tumour", 1, 1)]),
    ],
    ids=["shared voxels", "one within the other", "one value for two"],
)
def test_segments_that_overlap(
    tmp_path: Path, layers: list[NDArray[np.uint8]], segments: list[tuple[str, int, int]]
) -> None:
    path = written(tmp_path / "s.seg.nrrd", layers, segments)
    with pytest.raises(
        AnnotationError, match=r"segmentation in 2 layers.*liver, tumour.*export the segments as a label"
    ):
        read_labels(path, scan())


def test_layers_on_another_grid(tmp_path: Path) -> None:
    path = written(tmp_path / "s.seg.nrrd", [layer(1, 0, 2), layer(2, 2, 4)], [("liver", 1, 0), ("spleen", 2, 1)])
    with pytest.raises(AnnotationError, match="not on the scan's grid: spacing"):
        read_labels(path, Volume(scan().array, (3, 0.8, 1.4), (20, 15, 10), scan().direction))
