"""Approximate search: nearly what exact search finds, saved, and made anew when the embeddings change."""

import importlib.util
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from mmjax.deploy.serving import approximate as module
from mmjax.deploy.serving.approximate import Approximate, approximate, quality, sampled
from mmjax.deploy.serving.index import Index
from mmjax.errors import UserError


def index(folder, count=2000, seed=0, dim=16):
  rows = np.random.default_rng(seed).standard_normal((count, dim)).astype(np.float32)
  return Index(folder, tuple(map(str, range(count))), rows / np.linalg.norm(rows, axis=1, keepdims=True))


class Brute:
  """As faiss searches, with `wrong` of the places replaced by none."""

  def __init__(self, rows, wrong=0):
    self.rows, self.wrong = rows, wrong

  def search(self, queries, count):
    cosines = queries @ self.rows.T
    places = np.argsort(-cosines, axis=1)[:, :count]
    found = np.take_along_axis(cosines, places, 1)
    if self.wrong:
      places[:, -self.wrong :] = -1
    return found, places


def test_places_and_cosines_are_those_of_faiss(tmp_path):
  exact = index(tmp_path, 50)
  made = Approximate(exact.folder, exact.names, exact.rows, Brute(exact.rows))
  for query in sampled(exact)[:5]:
    found, wanted = made.nearest(query, 7), exact.nearest(query, 7)
    assert [place for place, _ in found] == [place for place, _ in wanted]
    np.testing.assert_allclose([c for _, c in found], [c for _, c in wanted], rtol=1e-6)
  assert len(made.nearest(exact.rows[0], 90)) == 50
  assert quality(made, sampled(exact)).recall == 1
  worse = Approximate(exact.folder, exact.names, exact.rows, Brute(exact.rows, wrong=3))
  assert quality(worse, sampled(exact)).recall == pytest.approx(0.7) and len(worse.nearest(exact.rows[0], 10)) == 7


def test_a_missing_library_is_named(tmp_path, monkeypatch):
  monkeypatch.setitem(sys.modules, "faiss", None)
  with pytest.raises(UserError, match=r"needs faiss: pip install 'mmjax\[nearest\]'"):
    approximate(index(tmp_path, 9), tmp_path / "lists.npz")


@pytest.fixture
def faiss(monkeypatch):
  """faiss; or where it is not installed, exact search with the same functions."""
  if importlib.util.find_spec("faiss"):
    return

  class Graph(Brute):
    def __init__(self, *_):
      self.wrong = 0

    def train(self, rows):
      pass

    def add(self, rows):
      self.rows = rows

  def read(data):
    made = Graph()
    made.add(data)
    return made

  fake = SimpleNamespace(
    IndexFlatIP=Graph,
    IndexIVFFlat=Graph,
    METRIC_INNER_PRODUCT=0,
    serialize_index=lambda graph: graph.rows,
    deserialize_index=read,
  )
  monkeypatch.setitem(sys.modules, "faiss", fake)


def test_it_finds_nearly_all_and_is_read_back(tmp_path, faiss, caplog, monkeypatch):
  exact, file = index(tmp_path), tmp_path / "lists.npz"
  made = approximate(exact, file)
  assert quality(made, sampled(exact)).recall > 0.6
  stamp = file.stat().st_mtime_ns
  with monkeypatch.context() as patch:
    patch.setattr(module, "_save", None)
    again = approximate(exact, file)
  assert file.stat().st_mtime_ns == stamp and not caplog.records
  assert again.nearest(exact.rows[3], 5) == made.nearest(exact.rows[3], 5)
  approximate(index(tmp_path, seed=1), file)
  assert "is of other embeddings" in caplog.text and file.stat().st_mtime_ns != stamp


def test_bad_files_are_named(tmp_path, faiss):
  file = tmp_path / "lists.npz"
  for content in (b"", b"nonsense", b"PK\x03\x04nonsense"):
    file.write_bytes(content)
    with pytest.raises(UserError, match=r"lists\.npz is no file of lists"):
      approximate(index(tmp_path, 30), file)
  with pytest.raises(UserError, match="cannot be written"):
    approximate(index(tmp_path, 30), tmp_path / "nowhere" / "lists.npz")
