#!/usr/bin/env bash
# Runs the tests in the active environment. Arguments go to pytest.
# JAX's compiler for the CPU has crashed the process of a worker, once in a few runs of the whole suite. The tests that
# had not passed by then run once more, in new processes. If one crashes again, the run has failed.
set -uo pipefail
cd "$(dirname "$0")/.."
export MMJAX_PASSED="$(mktemp)"
trap 'rm -f "$MMJAX_PASSED"' EXIT
# A worker that crashes ends the run: one that takes its place may wait for ever (pytest-xdist 3.8, --dist loadfile).
run() { python -m pytest -n auto --dist loadfile --no-loadscope-reorder --max-worker-restart 0 "$@"; }
run "$@"
status=$?
if [ "$status" = 70 ]; then # tests/conftest.py
  printf '\nA process crashed: the tests that have not passed run once more.\n'
  run "$@"
  status=$?
fi
exit "$status"
