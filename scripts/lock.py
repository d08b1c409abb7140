#!/usr/bin/env python3
"""Writes scripts/locks: every package that the set-up scripts install, with the hashes of its files on PyPI.

  python scripts/lock.py            after a change of setup.py or constraints.txt; asks PyPI, takes a minute
  python scripts/lock.py --check    whether the locks hold what setup.py asks for; asks nobody

A lock says what setup.py asks for, resolved under constraints.txt, for every Python and platform at once (environment
markers tell them apart: Python 3.11 has an older JAX); pip then refuses a file whose hash is not in it. uv resolves;
where it is not installed, the one that scripts/locks/tools.txt names goes into .venv/tools first.
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
PYTHONS = ("3.11", "3.12", "3.13", "3.14")
HEAD = "# Written by scripts/lock.py from setup.py and constraints.txt; not to be edited.\n"


def asked(setup: Path = ROOT / "setup.py") -> dict[str, list[str]]:
  """The requirements of setup.py: of the package itself under "", and of its extras. Read, not run."""
  body = ast.parse(setup.read_text(encoding="utf-8")).body
  lists = {ast.unparse(node.targets[0]): node.value for node in body if isinstance(node, ast.Assign)}
  values = {name: ast.literal_eval(lists[name]) for name in ("CORE", "EXTRAS")}
  return {"": values["CORE"], **values["EXTRAS"]}


def pins(lock: Path, python: str | None = None) -> dict[str, str]:
  """{normalised name: version} of the lines NAME==VERSION of a lock or of constraints.txt.

  Args:
    lock: the file.
    python: leave out lines whose marker is for another Python than this version ("3.11"); None: markers are not read.
  """
  lines = re.findall(r"^([\w.-]+)==([^\s;\\]+)(?: *; *([^\\\n]+))?", lock.read_text(encoding="utf-8"), re.MULTILINE)
  return {normalised(name): version for name, version, marker in lines if python is None or applies(marker, python)}


def applies(marker: str, python: str) -> bool:
  """True if an environment marker holds on this machine for a Python version; an empty marker does."""
  from packaging.markers import Marker

  environment = {"python_version": python, "python_full_version": f"{python}.0"}
  return not marker.strip() or Marker(marker).evaluate(environment)


def normalised(name: str) -> str:
  return re.sub(r"[-_.]+", "-", name).lower()


def stale(extras: Sequence[str], lock: Path, setup: Path, constraints: Path) -> list[str]:
  """Faults of a lock, a sentence each: a package that is not in it, or has another version elsewhere."""
  if not lock.exists():
    return [f"{lock} does not exist"]
  faults = [fault for python in PYTHONS for fault in stale_for(python, extras, lock, setup, constraints)]
  return list(dict.fromkeys(faults))


def stale_for(python: str, extras: Sequence[str], lock: Path, setup: Path, constraints: Path) -> list[str]:
  """`stale` for one Python version."""
  from packaging.requirements import Requirement

  held, wanted, faults = pins(lock, python), asked(setup), []
  for requirement in map(Requirement, [text for extra in ("", *extras) for text in wanted[extra]]):
    if not applies(str(requirement.marker or ""), python):
      continue
    version = held.get(normalised(requirement.name))
    if version is None:
      faults.append(f"{lock.name} has no {requirement.name}, which setup.py asks for")
    elif not requirement.specifier.contains(version, prereleases=True):
      faults.append(f"{lock.name} has {requirement.name} {version}, setup.py asks for {requirement.specifier}")
  for name, version in pins(constraints, python).items():
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
  options = ["--universal", "--python-version", PYTHONS[0], "--generate-hashes", "--no-header", "--no-annotate"]
  command = [tool("uv"), "pip", "compile", "-", "--quiet", *options, "--constraints", str(ROOT / "constraints.txt")]
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
