"""Files as an accident or an attacker leaves them: honest ones, and what becomes of them (for fuzz.py)."""

from __future__ import annotations

import gzip
import io
import json
import re
import struct
import zipfile
import zlib
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pydicom
import SimpleITK as sitk
from dicom_originals import deflated_bomb, write_dicom

from napari_oneseg.checkpoint import default_weights_path, save_weights
from napari_oneseg.config import FeatureConfig, PreprocessingConfig, PropagationConfig, ScreeningConfig
from napari_oneseg.features.resnet import FeatureNetwork
from napari_oneseg.propagation.propagate import LabelledSlice
from napari_oneseg.session_file import SavedSession, save_session
from napari_oneseg.session_state import SessionState

Mutation = Callable[[np.random.Generator, bytes], bytes]

SHAPE = (10, 14, 12)
# Where counting goes wrong: signs, ends of ranges, and sizes that fit into no memory.
_NUMBERS = (0, 1, -1, 2, 127, 128, 255, 256, 32767, -32768, 65535, 2**31 - 1, -(2**31), 2**32 - 1, 2**40, 2**63 - 1)
_TEXTS = ("0", "-1", "1", "1e9", "1e30", "nan", "inf", "99999", "2147483648", "99999999999999999999", "", "a", "%n%s")
_MEMBERS = ("session.json", "painted.npy", "frozen.npy", "labels.npy", "confidence.npy")
_BOMB = 3 << 30


def image(labels: bool) -> sitk.Image:
    """Return a small scan with structure, or its labels."""
    rng = np.random.default_rng(7)
    z, y, x = np.indices(SHAPE)
    body = (x - 6) ** 2 + (y - 7) ** 2 < 20 + z
    array = (3 * body).astype(np.uint8) if labels else (400 * body + rng.integers(0, 90, SHAPE)).astype(np.int16)
    made = sitk.GetImageFromArray(array)
    made.SetSpacing((0.7, 0.8, 2.5))
    made.SetOrigin((-11.0, 7.5, 30.0))
    return made


def write_originals(folder: Path, data: Path | None) -> dict[str, list[Path]]:
    """Write the honest files of each reader; real scans join them where there are any."""
    files: dict[str, list[Path]] = {"NIfTI": [], "NRRD": [], "MHA": [], "labels": []}
    for name, ending in (("NIfTI", ".nii"), ("NIfTI", ".nii.gz"), ("NRRD", ".nrrd"), ("MHA", ".mha")):
        for compressed in (False, True) if ending in (".nrrd", ".mha") else (True,):
            path = folder / f"scan-{int(compressed)}{ending}"
            sitk.WriteImage(image(labels=False), str(path), useCompression=compressed)
            files[name].append(path)
            path = folder / f"labels-{int(compressed)}{ending}"
            sitk.WriteImage(image(labels=True), str(path), useCompression=compressed)
            files["labels"].append(path)
    if data is not None:
        small = sorted((data / "msd_hippocampus").rglob("images/*.nii.gz"))[:1]
        files["NIfTI"] += small
        for path in small:
            for name, ending in (("NRRD", ".nrrd"), ("MHA", ".mha")):
                files[name].append(folder / f"real{ending}")
                sitk.WriteImage(sitk.ReadImage(str(path)), str(folder / f"real{ending}"), useCompression=True)
    files["DICOM"] = write_dicom(folder / "dicom", sitk.GetArrayFromImage(image(labels=False))[:4])
    files["session"] = [folder / "session.oneseg"]
    save_session(files["session"][0], _session())
    files["weights"] = [folder / "tiny.safetensors", default_weights_path()]
    config = FeatureConfig(
        gabor_wavelengths=(3.0, 6.0), gabor_orientations=2, gabor_size=7, width_factor=0.125, channels=16
    )
    save_weights(files["weights"][0], FeatureNetwork(config), PreprocessingConfig(), {})
    return files


def _session() -> SavedSession:
    rng = np.random.default_rng(0)

    def painted() -> np.ndarray:
        return rng.integers(0, 3, SHAPE[1:]).astype(np.uint8)

    results = {k: LabelledSlice(k, painted(), rng.random(SHAPE[1:]).astype(np.float16), 0.5) for k in range(1, 5)}
    state = SessionState(
        painted={3: painted(), 6: painted()}, complete=frozenset({3}), frozen={5: painted()}, results=results
    )
    return SavedSession("abc", "def", PropagationConfig(), ScreeningConfig(), state, {"names": {"1": "liver"}})


