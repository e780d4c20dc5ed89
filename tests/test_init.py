from __future__ import annotations

import pytest

import napari_oneseg


@pytest.mark.parametrize("name", napari_oneseg.__all__)
def test_every_public_name_loads_and_is_listed(name: str) -> None:
    assert getattr(napari_oneseg, name) is not None
    assert name in dir(napari_oneseg)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Volumes'"):
        getattr(napari_oneseg, "Volumes")  # noqa: B009 - a bare attribute would be a useless expression
