from __future__ import annotations

import copy
import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from napari_oneseg.errors import Cancelled, InputError
from napari_oneseg.training import loop
from napari_oneseg.training.loop import LoopConfig, Moment, Plan, Source, halving, run_training, warm_cosine
from napari_oneseg.training.processes import Processes
from napari_oneseg.training.state_file import StateFile

STEPS = 12


@dataclass(frozen=True)
class Numbers:
    """A batch that is easy to follow."""

    x: Tensor
    shift: float

    def to(self, device: torch.device) -> Numbers:
        return Numbers(self.x.to(device), self.shift)

    def share(self, processes: Processes) -> Numbers:
        return Numbers(self.x[processes.share(len(self.x))], self.shift)


@dataclass
class Data:
    """A source that plans with what the network has learned so far, and remembers what it was asked for."""

    every: int = 5
    planned: list[int] = field(default_factory=list)
    made: list[int] = field(default_factory=list)
    threads: set[int] = field(default_factory=set)

    def plan(self, network: nn.Sequential, step: int) -> Plan:
        self.planned.append(step)
        first = network[0]
        assert isinstance(first, nn.Linear)
        return Plan({"shift": float(first.weight.detach().sum())}, (step // self.every + 1) * self.every)

    def batch(self, generator: torch.Generator, step: int, content: dict[str, float] | None) -> Numbers:
        self.made.append(step)
        self.threads.add(threading.get_ident())
        shift = content["shift"] if content else 0.0
        return Numbers(torch.randn(8, 3, generator=generator), shift)


def small_network() -> nn.Sequential:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(3, 5), nn.BatchNorm1d(5), nn.ReLU(), nn.Linear(5, 1))


def loss(network: nn.Sequential, batch: Numbers, moment: Moment) -> Tensor:
    truth = batch.x.square().sum(1, keepdim=True) + 0.1 * batch.shift + moment.share
    value: Tensor = (network(batch.x) - truth).square().mean()
    return value


def config(steps: int | None = STEPS, **options: object) -> LoopConfig:
    return LoopConfig(0.01, lambda moment: 1.0 - moment.share, steps, **options)  # type: ignore[arg-type]


def stop_after(step: int) -> Callable[[int, int], None]:
    def progress(done: int, total: int) -> None:
        if done == step:
            raise Cancelled("stop")

    return progress


def uninterrupted(data: Data | None = None) -> tuple[nn.Sequential, tuple[float, ...]]:
    network, data = small_network(), data or Data()
    return network, run_training(network, Source(data.batch, data.plan), loss, config())


def assert_same(a: nn.Module, b: nn.Module) -> None:
    first, second = a.state_dict(), b.state_dict()
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_the_same_seed_gives_the_same_weights_and_another_seed_others() -> None:
    state = torch.get_rng_state()
    (first, losses), (again, same_losses) = uninterrupted(), uninterrupted()
    assert_same(first, again)
    assert losses == same_losses
    assert len(losses) == STEPS
    assert not first.training
    other, data = small_network(), Data()
    assert run_training(other, Source(data.batch, data.plan), loss, config(seed=1)) != losses
    assert torch.equal(torch.get_rng_state(), state), "the global generator is left alone"


def test_the_loss_falls() -> None:
    network = small_network()
    losses = run_training(network, Source(Data().batch), loss, LoopConfig(0.05, lambda _: 1.0, steps=60))
    assert sum(losses[-10:]) < 0.5 * sum(losses[:10])


def test_batches_are_made_in_another_thread_and_ahead_of_time() -> None:
    data, made_when = Data(), []

    def watched(network: nn.Sequential, batch: Numbers, moment: Moment) -> Tensor:
        deadline = time.monotonic() + 5
        ahead = moment.step + 1
        # The last batch of a plan and of the training has none after it.
        while ahead % 5 and ahead < STEPS and ahead not in data.made and time.monotonic() < deadline:
            time.sleep(0.001)
        made_when.append(max(data.made))
        return loss(network, batch, moment)

    run_training(small_network(), Source(data.batch, data.plan), watched, config())
    assert made_when == [1, 2, 3, 4, 4, 6, 7, 8, 9, 9, 11, 11]
    assert data.made == list(range(STEPS))
    assert data.planned == [0, 5, 10]
    assert threading.get_ident() not in data.threads


@pytest.mark.parametrize("stopped", [1, 4, 5, 6, 11, 12])
@pytest.mark.parametrize("every", [1, 3])
def test_a_stopped_training_goes_on_to_the_same_weights(tmp_path: Path, stopped: int, every: int) -> None:
    whole, losses = uninterrupted()
    file = StateFile(tmp_path / "a.training", {"learning": "test"}, every)
    data = Data()
    with pytest.raises(Cancelled):
        run_training(
            small_network(),
            Source(data.batch, data.plan),
            loss,
            config(),
            state_file=file,
            progress=stop_after(stopped),
        )
    kept = stopped // every * every
    assert file.path.exists() == (kept > 0)
    network, data, steps = small_network(), Data(), []
    again = run_training(
        network,
        Source(data.batch, data.plan),
        loss,
        config(),
        state_file=file,
        on_loss=lambda step, _: steps.append(step),
    )
    assert_same(network, whole)
    assert again == losses
    assert steps == list(range(kept, STEPS)), "nothing is done twice"
    # A plan that was made is kept: at step 5, not before, the next one is due.
    assert data.planned == [step for step in (0, 5, 10) if step >= kept]


def test_a_finished_training_is_not_trained_further(tmp_path: Path) -> None:
    file = StateFile(tmp_path / "a.training", {}, every=100)
    first, second, data = small_network(), small_network(), Data()
    losses = run_training(first, Source(data.batch, data.plan), loss, config(), state_file=file)
    made = len(data.made)
    assert run_training(second, Source(data.batch, data.plan), loss, config(), state_file=file) == losses
    assert_same(first, second)
    assert len(data.made) == made


KILLED = """
import os, random, signal, sys, time
from pathlib import Path
import torch
import torch._dynamo  # which the first optimiser would import, in each child anew
from tests.training.test_loop import Data, Source, StateFile, config, loss, run_training, small_network

def start(path):
    "Train in a child; return its number, and where it writes a byte after each step."
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        torch.set_num_threads(1)
        def on_loss(step, value):
            os.write(writer, b"x")
            time.sleep(0.002)
        data, file = Data(), StateFile(path, {"learning": "test"}, every=1)
        source = Source(data.batch, data.plan)
        run_training(small_network(), source, loss, config(60), state_file=file, on_loss=on_loss)
        os._exit(0)
    os.close(writer)
    return pid, reader

folder, random = Path(sys.argv[1]), random.Random(0)
assert os.waitpid(start(folder / "whole")[0], 0)[1] == 0
kills = 0
for attempt in range(20):
    pid, reader = start(folder / "killed")
    if attempt < 8:
        os.read(reader, 1)
        time.sleep(random.uniform(0, 0.03))
        os.kill(pid, signal.SIGKILL)
    status = os.waitpid(pid, 0)[1]
    os.close(reader)
    kills += os.WIFSIGNALED(status)
    if status == 0:
        break
print(kills)
"""


def test_killed_at_random_moments_it_comes_to_the_same_weights(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(tmp_path)],
        capture_output=True,
        encoding="utf-8",
        check=False,
        timeout=300,
        cwd=Path(__file__).parents[2],
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) >= 3
    with safe_open(tmp_path / "whole", "pt") as whole, safe_open(tmp_path / "killed", "pt") as killed:
        assert set(whole.keys()) == set(killed.keys())
        assert len(whole.get_tensor("losses")) == 60
        for key in whole.keys():  # noqa: SIM118 - not a dictionary
            assert torch.equal(whole.get_tensor(key), killed.get_tensor(key)), key


