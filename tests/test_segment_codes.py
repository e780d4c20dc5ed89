"""Names of labels and their standard codes."""

from __future__ import annotations

import pytest
from pydicom.sr._concepts_dict import concepts

from napari_oneseg import segment_codes
from napari_oneseg.colours import colour_of
from napari_oneseg.segment_codes import Segment, SegmentCode, code_of, segments_of

# Where DICOM's list of codes speaks Latin, or says more.
STEMS = {
    "aorta": "aort", "bladder": "bladder", "femur": "femur", "pancreas": "pancrea", "prostate": "prosta",
    "spleen": "spleni",
    "sacrum": "sacrum", "tumor": "tumor", "adrenal gland": "adrenal", "trachea": "trache", "sternum": "sternum",
    "portal vein": "portalvein", "left ventricle": "leftventric", "right ventricle": "rightventric",
}  # fmt: skip


def test_every_code_is_that_of_its_name() -> None:
    keywords: dict[str, list[str]] = {}
    for keyword, codes in concepts["SCT"].items():
        for code in codes:
            keywords.setdefault(code, []).append(keyword.lower())
    table = {**segment_codes._STRUCTURES, **segment_codes._ABNORMALITIES}
    wrong = [
        name
        for name, code in table.items()
        if not any(STEMS.get(name, name.replace(" ", "")) in keyword for keyword in keywords[code])
    ]
    assert wrong == []
    assert len(set(table.values())) == len(table)
    assert set(segment_codes._OTHER_NAMES.values()) <= set(table)
    assert set(segment_codes._STRUCTURES) >= segment_codes._PAIRED


@pytest.mark.parametrize("name", ["left kidney", "Kidney (left)", "kidney_LEFT", "Left Kidneys"])
def test_a_side_may_stand_anywhere(name: str) -> None:
    assert code_of(name) == SegmentCode(type=("64033007", "Kidney"), side=("7771000", "Left"))


@pytest.mark.parametrize(
    ("name", "value", "category"),
    [
        ("Liver", "10200004", "123037004"),
        ("left atrium", "82471001", "123037004"),
        ("Atrium, left", "82471001", "123037004"),
        ("Tumour", "108369006", "49755003"),
        ("IVC", "64131007", "123037004"),
    ],
)
def test_common_names_are_known(name: str, value: str, category: str) -> None:
    code = code_of(name)
    assert (code.type[0], code.category[0], code.side) == (value, category, None)


@pytest.mark.parametrize("name", ["", "left", "left liver", "left and right kidney", "Leber", "kidney 2", "?"])
def test_other_names_get_a_general_code(name: str) -> None:
    assert code_of(name) == SegmentCode() == SegmentCode(("123037004", "Anatomical Structure"), ("85756007", "Tissue"))


def test_labels_without_a_segment_are_called_by_their_number() -> None:
    liver = Segment("Liver", (1, 0, 0))
    assert segments_of([300, 0, 2], {2: liver, 7: liver}) == {2: liver, 300: Segment("Label 300", colour_of(300)[:3])}
