"""Record of a run: configuration, package versions and git revision. It is saved with the results."""

import json
import platform
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

from mmjax.experiment import Experiment, to_json
from mmjax.files import write_atomically

PACKAGES = (
  "mmjax",
  "jax",
  "jaxlib",
  "flax",
  "optax",
  "orbax-checkpoint",
  "grain",
  "tensorflow-datasets",
  "numpy",
)


def describe_run(experiment: Experiment) -> dict[str, Any]:
  """Make the JSON record of an experiment and of the software that runs it."""
  return {
    "experiment": to_json(experiment),
    "command": sys.argv,
    "python": platform.python_version(),
    "packages": {name: _version(name) for name in PACKAGES},
    "git": _git_revision(Path(__file__).parent),
  }


def write_config(experiment: Experiment, path: Path) -> None:
  write_atomically(path, json.dumps(describe_run(experiment), indent=2) + "\n")


def _version(package: str) -> str | None:
  try:
    return metadata.version(package)
  except metadata.PackageNotFoundError:
    return None


def _git_revision(folder: Path) -> str | None:
  """Hash of the current commit, with "+" if files differ from it. None outside a git checkout or without git."""
  try:
    revision = _git(folder, "rev-parse", "HEAD")
    return revision + ("+" if _git(folder, "status", "--porcelain", "--untracked-files=no") else "")
  except (OSError, subprocess.CalledProcessError):
    return None


def _git(folder: Path, *arguments: str) -> str:
  return subprocess.run(
    ["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=True
  ).stdout.strip()
