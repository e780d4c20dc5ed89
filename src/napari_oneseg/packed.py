"""How long packed bytes become, found out without keeping them.

A file of a few kilobytes may unpack to any number of gigabytes. What hands such files to a library, which unpacks them
whole, asks here first.
"""

from __future__ import annotations

import bz2
import zlib
from collections.abc import Iterator
from typing import BinaryIO, Literal

__all__ = ["Packing", "unpacked", "unpacked_length"]

Packing = Literal["zlib", "deflate", "bzip2"]
"""``zlib`` is zlib's own form or gzip's, told apart by their first bytes; ``deflate`` has no header and no checksum."""

# Few bytes in, because what is left of them is copied for each block that comes out.
_IN, _OUT = 1 << 14, 1 << 20
_GZIP = b"\x1f\x8b"


def unpacked_length(file: BinaryIO, most: int, packing: Packing = "zlib") -> int:
    """Return how many bytes the packed rest of a file becomes; what follows the packed bytes does not count.

    Parameters
    ----------
    file
        At the first packed byte.
    most
        Where counting stops: a longer one is returned as some number above it.
    packing
        How it is packed.

    Raises
    ------
    ValueError
        If the packed bytes are cut off, are no such bytes, or fail their checksum.
    """
    length = 0
    try:
        for block in unpacked(file, packing):
            length += len(block)
            if length > most:
                break
    except (zlib.error, OSError, EOFError) as error:
        raise ValueError("damaged") from error
    return length


def unpacked(file: BinaryIO, packing: Packing) -> Iterator[bytes]:
    """Yield the packed rest of a file, unpacked, in blocks.

    Raises
    ------
    OSError, EOFError, zlib.error
        If the packed bytes are cut off, are no such bytes, or fail their checksum.
    """
    return _unbzipped(file) if packing == "bzip2" else _inflated(file, packing)


def _inflated(file: BinaryIO, packing: Packing) -> Iterator[bytes]:
    waiting = b""
    while True:
        unpacker = zlib.decompressobj(-zlib.MAX_WBITS if packing == "deflate" else zlib.MAX_WBITS | 32)
        while not unpacker.eof:
            block = unpacker.unconsumed_tail or waiting or file.read(_IN)
            waiting = b""
            inflated = unpacker.decompress(block, _OUT)
            if not block and not inflated:
                raise EOFError
            yield inflated
        # Files of gzip may follow each other, and count as one.
        waiting = unpacker.unused_data or file.read(_IN)
        if packing == "deflate" or not waiting.startswith(_GZIP):
            return


def _unbzipped(file: BinaryIO) -> Iterator[bytes]:
    # Python's own file also reads what several processors have packed, one part after the other.
    with bz2.BZ2File(file) as unpacker:
        while block := unpacker.read(_OUT):
            yield block
