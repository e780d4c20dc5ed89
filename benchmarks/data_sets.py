"""The real scans that the benchmarks know, and where they lie."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from napari_oneseg.errors import InputError
from napari_oneseg.evaluation.cases import CaseFiles, find_cases

__all__ = ["ROOT", "SETS", "DataSet", "cases_of", "data_folder"]

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class DataSet:
    """A data set's organs; the headline mean is taken over ``headline``, the others are reported beside it."""

    headline: dict[int, str]
    others: dict[int, str]


SETS = {
    "chaos_mr_t2": DataSet({1: "liver", 2: "right kidney", 3: "left kidney", 4: "spleen"}, {}),
    "btcv_ct": DataSet(
        {1: "spleen", 2: "right kidney", 3: "left kidney", 6: "liver", 7: "stomach", 8: "aorta"},
        {
            4: "gallbladder",
            5: "esophagus",
            9: "inferior vena cava",
            10: "portal and splenic vein",
            11: "pancreas",
            12: "right adrenal",
            13: "left adrenal",
        },
    ),
    "la_lge": DataSet({1: "left atrium"}, {}),
    "msd_hippocampus": DataSet({1: "anterior hippocampus", 2: "posterior hippocampus"}, {}),
    "ircadb_ct": DataSet({1: "liver"}, {2: "tumours", 3: "portal vein", 4: "venous system", 5: "artery", 6: "bone"}),
}


def data_folder() -> Path:
    """Return the folder of real scans."""
    folder = Path(os.environ.get("ONESEG_DATA") or ROOT.parent / "shared" / "data")
    if not folder.is_dir():
        raise InputError(f"This benchmark needs real scans, and there is no folder {folder}. Set ONESEG_DATA to one.")
    return folder


def cases_of(name: str, split: str) -> list[CaseFiles]:
    """Return the cases of a data set, none where it is not at hand.

    Parameters
    ----------
    name
        One of :data:`SETS`.
    split
        ``dev`` or ``train``.
    """
    folder = data_folder() / name / split
    return find_cases(folder / "images", folder / "labels") if folder.is_dir() else []
