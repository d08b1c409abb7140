"""Drift: a shifted input is seen, the same distribution is not; the file holds sums alone."""

import argparse
import dataclasses
import io
import json

import numpy as np
import pytest
from rich.console import Console

from mmjax.deploy.serving import drift
from mmjax.deploy.serving.statistics import LEAST, Moments, StatisticsFile, merged, moments, read_statistics
from mmjax.errors import UserError

DIM = 24


def embeddings(count, seed, shift=0.0, scale=1.0):
  """Unit-norm embeddings whose dimensions are correlated, as those of models are."""
  mixing = np.random.default_rng(0).standard_normal((6, DIM))
  rng = np.random.default_rng(seed)
  rows = scale * rng.standard_normal((count, 6)) @ mixing + 0.3 * rng.standard_normal((count, DIM)) + 1.0
  rows[:, :4] += shift
  return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def line(rows, since=0.0):
  return {"since": since, "until": since + 60, "image": moments(rows)}


@pytest.mark.parametrize("count", [50, 2500])
def test_the_same_distribution_is_not_drift(count):
  reference = embeddings(1000, 1)
  verdicts = [drift.judged("image", [line(embeddings(count, seed))], reference) for seed in range(2, 5)]
  assert [verdict.drifted for verdict in verdicts] == [False] * 3


