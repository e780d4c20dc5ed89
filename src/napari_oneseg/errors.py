"""Errors that are shown to the user as one readable sentence.

Every message says what was expected, what came, and what to do. Code that talks to people (the command line, the
widget) catches :class:`OneSegError` and shows ``str(error)``; anything else is a defect and is left to surface.
"""

from __future__ import annotations

__all__ = [
    "AnnotationError", "Cancelled", "DeviceError", "InputError", "OneSegError", "OutputError", "SessionError",
    "WeightsError",
]  # fmt: skip


class OneSegError(Exception):
    """Base of all errors whose message is meant for the user."""


class InputError(OneSegError, ValueError):
    """A scan, a parameter or a file given by the user cannot be used."""


class AnnotationError(InputError):
    """A label image or a painted slice cannot be used with this scan."""


class OutputError(OneSegError, OSError):
    """A result could not be written; nothing half-written is left behind."""


class SessionError(OneSegError, RuntimeError):
    """A call that the session's present state does not allow."""


class DeviceError(OneSegError, RuntimeError):
    """A processor has failed, or its memory is full."""


class WeightsError(OneSegError, ValueError):
    """A weights file is missing, damaged or does not fit this version."""


class Cancelled(OneSegError):
    """Raised by a ``progress`` callable to stop a computation; the state before the call is kept."""
