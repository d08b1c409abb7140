"""Golden values: what the code gave when they were written, one JSON file per subject, compared by the tests.

    python -m tests.golden.make

runs the tests that compare them and writes what they find instead. A refactoring must not need it. It is legitimate
where a change of behaviour is wanted (another augmentation, another initialisation, a fixed bug): then the commit that
changes the behaviour writes the values anew, its message says why, and `git diff` shows no other value than expected.
The folders `workdir` and `configs` are not rewritten: see test_workdir.py and test_configs.py.
"""

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

FOLDER = Path(__file__).parent
WRITE = "MMJAX_WRITE_GOLDEN"
"""The environment variable under which `check` writes and compares nothing."""


def read(subject: str) -> dict[str, Any]:
  """All golden values of a subject, by key."""
  path = FOLDER / f"{subject}.json"
  return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def check(subject: str, key: str, found: Any, *, rel: float = 0.0, abs: float = 0.0, skip: Sequence[str] = ()) -> None:
  """Asserts that a JSON value is the golden one.

  Args:
    subject: the file, without ".json".
    key: the value's place in the file.
    found: the value.
    rel: relative tolerance of floats; abs: absolute. Everything else is equal.
    skip: names of entries that are written, and not compared.
  """
  values = read(subject)
  if os.environ.get(WRITE):
    values[key] = json.loads(json.dumps(found), parse_float=lambda text: float(f"{float(text):.8g}"))
    text = json.dumps(dict(sorted(values.items())), indent=1, ensure_ascii=False)
    (FOLDER / f"{subject}.json").write_text(text + "\n", encoding="utf-8")
    return
  now, golden = (
    {place: leaf for place, leaf in leaves(value) if place.rpartition("/")[2] not in skip}
    for value in (json.loads(json.dumps(found)), values[key])
  )
  assert now.keys() == golden.keys()
  wrong = {place: (now[place], value) for place, value in golden.items() if not _same(now[place], value, rel, abs)}
  assert not wrong, f"{subject}.json, {key}: (now, golden) is {wrong}"


def numbers(results: Sequence[Any]) -> list[dict[str, Any]]:
  """Results of an evaluation without what they say to people, and where the run lies."""
  left_out = ("title", "floor_is", "counts", "pretrained", "table", "heading")
  return [{name: value for name, value in result.items() if name not in left_out} for result in results]


def leaves(value: Any, place: str = "") -> Iterator[tuple[str, Any]]:
  """(path, value) of everything in nested dictionaries and lists; of an empty one, itself."""
  entries = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
  if not entries:
    yield place, value
  for name, inner in entries:
    yield from leaves(inner, f"{place}/{name}")


def digest(array: Any) -> str:
  """16 hexadecimal digits that differ where dtype, shape or any bit differs."""
  array = np.ascontiguousarray(array)
  return hashlib.sha256(f"{array.dtype.str}{array.shape}".encode() + array.tobytes()).hexdigest()[:16]


def _same(now: Any, golden: Any, rel: float, abs: float) -> bool:
  if isinstance(golden, float) and isinstance(now, float):
    return now == pytest.approx(golden, rel=max(rel, 1e-7), abs=abs, nan_ok=True)  # eight digits are written
  return type(now) is type(golden) and now == golden
