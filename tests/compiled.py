"""The folder in which tests keep compiled programs: for all processes, runs and checkouts of this user."""

import contextlib
import hashlib
import os
import platform
from collections.abc import Mapping
from pathlib import Path

import jaxlib

LARGEST = 2**31
"""Bytes that stay from run to run, of all processors and versions."""
MOST_MAPPINGS = 20_000
"""Mappings of memory of a process above which it forgets its programs."""


def root(environment: Mapping[str, str] = os.environ) -> Path:
  """Where the folders of all processors and versions lie."""
  return Path(environment.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "mmjax" / "tests"


def folder(environment: Mapping[str, str] = os.environ) -> Path:
  """The folder for this jaxlib and this processor. JAX names a file by its program, the versions and the flags."""
  return root(environment) / f"jaxlib-{jaxlib.__version__}-{processor()}"


def processor() -> str:
  """A name for the instructions of this machine's processor; code that was compiled for another one could crash."""
  try:
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
  except OSError:  # not Linux
    lines = []
  features = sorted({line for line in lines if line.startswith(("flags", "Features", "model name"))})
  return hashlib.sha256("\n".join([platform.machine(), *features]).encode()).hexdigest()[:12]


def mappings() -> int:
  """Number of this process's mappings of memory. 0 where /proc does not say it."""
  try:
    return Path("/proc/self/maps").read_bytes().count(b"\n")
  except OSError:  # not Linux
    return 0


def write_whole() -> None:
  """Has JAX move a program to its place when all of it is written.

  JAX writes it in place. Another process may then read half of it, and a process that is killed meanwhile leaves a half
  that no later run replaces: each would warn of it and compile the program anew. Here the new program takes its place.
  """
  from jax._src.lru_cache import LRUCache  # after the environment is set

  def put(self: LRUCache, key: str, value: bytes) -> None:
    place, part = (Path(self.path) / f"{key}{end}" for end in ("-cache", f".{os.getpid()}.part"))
    part.write_bytes(value)
    part.replace(place)

  LRUCache.put = put


def trim(where: Path, largest: int = LARGEST) -> None:
  """Deletes what was not used for longest until the rest takes no more than `largest` bytes.

  Other processes may read, write and trim the folders meanwhile. A program that is gone is compiled again.
  """
  files = []
  for path in where.glob("*/*"):
    with contextlib.suppress(FileNotFoundError):
      known = path.stat()
      files.append((max(known.st_atime, known.st_mtime), known.st_size, path))
  total = sum(size for _, size, _ in files)
  for _, size, path in sorted(files):
    if total <= largest:
      break
    total -= size
    path.unlink(missing_ok=True)
