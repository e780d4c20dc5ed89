"""Whether a label lands where it was painted, in millimetres of the patient: ``make bench-geometry``.

Each case is a scan of its own, written by nibabel, SimpleITK or pydicom. It is opened, turned and shown as the widget
does it; blobs are painted around places in the patient, on one or two slices; their labels are propagated, and the
labels exported. Then other programs read the file: nibabel and SimpleITK, or pydicom and highdicom for a DICOM
segmentation. At every voxel of the scan they must find what was on screen at that place of the patient, and on the
voxels that were painted, what was painted there.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pydicom
import SimpleITK as sitk
import torch
from napari.layers import Image
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).parent))
from geometry_cases import KINDS, LPS_TO_RAS, OTHER_READER, Case, make_case, write_scan

from napari_oneseg.checkpoint import Weights
from napari_oneseg.config import FeatureConfig, PreprocessingConfig
from napari_oneseg.features.resnet import FeatureNetwork
from napari_oneseg.io import read_volume, write_labels
from napari_oneseg.plugin.export import export_labels
from napari_oneseg.plugin.scan_layer import OpenScan, describe_layer, open_snapshot, scan_layer_data
from napari_oneseg.session import OneSegSession
from napari_oneseg.volume import Volume

Labels = NDArray[np.integer[Any]]
Found = tuple[NDArray[np.float64], Labels]
"""What a program finds in a label file: the way from its voxels (x, y, z) to the patient, 4 x 4, and their labels."""

TOLERANCE = 1e-4  # mm
SINGLE = 2.0**-22
"""Share of a coordinate that is lost where it is stored and added up in single precision, as in NIfTI."""


@dataclass
class Tally:
    """What was found in the cases of one kind.

    Attributes
    ----------
    cases, files
        Cases, and label files, most of them read by two programs.
    painted, labelled
        Voxels that were painted, and those that have a label in the end.
    compared
        All voxels, once for each file and program.
    off
        How far the grid of an exported file was from the scan's at its worst corner, both as the same program reads
        them, in mm.
    mismatches
        What was wrong, a sentence each.
    """

    cases: int = 0
    files: int = 0
    painted: int = 0
    labelled: int = 0
    compared: int = 0
    off: float = 0.0
    mismatches: list[str] = field(default_factory=list)


def small_weights() -> Weights:
    """Return a network of the shipped kind, with few channels and random numbers: it is not accuracy that counts."""
    config = FeatureConfig(
        gabor_wavelengths=(3.0, 6.0), gabor_orientations=2, gabor_size=7, width_factor=0.125, channels=16,
        null_match=False,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = FeatureNetwork(config).eval()
    return Weights(network, PreprocessingConfig(working_size=48), "small", "small", {})


def open_scan(case: Case, path: Path) -> OpenScan:
    """Open a scan as the widget does: shown as a layer, and taken from there with what is known of its file."""
    if case.kind == OTHER_READER:
        layer = _layer_of_another_reader(path)
    else:
        data, kwargs, _ = scan_layer_data(read_volume(path), "scan")
        layer = Image(data, **kwargs)
    scan = open_snapshot(replace(describe_layer(layer), path=path))
    axis = case.slice_axis
    return scan if axis is None else replace(scan, shown=replace(scan.shown, slice_axis=axis))


def _layer_of_another_reader(path: Path) -> Image:
    """Return a layer such as napari-nifti makes: in the order S, A, R, straight and mirrored, told in its metadata."""
    image = nib.as_closest_canonical(nib.load(path))
    array = np.asarray(image.dataobj).transpose(2, 1, 0)
    spacing = np.linalg.norm(image.affine[:3, :3], axis=0)[::-1]
    far = image.affine[:3, 3][::-1] + (np.array(array.shape) - 1) * spacing
    metadata = {"affine": image.affine, "spacing": spacing[::-1], "header": None, "coordinate_system": "RAS+"}
    return Image(array, rgb=False, scale=-spacing, translate=far, metadata=metadata)


def shown_at(volume: Volume, places: NDArray[np.float64]) -> NDArray[np.intp]:
    """Return which voxels (z, y, x) of the scan as it is shown lie at places of the patient, (n, 3) each."""
    matrix = np.asarray(volume.direction) * volume.spacing
    exact = np.linalg.solve(matrix, (places - volume.origin).T).T
    nearest = np.rint(exact)
    if np.abs(exact - nearest).max() > 0.1:
        raise ValueError(f"the shown grid is off by {np.abs(exact - nearest).max():.2f} voxels")
    return nearest.astype(np.intp)


def paint(case: Case, scan: OpenScan, session: OneSegSession, rng: np.random.Generator) -> dict[int, int]:
    """Paint blobs around places in the patient, on one or two slices; return the label of each painted voxel.

    Voxels are numbered as in ``case.voxels``.
    """
    places = case.places(case.voxels)
    shown = shown_at(scan.shown, places)
    painted: dict[int, int] = {}
    count = min(int(rng.integers(1, 3)), scan.shown.n_slices)
    for index in rng.choice(scan.shown.n_slices, count, replace=False):
        on_slice = np.flatnonzero(shown[:, scan.shown.axis] == index)
        for label in rng.choice([1, 2, 3, 17, 255, 256, 4711], 3, replace=False):
            centre = places[rng.choice(on_slice)]
            apart = np.linalg.norm(places[on_slice] - centre, axis=1)
            blob = on_slice[apart <= rng.uniform(0.0, 0.3) * apart.max()]
            painted |= dict.fromkeys(blob.tolist(), int(label))
        image = np.zeros(scan.shown.array.shape, np.uint16)
        numbers = [number for number in painted if shown[number, scan.shown.axis] == index]
        image[tuple(shown[numbers].T)] = [painted[number] for number in numbers]
        session.paint({int(index): scan.shown.to_slices(image)[index]})
    return painted


def run_case(case: Case, weights: Weights, tally: Tally) -> None:
    """Walk one case from the scan's file to the labels' files, and compare."""
    rng = np.random.default_rng(case.number)
    with tempfile.TemporaryDirectory(prefix="oneseg-geometry-") as name:
        folder = Path(name)
        path, values = write_scan(case, folder)
        scan = open_scan(case, path)
        voxels = case.voxels
        shown = shown_at(scan.shown, case.places(voxels))
        if not np.allclose(scan.shown.array[tuple(shown.T)], values.ravel(), rtol=1e-6):
            tally.mismatches.append("the scan is shown in a wrong place")
        session = OneSegSession(weights, "cpu")
        session.set_volume(scan.shown)
        painted = paint(case, scan, session, rng)
        on_screen = scan.shown.from_slices(session.propagate().labels)
        wanted = on_screen[tuple(shown.T)].reshape(case.array.shape)
        numbers = np.array(list(painted))
        if not np.array_equal(wanted.ravel()[numbers], list(painted.values())):
            tally.mismatches.append("propagation has changed what was painted")
        tally.cases += 1
        tally.painted += len(painted)
        tally.labelled += int(np.count_nonzero(wanted))
        for file, programs in _export(case, folder, on_screen, scan):
            tally.files += 1
            for program, read in programs.items():
                tally.compared += wanted.size
                found = _differences(read(file), wanted, case, painted)
                off, too_far = _grid_off(program, path, file, case)
                tally.off = max(tally.off, off)
                tally.mismatches += [f"{file.name} in {program}: {sentence}" for sentence in (*found, *too_far)]


def _export(
    case: Case, folder: Path, on_screen: Labels, scan: OpenScan
) -> list[tuple[Path, dict[str, Callable[[Path], Found]]]]:
    """Export as the widget does, in the case's format; and with the core's function as NIfTI, which both read."""
    both = {"nibabel": _with_nibabel, "SimpleITK": _with_simpleitk}
    file, plain = folder / f"result{case.export}", folder / "plain.nii.gz"
    record = {"label_names": {"17": "Liver"}}
    export_labels(file, on_screen, scan, record)
    write_labels(plain, on_screen, scan.shown)
    if case.export == ".seg.dcm":
        own = {"pydicom": lambda path: _with_pydicom(path, case), "highdicom": lambda path: _with_highdicom(path, case)}
    else:
        own = both if case.export.startswith(".nii") else {"SimpleITK": _with_simpleitk}
    return [(file, own), (plain, both)]


def _differences(found: Found, wanted: Labels, case: Case, painted: dict[int, int]) -> list[str]:
    """Say where a program finds other labels than were on screen at the same place of the patient."""
    frame, labels = found
    numbers = np.array(list(painted))
    sentences = []
    for what, chosen, truth in (
        ("painted", numbers, np.array(list(painted.values()))),
        ("shown", np.arange(wanted.size), wanted.ravel()),
    ):
        exact = np.linalg.solve(frame, np.c_[case.places(case.voxels[chosen]), np.ones(len(chosen))].T).T[:, :3]
        index = np.rint(exact).astype(np.intp)
        inside = ((index >= 0) & (index < labels.shape)).all(1)
        at = np.zeros(len(chosen), np.int64)
        at[inside] = labels[tuple(index[inside].T)]
        wrong = int(np.count_nonzero(at != truth)) + int(np.count_nonzero(~inside))
        if wrong:
            sentences.append(f"{wrong} of {len(chosen)} voxels differ from what was {what}")
        if np.abs(exact - index).max() > 0.1:
            sentences.append(f"{what} voxels lie up to {np.abs(exact - index).max():.3f} voxels beside the scan's")
    return sentences


def _grid_off(program: str, scan: Path, file: Path, case: Case) -> tuple[float, list[str]]:
    """Compare the grid of an exported file with the scan's, in mm at the worst corner."""
    grid: Callable[[Path], NDArray[np.float64]] = _nibabel_grid if program == "nibabel" else _simpleitk_grid
    if program in ("pydicom", "highdicom"):
        return 0.0, []  # its frames are compared with the case itself, place by place
    corners = np.array(np.meshgrid(*([0, size - 1] for size in case.array.shape))).reshape(3, -1).T
    corners = np.c_[corners, np.ones(len(corners))]
    # What the same program reads from the scan, where it can; else what the scan was made from.
    from_nifti, to_nifti = (name.endswith((".nii", ".nii.gz")) for name in (scan.name, file.name))
    readable = from_nifti if program == "nibabel" else scan.is_file() and case.kind != "NIfTI-2"
    true = grid(scan) if readable else case.frame
    off = float(np.linalg.norm((corners @ (grid(file) - true).T)[:, :3], axis=1).max())
    if from_nifti and to_nifti and case.kind != "NIfTI-2":
        allowed = 0.0  # the header is repeated bit for bit
    else:
        allowed = TOLERANCE + SINGLE * to_nifti * float(np.abs(corners @ true.T).max())
    return off, [f"its grid is off by {off:.2g} mm; {allowed:.2g} mm were expected at most"] if off > allowed else []


