"""Columns of a script's own: what does not fit the records, or each other, is named."""

import dataclasses
import io
import re

import numpy as np
import PIL.Image
import pytest

from mmjax.data import (
  Answer,
  AugmentationConfig,
  Caption,
  ClassLabel,
  Column,
  DataConfig,
  DataError,
  Ids,
  Image,
  Label,
  Question,
  SentencePair,
  Sound,
  Source,
  Table,
  Text,
  Tokenizer,
  TokenizerConfig,
  Video,
  Weight,
  evaluation_batches,
  make_loader,
  make_source,
  make_tokenizer,
)
from mmjax.data.batching import Batcher, row_shapes
from mmjax.data.columns.base import Evaluating, check_record, make_row
from mmjax.data.columns.fitting import check_fields, fit_columns
from mmjax.data.text.tokenizer import train_vocabulary
from mmjax.errors import ConfigError

RECORDS = [{"id": "beat/0", "signal": [1.0, 2.0], "rate": 60}]


@dataclasses.dataclass(frozen=True)
class Signal(Column):
  field: str = "signal"
  array: str = "signal"

  def arrays(self, name, making):
    return {self.array: ((2,), np.float32)}

  def fit(self, records):
    return float(np.mean([record[self.field] for record in records]))

  def row(self, record, rng, fitted):
    return np.asarray(record[self.field], np.float32) - fitted


def test_a_field_that_no_record_has_is_named_with_those_that_there_are():
  said = (
    r"the column 'signal' \(Signal\) reads the field 'signl'; the record 'beat/0' has id, rate, signal. Did you mean "
    r"'signal'\? Set --data.columns.signal.field\."
  )
  with pytest.raises(DataError, match=said):
    fit_columns({"signal": Signal(field="signl")}, RECORDS)
  with pytest.raises(DataError, match=said):
    make_row("signal", Signal(field="signl"), RECORDS[0], None, 1.5)


class Broken(Signal):
  def row(self, record, rng, fitted):
    return {}["nothing of the record"]


def test_only_the_access_to_a_field_is_about_the_record():
  with pytest.raises(KeyError, match="nothing of the record"):
    make_row("signal", Broken(), {"nothing of the record": 1, **RECORDS[0]}, None, 1.5)


@dataclasses.dataclass(frozen=True)
class Cut(Signal):
  length: int = 1
  dtype: type = np.float32

  def row(self, record, rng, fitted):
    return np.asarray(record["signal"][: self.length if record["id"] == "beat/0" else 2], self.dtype)


@pytest.mark.parametrize("column, gives", [(Cut(), r"float32 \[1\]"), (Cut(length=2, dtype=np.complex64), "complex64")])
def test_a_row_that_is_not_as_arrays_says_is_named(column, gives):
  rows = Batcher(DataConfig(columns={"signal": column}), [{**RECORDS[0], "concept": 0}], None, 0, 0)
  said = rf"beat/0: `row` of the column 'signal' \(Cut\) gives {gives}.*, and its `arrays` says float32 \[2\]"
  assert re.search(said, rows(np.zeros(1, int), np.zeros(1, int)).error)


def test_rows_of_different_shapes_are_named_in_evaluation():
  records = [RECORDS[0], {**RECORDS[0], "id": "beat/1"}]
  with pytest.raises(
    DataError, match=r"beat/1: `row` of the column 'signal' \(Cut\) gives the shape \[2\], and \[1\] for"
  ):
    Cut().evaluated("signal", records, np.arange(2), Evaluating(None, None, None))


@dataclasses.dataclass(frozen=True)
class NoColumn(Column):
  """Nothing is defined."""


@dataclasses.dataclass(frozen=True)
class NoSource(Source):
  """Nothing is defined."""


def test_what_a_class_must_define_is_named():
  with pytest.raises(
    ConfigError, match="the column NoColumn must define `arrays`: see the docstring of NoColumn.arrays"
  ):
    row_shapes(DataConfig(columns={"signal": NoColumn()}), 0)
  with pytest.raises(ConfigError, match="the column NoColumn must define `row`"):
    make_row("signal", NoColumn(), RECORDS[0], None, None)
  with pytest.raises(ConfigError, match="the source NoSource must define `open`"):
    make_source(DataConfig(source=NoSource()), "train")


@pytest.mark.parametrize(
  "column, field",
  [
    (Caption(), "captions"),
    (Question(), "question"),
    (SentencePair(), "first"),
    (Image(), "image"),
    (Answer(), "answer"),
    (Weight(), "answer"),
    (Text("signl"), "signl"),
    (Sound(), "sound"),
    (Video(), "video"),
    (Ids(names="signl"), "item"),
    (Table(numeric=("rate", "signl")), "signl"),
    (Label("signl"), "signl"),
    (ClassLabel(), "label"),
  ],
)
@pytest.mark.parametrize("skip", [False, True])
def test_the_first_record_has_what_columns_read(column, field, skip):
  said = (
    rf"the column 'one' \({type(column).__name__}\) reads the field '{field}'; the record 'beat/0' .*id, rate, signal"
  )
  with pytest.raises(DataError, match=said) as refused:
    check_fields({"one": column}, RECORDS, skip=skip)
  near = "Did you mean 'signal'? Set --data.columns.one." in str(refused.value)
  assert near == (field == "signl")
  if not column.optional:
    with pytest.raises(DataError, match=said):
      check_record("one", column, RECORDS[0])