def test_the_state_holds_no_pickle_and_nothing_half_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = StateFile(tmp_path / "a.training", {"learning": "test", "rate": 0.1}, every=4)
    run_training(small_network(), Source(Data().batch, Data().plan), loss, config(), state_file=file)
    before = file.path.read_bytes()
    with safe_open(file.path, "pt") as opened:
        assert json.loads(opened.metadata()["identity"]) == {"learning": "test", "rate": 0.1}
        assert {"generator", "losses", "network.0.weight", "optimiser.0.exp_avg"} <= set(opened.keys())

    def full(self: Path, data: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    longer = StateFile(file.path, file.identity, every=1)
    with pytest.raises(OSError, match="the disk is full"):
        run_training(small_network(), Source(Data().batch, Data().plan), loss, config(20), state_file=longer)
    assert [path.name for path in tmp_path.iterdir()] == ["a.training"]
    assert file.path.read_bytes() == before


def test_the_state_of_another_training_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.training"

    def train(identity: dict[str, object]) -> None:
        run_training(small_network(), Source(Data().batch), loss, config(), state_file=StateFile(path, identity))

    train({"training": {"batch": 2, "range": (1, 2)}, "scans": ["a"]})
    train({"training": {"batch": 2, "range": (1, 2)}, "scans": ["a"]})
    with pytest.raises(InputError, match=r"training\.batch is 2 there and 3 here\. .* delete the file"):
        train({"training": {"batch": 3, "range": (1, 2)}, "scans": ["a"]})
    with pytest.raises(InputError, match=r"scans is \['a'\] there"):
        train({"training": {"batch": 2, "range": (1, 2)}, "scans": ["b"]})


def test_a_damaged_state_is_refused(tmp_path: Path) -> None:
    file = StateFile(tmp_path / "a.training", {})

    def train(network: nn.Module | None = None) -> None:
        run_training(network or small_network(), Source(Data().batch), loss, config(), state_file=file)

    train()
    whole = file.path.read_bytes()
    file.path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match=r"no state of a training .* Delete it to begin anew"):
        train()
    save_file({"a": torch.zeros(1)}, file.path)
    with pytest.raises(InputError, match="no state of a training"):
        train()
    file.path.write_bytes(whole)
    with pytest.raises(InputError, match="no state of a training"):
        train(nn.Sequential(nn.Linear(3, 7), nn.Linear(7, 1)))


