#!/usr/bin/env bash
# Sets everything up and runs the tests on 8 virtual CPU devices. Arguments go to pytest:
#   ./scripts/test.sh tests/train -k resume
. "$(dirname "$0")/environment.sh" emoji,dev
exec "$root/scripts/run_tests.sh" "$@"