def test_a_later_record_may_have_a_field_where_records_may_lack_it():
  records = [*RECORDS, {**RECORDS[0], "group": "old", "captions": {}}]
  check_fields({"group": Label()}, records)
  check_fields({"text": Caption()}, records, skip=True)
  with pytest.raises(DataError, match=r"Name other columns with --data.streams.more.columns, or another"):
    check_fields({"text": Caption()}, records, stream="more")


def test_columns_make_what_they_learnt_into_rows():
  learnt = fit_columns({"signal": Signal()}, RECORDS)
  assert learnt == {"signal": 1.5}
  np.testing.assert_array_equal(make_row("signal", Signal(), RECORDS[0], None, learnt["signal"]), [-0.5, 0.5])


def test_an_image_column_may_have_an_augmentation_of_its_own():
  colors = dict(brightness=0, contrast=0, saturation=0, hue=0, greyscale=0)
  still = AugmentationConfig(crop_scale=(1, 1), rotation=0, flip=0, **colors)
  ramp = np.broadcast_to(np.arange(0, 256, 16, dtype=np.uint8), (16, 16))
  file = io.BytesIO()
  PIL.Image.fromarray(ramp).save(file, "PNG")
  columns = {"image": Image(), "view": Image(augmentation=dataclasses.replace(still, flip=1))}
  rows = Batcher(
    DataConfig(columns=columns, augmentation=still), [{"id": "a", "concept": 0, "image": file.getvalue()}], None, 16, 0
  )
  batch = rows(np.zeros(1, int), np.zeros(1, int)).batch
  np.testing.assert_allclose(batch["image"][0, 0, :, 0], ramp[0] / 127.5 - 1, atol=1e-6)
  np.testing.assert_allclose(batch["view"], batch["image"][:, :, ::-1], atol=1e-6)


def test_captions_come_with_the_numbers_of_their_words():
  settings = TokenizerConfig(vocab_size=300, max_length=10)
  tokenizer = Tokenizer(train_vocabulary(["a cat"], settings), settings)
  texts = ["a purple cat", "a cat, asleep"]
  records = [{"id": str(n), "concept": n, "captions": {"name": [text]}} for n, text in enumerate(texts)]
  column, places = Caption(words=True), np.arange(2)
  config = DataConfig(columns={"text": column}, tokenizer=settings)
  assert row_shapes(config, 0)["text_words"] == ((10,), np.int32)
  trained = Batcher(config, records, tokenizer, 0, seed=0)(np.zeros(2, int), places).batch
  shown = column.evaluated("text", records, places, Evaluating(None, tokenizer, lambda r: r["captions"]["name"][0]))
  for batch in (trained, shown):
    np.testing.assert_array_equal(batch["text_words"], tokenizer.word_numbers(texts))
    np.testing.assert_array_equal(batch["text"], tokenizer(texts))


def test_two_arrays_of_one_name_are_named_with_their_columns():
  columns = {"text": Caption(), "beats": Signal(array="text")}
  with pytest.raises(DataError, match=r"'beats' \(Signal\) makes an array 'text', as the column 'text' does"):
    row_shapes(DataConfig(columns=columns), 0)
  with pytest.raises(DataError, match="makes an array 'index', as every data set does"):
    row_shapes(DataConfig(columns={"beats": Signal(array="index")}), 0)


STORIES = [{"id": f"story/{n}", "concept": n, "first": f"one {n}", "second": f"two {n}"} for n in range(4)]


def test_any_field_is_a_text(tmp_path, caplog):
  columns = {"text": Text("first"), "target": Text("second")}
  config = DataConfig(columns=columns, dir=str(tmp_path), tokenizer=TokenizerConfig(vocab_size=300, max_length=2))
  make_tokenizer(config, STORIES)
  assert "100% of the texts are longer than --data.tokenizer.max-length 2" in caplog.text
  config = dataclasses.replace(config, tokenizer=TokenizerConfig(vocab_size=300, max_length=8))
  words = make_tokenizer(config, STORIES)
  batch = next(make_loader(config, STORIES, words, image_size=0, batch_size=4))
  shown = next(evaluation_batches(STORIES, None, words, batch_size=4, columns=columns))
  for name, field in (("text", "first"), ("target", "second")):
    expected = words([story[field] for story in STORIES])
    np.testing.assert_array_equal(shown[name], expected)
    np.testing.assert_array_equal(batch[name], expected[batch["index"]])


@pytest.mark.parametrize("value", [None, " ", 3, ["one"]])
def test_a_field_that_is_no_text_is_named(value, tmp_path):
  columns = {"text": Text("told")}
  config = DataConfig(columns=columns, dir=str(tmp_path), tokenizer=TokenizerConfig(vocab_size=300))
  records = [{**story, "told": story["first"]} for story in STORIES]
  records[0]["told"] = value
  words = make_tokenizer(config, records)
  with pytest.raises(DataError, match="story/0: .*'told'"):
    next(evaluation_batches(records, None, words, batch_size=4, columns=columns))
  with pytest.raises(DataError, match="story/0: .*'told'"):
    next(make_loader(config, records, words, image_size=0, batch_size=4))
