"""How the processor's cores are shared with the rest of the computer."""

from __future__ import annotations

import os

__all__ = ["wait_politely"]


def wait_politely() -> None:
    """Have torch's threads sleep while they wait for each other; to be called before torch is imported.

    By default they spin. That is a little faster on a computer that does nothing else, but where another program or the
    window itself needs one of two cores, each of the many short waits lasts until the system takes the core away: the
    features of a scan then take four times as long. Whatever the user has set is left.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("GOMP_SPINCOUNT", "0")  # GNU's library, in torch for Linux
    os.environ.setdefault("KMP_BLOCKTIME", "0")  # Intel's and LLVM's, in torch for Windows and macOS
