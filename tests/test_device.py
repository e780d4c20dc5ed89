from __future__ import annotations

import pytest
import torch

from napari_oneseg.device import choose_device, describe_device, has_fast_bfloat16, is_out_of_memory
from napari_oneseg.errors import InputError


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """A machine whose processors the test decides."""
    has = {"cuda": 0, "mps": 0}
    monkeypatch.setattr(torch.cuda, "is_available", lambda: has["cuda"] > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: has["cuda"])
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: has["mps"] > 0)
    return has


def test_auto_takes_the_fastest_there_is(machine: dict[str, int]) -> None:
    assert choose_device() == torch.device("cpu")
    machine["mps"] = 1
    assert choose_device("auto") == torch.device("mps")
    machine["cuda"] = 2
    assert choose_device("auto") == torch.device("cuda")


def test_a_named_device(machine: dict[str, int]) -> None:
    machine["cuda"] = 2
    assert choose_device("cpu") == torch.device("cpu")
    assert choose_device("cuda:1") == torch.device("cuda:1")


@pytest.mark.parametrize("name", ["gpu", "", "CPU", "cuda:x", "meta", "cuda:-1"])
def test_unknown_names(name: str, machine: dict[str, int]) -> None:
    with pytest.raises(InputError, match="expected auto, cpu, cuda"):
        choose_device(name)


@pytest.mark.parametrize("name", ["cuda", "cuda:0", "mps"])
def test_a_device_that_is_not_there(name: str, machine: dict[str, int]) -> None:
    with pytest.raises(InputError, match=r"which has: cpu\. Use auto"):
        choose_device(name)


@pytest.mark.parametrize("name", ["cuda:2", "cpu:1", "mps:1"])
def test_a_device_number_that_is_not_there(name: str, machine: dict[str, int]) -> None:
    machine.update(cuda=2, mps=1)
    with pytest.raises(InputError, match="not available"):
        choose_device(name)


def test_names_for_people(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Fast 3000")
    assert describe_device(torch.device("cuda:1")) == "cuda:1 (Fast 3000)"
    assert describe_device(torch.device("cpu")).startswith("cpu (")
    assert describe_device(torch.device("mps")) == "mps"


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (torch.OutOfMemoryError("full"), True),
        (RuntimeError("MPS backend out of memory (MPS allocated: 9 GB)"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), True),
        (RuntimeError("shapes cannot be multiplied"), False),
    ],
)
def test_a_full_memory_is_recognised(error: RuntimeError, expected: bool) -> None:
    assert is_out_of_memory(error) is expected


@pytest.mark.parametrize(
    ("capable", "fast"),
    [({"avx512_bf16": True}, True), ({"amx_bf16": True, "avx512_bf16": False}, True), ({"avx512_f": True}, False)],
)
def test_bfloat16_is_fast_where_the_processor_multiplies_in_it(
    monkeypatch: pytest.MonkeyPatch, capable: dict[str, bool], fast: bool
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capable, raising=False)
    assert has_fast_bfloat16() is fast
