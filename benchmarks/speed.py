"""Speed and memory on this machine, against other ways and against the machine's own limit: ``make bench-speed``.

Each part is measured with the machine's rate in a large matrix product and in a large copy beside it, because times of
different machines compare only through these. Medians are given; what is compared is done in turn.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from napari_oneseg.threads import wait_politely

sys.path.insert(0, str(Path(__file__).parent))


def parse_options(parts: list[str], arguments: list[str] | None = None) -> argparse.Namespace:
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    results = Path(__file__).parent / "results" / "speed.json"
    parser.add_argument("json", nargs="?", type=Path, default=results, help="file that keeps the numbers of each part")
    parser.add_argument("--only", action="append", choices=parts, help="measure this part; may be repeated")
    parser.add_argument("--quick", action="store_true", help="a few minutes instead of half an hour")
    parser.add_argument("--data", type=Path, default=Path(__file__).parents[2] / "shared" / "data")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--rounds", type=int, help="how often at most each case is repeated")
    parser.add_argument("--seconds", type=float, help="for how long at most each case is repeated")
    parser.add_argument("--page", type=Path, help="renew the tables of this page from the file, and measure nothing")
    parser.add_argument("--plot", type=Path, help="draw the growth in the file into this SVG, and measure nothing")
    return parser.parse_args(arguments)


def main() -> None:
    """Measure, print tables, and keep the numbers as JSON."""
    wait_politely()  # as in the product: before torch is imported, here and in the processes that are started
    from speed_machine import describe_machine
    from speed_parts import PARTS, Run, measure
    from speed_report import TABLES, plot_growth, renew_page, summary

    from napari_oneseg.device import choose_device

    options = parse_options(list(PARTS))
    record = json.loads(options.json.read_text(encoding="utf-8")) if options.json.exists() else {}
    if options.page is None and options.plot is None:
        rounds, seconds = (options.rounds or (1 if options.quick else 5)), options.seconds or 40.0
        run = Run(options.quick, options.data, choose_device(options.device), rounds, seconds)
        for name, part in measure(options.only or list(PARTS), run):
            record |= {"machine": describe_machine(), name: part}
            if name == "cases" and not part["quick"]:
                record |= summary(part)  # for the README, which a short run leaves as it is
            # Kept part by part: an interrupted run loses the present one only.
            options.json.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
            print(f"\n{TABLES[name][0]}\n\n{TABLES[name][1](part)}", flush=True)
    if options.plot is not None:
        if "growth" not in record:
            sys.exit(f"{options.json} does not hold the growth yet: measure it first.")
        plot_growth(record["growth"], options.plot)
    if options.page is not None:
        renew_page(options.page, record)


if __name__ == "__main__":
    main()
