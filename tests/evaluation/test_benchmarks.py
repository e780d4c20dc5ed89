"""The benchmarks are programs; here they run on two small scans instead of the real ones."""

from __future__ import annotations

import importlib
import json
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch

from napari_oneseg.checkpoint import Weights, load_weights, save_weights
from napari_oneseg.config import PreprocessingConfig
from napari_oneseg.evaluation.effort import EffortCurve
from napari_oneseg.evaluation.metrics import OrganScore
from napari_oneseg.evaluation.protocols import CaseResult
from napari_oneseg.features.resnet import FeatureNetwork
from napari_oneseg.io import write_image, write_labels
from napari_oneseg.phantom import Phantom
from napari_oneseg.propagation.attention import local_affinity, readout
from napari_oneseg.propagation.crossing import Crossing
from napari_oneseg.volume import Volume
from tests.engine_fixtures import TINY, tiny_network, tiny_weights
from tests.evaluation.stand_ins import small_case

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def accuracy(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import accuracy

    return accuracy


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.safetensors"
    save_weights(path, tiny_network(), PreprocessingConfig(working_size=48), {"data": "none"})
    return path


@pytest.fixture(autouse=True)
def scans(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of data sets: three scans with labels 1 and 2 that pass for the hippocampus."""
    case = small_case()
    reference = np.select([case.reference == 2, case.reference == 300], [1, 2]).astype(np.uint8)
    folder = tmp_path / "data" / "msd_hippocampus" / "dev"
    for name in ("images", "labels"):
        (folder / name).mkdir(parents=True)
    for number in range(3):
        noise = np.random.default_rng(number).normal(size=case.reference.shape).astype(np.float32)
        write_image(folder / "images" / f"case{number}.nii.gz", 20 * reference + noise, case.volume)
        write_labels(folder / "labels" / f"case{number}.nii.gz", np.roll(reference, number, axis=2), case.volume)
    monkeypatch.setenv("ONESEG_DATA", str(tmp_path / "data"))
    return folder


@pytest.fixture
def run(accuracy: ModuleType, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys):
    def call(*options: object) -> tuple[str, str]:
        fixed = (tmp_path / "kept.json", "--sets", "msd_hippocampus", "--weights", weights)
        monkeypatch.setattr(sys, "argv", ["accuracy.py", *map(str, (*fixed, *options))])
        accuracy.main()
        return capsys.readouterr()

    return call


def test_one_table_for_each_number_of_slices(run, tmp_path: Path) -> None:
    printed, progress = run("--methods", "copy,contour,oneseg", "--slices", "1,3")
    assert printed.count("### msd_hippocampus (dev), ") == 2
    assert "largest, 1 painted, labels one by one" in printed
    assert "evenly, 3 painted, labels one by one" in printed
    for row in ("| copy, anterior hippocampus | 3 | ", "| oneseg, mean | 6 | ", "| contour, mean | 6 | "):
        assert row in printed
    assert printed.count("| oneseg, mean | 6 | ") == 2
    assert printed.count("| contour, mean |") == 1, "one slice has no contours to interpolate"
    assert printed.count(" to ") >= 20, "three scans have intervals"
    assert "| mean of oneseg less that of | n | Dice |" in printed
    assert "Dice within the organs' extent above that over the whole scan by " in printed
    assert len(progress.splitlines()) == 3 * 5
    lines = (tmp_path / "kept.json").read_text().splitlines()
    assert len(lines) == 3 * 5 + 2, "one run per line"


def test_what_is_done_is_not_done_again(run, tmp_path: Path) -> None:
    first = run("--methods", "copy,oneseg", "--slices", "1", "--labels", "1")
    assert first.err.count("\n") == 6
    again = run("--methods", "copy,oneseg", "--slices", "1", "--labels", "1")
    assert (again.out, again.err) == (first.out, "")
    both = run("--methods", "copy,oneseg", "--slices", "1")
    assert "1:" not in both.err
    assert both.err.count("2:") == 6
    other = tmp_path / "other.safetensors"
    save_weights(other, tiny_network(1), PreprocessingConfig(working_size=48), {"data": "none"})
    changed = run("--methods", "copy,oneseg", "--slices", "1", "--weights", other)
    assert changed.err.count(" oneseg ") == 3, "other weights count for nothing"
    assert " copy " not in changed.err
    runs = json.loads((tmp_path / "kept.json").read_text())["runs"]
    assert len(runs) == 9
    assert len({entry["weights"] for entry in runs}) == 3
    assert run("--methods", "copy,oneseg", "--slices", "1", "--fresh").err.count("\n") == 6


@pytest.mark.parametrize("protocol", ["ranged", "suggested", "volume"])
def test_each_protocol_has_its_table(run, tmp_path: Path, protocol: str) -> None:
    printed, _ = run("--protocol", protocol, "--methods", "oneseg")
    assert f"### msd_hippocampus (dev), {protocol}, 1 painted" in printed
    (entry, *_) = json.loads((tmp_path / "kept.json").read_text())["runs"]
    assert entry["protocol"] == protocol
    assert entry["together"] == ([1, 2] if protocol == "volume" else [])
    if protocol == "ranged":
        assert all(score["dice"] == score["extent_dice"] for score in entry["scores"])


@pytest.mark.parametrize(("protocol", "count"), [("best-plane", 1), ("two-planes", 2)])
def test_slices_of_suggested_planes_are_kept(run, tmp_path: Path, protocol: str, count: int) -> None:
    printed, _ = run("--protocol", protocol)
    assert f"### msd_hippocampus (dev), {protocol}, {count} painted" in printed
    for entry in json.loads((tmp_path / "kept.json").read_text())["runs"]:
        for label in ("1", "2"):
            slices = [entry["painted"][label], *entry.get("across", {}).get(label, {}).values()]
            assert sum(map(len, slices)) == count


def test_together_is_kept_apart_from_one_by_one(run) -> None:
    run("--slices", "1", "--methods", "copy")
    together, progress = run("--slices", "1", "--methods", "copy", "--together")
    assert progress.count("\n") == 3
    assert "labels together" in together


def test_effort_counts_slices(run, tmp_path: Path) -> None:
    printed, progress = run("--protocol", "effort", "--methods", "contour,oneseg-evenly,oneseg-gap", "--labels", "1")
    assert "|  | contour | oneseg-evenly | oneseg-gap |" in printed
    assert "| slices to 0.95, median |" in printed
    assert "| contour, anterior hippocampus | 3 | " in printed
    assert progress.count("\n") == 9
    entry = json.loads((tmp_path / "kept.json").read_text())["runs"][0]
    assert [len(slices) for slices in entry["curves"][0]["painted"]][:3] == [1, 2, 3]
    again = run("--protocol", "effort", "--methods", "contour,oneseg-evenly,oneseg-gap", "--labels", "1")
    assert again == (printed, "")


def test_the_worst_are_drawn(run, tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    run("--slices", "1", "--methods", "copy", "--pictures", folder, "--worst", 2)
    (own,) = folder.iterdir()
    assert own.name == "msd_hippocampus_largest_1_copy"
    assert len(list(own.glob("0[12]_case?_2.png"))) == 2


def test_data_that_are_not_at_hand_are_left_out(run) -> None:
    printed, said = run("--split", "train", "--methods", "copy")
    assert printed == ""
    assert "There are no scans msd_hippocampus/train" in said


@pytest.mark.parametrize(
    "options",
    [
        ["--protocol", "effort", "--together"],
        ["--protocol", "suggested", "--slices", "2"],
        ["--methods", "oneseg-gap"],
        ["--sets", "nothing"],
    ],
)
def test_what_does_not_go_together_is_refused(accuracy: ModuleType, options: list[str]) -> None:
    with pytest.raises(SystemExit):
        accuracy.parse_options(options)


def test_kept_runs_come_back_as_they_were(accuracy: ModuleType, tmp_path: Path) -> None:
    from runs import Results, Run

    group = Run("data", "dev", "effort", 12, (), "oneseg", "abc")
    scores = OrganScore(1, 0.5, 0.625, 12.5, float("nan")), OrganScore(1, 0.75, 0.75, 0.0, 1.5)
    curve = EffortCurve("a", 1, ((3,), (3, 7)), scores, 1.25)
    results = Results(tmp_path / "kept.json", fresh=False)
    run = Run("data", "dev", "effort", 12, (), "oneseg", "abc", "a")
    results.add_curve(run, 1, curve)
    results.add_curve(run, 2, None)
    both = Run("data", "dev", "largest", 1, (1, 2), "oneseg", "abc", "a")
    results.add(both, [1, 2], CaseResult("a", scores[1:], {1: (3,), 2: ()}, 2.0))

    again = Results(tmp_path / "kept.json", fresh=False)
    assert again.missing(run, [1, 2, 3]) == [3]
    (kept,) = again.curves_of(group, [1])
    assert kept.painted == curve.painted
    assert str(kept.scores) == str(curve.scores)  # NaN is not equal to itself
    assert again.missing(both, [1, 2]) == []
    assert again.of(Run("data", "dev", "largest", 1, (1, 2), "oneseg", "abc"), [1])[0].scores == scores[1:]
    assert again.of(Run("data", "dev", "largest", 1, (), "oneseg", "abc"), [1]) == []


def test_runs_from_before_there_were_protocols_count(accuracy: ModuleType, tmp_path: Path) -> None:
    from runs import Results, Run

    old = {"data": "data", "case": "a", "method": "copy", "weights": None, "labels": [1], "seconds": 0.1, "scores": []}
    path = tmp_path / "kept.json"
    path.write_text(json.dumps({"runs": [old | {"slices": count} for count in (1, 3)]}))
    results = Results(path, fresh=False)
    assert results.missing(Run("data", "dev", "largest", 1, (), "copy", None, "a"), [1]) == []
    assert results.missing(Run("data", "dev", "evenly", 3, (), "copy", None, "a"), [1]) == []


@pytest.fixture
def ablation(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The ablation with a tiny network, also in place of the shipped one."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import ablation

    monkeypatch.setattr(ablation, "DRAWS", 1)
    monkeypatch.setattr(ablation, "features_of", lambda variant: replace(TINY, bottleneck=variant.bottleneck))
    monkeypatch.setattr(
        ablation, "load_weights", lambda path=None: tiny_weights() if path is None else load_weights(path)
    )
    return ablation


@pytest.fixture
def ablate(ablation: ModuleType, scans: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys):
    """Run the program on the three scans, two of which are learned from as well."""
    images = scans.parent / "train" / "images"
    images.mkdir(parents=True)
    (scans.parent / "train" / "labels").mkdir()
    for name in ("case0.nii.gz", "case1.nii.gz"):
        for kind in ("images", "labels"):
            (scans.parent / "train" / kind / name).write_bytes((scans / kind / name).read_bytes())

    def call(*options: object) -> tuple[str, str]:
        fixed = ("--sets", "msd_hippocampus", "--working-size", 48, "--epochs", 1, "--steps", 2, "--seeds", 1)
        paths = (tmp_path / "kept.json", "--folder", tmp_path / "trained")
        monkeypatch.setattr(sys, "argv", ["ablation.py", *map(str, (*paths, *fixed, *options))])
        ablation.main()
        return capsys.readouterr()

    return call


def test_each_variant_of_the_ablation_lacks_one_thing(ablate, ablation: ModuleType, tmp_path: Path) -> None:
    printed, said = ablate()
    for row in ("untrained", "shipped, no refiner", "shipped", *ablation.VARIANTS, "suggested slice", "random slice"):
        assert printed.count(f"\n| {row} | ") == 1, row
    assert said.count(": trained in ") == 5
    settings: dict[str, dict[str, object]] = {}
    for name in ablation.VARIANTS:
        (path,) = (tmp_path / "trained").glob(f"*-{name.replace(' ', '-')}-1.safetensors")
        weights = load_weights(path)
        settings[name] = weights.network.config.to_dict() | dict(weights.provenance["training"])
        assert settings[name]["seed"] == 1
    full = settings.pop("full")
    changed = {name: sorted(key for key in full if full[key] != own[key]) for name, own in settings.items()}
    assert changed == {
        "without screening": ["screening"],
        "without bottleneck": ["bottleneck"],
        "without scheduled sampling": ["first_weight", "last_weight"],
        "without cycle consistency": ["cycle_weight"],
    }
    assert (full["first_weight"], full["last_weight"], full["cycle_weight"]) == (0.9, 0.5, 0.1)
    assert ablate() == (printed, ""), "what is done is not done again"


def test_runs_with_several_seeds_are_averaged_score_by_score(ablation: ModuleType, tmp_path: Path) -> None:
    from runs import Results, Run

    results = Results(tmp_path / "kept.json", fresh=False)
    rows = []
    for name, by_seed in {"full": ((0.5, 0.7), (0.7, 0.9)), "without": ((0.4, 0.5), (0.5, 0.6))}.items():
        runs = [Run("data", "dev", "largest", 1, (), f"{name}, seed {seed}", "abc") for seed in range(2)]
        rows.append(ablation.Row(name, tuple(runs)))
        for run, dices in zip(runs, by_seed, strict=True):
            for case, dice in zip("ab", dices, strict=True):
                score = OrganScore(1, dice, dice + 0.05, 10.0, float("nan"))
                results.add(replace(run, case=case), [1], CaseResult(case, (score,), {}, 1.0))
    lines = ablation.table(rows, results, {1: "liver"}).splitlines()
    assert lines[2] == "| full | 0.700 / 0.750 | 0.700 / 0.750 | - | 0.600, 0.800 |"
    assert lines[3].startswith("| without | 0.500 / 0.550 | 0.500 / 0.550 | -0.200 (")
    assert lines[3].endswith(" | 0.450, 0.550 |")


def test_random_slices_are_the_same_in_each_run(ablation: ModuleType) -> None:
    volume = small_case().volume
    drawn = [[ablation.randomly(draw)(volume)(None) for draw in range(20)] for _ in range(2)]
    assert drawn[0] == drawn[1]
    assert len(set(drawn[0])) > 5
    assert all(0 <= index < len(volume.slices) for index in drawn[0])


def test_the_ablation_refuses_what_it_cannot_do(ablation: ModuleType) -> None:
    for options in (["--steps", "10", "--epochs", "3"], ["--sets", "nothing"]):
        with pytest.raises(SystemExit):
            ablation.parse_options(options)


@pytest.fixture
def speed(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """The modules that measure speed; the machine is measured with small matrices."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    names = ("attention", "cases", "floor", "growth", "machine", "memory", "parts", "report", "scans", "whole")
    modules = {name: importlib.import_module(f"speed_{name}") for name in names}
    monkeypatch.setattr(modules["machine"], "MATRIX_SIDE", 64)
    monkeypatch.setattr(modules["machine"], "COPIED_BYTES", 1 << 16)
    return SimpleNamespace(**modules)


@pytest.fixture
def refining_weights() -> Weights:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = FeatureNetwork(replace(TINY, refine=True)).eval()
    return Weights(network, PreprocessingConfig(working_size=48), "tiny", "tiny", {})


@pytest.fixture
def blocks() -> tuple[Volume, np.ndarray]:
    """A scan of eight slices with three bright blocks through all of them, the first one the largest."""
    labels = np.zeros((8, 40, 40), np.uint8)
    for label, place in enumerate((np.s_[4:18, 4:18], np.s_[24:36, 6:16], np.s_[8:16, 26:36]), 1):
        labels[(slice(None), *place)] = label
    noise = np.random.default_rng(0).normal(scale=0.1, size=labels.shape[1:])
    return Volume((labels + noise).astype(np.float32), (4.0, 1.0, 1.0)), labels


@pytest.mark.parametrize("null_bias", [None, 0.5])
def test_shifted_products_are_the_attention(speed: SimpleNamespace, null_bias: float | None) -> None:
    torch.manual_seed(0)
    query, key = torch.randn(2, 16, 13, 18).unbind()
    values = torch.rand(3, 13, 18)
    weights, share = speed.attention.shifted_attention(query, key, 5, null_bias)
    affinity = local_affinity(query[None], key[None], 5, null_bias=null_bias)
    dense = affinity.dense()[0].flatten(2).permute(2, 0, 1)
    torch.testing.assert_close(weights if share is None else weights * share, dense, atol=1e-5, rtol=1e-4)
    copied = speed.attention.shifted_readout(weights, values, 5)
    whole = readout(replace(affinity, matched=None), values[None])[0]
    torch.testing.assert_close(copied, whole, atol=1e-5, rtol=1e-4)


@torch.inference_mode()
def test_a_step_by_each_way_gives_the_same(speed: SimpleNamespace) -> None:
    torch.manual_seed(0)
    maps = torch.rand(4, 21, 30)
    maps[:3] *= (torch.arange(30) > 9) & (torch.arange(30) < 20)
    region = torch.zeros(21, 30, dtype=torch.bool)
    region[:, 6:24] = True
    bridged = torch.tensor([False, True, False])
    step = Crossing(*torch.randn(2, 16, 21, 30).unbind(), maps, region, 5, 0.3, bridged)
    told = speed.attention.compare_steps(step, 1, 1.0)
    assert len(told["seconds"]) == 5
    assert max(told["apart"].values()) < 1e-4
    assert told["region"] == pytest.approx(18 / 30)
    assert speed.attention.held(step).sum() == 21 * 10
    assert told["operations"]["exchange, whole slice"] == told["operations"]["shifted products, whole slice"]
    # The region reaches neither side of the slice, so each of its columns sees five; rows see 3, 4, 5, ... 5, 4, 3.
    assert told["operations"]["tiles, where labels can be"] == 2 * (18 * 5) * (2 * 3 + 2 * 4 + 17 * 5) * (16 + 4 + 3)
    longer = replace(step, window=7)
    shifted = speed.attention.shifted_exchange
    assert speed.attention.greatest_difference(shifted(longer), shifted(step), step) > 1e-2


def test_the_attention_s_floor_by_hand(speed: SimpleNamespace) -> None:
    everywhere = torch.ones(3, 3, dtype=torch.bool)
    corner = torch.zeros(3, 3, dtype=torch.bool)
    corner[0, 0] = True
    # In a row of three, windows of three hold 2, 3 and 2 positions.
    assert speed.floor.attention_products(everywhere, 3, 10, 4, 3) == 2 * 49 * (10 + 4 + 3)
    assert speed.floor.attention_products(corner, 3, 10, 4, 3) == 2 * 4 * (10 + 4 + 3)
    assert speed.floor.attention_products(corner, 5, 1, 0, 0) == 2 * 9


def test_the_network_s_floor_by_hand(speed: SimpleNamespace) -> None:
    # Four Gabor filters; stages of 8, 16, 32 and 64 channels on grids of 24, 12, 12 and 6 positions; 16 features.
    gabor, stem = 48**2 * 4 * 7**2, 24**2 * 8 * 4 * 7**2
    stages = (
        24**2 * 4 * 8 * 8 * 9
        + 12**2 * (16 * 8 * 9 + 3 * 16 * 16 * 9 + 16 * 8)
        + 12**2 * (32 * 16 * 9 + 3 * 32 * 32 * 9 + 32 * 16)
        + 6**2 * (64 * 32 * 9 + 3 * 64 * 64 * 9 + 64 * 32)
    )
    laterals = 16 * (24**2 * 8 + 12**2 * 16 + 12**2 * 32 + 6**2 * 64)
    head = 24**2 * 16 * 16 * 9
    by_hand = 2 * (gabor + stem + stages + laterals + head)
    assert speed.floor.network_products(tiny_network(), 48, 48) == by_hand


def test_the_refiner_s_floor_by_hand(speed: SimpleNamespace, refining_weights: Weights) -> None:
    # 16 features; 24 and 40 channels, the latter at half the resolution; 48 samples inside and outside.
    looks = 16 * 24 + 16 * 24 + 2 * 48 * 24
    fine = 9 * (11 * 24 + 24 * 24 + 24 * 24) + 24
    coarse = (9 * (24 * 40 + 3 * 40 * 40) + 40 * 24) / 4
    assert speed.floor.refiner_products(refining_weights.network.refiner) == 2 * (looks + fine + coarse)


def test_a_floor_is_what_takes_longer(speed: SimpleNamespace) -> None:
    rates = speed.machine.Rates(gflops=2.0, gb_per_second=4.0)
    assert speed.floor.Work(operations=6e9, moved=4e9).floor(rates) == 3.0
    assert speed.floor.Work(operations=6e9, moved=20e9).floor(rates) == 5.0


@pytest.mark.parametrize("exponent", [0.0, 1.0, 2.0])
def test_the_slope_is_the_exponent(speed: SimpleNamespace, exponent: float) -> None:
    sizes = [10, 20, 40, 100]
    assert speed.growth.slope(sizes, [3 * size**exponent for size in sizes]) == pytest.approx(exponent)


def test_labels_are_cut_to_any_number(speed: SimpleNamespace, blocks: tuple[Volume, np.ndarray]) -> None:
    _, labels = blocks
    np.testing.assert_array_equal(speed.scans.cut_labels(labels, 1), labels == 1)
    four = speed.scans.cut_labels(labels, 4)
    assert np.bincount(four.ravel())[1:].tolist() == [8 * 7 * 14, 8 * 12 * 10, 8 * 8 * 10, 8 * 7 * 14]
    thirteen = speed.scans.cut_labels(labels, 13)
    np.testing.assert_array_equal(thirteen > 0, labels > 0)
    assert len(np.unique(thirteen[3])) == 14


def test_an_enlarged_scan_keeps_its_body(
    speed: SimpleNamespace, blocks: tuple[Volume, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    volume, labels = blocks
    narrow = Phantom(Volume(volume.array[:, 2:38] * 100, (4.0, 1.0, 1.0)), labels[:, 2:38], {})
    monkeypatch.setattr(speed.scans, "_sample", lambda: narrow)
    large, cut = speed.scans.enlarged((16, 80, 80))
    assert large.array.shape == cut.shape == (16, 80, 80)
    assert large.spacing == (2.0, 0.5, 0.5)
    assert np.bincount(cut.ravel()).tolist() == (8 * np.bincount(labels.ravel())).tolist()
    assert [round(float(large.array[cut == label].mean()) / 100) for label in range(4)] == [0, 1, 2, 3]
    thin, _ = speed.scans.enlarged((80, 40, 40))
    assert (thin.spacing, thin.axis) == ((1.0, 1.0, 1.0), 0), "in slices thinner than pixels, others would run"


def test_a_correction_changes_one_label_or_all(speed: SimpleNamespace, blocks: tuple[Volume, np.ndarray]) -> None:
    image = blocks[1][4]
    one = speed.cases.changed(image, all_labels=False)
    differing = np.unique(np.stack([image, one])[:, one != image])
    assert differing.tolist() == [0, 1]
    every = speed.cases.changed(image, all_labels=True)
    assert np.unique(every[every != image]).tolist() == [0, 1, 2, 3]


def test_speed_is_measured_from_opening_to_export(
    speed: SimpleNamespace,
    blocks: tuple[Volume, np.ndarray],
    refining_weights: Weights,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (volume, labels), cpu = blocks, torch.device("cpu")
    case = {"scan": "CHAOS"} | speed.cases.measure_case(volume, labels, refining_weights, cpu, 2, 60.0)
    assert {name: len(times) for name, times in case["seconds"].items()} == dict.fromkeys(
        ("features and suggestion", "propagate all labels", "one label corrected", "all labels corrected", "reopened"),
        2,
    )
    assert (case["shape"], case["labels"], len(case["rates"])) == ([8, 40, 40], 3, 3)
    work = case["work"]
    assert work["propagate all labels"]["operations"] > work["one label corrected"]["operations"] > 0
    side = {"scan": "CHAOS"} | speed.whole.compare(volume, labels, refining_weights, cpu, 1, 60.0)
    assert min(side["same_labels"].values()) > 0.999
    assert {"chained DIS flow", "chained demons"} < side["seconds"].keys()

    def cut(shape: tuple[int, int, int]) -> tuple[Volume, np.ndarray]:
        return replace(volume, array=volume.array[: shape[0]]), labels[: shape[0]]

    monkeypatch.setattr(speed.growth, "enlarged", cut)
    plan = {"slices": [(4, 40, 2), (8, 40, 2)], "labels": [(4, 40, 1), (4, 40, 3)]}
    growth = speed.growth.measure_growth(plan, refining_weights, cpu, 1, 60.0)
    write_image(tmp_path / "image.nii", volume.array, volume)
    save_weights(tmp_path / "w.safetensors", refining_weights.network, refining_weights.preprocessing, {"data": "none"})
    told = speed.memory.measure_memory(tmp_path / "image.nii", 4, labels[4], "cpu", str(tmp_path / "w.safetensors"))
    assert [entry["stage"] for entry in told["stages"]][-2:] == ["update", "export"]
    assert (tmp_path / "exported.nii.gz").exists()
    rows = {
        "cases": [case],
        "sides": [side],
        "growth": growth,
        "memory": [{"scan": "x", "shape": [8, 40, 40], "labels": 3} | told],
    }
    fixed = {"quick": True, "device": "cpu", "load": 12.3, "rates": case["rates"]}
    record = {"machine": speed.machine.describe_machine()} | {name: fixed | {"rows": r} for name, r in rows.items()}
    kept, page, plot = tmp_path / "speed.json", tmp_path / "page.md", tmp_path / "images" / "growth.svg"
    kept.write_text(json.dumps(record))
    page.write_text("before\n<!-- measured: begin -->old<!-- measured: end -->\nafter\n")
    import speed as program

    monkeypatch.setattr(sys, "argv", ["speed.py", str(kept), "--page", str(page), "--plot", str(plot)])
    program.main()
    text = page.read_text()
    assert text.startswith("before\n<!-- measured: begin -->\n")
    assert text.endswith("<!-- measured: end -->\nafter\n")
    assert "old" not in text
    assert text.count("Other programs ran at the same time (load 12).") == 4
    for row in ("| CHAOS | 8 x 40 x 40 | 3 | ", "| propagation | ", "| slices | 4 x 40 x 40 | 2 | ", "| export | "):
        assert row in text
    assert plot.read_text().count("exponent") == 2
    assert speed.report.summary(record["cases"])["runs"][0]["scan"] == "chaos_mr_t2"
    assert json.loads(kept.read_text()) == record
