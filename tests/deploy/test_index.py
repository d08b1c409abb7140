"""The index: exact, saved, and made anew when the model or an image changes."""

import os

import numpy as np
import pytest

from mmjax.deploy.serving.index import Index, made_index
from mmjax.errors import UserError
from tests.deploy.served import COLORS, embed_images, fake, png


@pytest.fixture
def folder(tmp_path):
  (tmp_path / "photos" / "deep").mkdir(parents=True)
  for name, color in COLORS.items():
    (tmp_path / "photos" / ("deep" if name == "blue" else ".") / f"{name}.png").write_bytes(png(color))
  (tmp_path / "photos" / "notes.txt").write_text("no image")
  return tmp_path / "photos"


class Counted:
  def __init__(self):
    self.items = 0

  def __call__(self, items):
    self.items += len(items)
    return embed_images(items)


def index_of(folder, counted=None, fingerprint="abc", file=None):
  served = fake(fingerprint=fingerprint, **({} if counted is None else {"embed_image": counted}))
  return made_index(served, folder, file or folder.parent / "index.npz", 10_000)


def test_the_nearest_are_those_of_a_full_sort(tmp_path):
  rng = np.random.default_rng(0)
  rows = rng.integers(-2, 3, (200, 3)).astype(np.float32)  # with many ties
  index = Index(tmp_path, tuple(map(str, range(200))), rows)
  for count in (1, 7, 100, 200, 300):
    query = rng.integers(-2, 3, 3).astype(np.float32)
    order = sorted(range(200), key=lambda n: (-float(rows[n] @ query), n))[:count]
    assert index.nearest(query, count) == [(n, float(rows[n] @ query)) for n in order]


def test_it_is_saved_and_only_what_changed_is_embedded_again(folder, caplog):
  first = Counted()
  index = index_of(folder, first)
  assert index.names == ("deep/blue.png", "green.png", "red.png") and first.items == 4  # one of four is padding
  again = Counted()
  same = index_of(folder, again)
  assert again.items == 0 and same.names == index.names
  np.testing.assert_array_equal(same.rows, index.rows)
  (folder / "red.png").write_bytes(png((0, 255, 0), (9, 9)))
  os.remove(folder / "deep" / "blue.png")
  changed = Counted()
  after = index_of(folder, changed)
  assert changed.items == 1 and after.names == ("green.png", "red.png")
  np.testing.assert_allclose(after.rows[0], after.rows[1], atol=1e-5)
  assert index_of(folder, Counted()).names == after.names and not caplog.records


def test_after_retraining_it_is_made_anew_with_a_word(folder, caplog):
  index_of(folder)
  retrained = Counted()
  index_of(folder, retrained, fingerprint="other")
  assert retrained.items == 4 and "is of other parameters" in caplog.text and "made anew" in caplog.text
  kept = Counted()
  index_of(folder, kept, fingerprint="other")
  assert kept.items == 0


def test_images_that_cannot_be_read_are_named_and_left_out(folder, caplog):
  (folder / "bad.png").write_bytes(b"no image")
  (folder / "large.png").write_bytes(png("red", (200, 100)))
  assert len(index_of(folder).names) == 3
  assert "bad.png" in caplog.text and "large.png" in caplog.text and "200 x 100" in caplog.text


def test_bad_input_is_one_sentence(folder, tmp_path):
  with pytest.raises(UserError, match="is not a directory"):
    index_of(tmp_path / "nowhere")
  (tmp_path / "empty").mkdir()
  with pytest.raises(UserError, match="has no image"):
    index_of(tmp_path / "empty")
  (tmp_path / "empty" / "a.png").write_bytes(b"no image")
  with pytest.raises(UserError, match="none of its 1 images can be read"):
    index_of(tmp_path / "empty")
  for content in (b"", b"nonsense", b"PK\x03\x04nonsense"):
    (tmp_path / "bad.npz").write_bytes(content)
    with pytest.raises(UserError, match=r"bad\.npz is no index of images"):
      index_of(folder, file=tmp_path / "bad.npz")
  with pytest.raises(UserError, match="cannot be written"):
    index_of(folder, file=tmp_path / "nowhere" / "index.npz")
  with pytest.raises(UserError, match="cannot search"):
    made_index(fake(["embed_text"]), folder, tmp_path / "x.npz", 10_000)
