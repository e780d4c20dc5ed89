"""Label a 3D scan by painting one slice.

The public names are loaded when they are first used: importing the package costs neither torch nor napari.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from napari_oneseg.config import PreprocessingConfig, PropagationConfig, ScreeningConfig
    from napari_oneseg.errors import OneSegError
    from napari_oneseg.io import read_labels, read_volume, write_image, write_labels
    from napari_oneseg.session import OneSegSession
    from napari_oneseg.volume import Annotation, Volume

__version__ = "0.1.0"

__all__ = [
    "Annotation",
    "OneSegError",
    "OneSegSession",
    "PreprocessingConfig",
    "PropagationConfig",
    "ScreeningConfig",
    "Volume",
    "__version__",
    "read_labels",
    "read_volume",
    "write_image",
    "write_labels",
]

_MODULES = {
    "config": ("PreprocessingConfig", "PropagationConfig", "ScreeningConfig"),
    "errors": ("OneSegError",),
    "io": ("read_labels", "read_volume", "write_image", "write_labels"),
    "session": ("OneSegSession",),
    "volume": ("Annotation", "Volume"),
}
_HOME = {name: module for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = value  # found directly from now on
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
