from __future__ import annotations

import json
import math
from dataclasses import fields

import pytest

from napari_oneseg.config import (
    AnatomyConfig,
    Config,
    FeatureConfig,
    PreprocessingConfig,
    PropagationConfig,
    ScreeningConfig,
    TrainingConfig,
    describe,
)
from napari_oneseg.errors import InputError

CONFIGS = [PreprocessingConfig, FeatureConfig, ScreeningConfig, PropagationConfig, AnatomyConfig, TrainingConfig]


@pytest.mark.parametrize("kind", CONFIGS)
def test_defaults_survive_a_file(kind: type[Config]) -> None:
    assert kind.from_dict(json.loads(json.dumps(kind().to_dict()))) == kind()


@pytest.mark.parametrize("kind", CONFIGS)
def test_every_parameter_is_documented_and_limited(kind: type[Config]) -> None:
    described = describe(kind)
    assert [name for name, _, _ in described] == [entry.name for entry in fields(kind)]
    for name, default, doc in described:
        assert default is not None, name
        assert len(doc) > 10, name
        assert doc.endswith("."), name


@pytest.mark.parametrize("kind", CONFIGS)
def test_limits_hold_at_both_ends(kind: type[Config]) -> None:
    for entry in fields(kind):
        for limit, beyond in ((entry.metadata["ge"], -1), (entry.metadata["le"], 1)):
            if limit is None:
                continue
            value = (*entry.default[:-1], limit + beyond) if isinstance(entry.default, tuple) else limit + beyond
            with pytest.raises(InputError, match=entry.name):
                kind(**{entry.name: value})


def test_unknown_parameters_are_refused_by_name() -> None:
    with pytest.raises(
        InputError, match=r"no parameter windo; it has end_agreement, end_area, keep_odds, least_support, support"
    ):
        PropagationConfig.from_dict({"windo": 13})


@pytest.mark.parametrize(
    "values",
    [
        {"window": 13.0},
        {"window": 5.5},
        {"window": "13"},
        {"window": True},
        {"window": None},
        {"window": (13,)},
        {"end_area": "0.1"},
        {"end_area": math.nan},
        {"end_area": math.inf},
    ],
)
def test_values_of_the_wrong_kind_are_refused(values: dict[str, object]) -> None:
    with pytest.raises(InputError, match=f"PropagationConfig.{next(iter(values))}"):
        PropagationConfig.from_dict(values)


def test_a_whole_number_is_a_number() -> None:
    assert PropagationConfig(end_area=0).end_area == 0


@pytest.mark.parametrize("values", [{"regions": 4}, {"regions": (1, 2, 3)}, {"organs": (5, 2)}, {"vessels": (0.5, 2)}])
def test_pairs_are_least_and_greatest(values: dict[str, object]) -> None:
    with pytest.raises(InputError, match=next(iter(values))):
        AnatomyConfig.from_dict(values)


def test_what_must_be_odd_or_counted() -> None:
    with pytest.raises(InputError, match="odd"):
        PropagationConfig(window=12)
    with pytest.raises(InputError, match="odd"):
        FeatureConfig(gabor_size=14)
    with pytest.raises(InputError, match="four widths"):
        FeatureConfig(widths=(8, 8, 8))


def test_strides() -> None:
    config = FeatureConfig(strides=(2, 1, 2, 1, 2))
    assert config.stride == 2
    assert config.coarsest_stride == 8
