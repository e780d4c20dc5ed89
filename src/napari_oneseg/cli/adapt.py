"""``oneseg adapt``: weights that know the scan to be labelled."""

from __future__ import annotations

import time

from napari_oneseg.cli.console import progress_bar
from napari_oneseg.cli.learning import (
    Output,
    PrecisionName,
    check_training_outputs,
    loss_progress,
    retyped,
    save_training,
)
from napari_oneseg.cli.options import (
    Axis,
    Device,
    Frame,
    Image,
    Json,
    Overwrite,
    SeriesName,
    Spacing,
    Threads,
    WeightsFile,
    config_options,
    parse_axis,
    parse_spacing,
)
from napari_oneseg.config import AdaptConfig

__all__ = ["command"]


@config_options("adapting", AdaptConfig)
def command(
    image: Image,
    output: Output,
    adapting: AdaptConfig,
    overwrite: Overwrite = False,
    axis: Axis = None,
    frame: Frame = None,
    series: SeriesName = None,
    spacing: Spacing = None,
    weights: WeightsFile = None,
    device: Device = "auto",
    precision: PrecisionName = "auto",
    threads: Threads = None,
    as_json: Json = False,
) -> None:
    """Let a network learn from the very scan that is to be labelled; nothing has to be painted.

    The result fits this scan: give it to the other commands as --weights. Nothing is written before the time is up.
    """
    size = parse_spacing(spacing)
    check_training_outputs(output, [image, *([weights] if weights is not None else [])], overwrite)

    import torch

    from napari_oneseg.checkpoint import load_weights
    from napari_oneseg.device import choose_device
    from napari_oneseg.io import read_volume
    from napari_oneseg.training.adapt import adapt
    from napari_oneseg.training.record import record_of_scans, training_record

    if threads is not None:
        torch.set_num_threads(threads)
    chosen = choose_device(device)
    start = load_weights(weights)
    with progress_bar("Reading the scan"):
        volume = read_volume(image, parse_axis(axis), series, frame, size)
    clock = time.perf_counter()
    with loss_progress("Adapting") as (progress, on_loss):
        result = adapt(volume, start, adapting, device=chosen, precision=precision, progress=progress, on_loss=on_loss)
    default = AdaptConfig().to_dict()
    changed = {key: value for key, value in adapting.to_dict().items() if value != default[key]}
    provenance = {
        **record_of_scans(1, start),
        **training_record(
            result.losses,
            {"adapting": adapting},
            adapting.seed,
            retyped("oneseg adapt IMAGE" + " --weights FILE" * (weights is not None), changed),
            chosen,
            time.perf_counter() - clock,
        ),
    }
    save_training(output, result, start.preprocessing, provenance, as_json)