def mutate(rng: np.random.Generator, content: bytes, name: str) -> tuple[str, bytes]:
    """Return a mutation's name and what it made of a file; ``name`` says what kind of file it is."""
    choices = dict(ANYWHERE)
    if name.endswith(".gz"):
        choices["inside the gzip"] = _inside_gzip
    if name.endswith((".nii", ".gz")):
        choices["inside the gzip" if name.endswith(".gz") else "number in the header"] = (
            _inside_gzip if name.endswith(".gz") else _number
        )
    if name.endswith((".nrrd", ".mha")):
        choices |= {"text in the header": _text, "line of the header": _line}
    if name.endswith(".oneseg"):
        choices |= {"member of the zip": _member, "JSON of the zip": _json, "bomb": _bomb, "array header": _array}
    if name.endswith(".safetensors"):
        choices |= {"header of the weights": _weights_header, "metadata of the weights": _metadata}
    if name.endswith(".dcm"):
        choices |= {"element": _element, "element of the bytes": _element_bytes, "bomb": _deflated_bomb}
    kind = str(rng.choice(sorted(choices)))
    return kind, choices[kind](rng, content)


def _place(rng: np.random.Generator, content: bytes) -> int:
    """Half of all places lie in the first bytes, where the header is."""
    return int(rng.integers(0, max(1, min(len(content), 600) if rng.random() < 0.5 else len(content))))


def _bits(rng: np.random.Generator, content: bytes) -> bytes:
    changed = bytearray(content)
    for _ in range(int(rng.choice([1, 1, 2, 8, 40]))):
        changed[_place(rng, content)] ^= 1 << int(rng.integers(8))
    return bytes(changed)


def _cut(rng: np.random.Generator, content: bytes) -> bytes:
    return content[: _place(rng, content)]


def _without(rng: np.random.Generator, content: bytes) -> bytes:
    first = _place(rng, content)
    return content[:first] + content[first + int(rng.integers(1, 2000)) :]


def _inserted(rng: np.random.Generator, content: bytes) -> bytes:
    first = _place(rng, content)
    return content[:first] + rng.bytes(int(rng.integers(1, 500))) + content[first:]


def _overwritten(rng: np.random.Generator, content: bytes) -> bytes:
    first, length = _place(rng, content), int(rng.integers(1, 400))
    block = bytes(length) if rng.random() < 0.5 else rng.bytes(length)
    return (content[:first] + block)[: len(content)] + content[first + length :]


