"""Paint one slice of a scan, and let the network label the others.

The scan is the built-in sample, whose true labels are known: they stand in for the clinician's brush, and tell at the
end how well the other slices were labelled.

    python examples/01_paint_one_slice.py [folder for the result]
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from napari_oneseg import OneSegSession, write_labels
from napari_oneseg.evaluation.metrics import dice
from napari_oneseg.phantom import phantom


def main(folder: Path) -> None:
    """Label the sample from one painted slice and write the result into ``folder``."""
    sample = phantom(seed=0)
    truth = sample.volume.to_slices(sample.labels)

    session = OneSegSession()
    session.set_volume(sample.volume)
    best = session.suggest_slices(top=1)[0]
    session.annotate(best.index, truth[best.index])
    result = session.propagate()

    print(f"Painted slice {best.index} of {sample.volume.n_slices}.")
    for label, name in sample.names.items():
        if label in result.volumes_ml:
            overlap = dice(result.labels == label, truth == label)
            print(f"  {name:12s} Dice {overlap:.2f}, {result.volumes_ml[label]:.0f} mL")
        else:
            print(f"  {name:12s} not on the painted slice")

    path = folder / "sample_labels.nii.gz"
    write_labels(path, sample.volume.from_slices(result.labels), sample.volume)
    print(f"Labels written to {path}.")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(tempfile.mkdtemp(prefix="oneseg-")))
