#!/usr/bin/env bash
# Runs a command on a virtual screen of its own. napari's canvas draws only on a real X server, and a window manager or
# a user at the mouse would disturb tests and screenshots.
set -euo pipefail
if command -v xvfb-run >/dev/null; then
    export QT_QPA_PLATFORM=xcb # also where the desktop is Wayland, or the environment says offscreen
    exec xvfb-run -a -s "-screen 0 1600x1000x24 +extension GLX" "$@"
fi
if [[ $(uname) == Linux && -z ${DISPLAY:-} ]]; then
    echo "No screen and no xvfb-run. On Debian and Ubuntu: sudo apt-get install xvfb xauth" >&2
    exit 1
fi
exec "$@"