def _number(rng: np.random.Generator, content: bytes) -> bytes:
    form = str(rng.choice(["<h", "<i", "<q", "<f", "<d", ">h", ">i"]))
    number = (
        float(rng.choice([np.nan, np.inf, -1e30, 1e30, 0.0, -1.0]))
        if form[1] in "fd"
        else int(rng.choice(np.array(_NUMBERS, dtype=object)))
    )
    size = struct.calcsize(form)
    value = (
        struct.pack(form, number)
        if form[1] in "fd"
        else (number % 256**size).to_bytes(size, "little" if form[0] == "<" else "big")
    )
    first = int(rng.integers(0, max(1, min(len(content), 352) // 2))) * 2
    return content[:first] + value + content[first + size :]


def _noise(rng: np.random.Generator, content: bytes) -> bytes:
    kept = int(rng.choice([0, 4, 64]))
    return content[:kept] + rng.bytes(int(rng.integers(0, 3000)))


ANYWHERE: dict[str, Mutation] = {
    "bits flipped": _bits, "cut off": _cut, "part missing": _without, "part inserted": _inserted,
    "part overwritten": _overwritten, "number overwritten": _number, "noise": _noise,
}  # fmt: skip


def _any(rng: np.random.Generator, content: bytes) -> bytes:
    return ANYWHERE[str(rng.choice(sorted(ANYWHERE)))](rng, content)


def _inside_gzip(rng: np.random.Generator, content: bytes) -> bytes:
    plain = gzip.decompress(content)
    return gzip.compress(_number(rng, plain) if rng.random() < 0.6 else _any(rng, plain), 1)


def _header_end(content: bytes) -> int:
    """Return where the text of an NRRD or MHA header ends."""
    for mark in (b"\n\n", b"ElementDataFile = LOCAL\n"):
        if mark in content[:4000]:
            return content.index(mark) + len(mark)
    return min(len(content), 400)


def _text(rng: np.random.Generator, content: bytes) -> bytes:
    end = _header_end(content)
    words = list(re.finditer(rb"-?[\d.]+|[A-Za-z_]+", content[:end]))
    word = words[int(rng.integers(len(words)))]
    return content[: word.start()] + str(rng.choice(_TEXTS)).encode() + content[word.end() :]


def _line(rng: np.random.Generator, content: bytes) -> bytes:
    end = _header_end(content)
    lines = content[:end].split(b"\n")
    first = int(rng.integers(len(lines)))
    lines[first : first + 1] = [] if rng.random() < 0.5 else [lines[first]] * 2
    return b"\n".join(lines) + content[end:]


def _repacked(content: bytes, changes: dict[str, bytes]) -> bytes:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()} | changes
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name, entry in entries.items():
            archive.writestr(name, entry)
    return buffer.getvalue()


def _read_member(content: bytes, name: str) -> bytes:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return archive.read(name)


def _member(rng: np.random.Generator, content: bytes) -> bytes:
    name = str(rng.choice(_MEMBERS))
    return _repacked(content, {name: _any(rng, _read_member(content, name))})


def _json(rng: np.random.Generator, content: bytes) -> bytes:
    meta = json.loads(_read_member(content, "session.json"))
    key = str(rng.choice(sorted(meta)))
    values = [
        None,
        -1,
        1e308,
        2**70,
        "",
        "x" * 100_000,
        [],
        [[[]]],
        {},
        [1e9],
        [True],
        [2**40],
        "[" * 60_000,
        [0] * 50_000,
    ]
    value = values[int(rng.integers(len(values)))]
    text = json.dumps({**meta, key: value})
    if isinstance(value, str) and value.startswith("["):
        text = json.dumps(meta)[:-1] + f', "deep": {value}' + "]" * len(value) + "}"
    return _repacked(content, {"session.json": text.encode()})


def _array(rng: np.random.Generator, content: bytes) -> bytes:
    """Give an array a header that claims another shape or kind, objects (a pickle) among them."""
    name = str(rng.choice(_MEMBERS[1:]))
    plain = _read_member(content, name)
    shapes = [
        "(2, 14, 12)",
        "(10000000000,)",
        "(2, 1000000, 1000000)",
        "(-1, 14, 12)",
        "(2, 0, 0)",
        "()",
        "(2,)",
        "(4, 14, 12)",
    ]
    kind = str(rng.choice(["|u1", "|O", "<f8", "<u8", "|V4", "<U9", "|b1", "<f2", "<i4"]))
    text = f"{{'descr': '{kind}', 'fortran_order': False, 'shape': {rng.choice(shapes)}, }}".ljust(117) + "\n"
    body = b"cos\nsystem\n(S'false'\ntR." if kind == "|O" else plain[128:]
    return _repacked(content, {name: b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text.encode() + body})


def _bomb(rng: np.random.Generator, content: bytes) -> bytes:
    """Let a member unpack to gigabytes of zeros: its own header, or one of an array as large, before them."""
    name = str(rng.choice(_MEMBERS))
    head = _read_member(content, name)
    if name.endswith(".npy") and rng.random() < 0.5:
        text = (
            f"{{'descr': '|u1', 'fortran_order': False, 'shape': (2, {_BOMB // 2 // 32768}, 32768), }}".ljust(117)
            + "\n"
        )
        head = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text.encode()
    return _with_bomb(content, name, head)


@cache
def _zeros(count: int) -> tuple[bytes, int]:
    """Return the deflated form of so many zeros, made of one block repeated, and their number."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    first = packer.compress(bytes(1 << 24)) + packer.flush(zlib.Z_FULL_FLUSH)
    return first * (count >> 24), (count >> 24) << 24


def _element(rng: np.random.Generator, content: bytes) -> bytes:
    """Change a value of a DICOM file, or leave it out."""
    dataset = pydicom.dcmread(io.BytesIO(content))
    if "PerFrameFunctionalGroupsSequence" in dataset and rng.random() < 0.5:
        groups = dataset.PerFrameFunctionalGroupsSequence
        holder = groups[int(rng.integers(len(groups)))].PlanePositionSequence[0]
    else:
        holder = dataset.file_meta if rng.random() < 0.15 else dataset
    element = list(holder)[int(rng.integers(len(list(holder))))]
    values = [0, 1, 3, 255, 65535, -1, 2**31 - 1, 1e30, "nan", "inf", "", "x", "9" * 400, [1] * 300, None, [0, 0, 0]]
    value = values[int(rng.integers(len(values)))]
    buffer = io.BytesIO()
    try:
        if rng.random() < 0.2:
            del holder[element.tag]
        else:
            element.value = value
        pydicom.dcmwrite(buffer, dataset)
    except Exception:  # noqa: BLE001 - pydicom refuses to write many values, with errors of many kinds
        return _element_bytes(rng, content)
    return buffer.getvalue()


def _element_bytes(rng: np.random.Generator, content: bytes) -> bytes:
    """Change the tag, type or length of an element of a DICOM file, found by the type that is written in it."""
    places = [found.start() for found in re.finditer(rb"[A-Z]{2}", content[132:1400])]
    first = 132 + places[int(rng.integers(len(places)))] + int(rng.integers(-4, 4))
    lengths, kinds = (4 * b"\xff", b"\xff\xff", b"\xff\x7f", b"\x00\x00"), (b"SQ\x00\x00", b"OB\x00\x00")
    choices = (*lengths, *kinds, b"\xfe\xff\x00\xe0")
    value = choices[int(rng.integers(len(choices)))]
    return content[:first] + value + content[first + len(value) :]


def _deflated_bomb(rng: np.random.Generator, content: bytes) -> bytes:
    """Let the dataset be followed by up to gigabytes of zeros."""
    return deflated_bomb(content, _zeros(int(rng.choice([1 << 24, 1 << 27, _BOMB])))[0])


def _with_bomb(content: bytes, name: str, head: bytes) -> bytes:
    """Write the member by hand: packing gigabytes for each trial would take seconds."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    start = packer.compress(head) + packer.flush(zlib.Z_FULL_FLUSH)
    zeros, count = _zeros(_BOMB)
    packed = start + zeros + zlib.compressobj(9, zlib.DEFLATED, -15).flush()
    entries = {other: _read_member(content, other) for other in _MEMBERS if other != name}
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for other, entry in entries.items():
            archive.writestr(other, entry)
        archive.writestr(zipfile.ZipInfo(name), packed, zipfile.ZIP_STORED)
    made = bytearray(buffer.getvalue())
    unpacked = (len(head) + count) & 0xFFFFFFFF
    # Local header and directory entry: deflated, and the size that it unpacks to.
    local = made.index(b"PK\x03\x04" + made[4:6], made.rindex(packed) - 30 - len(name))
    listed = made.rindex(b"PK\x01\x02")
    for where, offset in ((local, 8), (listed, 10)):
        struct.pack_into("<H", made, where + offset, zipfile.ZIP_DEFLATED)
    for where, offset in ((local, 22), (listed, 24)):
        struct.pack_into("<I", made, where + offset, unpacked)
    return bytes(made)


def _weights_header(rng: np.random.Generator, content: bytes) -> bytes:
    length = struct.unpack("<Q", content[:8])[0]
    header = content[8 : 8 + length]
    words = list(re.finditer(rb"-?\d+|[A-Z]+\d+", header))
    word = words[int(rng.integers(len(words)))]
    header = header[: word.start()] + str(rng.choice(_TEXTS)).encode() + header[word.end() :]
    return struct.pack("<Q", len(header)) + header + content[8 + length :]


def _metadata(rng: np.random.Generator, content: bytes) -> bytes:
    """Change a number, or a value, of the configuration that the network is built from."""
    length = struct.unpack("<Q", content[:8])[0]
    header = json.loads(content[8 : 8 + length])
    key = str(rng.choice(["features", "features", "preprocessing", "provenance", "format"]))
    text = header["__metadata__"][key]
    if key in ("features", "preprocessing"):
        values = json.loads(text)
        name = str(rng.choice(sorted(values)))
        choices = [None, -1, 0, 1, 7, 1000, 10**6, 10**9, 10**30, 0.001, "x", [], [3.0] * 300, {}, True, 1e308]
        values[name] = choices[int(rng.integers(len(choices)))]
        text = json.dumps(values)
    else:
        text = str(rng.choice(["[" * 50_000, "{", "", "null", "x"]))
    header["__metadata__"][key] = text
    packed = json.dumps(header).encode()
    return struct.pack("<Q", len(packed)) + packed + content[8 + length :]
