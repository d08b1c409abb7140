"""The short form of scripts/benchmarks/differential_folders.py, and that it finds what it looks for."""

import pytest

from mmjax.data.images import modes
from mmjax.data.sources import folder
from scripts.benchmarks.differential_folders import compare_all

OUTCOMES = ("equal", "refused by both")


def test_folders_are_read_as_by_an_obvious_slow_reader(tmp_path):
  counts = compare_all(80, 1, tmp_path)
  assert "wrong" not in counts, f"kept in {tmp_path}"
  compared = {
    what: sum(counts.get(f"{what}: {outcome}", 0) for outcome in OUTCOMES) for what in ("records, error", "images")
  }
  assert compared["records, error"] == 3 * 80 and compared["images"] > 80
  assert all(counts[f"{what}: {outcome}"] > 10 for what in compared for outcome in OUTCOMES), counts


@pytest.mark.parametrize(
  "module, name, broken",
  [
    (folder, "read_captions", lambda value, *_, **__: [str(value)]),
    (folder, "_hashed_split", lambda name: "train"),
    (modes, "orientation", lambda image: 1),
    (modes, "_fault", lambda image: None),
  ],
)
def test_a_wrong_reader_is_found(tmp_path, monkeypatch, module, name, broken):
  monkeypatch.setattr(module, name, broken)
  assert compare_all(40, 1, tmp_path)["wrong"] > 0
  assert list(tmp_path.iterdir()), "the case is kept"
