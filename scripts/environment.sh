# Sourced by the other scripts: makes .venv with the pinned dependencies, once, and puts it first on PATH.
# Usage: . "$(dirname "$0")/environment.sh" EXTRAS       emoji, or emoji,dev: those that scripts/locks has a lock of
#
# .venv gets the newest Python of 3.11 to 3.14 that is on PATH or was installed by pyenv or uv. MMJAX_PYTHON names
# another one: a path, a command, or a version such as 3.12. A .venv that is there keeps its Python unless one is named.
#
# Every file that pip installs has the hash that scripts/locks says, or pip refuses it; scripts/lock.py writes the locks.
# A Python newer than the locks, and MMJAX_UNLOCKED=1, take the versions of constraints.txt without hashes.

set -euo pipefail
root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
oldest=11 newest=14 # the Pythons 3.N that scripts/locks is for

say() { printf '\033[1m%s\033[0m\n' "$*" >&2; }
fail() { printf 'error: %s\n' "$*" >&2; exit 1; }

# Prints "VERSION PATH" of a Python that can make .venv; else says why it cannot, and returns 1.
usable_python() {
  "$1" -I -c '
import importlib.util, sys, sysconfig
version = ".".join(map(str, sys.version_info[:3]))
missing = [name for name in ("venv", "ensurepip") if importlib.util.find_spec(name) is None]
if sys.version_info < (3, int(sys.argv[1])):
  sys.exit(f"Python {version} is too old")
if sys.version_info.releaselevel != "final":
  sys.exit(f"Python {version} is a pre-release")
if sysconfig.get_config_var("Py_GIL_DISABLED"):
  sys.exit(f"Python {version} is a free-threaded build, which JAX does not support")
if missing:
  sys.exit(f"Python {version} lacks {missing[0]}; on Debian and Ubuntu: apt install python3-venv")
print(version, sys.executable)
' "$oldest"
}

# Paths and commands that may be Python 3.$1: on PATH, pyenv's, uv's.
candidates() {
  local found
  for found in "python3.$1" python3 python \
    "${PYENV_ROOT:-${HOME:-}/.pyenv}/versions/3.$1."*/bin/python3."$1" \
    "${UV_PYTHON_INSTALL_DIR:-${XDG_DATA_HOME:-${HOME:-}/.local/share}/uv/python}"/*-3."$1".*/bin/python3."$1"; do
    command -v "$found" || true
  done
}

# Sets python_version, python and chosen_because.
choose_python() {
  local named="${MMJAX_PYTHON:-${PYTHON:-}}" variable=MMJAX_PYTHON minor minors candidate found refused=""
  [ -n "${MMJAX_PYTHON:-}" ] || variable=PYTHON
  minors="$(seq "$newest" -1 "$oldest")"
  if [[ "$named" =~ ^3\.([0-9]+)$ ]]; then
    minors="${BASH_REMATCH[1]}"
    [ "$minors" -ge "$oldest" ] || fail "$variable=$named: mmjax needs Python 3.$oldest or newer"
  elif [ -n "$named" ]; then
    command -v "$named" >/dev/null 2>&1 || fail "$variable=$named is not there, or cannot be executed"
    found="$(usable_python "$named" 2>&1)" || fail "$variable=$named: ${found%%$'\n'*}; 3.$oldest to 3.$newest will do"
    read -r python_version python <<<"$found"
    chosen_because="$variable names it"
    return
  fi
  for minor in $minors; do
    while read -r candidate; do
      if ! found="$(usable_python "$candidate" 2>&1)"; then
        refused+=$'\n'"  $candidate: ${found%%$'\n'*}"
      elif [[ "$found" == "3.$minor."* ]]; then
        read -r python_version python <<<"$found"
        chosen_because="the newest of 3.$oldest to 3.$newest that was found; MMJAX_PYTHON=3.12 or =PATH takes another"
        [ -z "$named" ] || chosen_because="$variable=$named asks for this version"
        return
      fi
    done < <(candidates "$minor")
  done
  refused="$(sort -u <<<"$refused")"
  fail "no ${named:-3.$oldest to 3.$newest} Python was found on PATH, among pyenv's or uv's;" \
    "install one, or name it: MMJAX_PYTHON=/path/to/python $0${refused:+$'\n'Not usable:$refused}"
}

make_venv() {
  local has=""
  [ ! -x "$root/.venv/bin/python" ] || has="$("$root/.venv/bin/python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')" || true
  if [ -n "$has" ] && [ -z "${MMJAX_PYTHON:-${PYTHON:-}}" ]; then
    return
  fi
  choose_python
  if [ "$has" = "${python_version%.*}" ]; then
    return
  fi
  [ -z "$has" ] || say ".venv has Python $has: it is made anew"
  say "Making a virtual environment in .venv with Python $python_version, $python ($chosen_because)"
  "$python" -m venv --clear "$root/.venv" || fail "$python -m venv failed; on Debian and Ubuntu: apt install python3-venv"
}

install() {
  local pip=("$root/.venv/bin/python" -m pip install --disable-pip-version-check --progress-bar off) locks="$root/scripts/locks"
  if [ -n "${MMJAX_UNLOCKED:-}" ] || ! "$root/.venv/bin/python" -c "import sys; sys.exit(sys.version_info >= (3, $newest + 1))"; then
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
  local extras="$1" stamp wanted log
  make_venv
  stamp="$root/.venv/mmjax-installed-$extras"
  wanted="$(cat "$root/setup.py" "$root/constraints.txt" "$root/scripts/locks/"*.txt | sha256sum) $root"
  [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$wanted" ] && return
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
