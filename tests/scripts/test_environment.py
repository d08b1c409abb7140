"""The Python that set-up takes, tried with stand-ins for Pythons, pyenv and pip."""

import shutil
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts" / "environment.sh"
TOOLS = ("bash", "cat", "cp", "dirname", "mkdir", "rm", "seq", "sh", "sha256sum", "sort", "tail")
# Answers as much as set-up asks of a Python; $0 is the path that it was called by.
STAND_IN = """#!/bin/sh
case "$1 $2" in
  "-I -c") {answer} ;;
  "-m venv") rm -rf "$4"; mkdir -p "$4/bin"; cp "$0" "$4/bin/python" ;;
  "-m pip") echo "$@" >>"$(dirname "$0")/pip.txt" ;;
  "-c import sys; print"*) echo {minor} ;;
  "-c "*) exit {unlocked} ;;
esac
"""


def stand_in(path: Path, version: str, wrong: str | None = None) -> None:
  path.parent.mkdir(parents=True, exist_ok=True)
  minor = ".".join(version.split(".")[:2])
  answer = f'echo "{version} $0"' if wrong is None else f'echo "Python {version} {wrong}" >&2; exit 1'
  path.write_text(STAND_IN.format(answer=answer, minor=minor, unlocked=int(int(minor.split(".")[1]) > 14)))
  path.chmod(0o755)


@pytest.fixture
def machine(tmp_path):
  """A machine with the tools that set-up calls and no Python, and a checkout on it."""
  for tool in TOOLS:
    (tmp_path / "bin" / tool).parent.mkdir(exist_ok=True)
    (tmp_path / "bin" / tool).symlink_to(shutil.which(tool))
  (tmp_path / "checkout" / "scripts" / "locks").mkdir(parents=True)
  for name in ("setup.py", "constraints.txt", "scripts/locks/emoji.txt"):
    (tmp_path / "checkout" / name).write_text("")
  shutil.copy(SCRIPT, tmp_path / "checkout" / "scripts")
  return tmp_path


def set_up(machine: Path, **environment: str) -> tuple[int, str]:
  """(exit status, standard error) of set-up."""
  environment = {"PATH": str(machine / "bin"), "HOME": str(machine), **environment}
  command = ["bash", "-c", ". checkout/scripts/environment.sh emoji"]
  done = subprocess.run(command, cwd=machine, env=environment, capture_output=True, text=True)
  return done.returncode, done.stderr


def test_the_newest_of_path_pyenv_and_uv_is_taken(machine):
  stand_in(machine / "bin" / "python3.11", "3.11.7")
  stand_in(machine / ".pyenv/versions/3.12.1/bin/python3.12", "3.12.1")
  assert "with Python 3.12.1" in set_up(machine)[1]
  shutil.rmtree(machine / "checkout/.venv")
  stand_in(machine / ".local/share/uv/python/cpython-3.14.2-linux/bin/python3.14", "3.14.2")
  status, said = set_up(machine)
  assert status == 0 and "with Python 3.14.2" in said and "newest of 3.11 to 3.14" in said
  assert "--require-hashes" in (machine / "checkout/.venv/bin/pip.txt").read_text()
  stand_in(machine / "bin" / "python3.15", "3.15.0")  # newer than any lock: only where it is named
  shutil.rmtree(machine / "checkout/.venv")
  assert "with Python 3.14.2" in set_up(machine)[1]
  assert "with Python 3.15.0" in set_up(machine, MMJAX_PYTHON="python3.15")[1]
  assert "--require-hashes" not in (machine / "checkout/.venv/bin/pip.txt").read_text()


def test_a_python_that_cannot_be_used_is_passed_over_or_named(machine):
  stand_in(machine / "bin" / "python3.14", "3.14.0", "lacks ensurepip; on Debian and Ubuntu: apt install python3-venv")
  status, said = set_up(machine)
  assert status == 1 and "bin/python3.14: Python 3.14.0 lacks ensurepip" in said and "MMJAX_PYTHON=" in said
  stand_in(machine / "bin" / "python3", "3.12.4")
  assert "with Python 3.12.4" in set_up(machine)[1]


@pytest.mark.parametrize(
  ("named", "said"),
  [
    ({"MMJAX_PYTHON": "3.12"}, "no 3.12 Python was found"),
    ({"MMJAX_PYTHON": "3.10"}, "needs Python 3.11 or newer"),
    ({"MMJAX_PYTHON": "python3.10"}, "Python 3.10.2 is too old"),
    ({"PYTHON": "python3.10"}, "error: PYTHON=python3.10: Python 3.10.2 is too old"),
    ({"MMJAX_PYTHON": "/nowhere/python"}, "is not there"),
  ],
)
def test_a_python_that_is_named_is_taken_or_refused(machine, named, said):
  stand_in(machine / "bin" / "python3.13", "3.13.0")
  stand_in(machine / "bin" / "python3.10", "3.10.2", "is too old")
  status, error = set_up(machine, **named)
  assert status == 1 and said in error and not (machine / "checkout/.venv").exists()


def test_an_environment_keeps_its_python_until_another_is_named(machine):
  stand_in(machine / "bin" / "python3.12", "3.12.4")
  set_up(machine)
  stand_in(machine / "bin" / "python3.13", "3.13.0")
  assert set_up(machine) == (0, "")
  status, said = set_up(machine, MMJAX_PYTHON="3.13")
  assert status == 0 and ".venv has Python 3.12: it is made anew" in said and "with Python 3.13.0" in said
  assert set_up(machine, MMJAX_PYTHON="3.13") == (0, "")
