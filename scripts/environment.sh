# Sourced by the other scripts: makes .venv with the pinned dependencies, once, and puts it first on PATH.
# Usage: . "$(dirname "$0")/environment.sh" EXTRAS       emoji, or emoji,dev: those that scripts/locks has a lock of
#
# Every file that pip installs has the hash that scripts/locks says, or pip refuses it; scripts/lock.py writes the locks.
# Pythons that the locks were not tried on, and MMJAX_UNLOCKED=1, take the versions of constraints.txt without hashes.

set -euo pipefail
root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"

say() { printf '\033[1m%s\033[0m\n' "$*" >&2; }
fail() { printf 'error: %s\n' "$*" >&2; exit 1; }

find_python() {
  local candidate
  for candidate in "${PYTHON:-}" python3.11 python3.12 python3.13 python3 python; do
    [ -n "$candidate" ] && command -v "$candidate" >/dev/null 2>&1 || continue
    if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
      command -v "$candidate"
      return
    fi
  done
  fail "Python 3.11 or newer is needed and was not found; install it, or name it: PYTHON=/path/to/python $0"
}

install() {
  local pip=("$root/.venv/bin/python" -m pip install --disable-pip-version-check --progress-bar off) locks="$root/scripts/locks"
  if [ -n "${MMJAX_UNLOCKED:-}" ] || ! "$root/.venv/bin/python" -c 'import sys; sys.exit(sys.version_info >= (3, 14))'; then
    "${pip[@]}" -c "$root/constraints.txt" -e "$root[$1]"
    return
  fi
  # The locks hold everything, so nothing is left to be resolved, nor to be fetched for building what has no wheel.
  "${pip[@]}" --require-hashes --no-deps -r "$locks/build.txt" &&
    "${pip[@]}" --require-hashes --no-deps --no-build-isolation -r "$locks/${1//,/-}.txt" &&
    "${pip[@]}" --no-deps --no-build-isolation -e "$root" &&
    "$root/.venv/bin/python" "$root/scripts/lock.py" --check
}

set_up() {
  local extras="$1" stamp wanted python log
  stamp="$root/.venv/mmjax-installed-$extras"
  wanted="$(cat "$root/setup.py" "$root/constraints.txt" "$root/scripts/locks/"*.txt | sha256sum) $root"
  [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$wanted" ] && return
  python="$(find_python)"
  if [ ! -x "$root/.venv/bin/python" ]; then
    say "Making a virtual environment in .venv with $python"
    "$python" -m venv "$root/.venv" || fail "$python -m venv failed; on Debian and Ubuntu: apt install python3-venv"
  fi
  say "Installing mmjax[$extras] and its pinned dependencies into .venv (a few minutes the first time)"
  log="$root/.venv/install.log"
  if ! install "$extras" >"$log" 2>&1; then
    tail -n 15 "$log" >&2
    fail "the installation failed: the last lines are above, all of them in $log. Is the package index reachable?"
  fi
  printf '%s' "$wanted" >"$stamp"
}

set_up "$1"
export PATH="$root/.venv/bin:$PATH"
