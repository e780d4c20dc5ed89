"""What a label stands for: its name, its colour, and the standard code of common names.

Codes are those of SNOMED CT that DICOM uses (PS3.16, context groups 7150 to 7199), so that other programs know a liver
for a liver whatever its label is called.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from napari_oneseg.colours import colour_of

__all__ = ["Segment", "SegmentCode", "code_of", "segments_of"]

Concept = tuple[str, str]
"""Code value and meaning in SNOMED CT."""

_STRUCTURE: Concept = ("123037004", "Anatomical Structure")
_ABNORMAL: Concept = ("49755003", "Morphologically Abnormal Structure")
_TISSUE: Concept = ("85756007", "Tissue")
_SIDES: dict[str, Concept] = {"left": ("7771000", "Left"), "right": ("24028007", "Right")}


@dataclass(frozen=True)
class SegmentCode:
    """What a label shows, in standard codes.

    Parameters
    ----------
    category
        What kind of thing it is.
    type
        What it is.
    side
        On which side of the body, for organs that come in pairs.
    """

    category: Concept = _STRUCTURE
    type: Concept = _TISSUE
    side: Concept | None = None


@dataclass(frozen=True)
class Segment:
    """How a label is called and shown.

    Parameters
    ----------
    name
        As the user gave it.
    colour
        Red, green, blue, each 0 to 1.
    code
        What it shows; by default what :func:`code_of` knows of the name.
    """

    name: str
    colour: tuple[float, float, float]
    code: SegmentCode | None = None


_STRUCTURES = {
    "adrenal gland": "23451007", "amygdala": "4958002", "aorta": "15825003", "bladder": "89837001",
    "bone": "272673000", "brain": "12738006", "cerebellum": "113305005", "colon": "71854001", "duodenum": "38848004",
    "esophagus": "32849002", "eye": "81745001", "femur": "71341001", "gallbladder": "28231008", "heart": "80891009",
    "hippocampus": "5366008", "inferior vena cava": "64131007", "kidney": "64033007", "left atrium": "82471001",
    "left ventricle": "87878005", "liver": "10200004", "lung": "39607008", "mandible": "91609006",
    "pancreas": "15776009", "parotid gland": "45289007", "portal vein": "32764006", "prostate": "41216001",
    "rectum": "34402009", "right atrium": "73829009", "right ventricle": "53085002", "sacrum": "54735007",
    "small intestine": "30315005", "spinal cord": "2748008", "spleen": "78961009", "sternum": "56873002",
    "stomach": "69695003", "thyroid": "69748006", "trachea": "44567001", "uterus": "35039007", "vertebra": "51282000",
}  # fmt: skip
_ABNORMALITIES = {
    "cyst": "367643001", "edema": "79654002", "lesion": "52988006", "mass": "4147007", "necrosis": "6574001",
    "tumor": "108369006",
}  # fmt: skip
_PAIRED = {"adrenal gland", "amygdala", "eye", "femur", "hippocampus", "kidney", "lung", "parotid gland"}
_OTHER_NAMES = {
    "adrenal": "adrenal gland", "atrium left": "left atrium", "atrium right": "right atrium",
    "gall bladder": "gallbladder", "hippocampi": "hippocampus", "ivc": "inferior vena cava", "kidneys": "kidney",
    "lungs": "lung", "neoplasm": "tumor", "oedema": "edema", "oesophagus": "esophagus", "parotid": "parotid gland",
    "thyroid gland": "thyroid", "tumour": "tumor", "urinary bladder": "bladder", "ventricle left": "left ventricle",
    "ventricle right": "right ventricle",
}  # fmt: skip


def code_of(name: str) -> SegmentCode:
    """Return the standard code of a name in English, with or without a side; a general one for any other name.

    Case, punctuation and the side's place do not matter: "Kidney (left)", "left_kidney".
    """
    words = re.findall(r"[^\W_]+", name.lower())
    found = _known(" ".join(words))
    if found is not None:
        return found
    sides = [word for word in words if word in _SIDES]
    organ = " ".join(word for word in words if word not in _SIDES)
    organ = _OTHER_NAMES.get(organ, organ)
    if len(sides) == 1 and organ in _PAIRED:
        return SegmentCode(_STRUCTURE, _concept(organ, _STRUCTURES), _SIDES[sides[0]])
    return SegmentCode()


def segments_of(labels: Iterable[int], segments: Mapping[int, Segment]) -> dict[int, Segment]:
    """Return the segment of each label, ascending; labels without one are called by their number."""
    return {
        label: segments.get(label) or Segment(f"Label {label}", colour_of(label)[:3])
        for label in sorted(labels)
        if label
    }


def _known(name: str) -> SegmentCode | None:
    name = _OTHER_NAMES.get(name, name)
    if name in _STRUCTURES:
        return SegmentCode(_STRUCTURE, _concept(name, _STRUCTURES))
    if name in _ABNORMALITIES:
        return SegmentCode(_ABNORMAL, _concept(name, _ABNORMALITIES))
    return None


def _concept(name: str, table: Mapping[str, str]) -> Concept:
    return table[name], name.capitalize()
