"""Weights files: safetensors with the configuration they need and where they come from."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from napari_oneseg.config import FeatureConfig, PreprocessingConfig
from napari_oneseg.errors import InputError, WeightsError
from napari_oneseg.features.resnet import FeatureNetwork
from napari_oneseg.files import replacing
from napari_oneseg.native import plain_path

__all__ = ["Weights", "default_weights_path", "load_weights", "new_weights", "save_weights"]

_FORMAT = "napari-oneseg"
_FORMAT_VERSION = "1"


@dataclass(frozen=True, eq=False)
class Weights:
    """A trained network with what it needs and where it comes from.

    Attributes
    ----------
    network
        In evaluation mode, on the CPU.
    preprocessing
        The grey-value mapping and working grid that it was trained with.
    name
        The file's name.
    sha256
        Hash of the file.
    provenance
        Data, licence, command, versions: whatever was stated when the file was written.
    """

    network: FeatureNetwork
    preprocessing: PreprocessingConfig
    name: str
    sha256: str
    provenance: Mapping[str, Any]


def default_weights_path() -> Path:
    """Return the path of the weights that ship with the package."""
    return Path(str(resources.files("napari_oneseg") / "weights" / "default.safetensors"))


def save_weights(
    path: str | os.PathLike[str],
    network: FeatureNetwork,
    preprocessing: PreprocessingConfig,
    provenance: Mapping[str, Any],
) -> None:
    """Write a weights file; an existing one is replaced only when the new one is complete.

    Raises
    ------
    OutputError
        If the file cannot be written.
    """
    path = Path(path)
    content = _content(network, preprocessing, provenance)
    with replacing(path) as part:
        part.write_bytes(content)


def new_weights(
    network: FeatureNetwork, preprocessing: PreprocessingConfig, provenance: Mapping[str, Any], name: str
) -> Weights:
    """Return weights that were never in a file; their hash is that of the file :func:`save_weights` would write."""
    digest = hashlib.sha256(_content(network, preprocessing, provenance)).hexdigest()
    return Weights(network.eval().cpu(), preprocessing, name, digest, provenance)


def _content(network: FeatureNetwork, preprocessing: PreprocessingConfig, provenance: Mapping[str, Any]) -> bytes:
    """Return a weights file's content; the same weights give the same bytes."""
    tensors = {key: value.detach().cpu().contiguous() for key, value in network.state_dict().items()}
    metadata = {
        "format": _FORMAT,
        "format_version": _FORMAT_VERSION,
        "features": json.dumps(network.config.to_dict()),
        "preprocessing": json.dumps(preprocessing.to_dict()),
        "provenance": json.dumps(dict(provenance)),
    }
    content = save(tensors, metadata)
    # safetensors gives the metadata a random order: the header, JSON after its length, is written anew in a fixed one.
    length = int.from_bytes(content[:8], "little")
    header = json.dumps(json.loads(content[8 : 8 + length]), sort_keys=True, separators=(",", ":")).encode()
    header = header.ljust(-(-len(header) // 8) * 8)  # with spaces, so that the tensors stay aligned
    return len(header).to_bytes(8, "little") + header + content[8 + length :]


def load_weights(path: str | os.PathLike[str] | None = None) -> Weights:
    """Load a weights file; the default ones ship with the package.

    Raises
    ------
    WeightsError
        If the file is missing, damaged, of another program, or does not fit this version.
    """
    path = Path(path) if path is not None else default_weights_path()
    if not path.is_file():
        raise WeightsError(f"There is no weights file {path}.")
    try:
        content = path.read_bytes()
        with plain_path(path) as plain, safe_open(plain, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - not a dictionary
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"{path} is not a readable safetensors file, it may be damaged ({error}).") from error
    if metadata.get("format") != _FORMAT or metadata.get("format_version") != _FORMAT_VERSION:
        raise WeightsError(
            f"{path} holds no weights of this program: expected format {_FORMAT} {_FORMAT_VERSION}, "
            f"got {metadata.get('format', 'none')} {metadata.get('format_version', '')}."
        )
    try:
        network = FeatureNetwork(FeatureConfig.from_dict(json.loads(metadata["features"])))
        preprocessing = PreprocessingConfig.from_dict(json.loads(metadata["preprocessing"]))
        provenance = json.loads(metadata.get("provenance", "{}"))
        network.load_state_dict(tensors)
    except (KeyError, TypeError, AttributeError, json.JSONDecodeError, InputError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise WeightsError(f"The weights in {path} do not fit this version of the program: {reason}") from error
    return Weights(network.eval(), preprocessing, path.name, hashlib.sha256(content).hexdigest(), provenance)
