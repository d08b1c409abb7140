"""Checksums of the files in a folder. They show that a checkpoint is damaged or incomplete before it is used."""

import json
import os
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from mmjax.files import write_atomically

MANIFEST = "manifest.json"
# Orbax writes these files after the manifest.
_AFTERWARDS = ("_CHECKPOINT_METADATA", "commit_success.txt")
_BLOCK = 1 << 24


def write_manifest(folder: Path) -> None:
  """Write MANIFEST with size and CRC-32 of every file below `folder`. All these files are then synced to the disk."""
  names = sorted(_files(folder))
  with ThreadPoolExecutor() as pool:
    checked = pool.map(lambda name: _measure(folder / name, durable=True), names)
    files = {name: {"bytes": size, "crc32": crc} for name, (size, crc) in zip(names, checked, strict=True)}
  write_atomically(folder / MANIFEST, json.dumps({"files": files}, indent=1) + "\n")


def first_fault(folder: Path) -> str | None:
  """Describe the first fault in the files below `folder`. None if all files are unchanged."""
  try:
    files = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))["files"]
    expected = {str(name): (int(file["bytes"]), int(file["crc32"])) for name, file in files.items()}
  except FileNotFoundError:
    return f"it has no {MANIFEST}"
  except (ValueError, KeyError, TypeError, AttributeError, OSError, OverflowError, RecursionError) as error:
    return f"{MANIFEST} is damaged ({error})"
  for name, (size, _) in expected.items():  # sizes first, which need no reading
    fault = _wrong_size(folder / name, size)
    if fault:
      return f"{name} {fault}"
  with ThreadPoolExecutor() as pool:
    for name, fault in zip(expected, pool.map(lambda item: _changed(folder / item[0], *item[1]), expected.items())):
      if fault:
        return f"{name} {fault}"
  return None


def _files(folder: Path) -> Iterator[str]:
  for path in folder.rglob("*"):
    if path.is_file() and path.name not in (MANIFEST, *_AFTERWARDS):
      yield path.relative_to(folder).as_posix()


def _wrong_size(path: Path, size: int) -> str | None:
  try:
    found = path.stat().st_size
  except (OSError, ValueError) as error:  # ValueError: no file can have such a name
    return f"cannot be read ({error})"
  return None if found == size else f"has {found} bytes instead of {size}"


def _changed(path: Path, size: int, crc: int) -> str | None:
  try:
    return None if _measure(path) == (size, crc) else "was changed (its checksum differs)"
  except OSError as error:
    return f"cannot be read ({error.strerror})"


def _measure(path: Path, *, durable: bool = False) -> tuple[int, int]:
  """(bytes, CRC-32) of a file. zlib releases the interpreter's lock, so threads read files at the same time."""
  size, crc = 0, 0
  buffer: Any = memoryview(bytearray(_BLOCK))
  with path.open("rb", buffering=0) as file:
    while count := file.readinto(buffer):
      crc = zlib.crc32(buffer[:count], crc)
      size += count
    if durable:
      os.fsync(file.fileno())
  return size, crc
