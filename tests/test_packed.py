"""Packed bytes that are honest, cut off, damaged, or many more than they look."""

from __future__ import annotations

import bz2
import gzip
import tracemalloc
import zlib
from io import BytesIO

import pytest

from napari_oneseg.packed import Packing, unpacked_length

PLAIN = bytes(range(256)) * 3000


def deflated(plain: bytes) -> bytes:
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    return packer.compress(plain) + packer.flush()


PACKED: list[tuple[Packing, bytes]] = [
    ("zlib", zlib.compress(PLAIN)),
    ("zlib", gzip.compress(PLAIN)),
    ("deflate", deflated(PLAIN)),
    ("bzip2", bz2.compress(PLAIN)),
]


@pytest.mark.parametrize(("packing", "packed"), PACKED)
def test_the_length_is_that_of_the_plain_bytes(packing: Packing, packed: bytes) -> None:
    assert unpacked_length(BytesIO(packed), 1 << 30, packing) == len(PLAIN)
    assert unpacked_length(BytesIO(packed + b"more"), 1 << 30, packing) == len(PLAIN)


@pytest.mark.parametrize(("packing", "packed"), PACKED)
def test_bytes_that_are_cut_off(packing: Packing, packed: bytes) -> None:
    with pytest.raises(ValueError, match="damaged"):
        unpacked_length(BytesIO(packed[:-3]), 1 << 30, packing)


@pytest.mark.parametrize(("packing", "packed"), [PACKED[0], PACKED[1], PACKED[3]])
def test_a_wrong_byte(packing: Packing, packed: bytes) -> None:
    damaged = bytearray(packed)
    damaged[len(packed) // 2] ^= 0x55
    with pytest.raises(ValueError, match="damaged"):
        unpacked_length(BytesIO(bytes(damaged)), 1 << 30, packing)


def test_gzip_files_one_after_the_other_count_as_one() -> None:
    assert unpacked_length(BytesIO(gzip.compress(PLAIN) + gzip.compress(b"end")), 1 << 30) == len(PLAIN) + 3


@pytest.mark.parametrize("packing", ["zlib", "deflate", "bzip2"])
def test_counting_stops_and_keeps_nothing(packing: Packing) -> None:
    plain = bytes(40 << 20)
    packed = {"zlib": zlib.compress, "deflate": deflated, "bzip2": bz2.compress}[packing](plain)
    del plain
    tracemalloc.start()
    assert 20 << 20 < unpacked_length(BytesIO(packed), 20 << 20, packing) <= 22 << 20
    assert tracemalloc.get_traced_memory()[1] < 12 << 20
    tracemalloc.stop()
