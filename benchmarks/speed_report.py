"""Tables and the plot of what ``speed.py`` has measured, and the page that shows them."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from speed_attention import SHIFTED_STEP
from speed_cases import ALL, FEATURES, ONE, PROPAGATE, REOPENED, median_rates
from speed_floor import Work
from speed_growth import slope
from speed_scans import REAL
from speed_whole import OWN

__all__ = ["TABLES", "plot_growth", "renew_page", "report", "summary"]

FIRST_RATE = 217.0
"""GFLOP/s of the machine on which the first times were taken, to which the limits belong."""
BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"
MEMORY_LIMIT = 6.0  # GB
_BUSY = 3.5
"""Load from which on other programs are mentioned: this one alone makes two or three."""
_STEPS = (FEATURES, PROPAGATE, ONE, ALL, REOPENED)

Part = Mapping[str, Any]


def report(record: Mapping[str, Any]) -> str:
    """Return all tables of what was measured, in Markdown."""
    parts = [_machine(record["machine"])]
    if "cases" in record:
        parts.append("## Against the limits\n\n" + limits_table(record))
    for name, (title, table) in TABLES.items():
        if name in record:
            parts.append(f"## {title}\n\n{_when(record[name])}\n\n{table(record[name])}")
    return "\n\n".join(parts)


def renew_page(page: Path, record: Mapping[str, Any]) -> None:
    """Put the tables between the two marks of a page."""
    before, _, rest = page.read_text(encoding="utf-8").partition(BEGIN)
    _, found, after = rest.partition(END)
    if not found:
        raise SystemExit(f"{page} lacks the marks {BEGIN} and {END}, between which the tables go.")
    page.write_text(f"{before}{BEGIN}\n\n{report(record)}\n\n{END}{after}", encoding="utf-8")


def summary(part: Part) -> dict[str, Any]:
    """Return the medians of some scans, for the table of the README: real ones, and the phantom with four labels."""
    runs = []
    for row in part["rows"]:
        name = REAL.get(row["scan"], "phantom")
        if name != "phantom" or (row["labels"], row["shape"][1]) == (4, 256):
            times = _times(row["seconds"])
            seconds = {step: times[step] for step in (FEATURES, PROPAGATE, ONE, ALL)}
            runs.append({"scan": name, "shape": row["shape"], "labels": row["labels"], "seconds": seconds})
    peak = max(row["peak_mib"] for row in part["rows"])
    rate = median_rates(part["rates"]).gflops
    return {"device": part["device"], "gflops": rate, "peak_mib": peak, "runs": runs}


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table in Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def time_of(seconds: float) -> str:
    """Return a time in three figures."""
    if seconds < 0.1:
        return f"{1000 * seconds:.3g} ms"
    return f"{seconds:.2f} s" if seconds < 10 else f"{seconds:.0f} s"


def _machine(machine: Mapping[str, Any]) -> str:
    return (
        f"{machine['cores']} cores ({machine['instructions']}), {machine['memory_gib']} GiB, {machine['system']}, "
        f"Python {machine['python']}, torch {machine['torch']}, threads: {machine['threads']}."
    )


def _when(part: Part) -> str:
    """Return what the machine did at the time of a part."""
    rates = median_rates(part["rates"])
    least = min(rate["gflops"] for rate in part["rates"])
    most = max(rate["gflops"] for rate in part["rates"])
    length = "A short run" if part["quick"] else "A full run"
    shared = f" Other programs ran at the same time (load {part['load']:.0f})." if part["load"] >= _BUSY else ""
    return (
        f"{length} on {part['device']}; matrix product {rates.gflops:.0f} GFLOP/s ({least:.0f} to {most:.0f} in this "
        f"part), copy {rates.gb_per_second:.0f} GB/s.{shared}"
    )


def _times(seconds: Mapping[str, Sequence[float]]) -> dict[str, float]:
    return {name: statistics.median(times) for name, times in seconds.items() if times}


def _size(shape: Sequence[int]) -> str:
    return " x ".join(map(str, shape))


def cases_table(part: Part) -> str:
    """Return times, multiples of the floor, and memory of each scan."""
    rows, floors = [], []
    for row in part["rows"]:
        rates, times = median_rates(row["rates"]), _times(row["seconds"])
        floor = {name: Work(**work).floor(rates) for name, work in row["work"].items()}
        cells = [f"{time_of(times[name])} ({times[name] / floor[name]:.1f})" for name in _STEPS]
        scan = [row["scan"], _size(row["shape"]), str(row["labels"])]
        rows.append([*scan, *cells, f"{row['peak_mib'] / 1024:.1f} GiB", str(len(row["seconds"][PROPAGATE]))])
        works = {name: Work(**row["work"][name]) for name in (FEATURES, PROPAGATE, ONE, ALL)}
        least = [f"{w.operations / 1e9:.0f} GFLOP, {time_of(floor[name])}" for name, w in works.items()]
        floors.append([*scan, *least, f"{rates.gflops:.0f}"])
    scan = ["scan", "slices", "labels"]
    return "\n\n".join([
        table([*scan, *_STEPS, "peak memory", "rounds"], rows),
        "The floor of each, and the GFLOP/s that were to be had at the time:",
        table([*scan, FEATURES, PROPAGATE, ONE, ALL, "GFLOP/s"], floors),
    ])  # fmt: skip


def sides_table(part: Part) -> str:
    """Return one step of the attention and whole scans, by each way."""
    blocks, rates = [], median_rates(part["rates"])
    for row in part["rows"]:
        step, whole = row["step"], _times(row["seconds"])
        times = _times(step["seconds"])
        least = {name: Work(operations).floor(rates) for name, operations in step["operations"].items()}
        rows = [
            [
                name,
                f"{time_of(t)} ({t / least[name]:.1f})",
                f"{times[SHIFTED_STEP] / t:.1f}",
                f"{step['apart'][name]:.0e}",
            ]
            for name, t in times.items()
        ]
        scan = f"{row['scan']}, {_size(row['shape'])}, {row['labels']} labels"
        blocks.append(
            f"{scan}: one step, there and back, {step['labels']} labels on {_size(step['positions'])} positions, of "
            f"which {step['region']:.0%} are where labels can be."
        )
        head = ["attention", "time", "times faster than shifted products", "greatest difference from them"]
        blocks.append(table(head, rows))
        blocks.append(f"{scan}: the whole scan.")
        same = row["same_labels"]
        rows = [
            [name, time_of(t), f"{t / whole[OWN]:.1f}", f"{100 * same[name]:.3f} %" if name in same else ""]
            for name, t in whole.items()
        ]
        blocks.append(table(["labels carried by", "time", "times the propagation's", "voxels labelled alike"], rows))
    return "\n\n".join(blocks)


def slopes(part: Part) -> dict[tuple[str, str], float]:
    """Return the exponent of growth by what grows and what is timed."""
    found = {}
    for grows, rows in groupby(part["rows"], key=lambda row: row["grows"]):
        group = list(rows)
        sizes = [row[grows] for row in group]
        for name in (FEATURES, PROPAGATE):
            found[grows, name] = slope(sizes, [statistics.median(row["seconds"][name]) for row in group])
    return found


def growth_table(part: Part) -> str:
    """Return times by what grows, and the exponents."""
    exponents = slopes(part)
    blocks = ["![Growth of time with slices, pixels along a side, and labels](images/speed-growth.svg)"]
    rows = []
    for row in part["rows"]:
        times = _times(row["seconds"])
        scan = [f"{row['slices']} x {row['size']} x {row['size']}", str(row["labels"])]
        rows.append([row["grows"], *scan, *(time_of(times[name]) for name in (FEATURES, PROPAGATE))])
    blocks.append(table(["grows", "scan", "labels", FEATURES, PROPAGATE], rows))
    blocks.append("Exponent (1: in proportion; the slope of the line through the logarithms):")
    grown = list(dict.fromkeys(grows for grows, _ in exponents))
    rows = [[grows, *(f"{exponents[grows, name]:.2f}" for name in (FEATURES, PROPAGATE))] for grows in grown]
    return "\n\n".join([*blocks, table(["with", FEATURES, PROPAGATE], rows)])


def startup_table(part: Part) -> str:
    """Return how long it takes to import and to open."""
    times = part["rows"]["seconds"]
    rows = [
        [name, time_of(statistics.median(t)), f"{time_of(min(t))} to {time_of(max(t))}", str(len(t))]
        for name, t in times.items()
        if t
    ]
    imported = ", ".join(part["rows"]["imported_by_the_window"]) or "none"
    return f"{table(['', 'median', 'range', 'processes'], rows)}\n\nHeavy packages imported by the window: {imported}."


def memory_table(part: Part) -> str:
    """Return the memory after and during each stage."""
    blocks = []
    for row in part["rows"]:
        blocks.append(f"{row['scan']}, {_size(row['shape'])}, {row['labels']} labels painted on one slice.")
        rows = [
            [entry["stage"], time_of(entry["seconds"]), *(f"{entry[k] / 1024:.2f} GiB" for k in ("mib", "peak_mib"))]
            for entry in row["stages"]
        ]
        blocks.append(table(["stage", "time", "memory afterwards", "most during it"], rows))
        largest = max(row["stages"], key=lambda entry: entry["peak_mib"])
        peak = row["peak_mib"] * 1024**2 / 1e9
        blocks.append(f'Most: {peak:.1f} GB, in the stage "{largest["stage"]}".')
    return "\n\n".join(blocks)


def limits_table(record: Mapping[str, Any]) -> str:
    """Return what was to be reached beside what was measured; limits are scaled by the rate of the matrix product."""
    rows = []
    wanted = {
        "CHAOS": ((FEATURES, 1.5), (PROPAGATE, 1.0), (ONE, 0.3), (ALL, 0.3)),
        "3D-IRCADb": ((FEATURES, 8.0), (PROPAGATE, 4.0)),
    }
    for row in record["cases"]["rows"]:
        rate, times = median_rates(row["rates"]).gflops, _times(row["seconds"])
        for name, limit in wanted.get(row["scan"], ()):
            scaled = limit * FIRST_RATE / rate
            what = f"{row['scan']}, {row['labels']} labels: {name}"
            rows.append([what, f"{limit} s", time_of(scaled), time_of(times[name]), _verdict(times[name] <= scaled)])
    for row in record.get("sides", {}).get("rows", ()):
        times = _times(row["step"]["seconds"])
        own = min(times.values())
        ratio = times[SHIFTED_STEP] / own
        rows.append([
            f"{row['scan']}: attention against shifted products", "10 times", "10 times", f"{ratio:.1f} times",
            _verdict(ratio >= 10),
        ])  # fmt: skip
    if "startup" in record:
        seconds = record["startup"]["rows"]["seconds"]
        for name, limit in (("import napari_oneseg", 0.1), ("open the widget", 0.5)):
            if seconds[name]:
                median = statistics.median(seconds[name])
                rows.append([name, f"{limit} s", f"{limit} s", time_of(median), _verdict(median <= limit)])
    for row in record.get("memory", {}).get("rows", ()):
        peak = row["peak_mib"] * 1024**2 / 1e9
        what, limit = f"{_size(row['shape'])}: most memory", f"{MEMORY_LIMIT:.0f} GB"
        rows.append([what, limit, limit, f"{peak:.1f} GB", _verdict(peak < MEMORY_LIMIT)])
    return table(["", f"limit at {FIRST_RATE:.0f} GFLOP/s", "limit here", "measured", ""], rows)


def _verdict(reached: bool) -> str:
    return "reached" if reached else "**missed**"


def plot_growth(part: Part, path: Path) -> None:
    """Draw how times grow, one field for each thing that grows, both axes logarithmic."""
    import matplotlib as mpl

    mpl.use("agg")
    # Text as text and no random names: the same numbers give the same file.
    mpl.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "speed"})
    from matplotlib import pyplot as plt
    from matplotlib.ticker import LogLocator, NullLocator

    groups = {grows: list(rows) for grows, rows in groupby(part["rows"], key=lambda row: row["grows"])}
    exponents = slopes(part)
    figure, fields = plt.subplots(1, len(groups), figsize=(3.6 * len(groups), 3.6), squeeze=False, layout="constrained")
    captions = {"slices": "slices", "size": "pixels along a side", "labels": "labels"}
    for axes, (grows, rows) in zip(fields[0], groups.items(), strict=True):
        sizes = [row[grows] for row in rows]
        for name, marker in ((FEATURES, "o"), (PROPAGATE, "s")):
            times = [statistics.median(row["seconds"][name]) for row in rows]
            axes.loglog(sizes, times, marker=marker, label=f"{name}: {exponents[grows, name]:.2f}")
        axes.set_xticks(sizes, labels=list(map(str, sizes)))
        axes.set_xticks([], minor=True)
        axes.set_xlabel(captions[grows])
        axes.set_ylabel("seconds")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_locator(NullLocator())
        axes.grid(visible=True, alpha=0.3)
        # Above, where no line runs.
        axes.legend(title="exponent", fontsize="small", loc="lower center", bbox_to_anchor=(0.5, 1.0), frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


TABLES: dict[str, tuple[str, Callable[[Part], str]]] = {
    "cases": ("What the user waits for", cases_table),
    "sides": ("Side by side", sides_table),
    "growth": ("Growth", growth_table),
    "startup": ("Start-up", startup_table),
    "memory": ("Memory", memory_table),
}
