"""What the documentation takes from elsewhere: measured tables, the command line, and pages of the repository's top.

``<!-- made: NAME -->`` in a page is followed by what the code or the benchmarks say. For pages of the site that happens
while it is built. README.md has no build: this program writes its tables into it, and a test compares them.

    python scripts/docs_hooks.py README.md
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "scripts"))

from docs_cli import commands  # noqa: E402 - mkdocs loads this file by its path
from docs_reports import TABLES  # noqa: E402 - as above

__all__ = ["filled", "on_page_markdown"]

MARK = re.compile(r"(?P<mark><!-- made: (?P<name>[^>]+?) -->)\n(?P<old>(?:[^\n]+\n)*)")
"""A mark, and what stands there since the last time: up to the next empty line."""


def contributing() -> str:
    """Return CONTRIBUTING.md, its links as they are from within docs/."""
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    return text.replace("](docs/", "](").replace("](CHANGELOG.md)", "](changelog.md)")


MADE: dict[str, Callable[[], str]] = {**TABLES, "commands": commands, "contributing": contributing}


def filled(markdown: str) -> str:
    """Return a page with everything that its marks name.

    Raises
    ------
    KeyError
        If a mark names what is not known.
    """
    return MARK.sub(lambda found: f"{found['mark']}\n{MADE[found['name']]()}\n", markdown)


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Fill a page while the site is built; called by mkdocs."""
    return filled(markdown)


if __name__ == "__main__":
    for name in sys.argv[1:]:
        page = Path(name)
        page.write_text(filled(page.read_text(encoding="utf-8")), encoding="utf-8")
