"""Room for the features of large scans: in memory, or in a file that the system keeps in memory as far as it can."""

from __future__ import annotations

import math
import os
import shutil
import tempfile
import weakref
from contextlib import suppress
from pathlib import Path

import platformdirs
import torch
from torch import Tensor

__all__ = ["IN_MEMORY", "room_for"]

IN_MEMORY = 1024**3
"""Features beyond this many bytes are laid into a file, on a CPU."""

_SPARE = 1024**3
"""What is to stay free on the disk."""


def room_for(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device, in_memory: int = IN_MEMORY) -> Tensor:
    """Return a tensor to be filled.

    Beyond the budget it lies in a nameless file on the disk: the system takes its memory back whenever others need it,
    instead of ending the program. Without a disk that has the room it lies in memory after all.

    Parameters
    ----------
    shape, dtype, device
        Of the tensor. On a GPU it always lies in the GPU's memory.
    in_memory
        The budget in bytes.
    """
    size = math.prod(shape)
    if device.type != "cpu" or size * dtype.itemsize <= in_memory:
        return torch.empty(shape, dtype=dtype, device=device)
    with suppress(OSError):
        return _in_file(size, dtype).view(shape)
    return torch.empty(shape, dtype=dtype)


def _in_file(size: int, dtype: torch.dtype) -> Tensor:
    folder = platformdirs.user_cache_path("napari-oneseg", appauthor=False)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if shutil.disk_usage(folder).free < size * dtype.itemsize + _SPARE:
        raise OSError("The disk has too little room.")
    handle, name = tempfile.mkstemp(prefix=".oneseg-features-", dir=folder)
    path = Path(name)
    try:
        # A file with holes would end the program where the disk fills up later.
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(handle, 0, size * dtype.itemsize)
        os.close(handle)
        tensor = torch.from_file(name, shared=True, size=size, dtype=dtype)
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    try:
        path.unlink()  # it stays readable for who has it open, and goes with them, even if they are killed
    except PermissionError:  # on Windows a file that is open keeps its name
        weakref.finalize(tensor.untyped_storage(), path.unlink, missing_ok=True)
    return tensor
