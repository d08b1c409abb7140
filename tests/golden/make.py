"""Writes the golden values anew; tests/golden/values.py says when that is legitimate."""

import os
import subprocess
import sys
from pathlib import Path

from tests.golden.values import FOLDER, WRITE

ROOT = Path(__file__).parents[2]
MODULES = (
  "tests/golden",
  "tests/train/test_golden_steps.py",
  "tests/train/test_step.py",
  "tests/evaluate/test_suite.py",
  "tests/evaluate/test_multimodal.py",
)
"""Where tests compare with golden values; all have "golden" in their names."""

if __name__ == "__main__":
  for path in FOLDER.glob("*.json"):
    path.unlink()
  command = [sys.executable, "-m", "pytest", "-k", "golden", *MODULES]
  sys.exit(subprocess.run(command, cwd=ROOT, env=os.environ | {WRITE: "1"}).returncode)
