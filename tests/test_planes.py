"""The names of a scan's planes: from the direction of its axes, and back to the axis."""

from __future__ import annotations

from itertools import permutations, product

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from napari_oneseg.errors import InputError
from napari_oneseg.planes import PLANES, plane_axis, plane_name

PATIENT_ORDER = np.eye(3)[:, ::-1]


def test_a_scan_in_patient_order_has_its_planes_in_order() -> None:
    assert [plane_name(PATIENT_ORDER, axis) for axis in range(3)] == ["axial", "coronal", "sagittal"] == list(PLANES)
    assert [plane_axis(name) for name in PLANES] == [0, 1, 2]


@pytest.mark.parametrize("axes", list(permutations((0, 1, 2))), ids=str)
@pytest.mark.parametrize("signs", list(product((-1, 1), repeat=3)), ids=str)
def test_the_plane_goes_with_the_axis_in_all_48_orders(axes: tuple[int, ...], signs: tuple[int, ...]) -> None:
    direction = PATIENT_ORDER[:, axes] * signs
    assert [plane_name(direction, axis) for axis in range(3)] == [PLANES[axis] for axis in axes]


@pytest.mark.parametrize(
    ("degrees", "names"),
    [
        (44, ["axial", "coronal", "sagittal"]),
        (45, ["axis 0", "axis 1", "sagittal"]),
        (46, ["coronal", "axial", "sagittal"]),
    ],
)
def test_a_plane_is_named_up_to_45_degrees(degrees: float, names: list[str]) -> None:
    tilted = Rotation.from_euler("x", degrees, degrees=True).as_matrix() @ PATIENT_ORDER
    assert [plane_name(tilted, axis) for axis in range(3)] == names


def test_an_axis_that_is_as_far_from_all_planes_has_no_name() -> None:
    diagonal = Rotation.align_vectors([[1, 1, 1]], [[0, 0, 1]])[0].as_matrix() @ PATIENT_ORDER
    assert plane_name(diagonal, 0) == "axis 0"


def test_names_as_they_are_typed() -> None:
    assert plane_axis(" Coronal ") == 1


@pytest.mark.parametrize("name", ["", "oblique", "axia", "0"])
def test_another_name_is_refused(name: str) -> None:
    with pytest.raises(InputError, match=f"must be axial, coronal or sagittal, got '{name}'"):
        plane_axis(name)
