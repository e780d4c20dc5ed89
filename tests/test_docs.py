"""The documentation says what is: its examples run, its tables are the measured ones, its site needs no network.

Every ``python`` block of a page runs, in the order of the page, in one namespace. Of ``bash`` blocks every line is
either ``oneseg ...`` or ``python ...``, which runs, or ``make TARGET``, whose target must be there. A block that cannot
run says why in a comment before it: ``<!-- not run: REASON -->``.
"""

from __future__ import annotations

import importlib.util
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partialmethod
from html.parser import HTMLParser
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import yaml
from numpy.typing import NDArray
from PIL import Image
from pydicom.dataset import Dataset
from typer.testing import CliRunner

from napari_oneseg import OneSegSession, __version__, write_image, write_labels
from napari_oneseg.cli import app
from napari_oneseg.features import cache
from napari_oneseg.features.cache import FeatureCache
from napari_oneseg.phantom import Phantom, phantom
from tests.dicom_files import grey, put_pixels, save_series

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / ".napari-hub" / "DESCRIPTION.md"]
PAGES += sorted((ROOT / "docs").rglob("*.md"))
BLOCK = re.compile(
    r"^(?:<!-- not run: (?P<why>.+?) -->\n)?```(?P<kind>\w*)[^\n]*\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL
)
SHORTER = {
    "adapt": ["--minutes", "0.05"],
    "train": ["--epochs", "1", "--epoch-steps", "1"],
    # Each worker is a process that loads torch.
    "batch suggest": ["--workers", "1"],
    "batch propagate": ["--workers", "1"],
    "batch evaluate": ["--workers", "1"],
}
"""What makes a long command short; the last of an option that is given twice counts."""


@dataclass(frozen=True)
class Block:
    """A fenced block of a page: its kind, its text, and why it does not run, if it does not."""

    kind: str
    text: str
    why: str | None


def blocks(page: Path) -> list[Block]:
    found = BLOCK.finditer(page.read_text(encoding="utf-8"))
    return [Block(one["kind"], one["text"], one["why"]) for one in found]


def commands(text: str) -> Iterator[list[str]]:
    """Yield the words of each line of a shell block, without comments."""
    for line in text.replace("\\\n", " ").splitlines():
        if words := shlex.split(line, comments=True):
            yield words


RUN_PAGES = [
    page for page in PAGES if any(block.kind in {"python", "bash"} and not block.why for block in blocks(page))
]


def script(name: str) -> ModuleType:
    """Load a program of scripts/."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "scripts" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def shorter(scan: Path, labels: Path, sample: Phantom, values: NDArray[np.uint8], kept: slice) -> None:
    """Write some slices of a scan, and labels of them."""
    volume = replace(sample.volume, array=sample.volume.array[kept])
    write_image(scan, volume.array.astype(np.float32), volume)
    write_labels(labels, values[kept], volume)


def larger(dataset: Dataset) -> None:
    put_pixels(dataset, grey(dataset.InstanceNumber, shape=(64, 48)) % 200)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a reader has who has followed "Files to try", with fewer slices, and a DICOM study of two series."""
    folder = tmp_path_factory.mktemp("files")
    sample = phantom(seed=0)
    painted = np.zeros_like(sample.labels)
    # The kidneys: each label more would take its time on every page.
    painted[18] = np.where(np.isin(sample.labels[18], (2, 3)), sample.labels[18], 0)
    shorter(folder / "scan.nii.gz", folder / "painted.nii.gz", sample, painted, slice(0, 29))
    for name in ("one", "two"):
        (folder / "scans").mkdir(exist_ok=True)
        (folder / "references").mkdir(exist_ok=True)
        paths = (folder / kind / f"{name}.nii.gz" for kind in ("scans", "references"))
        shorter(*paths, sample, sample.labels, slice(14, 22) if name == "one" else slice(16, 24))
    for number in (12, 13):
        entries = {"SeriesNumber": number, "SeriesInstanceUID": f"1.2.3.{number}", "FrameOfReferenceUID": "1.2.3.9"}
        heights = [5.0 * index + number for index in range(8)]
        save_series(folder / "study" / str(number), heights, larger, **entries)
    return folder


@pytest.fixture(scope="module")
def kept_features(tmp_path_factory: pytest.TempPathFactory) -> FeatureCache:
    return FeatureCache(tmp_path_factory.mktemp("features"))


