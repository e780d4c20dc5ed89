"""Which processor computes, and what to do when it fails or its memory is full."""

from __future__ import annotations

import torch

from napari_oneseg.errors import DeviceError, InputError

__all__ = [
    "choose_device", "describe_device", "gpu_failure", "has_fast_bfloat16", "is_out_of_memory",
    "memory_or_device_error",
]  # fmt: skip

_FAILED = (
    "cuda error", "cuda driver", "cuda gpus", "cudnn error", "cudnn_status", "cublas_status", "hip error",
    "command buffer exited",
)  # fmt: skip
"""What errors of CUDA, its libraries, ROCm and MPS say in lower case when the device, or its driver, works no more."""


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


def has_fast_bfloat16() -> bool:
    """Return whether the CPU multiplies in bfloat16: newer x86 processors do, others only imitate it, slowly."""
    # Not torch.ops.mkldnn._is_mkldnn_bf16_supported: that one also says yes where oneDNN imitates it.
    capable = getattr(torch.cpu, "get_capabilities", dict[str, bool])()
    return any(capable.get(name, False) for name in ("avx512_bf16", "amx_bf16"))


def is_out_of_memory(error: RuntimeError) -> bool:
    """Return whether an error says that a GPU's memory is full; MPS raises no class of its own."""
    text = str(error).lower()
    # A full GPU may also refuse the working memory of its matrix library (CUBLAS_STATUS_ALLOC_FAILED).
    return isinstance(error, torch.OutOfMemoryError) or "out of memory" in text or "status_alloc_failed" in text


def gpu_failure(error: RuntimeError, device: torch.device) -> str | None:
    """Say, as a sentence for the user, that a GPU is full or has failed, and that the CPU takes over.

    What lies in the memory of one that has failed cannot be read any more.

    Returns
    -------
    None if the device is a CPU, or the error has nothing to do with it.
    """
    if device.type == "cpu":
        return None
    if is_out_of_memory(error):
        return f"The memory of {device} is full; the CPU is used instead, which is slower."
    if not _has_failed(error):
        return None
    return (
        f"{device} has failed ({_first_line(error)}); the CPU is used instead, which is slower. Nothing was lost. "
        "Start the program anew to use the GPU again."
    )


def memory_or_device_error(error: BaseException) -> DeviceError | None:
    """Return an error that says what a user can do where memory is full or a GPU has failed; None for other errors."""
    text = str(error).lower()
    if isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and "allocate memory" in text):
        return DeviceError(
            "The computer's memory is full. Close other scans and programs, then try again; nothing that was painted "
            "is lost."
        )
    if isinstance(error, RuntimeError) and (is_out_of_memory(error) or _has_failed(error)):
        full = is_out_of_memory(error)
        what = "The GPU's memory is full" if full else f"The GPU has failed ({_first_line(error)})"
        return DeviceError(f"{what}. Choose the CPU as the device, then try again; nothing that was painted is lost.")
    return None


def _has_failed(error: RuntimeError) -> bool:
    # The class came with torch 2.8.
    kind = getattr(torch, "AcceleratorError", None)
    text = str(error).lower()
    return (kind is not None and isinstance(error, kind)) or any(word in text for word in _FAILED)


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0].strip().rstrip(".")
