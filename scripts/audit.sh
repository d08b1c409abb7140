#!/usr/bin/env bash
# Asks an advisory database about every package that the set-up scripts install (scripts/locks), with pip-audit.
# Needs the network: PyPI's database, or OSV's with --vulnerability-service osv. Arguments go to pip-audit (--ignore-vuln ID ...).
# Exit status: 0 nothing is known against any of them; 1 a known vulnerability; 3 some could not be asked about.
set -euo pipefail
root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
python="$root/.venv/bin/python"
[ -x "$python" ] || python=python3
if ! audit="$("$python" "$root/scripts/lock.py" --tool pip-audit)"; then
  echo "error: pip-audit is not there and cannot be installed (see above)" >&2
  exit 3
fi

said="$(mktemp)"
trap 'rm -f "$said"' EXIT
known=0 unasked=0
for name in emoji-dev build tools; do
  echo "scripts/locks/$name.txt:"
  status=0
  "$audit" --require-hashes --disable-pip --progress-spinner off -r "$root/scripts/locks/$name.txt" "$@" >"$said" 2>&1 ||
    status=$?
  cat "$said"
  # pip-audit ends with 1 whether it found something or broke down, and with 0 where it skipped what it does not know.
  if grep -q "^Found .*known vulnerabilit" "$said"; then
    known=1
  elif [ "$status" -ne 0 ]; then
    unasked=1
  fi
  if grep -q "could not be audited" "$said"; then
    unasked=1
  fi
done
if [ "$unasked" -ne 0 ]; then
  echo "error: the database could not be asked about all of them (see above): this says nothing about those" >&2
fi
[ "$known" -eq 0 ] || exit 1
[ "$unasked" -eq 0 ] || exit 3