@pytest.mark.parametrize("page", RUN_PAGES, ids=lambda page: page.stem)
def test_examples_of_a_page_run(
    page: Path, files: Path, kept_features: FeatureCache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # All pages look at the same scans, whose features are computed once.
    monkeypatch.setattr(OneSegSession, "__init__", partialmethod(OneSegSession.__init__, cache=kept_features))
    monkeypatch.setattr(cache, "user_cache", lambda: kept_features)
    monkeypatch.chdir(shutil.copytree(files, tmp_path / "work"))
    namespace: dict[str, object] = {}
    for block in blocks(page):
        if block.why:
            continue
        if block.kind == "python":
            exec(compile(block.text, f"{page.name}, python block", "exec"), namespace)
        elif block.kind == "bash":
            for words in commands(block.text):
                run(words)


def run(words: list[str]) -> None:
    program, *arguments = words
    if program == "make":
        assert arguments[0] in targets(), f"there is no target {arguments[0]}"
        return
    if program == "python":
        done = subprocess.run(
            [sys.executable, *arguments], capture_output=True, encoding="utf-8", timeout=300, check=False
        )
        assert done.returncode == 0, done.stderr
        return
    assert program == "oneseg", f"{shlex.join(words)}: none of oneseg, python, make; say why it is not run"
    quick = next((more for name, more in SHORTER.items() if shlex.join(arguments).startswith(name)), [])
    done = CliRunner().invoke(app, [*arguments, *quick], catch_exceptions=False)
    assert done.exit_code == 0, f"{shlex.join(words)}: {done.output}"


def targets() -> set[str]:
    return set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))


def test_every_code_block_says_what_it_is() -> None:
    nameless = [page.name for page in PAGES for block in blocks(page) if not block.kind]
    assert nameless == []


def test_every_target_has_a_line_of_help() -> None:
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    helped = set(re.findall(r"^([a-z-]+):.*## ", text, re.MULTILINE))
    named = {word for page in PAGES for word in re.findall(r"`make ([a-z-]+)", page.read_text(encoding="utf-8"))}
    assert named <= helped


def test_tables_of_the_readme_are_the_measured_ones() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert "<!-- made: accuracy-overview -->" in text
    # If this fails, the measurements or the weights have changed: make docs-made.
    assert script("docs_hooks").filled(text) == text


def test_numbers_in_sentences_are_the_measured_ones() -> None:
    made = script("docs_reports")

    def dice(data: str, label: int | None = None, **way: object) -> float:
        return float(made.mean(made.scored(data, "oneseg", **way), "dice", label).mean)

    mr, ct = "chaos_mr_t2", "btcv_ct"
    curves = made.effort_curves(mr, "oneseg")
    first, second = (made.reach(curves, threshold).mean.mean for threshold in (0.90, 0.95))
    gains = [dice(mr, label, protocol="ranged") - dice(mr, label) for label in (2, 3, 4)]
    sentences = {
        "docs/howto/correcting.md": f"0.90 after {first:.1f} slices per organ on average, and 0.95 after {second:.1f}",
        "docs/howto/thick-slices.md": f"kidneys and spleen gain {min(gains):.2f} to {max(gains):.2f} Dice",
        "docs/limits.md": f"with a Dice of {dice(ct, 8):.2f} on CT",
        "README.md": f"somewhere on its way (Dice {dice(ct, 8):.2f} from one painted slice)",
        ".napari-hub/DESCRIPTION.md": (
            f"was {dice(mr):.2f} on abdominal MRI (5 scans, 4 organs) and {dice(ct):.2f} on abdominal CT (6 scans, "
            f"6 organs); with all organs painted {dice(mr, together=True):.2f} and {dice(ct, together=True):.2f}."
        ),
    }
    two = dice(mr, protocol="evenly", slices=2)
    rises = f"The mean over four organs of five MRI scans rises from {dice(mr):.2f} to {two:.2f} Dice"
    for page, sentence in [*sentences.items(), ("docs/howto/thick-slices.md", rises)]:
        assert sentence in " ".join((ROOT / page).read_text(encoding="utf-8").split())


def test_pictures_of_how_it_works_are_current(tmp_path: Path) -> None:
    pictures = script("docs_pictures")
    pictures.main(tmp_path)
    for name in pictures.PICTURES:
        new, old = (np.asarray(Image.open(folder / name).convert("L"), float) for folder in (tmp_path, pictures.FOLDER))
        assert new.shape == old.shape
        # Other processors round otherwise; another picture differs in more. If this fails: make docs-made.
        assert np.abs(new - old).mean() < 0.5, name


