#!/usr/bin/env bash
# Builds wheel and sdist, and tries both as a stranger would: in an empty environment, away from this folder.
# What is committed counts, not what lies in the folder. A full installation once, from the wheel; the sdist then takes
# the wheel's place among the same dependencies.
set -euo pipefail
cd "$(dirname "$0")/.."
here=$PWD
limit=$((20 * 1024 * 1024))
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

say() { printf '%s (after %d s)\n' "$*" "$SECONDS"; }

rm -rf dist
mkdir "$work/source"
git archive HEAD | tar -x -C "$work/source"
.venv/bin/python -m build --outdir dist "$work/source" >"$work/build.log" 2>&1 || { cat "$work/build.log"; exit 1; }
wheel=$(echo dist/*.whl)
sdist=$(echo dist/*.tar.gz)
for file in "$wheel" "$sdist"; do
    size=$(stat -c %s "$file")
    say "$file: $((size / 1024)) kB"
    [[ $size -lt $limit ]] || { echo "$file is larger than 20 MB."; exit 1; }
done

# Every file of the package is in the wheel, and no other.
.venv/bin/python - "$wheel" <<'PYTHON'
import subprocess, sys, zipfile

inside = {name for name in zipfile.ZipFile(sys.argv[1]).namelist() if not ".dist-info/" in name}
tracked = subprocess.run(
    ["git", "ls-tree", "-r", "--name-only", "HEAD", "src/napari_oneseg"], capture_output=True, encoding="utf-8", check=True
).stdout
expected = {name.removeprefix("src/") for name in tracked.splitlines()}
if inside != expected:
    sys.exit(f"The wheel lacks {sorted(expected - inside)} and holds {sorted(inside - expected)} besides.")
PYTHON

# With the python that .venv was made from, which knows nothing of this folder.
.venv/bin/python -c 'import sys; print(sys._base_executable)' >"$work/python"
"$(cat "$work/python")" -m venv "$work/env"
install() { (cd "$work" && env -u PYTHONPATH "$work/env/bin/python" -m pip install -q --progress-bar off "$@" 2>"$work/pip.log") || { cat "$work/pip.log"; exit 1; }; }

try() {
    local folder=$work/$1
    mkdir "$folder"
    cd "$folder"
    # An almost empty surrounding: nothing of the caller's shell may help.
    env -i PATH=/usr/bin:/bin HOME="$folder" "$work/env/bin/oneseg" demo --headless
    local file
    for file in scan.nii.gz labels.nii.gz demo.png report.json; do
        [[ -s oneseg-demo/$file ]] || { echo "$1: oneseg-demo/$file is missing."; exit 1; }
    done
    env -i PATH=/usr/bin:/bin HOME="$folder" "$work/env/bin/python" - "$work/env" <<'PYTHON'
import sys
from importlib.metadata import entry_points
from pathlib import Path

import napari_oneseg

where = Path(napari_oneseg.__file__)
assert where.is_relative_to(sys.argv[1]), f"imported from {where}"
(manifest,) = entry_points(group="napari.manifest", name="napari-oneseg")
assert (where.parent / manifest.value.partition(":")[2]).is_file(), "the manifest is missing"
PYTHON
    cd "$here"
    say "$1: the demonstration runs"
}

install -c "$here/constraints.txt" "$here/$wheel"
say "installed from the wheel: $(du -sm "$work/env" | cut -f1) MB"
try wheel
install --no-deps --force-reinstall "$here/$sdist"
say "installed from the sdist"
try sdist
cmp "$work/wheel/oneseg-demo/labels.nii.gz" "$work/sdist/oneseg-demo/labels.nii.gz"
say "both give the same labels"
