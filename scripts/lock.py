#!/usr/bin/env python3
"""Writes scripts/locks: every package that the set-up scripts install, with the hashes of its files on PyPI.

  python scripts/lock.py            after a change of setup.py or constraints.txt; asks PyPI, takes a minute
  python scripts/lock.py --check    whether the locks hold what setup.py asks for; asks nobody

A lock says what setup.py asks for, resolved under constraints.txt, for every Python and platform of setup.py at once
(environment markers tell them apart); pip then refuses a file whose hash is not in it. uv resolves; where it is not
installed, the one that scripts/locks/tools.txt names goes into .venv/tools first.
"""

import ast
import re
import shutil
import subprocess
import sys
import venv
from collections.abc import Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LOCKS = ROOT / "scripts" / "locks"
# The extras that each set-up script installs, see scripts/environment.sh.
EXTRAS: Mapping[str, tuple[str, ...]] = {"emoji": ("emoji",), "emoji-dev": ("emoji", "dev")}
# What builds source distributions and mmjax itself; what makes and audits the locks.
OTHERS: Mapping[str, tuple[str, ...]] = {"build": ("setuptools", "wheel"), "tools": ("uv", "pip-audit")}
HEAD = "# Written by scripts/lock.py from setup.py and constraints.txt; not to be edited.\n"


def asked(setup: Path = ROOT / "setup.py") -> dict[str, list[str]]:
  """The requirements of setup.py: of the package itself under "", and of its extras. Read, not run."""
  body = ast.parse(setup.read_text(encoding="utf-8")).body
  lists = {ast.unparse(node.targets[0]): node.value for node in body if isinstance(node, ast.Assign)}
  values = {name: ast.literal_eval(lists[name]) for name in ("CORE", "EXTRAS")}
  return {"": values["CORE"], **values["EXTRAS"]}


def pins(lock: Path) -> dict[str, str]:
  """{normalised name: version} of the lines NAME==VERSION of a lock or of constraints.txt."""
  found = re.findall(r"^([\w.-]+)==([^\s;\\]+)", lock.read_text(encoding="utf-8"), re.MULTILINE)
  return {normalised(name): version for name, version in found}


def normalised(name: str) -> str:
  return re.sub(r"[-_.]+", "-", name).lower()


def stale(extras: Sequence[str], lock: Path, setup: Path, constraints: Path) -> list[str]:
  """What is wrong with a lock, a sentence each: a package that is not in it, or has another version elsewhere."""
  from packaging.requirements import Requirement

  if not lock.exists():
    return [f"{lock} does not exist"]
  held, wanted, faults = pins(lock), asked(setup), []
  for requirement in map(Requirement, [text for extra in ("", *extras) for text in wanted[extra]]):
    version = held.get(normalised(requirement.name))
    if version is None:
      faults.append(f"{lock.name} has no {requirement.name}, which setup.py asks for")
    elif not requirement.specifier.contains(version, prereleases=True):
      faults.append(f"{lock.name} has {requirement.name} {version}, setup.py asks for {requirement.specifier}")
  for name, version in pins(constraints).items():
    if held.get(name, version) != version:
      faults.append(f"{lock.name} has {name} {held[name]}, constraints.txt {version}")
  return faults


def check() -> int:
  faults = []
  for name, extras in EXTRAS.items():
    faults += stale(extras, LOCKS / f"{name}.txt", ROOT / "setup.py", ROOT / "constraints.txt")
  for fault in faults:
    print(f"error: {fault}", file=sys.stderr)
  if faults:
    print("Run scripts/lock.py, and commit scripts/locks with the change.", file=sys.stderr)
  return int(bool(faults))


def tool(name: str) -> str:
  """The path of uv or pip-audit: on PATH, or in .venv/tools, installed there by their own lock."""
  own = ROOT / ".venv" / "tools"
  if found := shutil.which(name, path=str(own / "bin")) or shutil.which(name):
    return found
  venv.create(own, with_pip=True)
  pip = [str(own / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
  subprocess.run([*pip, "--require-hashes", "--no-deps", "-r", LOCKS / "tools.txt"], check=True)
  return str(own / "bin" / name)


def write(name: str, requirements: Sequence[str]) -> None:
  lock = LOCKS / f"{name}.txt"
  options = ["--universal", "--python-version", "3.11", "--generate-hashes", "--no-header", "--no-annotate", "--quiet"]
  command = [tool("uv"), "pip", "compile", "-", *options, "--constraints", str(ROOT / "constraints.txt")]
  done = subprocess.run(command, input="\n".join(requirements), stdout=subprocess.PIPE, text=True, check=True)
  lock.write_text(HEAD + done.stdout, encoding="utf-8")
  print(f"{lock.relative_to(ROOT)}: {len(pins(lock))} packages")


def main() -> int:
  if sys.argv[1:] == ["--check"]:
    return check()
  if sys.argv[1:] == ["--tool", *sys.argv[2:3]] and len(sys.argv) == 3:
    print(tool(sys.argv[2]))
    return 0
  if sys.argv[1:]:
    print(__doc__, file=sys.stderr)
    return 2
  wanted = asked()
  for name, extras in EXTRAS.items():
    write(name, [text for extra in ("", *extras) for text in wanted[extra]])
  for name, requirements in OTHERS.items():
    write(name, requirements)
  return check()


if __name__ == "__main__":
  sys.exit(main())