def _nibabel_grid(path: Path) -> NDArray[np.float64]:
    return np.asarray(LPS_TO_RAS @ nib.load(path).affine)


def _with_nibabel(path: Path) -> Found:
    return _nibabel_grid(path), np.asarray(nib.load(path).dataobj).astype(np.int64)


def _simpleitk_grid(path: Path) -> NDArray[np.float64]:
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    reader.ReadImageInformation()
    frame = np.eye(4)
    frame[:3, :3] = np.array(reader.GetDirection()).reshape(3, 3) * reader.GetSpacing()
    frame[:3, 3] = reader.GetOrigin()
    return frame


def _with_simpleitk(path: Path) -> Found:
    return _simpleitk_grid(path), sitk.GetArrayFromImage(sitk.ReadImage(str(path))).T.astype(np.int64)


def _with_pydicom(path: Path, case: Case) -> Found:
    """Put the frames where the file says that they lie."""
    image = pydicom.dcmread(path)
    frames = image.pixel_array.reshape(-1, image.Rows, image.Columns)
    shared = image.SharedFunctionalGroupsSequence[0]
    axes = np.array(shared.PlaneOrientationSequence[0].ImageOrientationPatient, float).reshape(2, 3)
    names = [_label_of(entry) for entry in image.SegmentSequence]
    step = np.array(shared.PixelMeasuresSequence[0].PixelSpacing, float)
    labels = np.zeros(case.array.shape, np.int64)
    inverse = np.linalg.inv(case.frame)
    rows, columns = np.indices(frames.shape[1:])
    for entry, frame in zip(image.PerFrameFunctionalGroupsSequence, frames, strict=True):
        corner = np.array(_group(entry, shared, "PlanePositionSequence").ImagePositionPatient, float)
        number = _group(entry, shared, "SegmentIdentificationSequence").ReferencedSegmentNumber
        places = corner + columns[frame > 0, None] * step[1] * axes[0] + rows[frame > 0, None] * step[0] * axes[1]
        exact = np.c_[places, np.ones(len(places))] @ inverse[:3].T
        index = np.rint(exact).astype(np.intp)
        if len(index) and (np.abs(exact - index).max() > 0.01 or labels[tuple(index.T)].any()):
            raise ValueError("a frame lies beside the scan's voxels, or on another segment")
        labels[tuple(index.T)] = names[number - 1]
    return case.frame, labels


