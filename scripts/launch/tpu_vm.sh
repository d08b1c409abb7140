#!/usr/bin/env bash
# A run on a Cloud TPU pod slice, from one's own machine, through gcloud:
#
#   TPU=my-v5e-64 ZONE=us-west4-a scripts/launch/tpu_vm.sh setup
#   TPU=my-v5e-64 ZONE=us-west4-a scripts/launch/tpu_vm.sh run experiments/clip_b16.py train --run.workdir /mnt/runs/b16
#   TPU=my-v5e-64 ZONE=us-west4-a scripts/launch/tpu_vm.sh stop      # the group saves, and stops
#
# To adapt: REPOSITORY and BRANCH (what the workers clone), and PROJECT where gcloud has no default. Every worker runs
# the same command; its number, and the address of worker 0, come from the machine's metadata, read here in the way
# JAX reads them. The workdir must be where all workers can write: a mounted bucket or Filestore.
#
# `run` starts the group again when it fails, up to MAX_RESTARTS times, and it goes on from its newest checkpoint; a
# preempted slice has to be made anew (a queued resource does that), after which `setup` and `run` go on as well.
# Checked with bash -n, and with a stand-in for gcloud in tests/scripts/test_launch.py; NOT YET RUN on a real slice.

set -euo pipefail
: "${TPU:?the name of the TPU VM}" "${ZONE:?its zone}"
REPOSITORY="${REPOSITORY:-$(git -C "$(dirname "$0")" config --get remote.origin.url || true)}"
BRANCH="${BRANCH:-main}"
MAX_RESTARTS="${MAX_RESTARTS:-20}"

everywhere() { # runs a command on all workers at once; fails when it fails on one
  gcloud compute tpus tpu-vm ssh "$TPU" --zone "$ZONE" ${PROJECT:+--project "$PROJECT"} --worker=all --command "$1"
}

setup() {
  : "${REPOSITORY:?where the workers are to clone mmjax from}"
  everywhere "set -e
    [ -d mmjax ] || git clone --quiet --branch '$BRANCH' '$REPOSITORY' mmjax
    cd mmjax && git pull --quiet --ff-only
    python3 -m venv .venv && .venv/bin/pip install --quiet -c constraints.txt -e '.[emoji,tpu]'"
}

# shellcheck disable=SC2016  # what is quoted is for the worker's shell
start='set -e
  cd mmjax
  ask() { curl -sf -H "Metadata-Flavor: Google" "http://metadata.google.internal/computeMetadata/v1/instance/attributes/$1"; }
  workers="$(ask worker-network-endpoints)"   # addresses, or name:number:address, separated by commas
  first="${workers%%,*}"
  export JAX_NUM_PROCESSES="$(tr "," "\n" <<<"$workers" | grep -c .)"
  export JAX_PROCESS_ID="$(ask agent-worker-number)" JAX_COORDINATOR_ADDRESS="${first##*:}:8476"
  exec "$PWD/.venv/bin/python" -u'

run() {
  local restarts status
  for ((restarts = 0; ; restarts++)); do
    status=0
    everywhere "$start $(printf '%q ' "$@")" || status=$?
    if [ "$status" -eq 0 ] || [ "$status" -eq 2 ] || [ "$restarts" -ge "$MAX_RESTARTS" ]; then
      return "$status"
    fi
    echo "[tpu] status $status: starting the group again ($((restarts + 1)) of at most $MAX_RESTARTS times)" >&2
    everywhere "pkill -KILL -f '[m]mjax/.venv/bin/python -u' || true" # whatever is left would hold the chips
    sleep "${PAUSE:-10}"
  done
}

case "${1:-}" in
  setup) setup ;;
  run) shift && run "$@" ;;
  stop) everywhere "pkill -TERM -f '[m]mjax/.venv/bin/python -u' || true" ;;
  *) echo "usage: TPU=NAME ZONE=ZONE $0 setup | run SCRIPT ARGUMENTS | stop" >&2 && exit 2 ;;
esac
