"""Every parameter of the method, declared once: one frozen dataclass per stage.

A field carries its own documentation and limits; forms, command-line options and the documentation are derived from
them (:func:`describe`). Values are checked on construction and unknown keys are refused (:meth:`Config.from_dict`).
"""

from __future__ import annotations

import math
from dataclasses import MISSING, Field, asdict, dataclass, field, fields
from typing import Any, Literal, Self, get_args, get_origin, get_type_hints

from napari_oneseg.errors import InputError

__all__ = [
    "AdaptConfig",
    "AnatomyConfig",
    "Config",
    "Direction",
    "FeatureConfig",
    "PreprocessingConfig",
    "PropagationConfig",
    "RefiningConfig",
    "ScreeningConfig",
    "SelfLearningConfig",
    "TrainingConfig",
    "describe",
]

Direction = Literal["both", "up", "down"]
"""Towards both ends of the scan, towards higher slice indices only, or towards lower ones only."""


def param(default: Any, doc: str, *, ge: float | None = None, le: float | None = None) -> Any:
    """Declare a field with its documentation and its inclusive limits (applied to every element of a tuple)."""
    return field(default=default, metadata={"doc": doc, "ge": ge, "le": le})


@dataclass(frozen=True)
class Config:
    """What all stages' parameters have in common: checked values, and a dictionary form for files."""

    def __post_init__(self) -> None:
        hints = get_type_hints(type(self))
        for entry in fields(self):
            _check(type(self).__name__, entry, hints[entry.name], getattr(self, entry.name))

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """Build from a plain dictionary, such as one read from JSON.

        Raises
        ------
        InputError
            If a key is unknown or a value is outside its limits.
        """
        known = {entry.name for entry in fields(cls)}
        unknown = sorted(set(values) - known)
        if unknown:
            raise InputError(
                f"{cls.__name__} has no parameter {', '.join(unknown)}; it has {', '.join(sorted(known))}."
            )
        return cls(**{key: tuple(value) if isinstance(value, list) else value for key, value in values.items()})

    def to_dict(self) -> dict[str, Any]:
        """Return a dictionary of plain values that :meth:`from_dict` takes back."""
        return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}


def _check(owner: str, entry: Field[Any], hint: Any, value: Any) -> None:
    choices = get_args(hint) if get_origin(hint) is Literal else ()
    if choices:
        if value not in choices:
            raise InputError(f"{owner}.{entry.name} must be one of {', '.join(map(str, choices))}, got {value!r}.")
        return
    if hint is bool:
        if not isinstance(value, bool):
            raise InputError(f"{owner}.{entry.name} must be true or false, got {value!r}.")
        return
    kinds = get_args(hint) if get_origin(hint) is tuple else ()
    if isinstance(value, tuple) != bool(kinds):
        raise InputError(f"{owner}.{entry.name} must be {'several numbers' if kinds else 'one number'}, got {value!r}.")
    if kinds and kinds[-1] is not ... and len(value) != len(kinds):
        raise InputError(f"{owner}.{entry.name} must be {len(kinds)} numbers, got {value!r}.")
    # Strict, because a file or a form may hold "13", 13.5 or true where a whole number is meant.
    whole = (kinds[0] if kinds else hint) is int
    for item in value if kinds else (value,):
        if isinstance(item, bool) or not isinstance(item, int if whole else (int, float)):
            raise InputError(f"{owner}.{entry.name} takes {'whole numbers' if whole else 'numbers'}, got {value!r}.")
        low, high = entry.metadata.get("ge"), entry.metadata.get("le")
        # The comparison is written so that NaN fails it.
        if not ((low is None or item >= low) and (high is None or item <= high)):
            span = f"at least {low}" if high is None else f"between {low} and {high}"
            raise InputError(f"{owner}.{entry.name} must be {span}, got {value!r}.")


def describe(config: type[Config]) -> list[tuple[str, Any, str]]:
    """Return (name, default, documentation) of each parameter, in order of declaration."""
    return [
        (entry.name, None if entry.default is MISSING else entry.default, entry.metadata["doc"])
        for entry in fields(config)
    ]


