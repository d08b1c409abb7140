"""The folder in which tests keep compiled programs, from process to process and from run to run."""

import hashlib
import platform
from pathlib import Path

LARGEST = 2**30
"""Bytes that stay from run to run."""


def processor() -> str:
  """A name for the instructions of this machine's processor; code that was compiled for another one could crash."""
  try:
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
  except OSError:  # not Linux
    lines = []
  features = sorted({line for line in lines if line.startswith(("flags", "Features", "model name"))})
  return hashlib.sha256("\n".join([platform.machine(), *features]).encode()).hexdigest()[:12]


FOLDER = Path(__file__).parents[1] / ".pytest_cache" / "jax" / processor()
"""JAX names a file by the program, the versions and the flags that it was compiled with."""


def trim(folder: Path = FOLDER, largest: int = LARGEST) -> None:
  """Deletes the oldest programs until the rest take no more than `largest` bytes."""
  files = sorted((path for path in folder.glob("*") if path.is_file()), key=lambda path: path.stat().st_mtime)
  total = sum(path.stat().st_size for path in files)
  for path in files:
    if total <= largest:
      break
    total -= path.stat().st_size
    path.unlink()