def _group(entry: Any, shared: Any, name: str) -> Any:
    return getattr(entry if name in entry else shared, name)[0]


def _label_of(segment: Any) -> int:
    return int(segment.SegmentDescription.removeprefix("Label "))


def _with_highdicom(path: Path, case: Case) -> Found:
    """Have highdicom put the frames together to a volume, as large as what was labelled needs."""
    import highdicom as hd

    segmentation = hd.seg.segread(path)
    volume = segmentation.get_volume(combine_segments=True, relabel=False)
    names = np.array(
        [0, *(int(entry.SegmentDescription.removeprefix("Label ")) for entry in segmentation.SegmentSequence)]
    )
    exact = np.linalg.solve(case.frame, np.asarray(volume.affine))
    axes = np.abs(exact[:3, :3]).argmax(0)
    # Its first axis runs along the slices: the part of the scan that it covers, in the scan's own order.
    labels = np.zeros(case.array.shape, np.int64)
    held = np.argwhere(volume.array > 0)
    index = np.rint(np.c_[held, np.ones(len(held))] @ exact[:3].T).astype(np.intp)
    if sorted(axes) != [0, 1, 2]:
        raise ValueError("the axes of the volume are not the scan's")
    labels[tuple(index.T)] = names[volume.array[tuple(held.T)]]
    return case.frame, labels


