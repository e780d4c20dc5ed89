#!/usr/bin/env bash
# Gives this folder all it needs to run, on a bare machine too: setup.sh system | venv | docs | kernels
set -euo pipefail
cd "$(dirname "$0")/.."
PATH="$PATH:/usr/sbin:/sbin" # ldconfig, which a plain user's PATH leaves out

say() { printf '%s\n' "$*" >&2; }

# What Qt and OpenGL load at run time, as "file:Debian package". Files, because package names differ between releases.
libraries=(
    libGL.so.1:libgl1 libEGL.so.1:libegl1 libxkbcommon.so.0:libxkbcommon0 libfontconfig.so.1:libfontconfig1
    libdbus-1.so.3:libdbus-1-3 libglib-2.0.so.0:libglib2.0-0 libxcb-cursor.so.0:libxcb-cursor0
    libxkbcommon-x11.so.0:libxkbcommon-x11-0 libxcb-icccm.so.4:libxcb-icccm4 libxcb-keysyms.so.1:libxcb-keysyms1
    libxcb-shape.so.0:libxcb-shape0 libxcb-xkb.so.1:libxcb-xkb1
)
# The virtual screen that the tests draw on; the window manager, mouse and keyboard of tests/e2e.
commands=(xvfb-run:xvfb xauth:xauth openbox:openbox xdotool:xdotool)

can_install() { [[ $(id -u) == 0 ]] && command -v apt-get >/dev/null; }

apt_install() {
    export DEBIAN_FRONTEND=noninteractive
    apt-get update || say "apt-get update failed; trying with the package lists that are here."
    apt-get install -y --no-install-recommends "$@"
}

system() {
    [[ $(uname) == Linux ]] || return 0
    local known entry packages=()
    known=$(ldconfig -p)
    for entry in "${libraries[@]}"; do
        [[ $known == *"${entry%%:*} "* ]] || packages+=("${entry##*:}")
    done
    for entry in "${commands[@]}"; do
        command -v "${entry%%:*}" >/dev/null || packages+=("${entry##*:}")
    done
    # From which the tests make locales with another decimal sign.
    [[ -e /usr/share/i18n/locales/de_DE ]] || packages+=(locales)
    [[ ${#packages[@]} == 0 ]] && return 0
    if can_install; then
        apt_install "${packages[@]}"
    else
        say "The window and its tests need system packages that are missing here. On Debian and Ubuntu:"
        say "    sudo apt-get update && sudo apt-get install ${packages[*]}"
        say "The command line works without them."
    fi
}

# Prints the first Python that is new enough and can make virtual environments.
find_python() {
    local candidate
    for candidate in python3.11 python3.12 python3.13 python3 /usr/bin/python3; do
        if "$candidate" -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            echo "$candidate"
            return 0
        fi
    done
    return 1
}

venv() {
    if ! .venv/bin/python -m pip --version >/dev/null 2>&1; then
        local python
        if ! python=$(find_python) && can_install; then
            apt_install python3 python3-venv
        fi
        if ! python=$(find_python); then
            say "Python 3.11 or newer with its venv module was not found. On Debian 12: sudo apt-get install python3-venv"
            exit 1
        fi
        "$python" -m venv --clear .venv
    fi
    say "Installing into .venv: about 2 GB, some minutes."
    .venv/bin/python -m pip install --progress-bar off -c constraints.txt -e ".[dev,pyqt6]"
    touch .venv/.installed
}

docs() {
    .venv/bin/python -m pip install --progress-bar off -c constraints.txt -e ".[docs]"
    touch .venv/.installed-docs
}

kernels() {
    .venv/bin/python -m pip install --progress-bar off -c constraints.txt -e ".[kernels]"
    touch .venv/.installed-kernels
}

case "${1:-}" in
    system | venv | docs | kernels) "$1" ;;
    *)
        say "usage: scripts/setup.sh system | venv | docs | kernels"
        exit 2
        ;;
esac
