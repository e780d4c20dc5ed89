"""What was measured so far, kept in a JSON file, so that an interrupted program goes on where it stopped."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from napari_oneseg.evaluation.effort import EffortCurve
from napari_oneseg.evaluation.metrics import OrganScore
from napari_oneseg.evaluation.protocols import CaseResult

__all__ = ["Results", "Run", "protocol_of"]


@dataclass(frozen=True)
class Run:
    """One method, in one way of painting, on one case; without a case, the group of all such runs.

    Attributes
    ----------
    data, split
        Data set.
    protocol, slices
        Way of painting; for ``effort`` the most slices to paint.
    together
        The labels that are propagated at once; none where it is one after the other.
    method
        Method or annotator.
    weights
        SHA-256 of the weights that the result depends on, if any.
    case
        Name of the case.
    """

    data: str
    split: str
    protocol: str
    slices: int
    together: tuple[int, ...]
    method: str
    weights: str | None
    case: str = ""


class Results:
    """The runs done so far, kept in a JSON file with one run per line."""

    def __init__(self, path: Path, *, fresh: bool) -> None:
        self.path = path
        self.entries: dict[Run, dict[str, Any]] = {}
        if path.exists() and not fresh:
            for stored in json.loads(path.read_text(encoding="utf-8"))["runs"]:
                # Files from before there were other protocols and splits lack these.
                entry = {"split": "dev", "together": (), "protocol": protocol_of(stored["slices"])} | stored
                entry["together"] = tuple(entry["together"])
                self.entries[Run(**{field.name: entry[field.name] for field in fields(Run)})] = entry

    def missing(self, run: Run, labels: Sequence[int]) -> list[int]:
        """Return which labels are not scored yet."""
        done = self.entries[run]["labels"] if run in self.entries else []
        return [label for label in labels if label not in done]

    def add(self, run: Run, labels: Sequence[int], result: CaseResult) -> None:
        """Add the scores of some labels, and write the file."""
        entry = self._entry(run, labels, result.seconds)
        entry["painted"] = entry.get("painted", {}) | {str(key): list(item) for key, item in result.painted.items()}
        if result.across:
            entry["across"] = entry.get("across", {}) | {
                str(label): {str(axis): list(slices) for axis, slices in planes.items()}
                for label, planes in result.across.items()
            }
        entry["scores"] = [*entry.get("scores", []), *map(plain, result.scores)]
        self._write()

    def add_curve(self, run: Run, label: int, curve: EffortCurve | None) -> None:
        """Add the curve of a label, None where the case lacks it, and write the file."""
        entry = self._entry(run, [label], 0.0 if curve is None else curve.seconds)
        curves = entry.setdefault("curves", [])
        if curve is not None:
            curves.append({**asdict(curve), "scores": [plain(score) for score in curve.scores]})
        self._write()

    def of(self, group: Run, labels: Sequence[int]) -> list[CaseResult]:
        """Return the scores of a method on the cases of a data set, of the given labels."""
        results = []
        for run, entry in self._in(group):
            scores = tuple(score_of(values) for values in entry.get("scores", []) if values["label"] in labels)
            if scores:
                results.append(CaseResult(run.case, scores, {}, entry["seconds"]))
        return results

    def curves_of(self, group: Run, labels: Sequence[int]) -> list[EffortCurve]:
        """Return the curves of an annotator on the cases of a data set, of the given labels."""
        return [
            EffortCurve(
                run.case,
                curve["label"],
                tuple(tuple(slices) for slices in curve["painted"]),
                tuple(score_of(values) for values in curve["scores"]),
                curve["seconds"],
            )
            for run, entry in self._in(group)
            for curve in entry.get("curves", [])
            if curve["label"] in labels
        ]

    def _in(self, group: Run) -> Iterator[tuple[Run, dict[str, Any]]]:
        for run, entry in sorted(self.entries.items(), key=lambda item: item[0].case):
            if replace(run, case="") == group:
                yield run, entry

    def _entry(self, run: Run, labels: Sequence[int], seconds: float) -> dict[str, Any]:
        entry = self.entries.setdefault(run, {**asdict(run), "labels": [], "seconds": 0.0})
        entry["labels"] = sorted({*entry["labels"], *labels})
        entry["seconds"] = round(entry["seconds"] + seconds, 2)
        return entry

    def _write(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        part = self.path.with_name(self.path.name + ".part")
        lines = ",\n".join(json.dumps(entry) for entry in self.entries.values())
        part.write_text(f'{{"runs": [\n{lines}\n]}}\n', encoding="utf-8")
        part.replace(self.path)


def protocol_of(slices: int) -> str:
    """Return the protocol that paints so many slices, of those without suggestions."""
    return "largest" if slices == 1 else "evenly"


def plain(score: OrganScore) -> dict[str, float | None]:
    """Return a score as JSON can hold it, which has no NaN."""
    return {key: None if math.isnan(value) else round(value, 5) for key, value in asdict(score).items()}


def score_of(values: dict[str, Any]) -> OrganScore:
    """Return a score as it was before :func:`plain`, but for the rounding."""
    return OrganScore(**{key: math.nan if value is None else value for key, value in values.items()})
