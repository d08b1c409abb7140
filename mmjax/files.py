"""Writing files so that a crash leaves either the old one or the new one."""

import os
from pathlib import Path


def write_atomically(path: Path, text: str) -> None:
  """Writes `text` (UTF-8) beside `path` and renames it into place."""
  partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
  partial.write_text(text, encoding="utf-8")
  partial.replace(path)