def run(cases: int, first: int = 0, say: Callable[[int], None] = lambda _: None) -> dict[str, Tally]:
    """Run so many cases, and return what was found, by kind."""
    weights = small_weights()
    found = {kind: Tally() for kind in KINDS}
    for number in range(first, first + cases):
        case = make_case(number)
        tally = found[case.kind]
        before = len(tally.mismatches)
        try:
            run_case(case, weights, tally)
        except Exception as error:  # noqa: BLE001 - any of them is a finding, and the other cases are wanted too
            tally.mismatches.append(f"{type(error).__name__}: {error}")
        tally.mismatches[before:] = [f"case {number}: {sentence}" for sentence in tally.mismatches[before:]]
        say(number)
    return found


def table(found: dict[str, Tally]) -> str:
    """Return what was found as a table in Markdown."""
    total = Tally()
    for tally in found.values():
        for name in ("cases", "files", "painted", "labelled", "compared"):
            setattr(total, name, getattr(total, name) + getattr(tally, name))
        total.off = max(total.off, tally.off)
        total.mismatches += tally.mismatches
    lines = [
        "| scan | cases | label files | painted | labelled | voxels compared | grid off by, mm | mismatches |",
        "|---" * 8 + "|",
    ]
    for name, tally in {**found, "all": total}.items():
        counts = (tally.cases, tally.files, tally.painted, tally.labelled, tally.compared)
        cells = [name, *(f"{count:,}" for count in counts), f"{tally.off:.1g}", f"{len(tally.mismatches):,}"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """Read the command line, run, print the table, and write it with every mismatch to a file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", type=int, default=2000, help="number of cases")
    parser.add_argument("--first", type=int, default=0, help="number of the first case")
    parser.add_argument("--out", type=Path, help="JSON file to write; by default benchmarks/results/geometry.json")
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    began = time.monotonic()

    def say(number: int) -> None:
        if (number + 1) % 100 == 0:
            print(f"{number + 1 - options.first} cases, {time.monotonic() - began:.0f} s", file=sys.stderr)

    found = run(options.cases, options.first, say)
    print(table(found))
    exports = Counter(make_case(number).export for number in range(options.first, options.first + options.cases))
    record = {
        "cases": options.cases,
        "first": options.first,
        "exports": dict(exports),
        "kinds": {kind: asdict(tally) for kind, tally in found.items()},
    }
    out = options.out or Path(__file__).parent / "results" / "geometry.json"
    out.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    wrong = [sentence for tally in found.values() for sentence in tally.mismatches]
    for sentence in wrong[:40]:
        print(sentence)
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