@dataclass(frozen=True)
class PreprocessingConfig(Config):
    """From the scan's grey values and grid to the network's (paper 2.2: slices resized to 256 x 256)."""

    working_size: int = param(
        256, "Longer side of the in-plane working grid, in pixels; the aspect ratio is kept.", ge=32, le=1024
    )
    max_upsampling: float = param(4.0, "A small scan is enlarged at most by this factor.", ge=1.0, le=16.0)
    low_percentile: float = param(0.5, "Grey values below this percentile of the scan are clipped.", ge=0.0, le=49.0)
    high_percentile: float = param(
        99.5, "Grey values above this percentile of the scan are clipped.", ge=51.0, le=100.0
    )
    contrast_limit: float = param(
        4.0,
        "Steepest slope of the grey-value mapping, relative to a linear one. Above 1 the mapping is a contrast-limited "
        "histogram equalisation: it gives soft tissue its contrast back in a CT in full Hounsfield units, and suits "
        "MRI, without knowing the modality.",
        ge=1.0,
        le=64.0,
    )


@dataclass(frozen=True)
class FeatureConfig(Config):
    """The information bottleneck and the ResNet-18 trunk (paper 1.3, eq. 1)."""

    bottleneck: bool = param(
        True, "Whether the trunk sees Gabor responses; otherwise normalised grey values, as in the paper's ablation."
    )
    gabor_wavelengths: tuple[float, ...] = param(
        (2.0, 4.0, 8.0), "Gabor scales: wavelengths in working pixels.", ge=2.0, le=64.0
    )
    gabor_orientations: int = param(4, "Number of evenly spaced Gabor orientations.", ge=1, le=32)
    gabor_size: int = param(15, "Side of the Gabor kernels in working pixels, odd.", ge=3, le=65)
    widths: tuple[int, ...] = param(
        (64, 128, 256, 512), "Channels of the four ResNet-18 stages, before the width factor.", ge=8, le=1024
    )
    width_factor: float = param(0.25, "Factor on the stages' channels.", ge=0.05, le=2.0)
    strides: tuple[int, ...] = param(
        (2, 1, 2, 1, 2),
        "Strides of the stem and of the four stages. Features come at the first stage's stride; deeper stages may be "
        "coarser.",
        ge=1,
        le=2,
    )
    dilations: tuple[int, ...] = param(
        (1, 1, 1, 1), "Dilations of the four stages, which stand in for the strides that were opened.", ge=1, le=8
    )
    channels: int = param(64, "Channels of the features.", ge=8, le=512)
    null_match: bool = param(True, "Whether a position may find that nothing in its window matches.")
    refine: bool = param(False, "Whether copied labels are refined by what the target slice shows.")
    region_scales: tuple[float, ...] = param(
        (),
        "Scales of the regions of a slice whose share of a label the refiner is shown: the greater, the larger the "
        "regions. With none it is not shown any.",
        ge=0.1,
        le=10_000.0,
    )
    classify_parts: bool = param(
        False, "Whether a network decides which connected parts of a refined label stay, instead of their support."
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.gabor_size % 2 == 0:
            raise InputError(f"FeatureConfig.gabor_size must be odd, got {self.gabor_size}.")
        if len(self.widths) != 4 or len(self.dilations) != 4 or len(self.strides) != 5:
            raise InputError("FeatureConfig needs four widths, four dilations and five strides (stem and four stages).")

    @property
    def stride(self) -> int:
        """Working pixels per feature position."""
        return self.strides[0] * self.strides[1]

    @property
    def coarsest_stride(self) -> int:
        """Working pixels per position of the deepest stage; working grids are multiples of it."""
        return math.prod(self.strides)


@dataclass(frozen=True)
class ScreeningConfig(Config):
    """Which slices to paint, and representative slices to learn from (paper 1.4)."""

    score: Literal["contained", "representative"] = param(
        "contained",
        "What the slices of a range are ranked by: contained (how much of a slice begins and ends within the range) or "
        "representative (how well it stands for the others, as in the paper), by which a whole scan is always ranked.",
    )
    clusters: int = param(6, "Clusters of slices per scan, one representative each, for self-learning.", ge=2, le=64)
    min_content: float = param(
        0.15,
        "A slice whose contrast is below this share of the scan's typical slice is background and never suggested.",
        ge=0.0,
        le=1.0,
    )
    least_gain: float = param(
        0.005,
        "Painting one more slice is worth it where it is expected to raise the Dice coefficient by this much.",
        ge=0.0,
        le=1.0,
    )


@dataclass(frozen=True)
class PropagationConfig(Config):
    """Attention and propagation (paper 1.2 and 1.5)."""

    window: int = param(
        13, "Side P of the square of reference positions that a position may copy from, odd.", ge=3, le=63
    )
    end_area: float = param(
        0.02,
        "A label has ended where its area falls below this share of its area on the slice it was painted on.",
        ge=0.0,
        le=1.0,
    )
    end_agreement: float = param(
        0.3,
        "A label has ended where forward-backward agreement of one step, averaged over the label, falls below this.",
        ge=0.0,
        le=1.0,
    )

    support: float = param(
        0.83,
        "A refined label loses a connected part to which less was copied than this share of what is usual for the "
        "label. It stops a label that jumps over to something alike; at 0 nothing is lost.",
        ge=0.0,
        le=1.0,
    )
    least_support: float = param(
        0.42, "A refined label loses a connected part to which less than this was copied.", ge=0.0, le=1.0
    )
    keep_odds: float = param(
        0.0,
        "Log-odds above which a connected part of a refined label stays, where the weights have learned to tell; 0 is "
        "an even chance, and the support then has no say.",
        ge=-20.0,
        le=20.0,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.window % 2 == 0:
            raise InputError(f"PropagationConfig.window must be odd, got {self.window}.")


@dataclass(frozen=True)
class AnatomyConfig(Config):
    """Generated anatomy: what the volumes that the default weights learn from look like."""

    slices: int = param(12, "Slices of a generated volume.", ge=3, le=256)
    size: int = param(160, "Rows and columns of a generated volume, in working pixels.", ge=32, le=512)
    regions: tuple[int, int] = param((4, 14), "Least and greatest number of touching background regions.", ge=1, le=64)
    organs: tuple[int, int] = param(
        (3, 10), "Least and greatest number of organs: bodies that begin and end.", ge=0, le=64
    )
    vessels: tuple[int, int] = param((1, 5), "Least and greatest number of tubes.", ge=0, le=64)
    situations: tuple[int, int] = param(
        (1, 4),
        "Least and greatest number of hard situations: neighbours that look alike, walls round a cavity, bowel, long "
        "tubes, organs that split, thin sheets.",
        ge=0,
        le=64,
    )
    rims: float = param(0.35, "Chance that an organ has a thin rim of another tissue.", ge=0.0, le=1.0)
    bodies: float = param(
        0.5,
        "Chance that a volume is a body in air, with organs in fat; otherwise touching regions fill it.",
        ge=0.0,
        le=1.0,
    )
    slices_per_size: tuple[float, float] = param(
        (0.12, 0.8),
        "Slices that an organ spans per working pixel of its diameter: small for thick slices, large for thin ones.",
        ge=0.01,
        le=4.0,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("regions", "organs", "vessels", "situations", "slices_per_size"):
            low, high = getattr(self, name)
            if low > high:
                raise InputError(f"AnatomyConfig.{name} must give the least value first, got {low}, {high}.")


@dataclass(frozen=True)
class TrainingConfig(Config):
    """Learning from generated anatomy: labels are copied through short sequences of slices."""

    steps: int = param(1000, "Optimisation steps.", ge=1, le=10_000_000)
    batch: int = param(3, "Sequences per step.", ge=1, le=256)
    sequence: int = param(
        4, "Slices of a sequence; the first is painted, the others are reached one after the other.", ge=2, le=16
    )
    crop: int = param(128, "Rows and columns of the training crops, in working pixels.", ge=32, le=512)
    learning_rate: float = param(1e-3, "Peak learning rate of Adam; it falls to zero along a cosine.", ge=0.0, le=1.0)
    foreground: float = param(0.5, "Share of regions that count as painted; all others are background.", ge=0.0, le=1.0)
    seed: int = param(0, "Seed of everything random.", ge=0)


@dataclass(frozen=True)
class RefiningConfig(Config):
    """Learning to refine copied labels, on generated anatomy and with the features as they are."""

    steps: int = param(1000, "Optimisation steps.", ge=1, le=10_000_000)
    batch: int = param(3, "Runs of slices per step.", ge=1, le=256)
    per_volume: int = param(3, "Runs that are cut from one generated volume.", ge=1, le=256)
    steps_along: tuple[int, int] = param(
        (4, 12), "Least and greatest number of slices that labels are carried through.", ge=1, le=64
    )
    slices: int = param(16, "Slices of the generated volumes.", ge=3, le=256)
    gradient_steps: int = param(
        12, "Slices that the gradient goes back through; a longer run is cut there, and goes on.", ge=1, le=64
    )
    objects: int = param(4, "Greatest number of painted objects.", ge=1, le=32)
    merging: float = param(
        0.3, "Chance, twice for each object, that a smaller region beside or within it joins it.", ge=0.0, le=1.0
    )
    hard_cases: float = param(
        4.0,
        "How many times as often as any region an object of a hard situation is painted: one with a neighbour that "
        "looks alike, a wall, bowel, a long tube.",
        ge=0.0,
        le=100.0,
    )
    lone: float = param(
        0.75, "Chance that an object is painted without the neighbours that look like it.", ge=0.0, le=1.0
    )
    crop: int = param(128, "Rows and columns of the crops, in working pixels.", ge=32, le=512)
    learning_rate: float = param(1e-3, "Peak learning rate of Adam; it falls to zero along a cosine.", ge=0.0, le=1.0)
    seed: int = param(0, "Seed of everything random.", ge=0)


@dataclass(frozen=True)
class SelfLearningConfig(Config):
    """Learning from scans without labels (paper 1.6 and 2.2)."""

    objective: Literal["reconstruction", "supervoxels", "both"] = param(
        "reconstruction",
        "What is learned: reconstruction (of one slice's grey values from another, as in the paper), supervoxels "
        "(whose labels are carried through sequences of slices), or both in turn.",
    )
    epochs: int = param(6, "Epochs; after each, the learning rate is halved.", ge=1, le=1000)
    epoch_steps: int = param(
        500,
        "Optimisation steps of an epoch, spread evenly over the scans. Representative slices are chosen anew in each.",
        ge=1,
        le=1_000_000,
    )
    batch: int = param(2, "Pairs of slices per step.", ge=1, le=256)
    learning_rate: float = param(1e-4, "Learning rate of Adam in the first epoch.", ge=0.0, le=1.0)
    screening: bool = param(True, "Whether pairs come from the representative slices, not from random ones.")
    first_weight: float = param(
        0.9,
        "Scheduled sampling: weight of copying from a true slice when the training begins; the rest goes to copying "
        "from a slice that is itself a copy. With 1, and 1 at the end, there is no scheduled sampling.",
        ge=0.0,
        le=1.0,
    )
    last_weight: float = param(
        0.5, "Scheduled sampling: the same weight when the training ends; it changes evenly.", ge=0.0, le=1.0
    )
    cycle_weight: float = param(
        0.1, "Weight of cycle consistency, of which 0 is without; the reconstruction has the rest.", ge=0.0, le=1.0
    )
    seed: int = param(0, "Seed of everything random.", ge=0)


@dataclass(frozen=True)
class AdaptConfig(Config):
    """Learning from the very scan that is to be labelled."""

    minutes: float = param(5.0, "Time to learn for, in minutes, preparations included.", ge=0.01, le=10_000.0)
    objective: Literal["reconstruction", "supervoxels", "both"] = param(
        "supervoxels",
        "What is learned: supervoxels (whose labels are carried through sequences of slices), reconstruction (of one "
        "slice's grey values from another, as in the paper), or both in turn.",
    )
    learning_rate: float = param(1e-4, "Peak learning rate of Adam; it falls to zero along a cosine.", ge=0.0, le=1.0)
    seed: int = param(0, "Seed of everything random.", ge=0)
