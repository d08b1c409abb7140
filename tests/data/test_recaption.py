"""Captions from a file: what CapFilt keeps, and what it writes in place of the rest."""

import dataclasses

import numpy as np
import pytest

from mmjax.data import DataError, Emoji, Scenes, make_loader, make_source, write_captions


@pytest.fixture
def path(tmp_path, train_source):
  """Every third record, with a caption of its own."""
  kept = [(index, train_source[index]["id"], {"name": [f"new {index}"]}) for index in range(0, 90, 3)]
  write_captions(tmp_path / "captions.jsonl", kept)
  return tmp_path / "captions.jsonl"


def test_only_the_listed_records_are_trained_on_with_the_files_captions(emoji_config, train_source, tokenizer, path):
  config = dataclasses.replace(emoji_config, captions_from=str(path), corrupt_captions=0.5)
  source = make_source(config, "train")
  assert len(source) == 30
  for place in range(30):
    assert source[place] == {**train_source[3 * place], "captions": {"name": [f"new {3 * place}"]}}
  batch = next(make_loader(config, source, tokenizer, image_size=8, batch_size=30))
  np.testing.assert_array_equal(batch["text"], tokenizer([f"new {3 * place}" for place in batch["index"].tolist()]))
  assert len(make_source(config, "validation")) == len(make_source(emoji_config, "validation"))


def test_siblings_are_those_that_are_left(emoji_config, train_source, path):
  source = make_source(dataclasses.replace(emoji_config, captions_from=str(path)), "train")
  for place in range(30):
    expected = [other // 3 for other in train_source.siblings(3 * place) if other % 3 == 0 and other < 90]
    assert source.siblings(place) == expected


@pytest.mark.parametrize(
  "line, message",
  [
    ("{", r"line 31: not JSON"),
    ('{"index": 1}', r"line 31: index, id or captions are missing or wrong. A line is"),
    ('{"index": 1, "id": "a", "captions": {"name": []}}', r"line 31: index, id or captions are missing"),
    ('{"index": 1, "id": "a", "captions": {"name": [3]}}', r"line 31: the captions of kind 'name': is"),
    (
      '{"index": 1, "id": "a", "captions": {"name": "a cat"}}',
      r"line 31: the captions of kind 'name' are 'a cat', no list",
    ),
    (
      '{"index": 1, "id": "a", "captions": {"name": ["x"], "de": ["a\\u0000b"]}}',
      r"line 31: the captions of kind 'de': has a NUL character",
    ),
    (
      '{"index": 1, "id": "a", "id": "b", "captions": {"name": ["x"]}}',
      r"line 31: not JSON .the field 'id' is there twice",
    ),
    (
      '{"index": 3, "id": "a", "captions": {"name": ["x"]}}',
      r"line 31: index 3 is not one of \d+ records, or is there",
    ),
    ('{"index": 99999, "id": "a", "captions": {"name": ["x"]}}', r"line 31: index 99999 is not one of"),
  ],
)
def test_bad_lines_are_named(emoji_config, path, line, message):
  path.write_text(path.read_text() + line + "\n")
  with pytest.raises(DataError, match=rf"captions.jsonl, {message}"):
    make_source(dataclasses.replace(emoji_config, captions_from=str(path)), "train")


def test_files_of_other_data_are_refused(emoji_config, path):
  with pytest.raises(DataError, match=r"captions.jsonl was written for other data: its record twemoji/"):
    make_source(
      dataclasses.replace(emoji_config, captions_from=str(path), source=Emoji(("openmoji", "twemoji"), limit=60)),
      "train",
    )[0]
  config = dataclasses.replace(emoji_config, captions_from=str(path.with_name("none")))
  with pytest.raises(DataError, match=r"Cannot read --data.captions-from .*none"):
    make_source(config, "train")
  with pytest.raises(DataError, match=r"--data.captions-from needs captions; this source gives .*answer"):
    make_source(dataclasses.replace(emoji_config, captions_from=str(path), source=Scenes(examples=12)), "train")
  path.write_text("")
  with pytest.raises(DataError, match=r"captions.jsonl lists no record"):
    make_source(dataclasses.replace(emoji_config, captions_from=str(path)), "train")
