from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from napari_oneseg.errors import Cancelled, InputError
from napari_oneseg.training import processes
from napari_oneseg.training.loop import LoopConfig, Source, run_training
from napari_oneseg.training.processes import ALONE, Processes, check_share, is_started_outside, launch
from napari_oneseg.training.recipe import with_refiner
from napari_oneseg.training.state_file import StateFile
from napari_oneseg.training.train import new_network
from tests.engine_fixtures import TINY
from tests.training.process_runs import FEATURES, RUNS, STEPS, Learned, generated

ROOT = Path(__file__).parents[2]
SCRIPT = Path(__file__).with_name("process_runs.py")
LONGEST = 120  # seconds, on a computer that does other things too

STARTS = {
    "generated": lambda: new_network(FEATURES, 0),
    "refined": lambda: with_refiner(new_network(FEATURES, 0), 0),
    "on_scans": lambda: new_network(TINY, 0),
}


@contextmanager
def started(*arguments: object, **environment: object) -> Iterator[subprocess.Popen[str]]:
    """Start a script in a session of its own, of which nothing is left afterwards, whatever hangs."""
    process = subprocess.Popen(
        [sys.executable, str(SCRIPT), *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        cwd=ROOT,
        env=os.environ
        | {"PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}", "OMP_NUM_THREADS": "1"}
        | {key: str(value) for key, value in environment.items()},
        start_new_session=True,
    )
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + LONGEST
    while not path.exists():
        assert time.monotonic() < deadline, f"{path.name} never came"
        time.sleep(0.05)


def difference(one: Learned, other: Learned, start: torch.nn.Module) -> float:
    """How far two results lie apart, by how far the first lies from where it began."""

    def weights(values: Learned) -> torch.Tensor:
        return torch.cat([values[key].double().flatten() for key in start.state_dict()])

    moved = (weights(one) - weights(start.state_dict())).norm()
    return float((weights(one) - weights(other)).norm() / moved)


@pytest.fixture(scope="module")
def of_two(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Learned, Learned]]:
    folder = tmp_path_factory.mktemp("two")
    with started(folder, "all", 2, 1) as process:
        output, _ = process.communicate(timeout=LONGEST)
        assert process.returncode == 0, output
        assert output == "", "the launcher is not heard"
    return {
        name: (load_file(folder / f"{name}-0.safetensors"), load_file(folder / f"{name}-1.safetensors"))
        for name in RUNS
    }


def test_two_processes_have_the_gradients_of_one(of_two: dict[str, tuple[Learned, Learned]]) -> None:
    whole = RUNS["gradients"](ALONE)
    for shared in of_two["gradients"]:
        assert shared.keys() == whole.keys()
        assert {key.partition(".")[0] for key in whole} == {"sequences", "runs", "pairs", "statistics"}
        for key, value in whole.items():
            assert torch.allclose(shared[key], value, rtol=1e-9, atol=1e-11), key


@pytest.mark.parametrize("name", STARTS)
def test_two_processes_come_to_the_weights_of_one(name: str, of_two: dict[str, tuple[Learned, Learned]]) -> None:
    torch.set_num_threads(1)
    whole, (first, second) = RUNS[name](ALONE), of_two[name]
    assert all(torch.equal(first[key], second[key]) for key in first), "they hold the same weights"
    assert len(whole["losses"]) == len(first["losses"])
    assert torch.allclose(whole["losses"], first["losses"], rtol=0.02)
    # Rounding grows from step to step, because Adam makes a step of the same length of however small a gradient.
    assert difference(whole, first, STARTS[name]()) < 0.02


def test_ctrl_c_on_one_computer_stops_all_and_one_process_goes_on(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free.getsockname()[1]}
    with (
        started(tmp_path, "slow", 1, 2, NODE_RANK=0, **address) as first,
        started(tmp_path, "slow", 1, 2, NODE_RANK=1, **address) as second,
    ):
        wait_for(tmp_path / "begun")
        second.send_signal(signal.SIGINT)
        outputs = [process.communicate(timeout=LONGEST)[0] for process in (first, second)]
        assert [first.returncode, second.returncode] == [130, 130], outputs
    assert (tmp_path / "stopped-0").exists()
    assert (tmp_path / "stopped-1").exists()
    assert_goes_on(tmp_path)


