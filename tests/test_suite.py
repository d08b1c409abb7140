"""The test suite's own settings."""

import os
from pathlib import Path

from tests.compiled import trim
from tests.fast import FAST

TESTS = Path(__file__).parent


def test_what_is_listed_as_fast_exists():
  for name in FAST:
    module, _, test = name.partition("::")
    assert f"def {test or 'test_'}" in (TESTS / f"{module}.py").read_text(encoding="utf-8"), name


def test_the_oldest_programs_are_deleted_until_the_rest_is_small(tmp_path):
  for age, name in enumerate(("newest", "older", "oldest")):
    (tmp_path / name).write_bytes(b"x" * 10)
    os.utime(tmp_path / name, (1000 - age, 1000 - age))
  trim(tmp_path, largest=20)
  assert {path.name for path in tmp_path.iterdir()} == {"newest", "older"}
