"""Write the files that the how-to pages use, made from the built-in sample.

One scan with one painted slice, and two further scans with their true labels:

    scan.nii.gz  painted.nii.gz
    scans/one.nii.gz  scans/two.nii.gz
    references/one.nii.gz  references/two.nii.gz

    python examples/02_files_to_try.py [folder for the files, by default try]
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from napari_oneseg import write_image, write_labels
from napari_oneseg.phantom import phantom

PAINTED = 18
"""The slice that ``oneseg suggest scan.nii.gz --range 13:22`` names."""


def main(folder: Path) -> None:
    """Write all files into ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    sample = phantom(seed=0)
    write_image(folder / "scan.nii.gz", sample.volume.array.astype(np.float32), sample.volume)
    painted = np.zeros_like(sample.labels)
    painted[PAINTED] = sample.labels[PAINTED]
    write_labels(folder / "painted.nii.gz", painted, sample.volume)
    for seed, name in ((1, "one"), (2, "two")):
        sample = phantom(seed)
        for kind in ("scans", "references"):
            (folder / kind).mkdir(exist_ok=True)
        write_image(folder / "scans" / f"{name}.nii.gz", sample.volume.array.astype(np.float32), sample.volume)
        write_labels(folder / "references" / f"{name}.nii.gz", sample.labels, sample.volume)
    print(f"Written to {folder}: one scan with slice {PAINTED} painted, two scans with references.")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path("try"))
