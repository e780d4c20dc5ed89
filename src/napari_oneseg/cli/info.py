"""``oneseg info``: what is installed, and what it would compute with."""

from __future__ import annotations

from typing import Any

from napari_oneseg.cli.console import print_json, results_console
from napari_oneseg.cli.options import Device, Json, WeightsFile
from napari_oneseg.errors import WeightsError

__all__ = ["command"]


def command(weights: WeightsFile = None, device: Device = "auto", as_json: Json = False) -> None:
    """Show versions, the device that would compute, and where the weights come from."""
    import torch

    from napari_oneseg.checkpoint import load_weights
    from napari_oneseg.device import choose_device, describe_device
    from napari_oneseg.provenance import software_versions

    record: dict[str, Any] = {
        "versions": software_versions(),
        "device": describe_device(choose_device(device)),
        "threads": torch.get_num_threads(),
    }
    try:
        loaded = load_weights(weights)
    except WeightsError as error:
        if weights is not None:
            raise
        # An incomplete installation is what this command is there to find out.
        record["weights"] = {"error": str(error)}
    else:
        record["weights"] = {"name": loaded.name, "sha256": loaded.sha256, "provenance": dict(loaded.provenance)}
    if as_json:
        print_json(record)
        return
    from rich.table import Table

    table = Table(show_header=False)
    for package, version in record["versions"].items():
        table.add_row(package, version or "not installed")
    table.add_section()
    table.add_row("device", record["device"])
    table.add_row("CPU threads", str(record["threads"]))
    table.add_section()
    for key, value in record["weights"].items():
        if isinstance(value, dict):
            for inner, entry in value.items():
                table.add_row(f"weights: {inner}", str(entry))
        else:
            table.add_row("weights" if key == "name" else f"weights: {key}", str(value))
    results_console().print(table)