class Clock:
    """Time that passes only when a loss is computed."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, step: float) -> None:
        self.now, self.step = 100.0, step
        monkeypatch.setattr(loop.time, "monotonic", lambda: self.now)

    def loss(self, network: nn.Sequential, batch: Numbers, moment: Moment) -> Tensor:
        self.now += self.step
        return loss(network, batch, moment)


def test_the_time_may_be_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, shares, calls = Clock(monkeypatch, 3.0), [], []
    timed = LoopConfig(0.01, lambda moment: shares.append(moment.share) or 1.0, seconds=10.0)
    losses = run_training(
        small_network(), Source(Data().batch), clock.loss, timed, progress=lambda *call: calls.append(call)
    )
    assert len(losses) == 4, "a step that has begun is finished"
    assert shares == pytest.approx([0.0, 0.3, 0.6, 0.9])
    assert calls == [(3, 10), (6, 10), (9, 10), (10, 10)]


def test_time_used_before_an_interruption_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock, file = Clock(monkeypatch, 3.0), StateFile(tmp_path / "a.training", {}, every=1)
    timed = LoopConfig(0.01, lambda _: 1.0, seconds=10.0)
    with pytest.raises(Cancelled):
        run_training(small_network(), Source(Data().batch), clock.loss, timed, state_file=file, progress=stop_after(6))
    clock.now += 1000.0
    assert len(run_training(small_network(), Source(Data().batch), clock.loss, timed, state_file=file)) == 4


def test_steps_or_time_whichever_is_first(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch, 3.0)
    both = LoopConfig(0.01, lambda _: 1.0, steps=2, seconds=10.0)
    assert len(run_training(small_network(), Source(Data().batch), clock.loss, both)) == 2
    with pytest.raises(ValueError, match="steps or a time"):
        run_training(small_network(), Source(Data().batch), loss, config(None))


def test_the_learning_rate_follows_the_schedule() -> None:
    still = small_network()
    run_training(still, Source(Data().batch), loss, LoopConfig(0.1, lambda _: 0.0, steps=3))
    assert torch.equal(still[0].weight, small_network()[0].weight)
    moments: list[Moment] = []
    run_training(
        small_network(), Source(Data().batch), loss, LoopConfig(0.1, lambda m: moments.append(m) or 1.0, steps=4)
    )
    assert moments == [Moment(0, 0.0), Moment(1, 0.25), Moment(2, 0.5), Moment(3, 0.75)]


def test_schedules() -> None:
    assert [halving(Moment(step, 0.0), 10) for step in (0, 9, 10, 25, 30)] == [1.0, 1.0, 0.5, 0.25, 0.125]
    rates = [warm_cosine(Moment(step, 0.0), 100) for step in range(101)]
    assert rates[:3] == pytest.approx([0.1, 0.2, 0.3])
    assert max(rates) == rates[9] == rates[10] == 1.0
    assert rates[55] == pytest.approx(0.5)
    assert rates[100] == pytest.approx(0.0)


def test_a_training_that_diverges_is_stopped() -> None:
    def wrong(network: nn.Sequential, batch: Numbers, moment: Moment) -> Tensor:
        return loss(network, batch, moment) * (float("nan") if moment.step == 2 else 1.0)

    network = small_network()
    with pytest.raises(InputError, match="smaller learning rate"):
        run_training(network, Source(Data().batch), wrong, config())
    assert all(torch.isfinite(value).all() for value in network.state_dict().values())


def test_an_error_in_the_other_thread_arrives() -> None:
    def broken(generator: torch.Generator, step: int, content: object) -> Numbers:
        if step == 2:
            raise InputError("no such scan")
        return Data().batch(generator, step, None)

    with pytest.raises(InputError, match="no such scan"):
        run_training(small_network(), Source(broken), loss, config())


@pytest.mark.parametrize("half", [torch.bfloat16, torch.float16])
def test_half_precision_is_the_networks_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, half: torch.dtype
) -> None:
    monkeypatch.setattr(loop, "half_precision", lambda precision, device: half)
    inside: list[torch.dtype] = []
    outside: list[torch.dtype] = []

    def watched(network: nn.Sequential, batch: Numbers, moment: Moment) -> Tensor:
        outside.append(network(batch.x).dtype)
        twin = copy.deepcopy(network)
        with torch.no_grad():
            twin[3].weight.zero_()
            twin[3].bias.zero_()
        assert not twin(batch.x).any(), "a copy computes with its own weights"
        return loss(network, batch, moment)

    def train(steps: int, stop: int = -1) -> nn.Sequential:
        network, data = small_network(), Data()
        network[0].register_forward_hook(lambda _, __, output: inside.append(output.dtype))
        run_training(network, Source(data.batch), watched, config(steps), state_file=file, progress=stop_after(stop))
        return network

    file = StateFile(tmp_path / "whole", {}, every=1)
    whole = train(6)
    assert set(inside) == {half}
    assert set(outside) == {torch.float32}
    assert "forward" not in vars(whole), "afterwards it computes as before"
    file = StateFile(tmp_path / "stopped", {}, every=1)
    with pytest.raises(Cancelled):
        train(6, stop=3)
    assert_same(train(6), whole)


def test_precisions_that_a_device_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    def train(precision: str) -> None:
        run_training(small_network(), Source(Data().batch), loss, config(1, precision=precision))

    for refused in ("float16", "double"):
        with pytest.raises(InputError, match="float32"):
            train(refused)
    monkeypatch.setattr(loop, "has_fast_bfloat16", lambda: False)
    with pytest.raises(InputError, match="cpu does not compute in bfloat16; use auto or float32"):
        train("bfloat16")
    monkeypatch.setattr(loop, "has_fast_bfloat16", lambda: True)
    for known in ("auto", "float32", "bfloat16"):
        train(known)
