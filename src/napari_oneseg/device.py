"""Which processor computes, and what to do when its memory is full."""

from __future__ import annotations

import torch

from napari_oneseg.errors import InputError

__all__ = ["choose_device", "describe_device", "is_out_of_memory"]


def choose_device(name: str = "auto") -> torch.device:
    """Return the device to compute on.

    Parameters
    ----------
    name
        ``auto`` takes CUDA, then Apple's MPS, then the CPU; otherwise a torch device name: ``cpu``, ``cuda:1``.

    Raises
    ------
    InputError
        If the name is unknown or this machine has no such device.
    """
    available = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if name == "auto":
        return torch.device(next(kind for kind in ("cuda", "mps", "cpu") if available[kind]))
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    if device is None or device.type not in available:
        raise InputError(f"Unknown device {name!r}: expected auto, cpu, cuda, cuda:N or mps.")
    count = torch.cuda.device_count() if device.type == "cuda" else 1
    if not available[device.type] or (device.index or 0) >= count:
        usable = ", ".join(kind for kind, there in available.items() if there)
        raise InputError(f"Device {name!r} is not available on this machine, which has: {usable}. Use auto.")
    return device


def describe_device(device: torch.device) -> str:
    """Return a device's name as a person knows it."""
    if device.type == "cuda":
        return f"{device} ({torch.cuda.get_device_name(device)})"
    if device.type == "cpu":
        return f"cpu ({torch.get_num_threads()} threads)"
    return str(device)


def is_out_of_memory(error: RuntimeError) -> bool:
    """Return whether an error says that a GPU's memory is full; MPS raises no class of its own."""
    text = str(error).lower()
    # A full GPU may also refuse the working memory of its matrix library (CUBLAS_STATUS_ALLOC_FAILED).
    return isinstance(error, torch.OutOfMemoryError) or "out of memory" in text or "status_alloc_failed" in text
