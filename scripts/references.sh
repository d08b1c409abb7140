#!/usr/bin/env bash
# Installs the libraries that tests/interop compares with (CPU PyTorch, transformers, open_clip: about 1 GB); without
# them those tests skip. Ordinary use of mmjax needs none of it. .ci/run calls this, so that nothing is skipped there.
. "$(dirname "$0")/environment.sh" emoji,dev
stamp="$root/.venv/mmjax-references"
wanted="$(sha256sum <"$root/scripts/references.txt")"
if ! { [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$wanted" ]; }; then
  say "Installing the reference libraries for tests/interop into .venv"
  log="$root/.venv/references.log"
  if ! python -m pip install --disable-pip-version-check --progress-bar off --no-deps --no-compile \
      -r "$root/scripts/references.txt" >"$log" 2>&1; then
    tail -n 15 "$log" >&2
    fail "the installation failed: the last lines are above, all of them in $log"
  fi
  printf '%s' "$wanted" >"$stamp"
fi