def test_when_one_process_is_killed_the_others_end_and_one_process_goes_on(tmp_path: Path) -> None:
    with started(tmp_path, "slow", 2, 1) as process:
        wait_for(tmp_path / "begun")
        os.kill(int((tmp_path / "pid-1").read_text()), signal.SIGKILL)
        process.communicate(timeout=LONGEST)
        assert process.returncode != 0
    assert_goes_on(tmp_path)


def assert_goes_on(folder: Path) -> None:
    torch.set_num_threads(1)
    kept = int(load_file(folder / "generated.training")["losses"].numel())
    assert 2 <= kept < STEPS
    steps: list[int] = []
    again = generated(ALONE, folder, lambda done, _: steps.append(done))
    assert steps == list(range(kept + 1, STEPS + 1))
    assert difference(generated(ALONE), again, new_network(FEATURES, 0)) < 0.02


def test_a_batch_is_shared_out_evenly() -> None:
    shares = [Processes(rank, 3).share(6) for rank in range(3)]
    assert [list(range(6))[share] for share in shares] == [[0, 1], [2, 3], [4, 5]]
    assert ALONE.share(5) == slice(0, 5)
    with pytest.raises(InputError, match=r"batch of 3 cannot .* 2 processes; give a multiple of 2 as --batch"):
        check_share(3, 2)


def test_a_single_process_stops_at_once() -> None:
    def cancel() -> None:
        raise Cancelled("now")

    before = signal.getsignal(signal.SIGINT)
    with ALONE.stopping() as stopped:
        assert signal.getsignal(signal.SIGINT) is before
        assert stopped(lambda: None) is None
        with pytest.raises(Cancelled, match="now"):
            stopped(cancel)


class Others:
    """Stands in for the connection: the others say ``state``."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, state: int) -> None:
        self.state = state
        monkeypatch.setattr(processes.distributed, "all_reduce", self.all_reduce)

    def all_reduce(self, said: torch.Tensor, _operation: object) -> None:
        said.clamp_(min=self.state)


def test_all_stop_after_the_same_step(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []

    def fail() -> None:
        told.append("told")
        raise Cancelled("by the first")

    before = signal.getsignal(signal.SIGINT)
    others = Others(monkeypatch, 0)
    with Processes(0, 2).stopping() as first, Processes(1, 2).stopping() as second:
        assert str(first(fail)) == "by the first"
        assert second(fail) is None
        assert told == ["told"], "only the first process reports"
        others.state = 2
        assert isinstance(second(fail), Cancelled)
        others.state = 1
        assert isinstance(second(fail), KeyboardInterrupt)
        others.state = 0
        signal.raise_signal(signal.SIGINT)
        assert isinstance(second(fail), KeyboardInterrupt), "Ctrl+C waits for the end of the step"
    assert signal.getsignal(signal.SIGINT) is before


def test_several_processes_need_a_number_of_steps() -> None:
    with pytest.raises(ValueError, match="their clocks differ"):
        run_training(
            torch.nn.Linear(1, 1),
            Source(lambda *_: pytest.fail("not asked for")),
            lambda *_: torch.zeros(()),
            LoopConfig(0.1, lambda _: 1.0, seconds=1.0),
            processes=Processes(0, 2),
        )


def test_processes_that_see_other_scans_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Processes, "of_first", lambda self, value: {"scans": ["of the first"]})
    with pytest.raises(InputError, match="other scans or options than the first"):
        run_training(
            torch.nn.Linear(1, 1),
            Source(lambda *_: pytest.fail("not asked for")),
            lambda *_: torch.zeros(()),
            LoopConfig(0.1, lambda _: 1.0, steps=1),
            state_file=StateFile(tmp_path / "a.training", {"scans": ["another"]}),
            processes=Processes(1, 2),
        )


def test_what_cannot_be_started_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for device in ("cuda:1", "mps"):
        with pytest.raises(InputError, match="the first ones of cuda, or processes on the cpu"):
            launch(torch.device(device), 2)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(InputError, match="has 1 CUDA devices; 4 were asked for"):
        launch(torch.device("cuda"), 4)
    monkeypatch.setitem(sys.modules, "lightning_fabric", None)
    with pytest.raises(InputError, match=r"pip install 'napari-oneseg\[cluster\]'"):
        launch(torch.device("cpu"), 2)


def test_other_launchers_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    for key in ("WORLD_SIZE", "LOCAL_WORLD_SIZE"):
        monkeypatch.delenv(key, raising=False)
    assert not is_started_outside()
    monkeypatch.setenv("WORLD_SIZE", "4")
    assert not is_started_outside(), "set by Fabric's own launcher too"
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    assert is_started_outside()
