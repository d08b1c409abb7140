#!/usr/bin/env bash
# Sets everything up (.venv, pinned dependencies, the emoji data) and runs the main job on the CPU: pretrain a
# two-tower model on emoji, evaluate it on pictures by an artist it never saw, and write runs/clip_emoji/report.html.
# Arguments go to the experiment:   ./scripts/pretrain.sh --run.steps 50
# Running it again goes on where it stopped; see   ./scripts/pretrain.sh --help
. "$(dirname "$0")/environment.sh" emoji
cd "$root"
for argument in "$@"; do
  case "$argument" in
    -h | --help) exec python experiments/clip_emoji.py train --help ;;
  esac
done
say "Building the emoji data, unless it is there already"
python -m mmjax.data.emoji
say "Pretraining, evaluation and report"
exec python experiments/clip_emoji.py train "$@"