def test_reference_of_the_command_line_names_every_option() -> None:
    page = script("docs_cli").commands()
    for command in ("suggest", "propagate", "evaluate", "demo", "adapt", "train", "info"):
        assert f"## oneseg {command}\n" in page
    assert "| `--direction both|up|down` | Carry labels towards higher slice indices" in page
    assert "oneseg propagate IMAGE ANNOTATION --output FILE [OPTIONS]" in page
    assert "Default: `13`." in page


class Resources(HTMLParser):
    """Collects what a page makes a browser fetch; a link that a reader may follow is none of it."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag == "link" and given.get("rel") not in {"canonical", "next", "prev"}:
            self.found.append(given.get("href") or "")
        self.found += [given[key] or "" for key in ("src", "srcset", "poster", "data") if key in given and tag != "a"]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("material", reason="needs the documentation's packages: make docs installs them")
    folder = tmp_path_factory.mktemp("site")
    build = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", folder]
    done = subprocess.run(build, cwd=ROOT, capture_output=True, encoding="utf-8", timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return folder


def test_site_fetches_nothing_from_the_network(site: Path) -> None:
    pages = list(site.rglob("*.html"))
    assert len(pages) > 20
    for page in pages:
        text = page.read_text(encoding="utf-8")
        parser = Resources()
        parser.feed(text)
        assert parser.found
        outside = [address for address in parser.found if re.match(r"(https?:)?//", address)]
        assert outside == [], f"{page.name} fetches {outside}"
        # The theme would fetch Mermaid's program.
        assert 'class="mermaid"' not in text
    for style in site.rglob("*.css"):
        assert not re.search(r"url\(['\"]?(https?:)?//|@import", style.read_text(encoding="utf-8")), style.name


def test_site_holds_what_is_made_while_it_is_built(site: Path) -> None:
    assert "<code>--direction both|up|down</code>" in (site / "cli.html").read_text(encoding="utf-8")
    accuracy = (site / "accuracy.html").read_text(encoding="utf-8")
    marks = (ROOT / "docs" / "accuracy.md").read_text(encoding="utf-8").count("<!-- made: ")
    assert marks > 8
    assert accuracy.count("<table>") == marks
    assert "architecture.html" in (site / "contributing.html").read_text(encoding="utf-8")
    assert "pre-commit" in (site / "contributing.html").read_text(encoding="utf-8")


def test_index_for_searching_is_built(site: Path) -> None:
    index = (site / "search" / "search_index.json").read_text(encoding="utf-8")
    assert "howto/organs.html" in index


def test_citation_is_valid() -> None:
    """The rules of the Citation File Format 1.2.0 for the keys that are used."""
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert cited["cff-version"] == "1.2.0"
    assert {"message", "title", "authors"} <= set(cited)
    known = {"cff-version", "message", "title", "abstract", "type", "version", "license", "authors", "keywords"}
    assert set(cited) <= known | {"references"}
    assert cited["type"] == "software"
    assert cited["version"] == __version__
    assert all(set(author) == {"name"} for author in cited["authors"])
    (paper,) = cited["references"]
    assert {"type", "title", "authors"} <= set(paper)
    assert paper["type"] == "conference-paper"
    assert all(set(author) == {"family-names", "given-names"} for author in paper["authors"])
    assert re.fullmatch(r"10\.\d{4,9}/\S+", paper["doi"])
    assert all(entry["type"] in {"doi", "url", "swh", "other"} for entry in paper["identifiers"])


def test_description_needs_no_repository() -> None:
    """Package indexes and the napari hub show it without the files beside it."""
    text = (ROOT / ".napari-hub" / "DESCRIPTION.md").read_text(encoding="utf-8")
    links = re.findall(r"\]\(([^)]*)\)", text)
    assert [link for link in links if not link.startswith("https://")] == []


def test_changes_name_the_version() -> None:
    assert f"## {__version__}" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_addresses_are_found_and_tried() -> None:
    links = script("docs_links")
    found = links.addresses()
    assert "https://napari.org" in found
    assert "docs/index.md" in found["https://napari.org"]
    nobody = "http://127.0.0.1:9/nobody"  # the port of "discard": refused at once
    assert next(links.broken({nobody: {"a.md"}})).startswith(nobody)