def in_order(count, seed, scale=3.0):
  """Embeddings of data in the order of their names: neighbours are alike."""
  rng = np.random.default_rng(seed)
  topics = scale * np.repeat(rng.standard_normal((count // 20, 6)), 20, axis=0)
  rows = (topics + rng.standard_normal((count, 6))) @ np.random.default_rng(0).standard_normal((6, DIM)) + 1.0
  return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def test_neighbours_of_the_data_are_not_drift():
  reference = in_order(2000, 1)
  starts = range(0, 1700, 200)
  verdicts = [drift.judged("image", [line(reference[start : start + 300])], reference) for start in starts]
  assert sum(verdict.drifted for verdict in verdicts) <= 1
  independent = np.random.default_rng(0).permutation(reference)  # without their order, nearly all would be drift
  wrong = [drift.judged("image", [line(reference[start : start + 300])], independent) for start in starts]
  assert sum(verdict.drifted for verdict in wrong) > 4
  other = in_order(2000, 2) * np.where(np.arange(DIM) < 12, 1, -1).astype(np.float32)
  assert drift.judged("image", [line(other[:300])], reference).drifted


def test_large_data_are_taken_in_stretches_of_neighbours():
  places = drift.stretches(100_000, 2000)
  assert len(places) == len(set(places)) == 2000 and places[-1] < 100_000
  assert np.sum(np.diff(places) != 1) == drift.STRETCHES - 1
  assert drift.stretches(40, 7) == [40 * n // 7 for n in range(7)]


@pytest.mark.parametrize("change", [{"shift": 1.5}, {"scale": 1.6}, {"scale": 0.6}])
@pytest.mark.parametrize("count", [100, 2000])
def test_a_shift_and_another_spread_are_drift(count, change):
  verdict = drift.judged("image", [line(embeddings(count, 2, **change))], embeddings(1000, 1))
  assert verdict.drifted and verdict.drift.cosine < 1


def test_distance_by_hand():
  reference = Moments(9, np.array([1.0, 2.0, 5.0]), np.array([4.0, 1.0, 0.0]), 1.0, 0.0)
  served = Moments(9, np.array([3.0, 2.0, 9.0]), np.array([4.0, np.e**2, 3.0]), 1.5, 0.0)
  found = drift.distance(served, reference)  # the third dimension never varies in the data
  assert found.shift == pytest.approx(np.sqrt(1 / 2)) and found.spread == pytest.approx(np.sqrt(1 / 2))
  assert found.norm == 0.5
  with pytest.raises(UserError, match="collapsed"):
    drift.distance(served, Moments(9, served.mean, np.zeros(3), 1.0, 0.0))


def test_moments_of_parts_are_those_of_all():
  rows = 3 * embeddings(90, 3)
  both = merged([moments(rows[:7]), moments(rows[7:50]), moments(rows[50:])])
  whole = moments(rows)
  assert both.count == 90
  np.testing.assert_allclose(both.mean, whole.mean, rtol=1e-12)
  np.testing.assert_allclose(both.variance, rows.astype(np.float64).var(0), rtol=1e-9)
  assert both.norm_mean == pytest.approx(3) and both.norm_variance == pytest.approx(0, abs=1e-10)


def test_a_file_holds_sums_of_many_and_is_read_back(tmp_path):
  now, path = [100.0], tmp_path / "statistics.jsonl"
  file = StatisticsFile(path, "abc", 60, clock=lambda: now[0])
  rows = embeddings(60, 4)
  file.add("image", rows[: LEAST - 1])
  now[0] = 170
  file.add("text", rows[:30])  # the time has come, but one modality has too few
  file.add("image", rows[LEAST - 1 : 40])
  now[0] = 180
  file.flush()
  assert path.read_text().count("\n") == 2
  file.flush()  # nothing is left
  first, second = read_statistics(path, "abc")
  assert set(first) == {"since", "until", "text"} and first["until"] == 170 and second["since"] == 170
  assert second["image"].count == 40
  np.testing.assert_allclose(second["image"].mean, moments(rows[:40]).mean, rtol=1e-12)
  with path.open("a") as more:
    more.write('{"fingerprint": "abc", "sin')  # cut short by a crash
  assert len(read_statistics(path, "abc")) == 2


def test_bad_files_are_named(tmp_path):
  path = tmp_path / "statistics.jsonl"
  with pytest.raises(UserError, match=r"statistics\.jsonl cannot be read"):
    read_statistics(path, "abc")
  path.write_text("")
  with pytest.raises(UserError, match="has no statistics yet"):
    read_statistics(path, "abc")
  good = {"fingerprint": "abc", "since": 0, "until": 1, "image": moments(embeddings(30, 0)).to_json()}
  for wrong in ({"image": 3}, {"since": None}, {"image": good["image"] | {"mean": [1.0]}}, {"until": "x"}):
    path.write_text(json.dumps(good) + "\n" + json.dumps(good | wrong) + "\n")
    with pytest.raises(UserError, match="line 2: not a line of statistics"):
      read_statistics(path, "abc")
  path.write_text(json.dumps(good) + "\n")
  with pytest.raises(UserError, match="line 1 is of other parameters"):
    read_statistics(path, "other")
  with pytest.raises(UserError, match="24 dimensions, those of the run 8"):
    drift.judged("image", read_statistics(path, "abc"), embeddings(30, 0)[:, :8])
  with pytest.raises(UserError, match="cannot be written"):
    StatisticsFile(tmp_path / "nowhere" / "x", "abc", 60)


def test_the_page_has_a_table_and_a_plot_and_says_what_drifted():
  reference, away = embeddings(500, 1), dict(shift=2.0)
  lines = [line(embeddings(200, 2), 0.0), line(embeddings(200, 3, **away), 3600.0)]
  verdict = drift.judged("image", lines, reference)
  assert [time for time, _ in verdict.windows] == [30, 3630] and verdict.windows[0][1] < 0.3 < verdict.windows[1][1]
  html = drift.drift_page([verdict], "train", "<run>")
  assert "<b>drifted</b>" in html and "<svg" in html and "&lt;run&gt;" in html and ">400<" in html


def test_the_table_fits_into_a_terminal():
  reference = embeddings(500, 1)
  verdicts = [drift.judged("image", [line(embeddings(123_456, 2))], reference)]
  verdicts.append(dataclasses.replace(verdicts[0], modality="text"))
  console = Console(width=80, file=io.StringIO())
  console.print(drift._table(verdicts, "validation"))
  text = console.file.getvalue()
  for words in ("shift of the mean", "change of spread", "cosine of means", "123,456", "verdict", "validation data"):
    assert words in text  # whole, on one line
  assert "…" not in text


def test_the_options_of_report_are_checked(capsys):
  from mmjax.deploy.serving.options import add_report_options

  parser = argparse.ArgumentParser()
  add_report_options(parser)
  for wrong in (
    ["run"],
    ["run", "--statistics", "x", "--records", "3"],
    ["run", "--statistics", "x", "--split", "test"],
  ):
    with pytest.raises(SystemExit):
      parser.parse_args(wrong)
