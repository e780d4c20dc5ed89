"""Features on disk, so that a scan that was open before opens at once.

Strategy. A file is named by a hash over all that its content depends on; no file is ever changed, so two programs that
write the same one write the same. Only what takes time to compute is stored; the rest follows from the scan and the
weights, and the shapes are checked against them. A checksum over the whole file is compared before it is used, by plain
reading: where a disk fails, that is an error to be caught, while reading through a memory map would end the program.
Only then is the file mapped. Whatever goes wrong with the cache, the features are computed, as without one.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import re
import shutil
import time
import warnings
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import IO

import platformdirs
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from napari_oneseg import __version__
from napari_oneseg.config import PreprocessingConfig
from napari_oneseg.device import gpu_failure
from napari_oneseg.features.extractor import FeatureStack, restore_features
from napari_oneseg.features.resnet import FeatureNetwork
from napari_oneseg.files import replacing, tidy
from napari_oneseg.native import plain_path
from napari_oneseg.volume import Volume

__all__ = ["FeatureCache", "user_cache"]

_FORMAT_VERSION = "2"
"""To be raised whenever the same scan and the same weights give other features than before."""

_LIMIT = 4 * 1024**3
_LARGEST_SHARE = 0.5
"""A scan that would take more of the cache than this is not kept: it would push out most others."""
_SPARE = 1024**3
"""What is left of the disk, in bytes; other programs need it more."""
_BLOCK = 1 << 20
_ALIGNMENT = 64
_TYPES = {torch.float16: "F16", torch.float32: "F32"}
_NAME = re.compile(r"[0-9a-f]{64}\.safetensors")


class FeatureCache:
    """Keeps features in a folder that several programs may use at once; the least recently used ones go first.

    Parameters
    ----------
    folder
        Where the files lie; it is made when it is needed.
    limit
        Space that they may take together, in bytes.
    """

    def __init__(self, folder: Path, limit: int = _LIMIT) -> None:
        self.folder = folder
        self.limit = limit
        self._warned = False

    def load(
        self,
        volume: Volume,
        network: FeatureNetwork,
        preprocessing: PreprocessingConfig,
        weights: str,
        device: torch.device,
        progress: Callable[[int, int], None] | None = None,
    ) -> FeatureStack | None:
        """Return the features of a scan as they were computed before; None if they are not there.

        On a CPU they are read from the disk as they are needed.

        Parameters
        ----------
        volume, network, preprocessing, device, progress
            As for :func:`~napari_oneseg.features.extractor.compute_features`.
        weights
            Hash of the network's weights file.
        """
        key = _key(volume, preprocessing, weights, device)
        path = self._path(key)
        try:
            if not _is_sound(path, key, volume.n_slices, progress):
                _delete(path)
                return None
            with plain_path(path) as plain, safe_open(plain, framework="pt") as file:
                arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dictionary
        except SafetensorError:
            _delete(path)
            return None
        except (OSError, RuntimeError):  # not there, not to be read, or just deleted by another program
            return None
        try:
            features = restore_features(volume, network, preprocessing, device, arrays)
        except RuntimeError as error:
            if gpu_failure(error, device) is None:
                raise
            return None  # computing them knows what to do without the GPU
        if features is None:
            _delete(path)
        else:
            _touch(path)
        return features

    def save(self, volume: Volume, preprocessing: PreprocessingConfig, weights: str, features: FeatureStack) -> None:
        """Keep features that were computed; in any thread, while they are used.

        Warns
        -----
        UserWarning
            The first time that they cannot be written.
        """
        key = _key(volume, preprocessing, weights, features.maps.device)
        path, arrays = self._path(key), features.arrays()
        size = sum(array.nbytes for array in arrays.values())
        if size > _LARGEST_SHARE * self.limit or _touch(path):
            return
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self.prune(self.limit - size)
            if shutil.disk_usage(self.folder).free > size + _SPARE:
                with replacing(path, durable=False) as part, part.open("wb") as file:
                    _write(file, key, arrays)
        except RuntimeError as error:
            if gpu_failure(error, features.maps.device) is None:
                raise  # else there is nothing left to keep
        except OSError as error:
            if not self._warned:
                self._warned = True
                reason = getattr(error.__cause__ or error, "strerror", None) or "the folder cannot be used"
                warnings.warn(
                    f"The features of this scan could not be kept on disk ({reason}); opening it again will take as "
                    "long as this time.",
                    stacklevel=2,
                )

    def prune(self, limit: int | None = None) -> None:
        """Delete what was not used for longest until the rest fits, and what killed programs have left half written.

        Parameters
        ----------
        limit
            Space that the rest may take, in bytes; by default the cache's own.
        """
        tidy(self.folder)
        left = self.limit if limit is None else limit
        files = [path for path in self.folder.glob("*.safetensors") if _NAME.fullmatch(path.name)]
        for path in sorted(files, key=_used, reverse=True):
            with suppress(FileNotFoundError):  # another program was faster
                left -= path.stat().st_size
                if left < 0:
                    _delete(path)

    def _path(self, key: str) -> Path:
        return self.folder / f"{key}.safetensors"


@functools.cache
def user_cache() -> FeatureCache | None:
    """Return the user's own cache, in the system's folder for such files or in the folder that ``ONESEG_CACHE`` names.

    None where ``ONESEG_CACHE`` is ``off``.
    """
    chosen = os.environ.get("ONESEG_CACHE", "")
    if chosen.lower() == "off":
        return None
    folder = Path(chosen) if chosen else platformdirs.user_cache_path("napari-oneseg", appauthor=False)
    return FeatureCache(folder / "features")


def _key(volume: Volume, preprocessing: PreprocessingConfig, weights: str, device: torch.device) -> str:
    """Return a hash over all that decides the features, down to the last digit."""
    parts = {
        "scan": [volume.content_hash, volume.padding],
        "weights": weights,
        "preprocessing": preprocessing.to_dict(),
        "versions": [_FORMAT_VERSION, __version__, torch.__version__],
        "device": device.type,
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _write(file: IO[bytes], key: str, arrays: Mapping[str, Tensor]) -> None:
    """Write a safetensors file slice by slice, so that features on a GPU need no second copy in memory."""
    # First without the checksum, which is known at the end and takes the same room.
    file.write(_header(key, arrays, 0))
    checksum = 0
    for array in arrays.values():
        for image in array:
            block = image.detach().cpu().contiguous().numpy().data
            checksum = zlib.crc32(block, checksum)
            file.write(block)
    file.seek(0)
    file.write(_header(key, arrays, checksum))


def _header(key: str, arrays: Mapping[str, Tensor], checksum: int) -> bytes:
    header: dict[str, object] = {"__metadata__": {"key": key, "crc32": f"{checksum:08x}"}}
    begin = 0
    for name, array in arrays.items():
        end = begin + array.nbytes
        header[name] = {"dtype": _TYPES[array.dtype], "shape": list(array.shape), "data_offsets": [begin, end]}
        begin = end
    text = json.dumps(header).encode()
    text = text.ljust(-(-(len(text) + 8) // _ALIGNMENT) * _ALIGNMENT - 8)
    return len(text).to_bytes(8, "little") + text


def _is_sound(path: Path, key: str, slices: int, progress: Callable[[int, int], None] | None) -> bool:
    """Return whether a file is the one that was written under this key, to the last byte."""
    with path.open("rb", buffering=0) as file:
        length = int.from_bytes(file.read(8), "little")
        if length > _BLOCK:
            return False
        try:
            metadata = json.loads(file.read(length))["__metadata__"]
        except (ValueError, KeyError, TypeError):
            return False
        size, checksum = os.fstat(file.fileno()).st_size, 0
        for block in _blocks(file):
            checksum = zlib.crc32(block, checksum)
            if progress is not None:
                progress(slices * file.tell() // size, slices)
    return bool(metadata == {"key": key, "crc32": f"{checksum:08x}"})


def _blocks(file: IO[bytes]) -> Iterator[memoryview]:
    buffer = memoryview(bytearray(_BLOCK))
    while count := file.readinto(buffer):  # type: ignore[attr-defined]  # a raw file has it
        yield buffer[:count]


def _used(path: Path) -> float:
    """Return when a file was used last, in seconds since the epoch; now, if it has just gone."""
    with suppress(FileNotFoundError):
        return path.stat().st_mtime
    return time.time()


def _touch(path: Path) -> bool:
    """Say that a file was used; return whether it is there."""
    with suppress(OSError):
        os.utime(path)
        return True
    return False


def _delete(path: Path) -> None:
    with suppress(OSError):  # in use, where that keeps it from being deleted, or in a folder that is not ours to change
        path.unlink(missing_ok=True)
