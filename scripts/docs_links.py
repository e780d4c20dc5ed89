"""Try every address outside that the pages name: ``make docs-links``. It needs the network, so it is no test.

Links within the site are checked while it is built.
"""

from __future__ import annotations

import re
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGES = ("*.md", "docs/**/*.md", ".napari-hub/*.md", "CITATION.cff")
ADDRESS = re.compile(r"https?://[^\s<>()\"'`]+")
SECONDS = 20


def addresses() -> dict[str, set[str]]:
    """Return each address with the pages that name it; a DOI is one too."""
    found: dict[str, set[str]] = {}
    for path in sorted(page for pattern in PAGES for page in ROOT.glob(pattern)):
        text = path.read_text(encoding="utf-8")
        named = [address.rstrip(".,;") for address in ADDRESS.findall(text)]
        named += [f"https://doi.org/{doi.rstrip('.,;')}" for doi in re.findall(r"\bdoi:\s*(10\.\S+)", text)]
        for address in named:
            found.setdefault(address, set()).add(path.relative_to(ROOT).as_posix())
    return found


def broken(found: dict[str, set[str]]) -> Iterator[str]:
    """Yield a line for each address that does not answer."""
    for address, pages in found.items():
        request = urllib.request.Request(address, headers={"User-Agent": "napari-oneseg docs-links"})
        try:
            with urllib.request.urlopen(request, timeout=SECONDS):
                pass
        except urllib.error.HTTPError as error:
            # Forbidden and "too many requests" are what a program gets, not what is there.
            if error.code not in {401, 403, 429}:
                yield f"{address}: {error.code} (in {', '.join(sorted(pages))})"
        except OSError as error:
            yield f"{address}: {error} (in {', '.join(sorted(pages))})"


if __name__ == "__main__":
    everything = addresses()
    lines = list(broken(everything))
    print(*lines, f"{len(everything)} addresses, {len(lines)} broken.", sep="\n")
    sys.exit(bool(lines))
