#!/usr/bin/env bash
# Sets everything up and runs the tests on 8 virtual CPU devices. Arguments go to pytest:
#   ./scripts/test.sh tests/train -k resume
. "$(dirname "$0")/environment.sh" emoji,dev
cd "$root"
# A worker that crashes ends the run: one that takes its place may wait for ever (pytest-xdist 3.8, --dist loadfile).
exec python -m pytest -n auto --dist loadfile --no-loadscope-reorder --max-worker-restart 0 "$@"
