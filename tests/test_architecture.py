"""Who may import whom. The picture is docs/architecture.md; this file holds the code to it."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "napari_oneseg"

# A module, or a folder of modules, imports only from its own line and from those before it.
LAYERS = [
    "errors",
    "colours",
    "threads",
    "config",
    "device",
    "process_lock",
    "files",
    "native",
    "slice_range",
    "planes",
    "grey_values",
    "orientation",
    "volume",
    "crossing_lines",
    "painted_planes",
    "file_order",
    "windows",
    "phantom_canvas",
    "phantom_frame",
    "phantom_organs",
    "phantom",
    "image_formats",
    "packed",
    "dicom",
    "dicom_file",
    "dicom_frames",
    "dicom_stacks",
    "gdcm",
    "dicom_pixels",
    "dicom_series",
    "dicom_seg_images",
    "dicom_seg_labels",
    "metaimage",
    "nifti_geometry",
    "nifti",
    "nrrd",
    "image_files",
    "segment_codes",
    "segment_nrrd",
    "label_values",
    "voxel_size",
    "segment_layers",
    "io",
    "overview",
    "dicom_seg",
    "study_file",
    "study_scans",
    "study_claims",
    "study",
    "study_report",
    "preprocessing",
    "figures",
    "features",
    "propagation",
    "screening",
    "checkpoint",
    "scan_features",
    "session_state",
    "session_job",
    "session_planes",
    "session_result",
    "session_file",
    "session_order",
    "autosave",
    "session",
    "provenance",
    "training",
    "evaluation",
    "batch_records",
    "batch_session",
    "batch",
    "batch_workers",
    "cli",
    "plugin",
]
VIEWER = {"napari", "npe2", "magicgui", "superqt", "vispy", "qtpy", "PyQt6", "PySide6"}
# Names the plugin as text and loads it while it runs, to open the demonstration's window.
DOOR_TO_PLUGIN = "cli/demo.py"
SIMPLEITK_FILES = {
    "gdcm.py",
    "image_files.py",
    "io.py",
    "segment_layers.py",
    "voxel_size.py",
    "evaluation/baselines.py",
}
# Where the name to import is not the name to install.
DISTRIBUTIONS = {
    "cv2": "opencv-python-headless",
    "itk": "itk-morphologicalcontourinterpolation",
    "lightning_fabric": "lightning-fabric",
    "skimage": "scikit-image",
    "sklearn": "scikit-learn",
}

FILES = sorted(path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.py"))
CORE_FILES = [file for file in FILES if not file.startswith("plugin/")]
# The package's own __init__.py stands above all layers: it only points to them.
LAYERED_FILES = [file for file in FILES if file != "__init__.py"]


def names_imported(tree: ast.AST) -> Iterator[str]:
    """Yield the full dotted name of everything that is imported below a node, also inside functions."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def parse(file: str) -> ast.Module:
    return ast.parse((PACKAGE / file).read_text(encoding="utf-8"))


def packages(tree: ast.AST) -> set[str]:
    """Names of the foreign packages imported below a node, without the standard library's."""
    tops = {name.partition(".")[0] for name in names_imported(tree)}
    return tops - sys.stdlib_module_names - {"napari_oneseg"}


def at_import_time(tree: ast.Module) -> ast.Module:
    """Leave out what runs only when a function is called, or never (``if TYPE_CHECKING``)."""

    class Strip(ast.NodeTransformer):
        def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
            return None

        def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> None:
            return None

        def visit_If(self, node: ast.If) -> ast.AST | list[ast.stmt]:
            if isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
                return node.orelse
            return self.generic_visit(node)

    stripped = Strip().visit(tree)
    assert isinstance(stripped, ast.Module)
    return stripped


def layer(dotted: str) -> str:
    """The layer of ``napari_oneseg.<layer>...`` or of a file's path."""
    return re.split(r"[./]", dotted.removeprefix("napari_oneseg."))[0]


def distribution(package: str) -> str:
    return DISTRIBUTIONS.get(package, package).lower()


def declared(*extras: str) -> set[str]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    requirements = list(project["dependencies"])
    for extra in extras:
        requirements += project["optional-dependencies"][extra]
    return {re.match(r"[\w.-]+", requirement)[0].lower() for requirement in requirements}


def run_fresh(code: str) -> list[str]:
    """Run in a process of its own, where nothing is imported yet; return the words it prints."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, encoding="utf-8", check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_importing_the_package_is_cheap() -> None:
    heavy = sorted(VIEWER | {"torch", "numpy", "sklearn", "SimpleITK", "matplotlib"})
    code = f"import sys, napari_oneseg; dir(napari_oneseg); print(*(m for m in {heavy} if m in sys.modules))"
    assert run_fresh(code) == []


def test_importing_the_core_brings_no_viewer() -> None:
    modules = [
        ".".join(["napari_oneseg", *Path(file).with_suffix("").parts]).removesuffix(".__init__") for file in CORE_FILES
    ]
    # Module by module, so that the answer names the first one to blame.
    code = f"""
import importlib, sys
for module in {modules}:
    importlib.import_module(module)
    found = [name for name in {sorted(VIEWER)} if name in sys.modules]
    if found:
        print(module, *found)
        break
"""
    assert run_fresh(code) == []


@pytest.mark.parametrize("file", CORE_FILES)
def test_core_files_import_no_viewer(file: str) -> None:
    assert packages(parse(file)) & VIEWER == set()


@pytest.mark.parametrize("file", CORE_FILES)
def test_only_the_demonstration_opens_the_plugin(file: str) -> None:
    named = [
        node.value
        for node in ast.walk(parse(file))
        if isinstance(node, ast.Constant)
        and isinstance(node.value, str)
        and node.value.startswith("napari_oneseg.plugin")
    ]
    assert not named or file == DOOR_TO_PLUGIN


@pytest.mark.parametrize("file", LAYERED_FILES)
def test_files_import_only_what_stands_before_them(file: str) -> None:
    own = layer(file.removesuffix(".py"))
    assert own in LAYERS, f"{file}: give the new module its place in LAYERS and in docs/architecture.md"
    allowed = {*LAYERS[: LAYERS.index(own) + 1], "__version__"}
    used = {layer(name) for name in names_imported(parse(file)) if name.startswith("napari_oneseg.")}
    assert used <= allowed


@pytest.mark.parametrize("file", FILES)
def test_only_file_access_and_the_baselines_know_simpleitk(file: str) -> None:
    assert "SimpleITK" not in packages(parse(file)) or file in SIMPLEITK_FILES


@pytest.mark.parametrize("file", FILES)
def test_imports_are_declared(file: str) -> None:
    always = {distribution(package) for package in packages(at_import_time(parse(file)))}
    # A kernel has to find Triton's language in its own file, which is imported where Triton is there.
    extras = ["kernels"] if file == "propagation/fused_kernel.py" else []
    assert always <= declared(*extras), "what an extra brings is imported inside the function that needs it"
    # Types may come from what napari itself depends on; they cost nothing at run time.
    anywhere = {distribution(package) for package in packages(parse(file))}
    assert anywhere <= declared("bench", "cluster", "kernels")


def test_no_dependency_is_declared_in_vain() -> None:
    used = {distribution(package) for file in FILES for package in packages(parse(file))}
    assert declared() <= used
