"""Any TFDS data set that has been prepared."""

import dataclasses
import io
import re
from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from mmjax.data import DataConfig, DataError, Reading, Tfds, make_source
from mmjax.data.sources.tfds import _leaves
from tests.data.changed import with_source


class TinyPictures(tfds.core.GeneratorBasedBuilder):
  """Four pictures with a label, a sentence and several captions."""

  VERSION = tfds.core.Version("1.0.0")

  def _info(self):
    features = {
      "image": tfds.features.Image(shape=(None, None, 3)),
      "label": tfds.features.ClassLabel(names=["big_cat", "dog"]),
      "sentence": tfds.features.Text(),
      "notes": tfds.features.Sequence({"text": tfds.features.Text()}),
    }
    return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

  def _split_generators(self, dl_manager):
    return {"train": self._generate_examples(3), "test": self._generate_examples(1)}

  def _generate_examples(self, number):
    for index in range(number):
      picture = io.BytesIO()
      Image.new("RGB", (6, 4), (index, 0, 0)).save(picture, "PNG")
      picture.seek(0)
      texts = [{"text": f"one {index}"}, {"text": f"two {index}"}]
      yield index, {"image": picture, "label": index % 2, "sentence": f"number {index}", "notes": texts}


def test_a_sequence_of_images_is_no_image(tmp_path, monkeypatch, config):
  """Several images for each example; beside one image they are left out."""
  of = tfds.features
  features = {"frames": of.Sequence(of.Image()), "image": of.Image(), "label": of.ClassLabel(num_classes=2)}
  assert [key for key, _, within in _leaves(of.FeaturesDict(features)) if within] == ["frames"]
  source = dataclasses.replace(config.source, image_key="frames")
  for kept, chosen in ((features, source), ({**features, "image": of.Sequence({"a": of.Image()})}, config.source)):
    builder = SimpleNamespace(info=SimpleNamespace(features=of.FeaturesDict(kept)))
    monkeypatch.setattr("mmjax.data.sources.tfds._builder", lambda *_, builder=builder: builder)
    with pytest.raises(DataError, match="tiny_pictures: the feature 'frames' is a sequence of images"):
      chosen.open("train", Reading(str(tmp_path)))


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
  path = tmp_path_factory.mktemp("tfds")
  TinyPictures(data_dir=str(path)).download_and_prepare(file_format="array_record")
  return str(path)


@pytest.fixture
def config(directory):
  return DataConfig(source=Tfds("tiny_pictures", caption_key="label"), dir=directory)


def test_labels_become_captions(config):
  source = make_source(config, "train")
  records = [source[index] for index in range(3)]
  reds = [np.asarray(Image.open(io.BytesIO(record["image"])))[0, 0, 0] for record in records]
  assert sorted(reds) == [0, 1, 2]
  for red, record in zip(reds, records):
    assert record["captions"] == {"name": [["big cat", "dog"][red % 2]]}
  assert len({record["concept"] for record in records}) == 2
  assert records[1]["id"] == "tiny_pictures/train/1"
  assert len(make_source(config, "validation")) == 1


@pytest.mark.parametrize("key, texts", [("sentence", ["number 0"]), ("notes/text", ["one 0", "two 0"])])
def test_texts_become_captions(config, key, texts):
  source = make_source(with_source(config, caption_key=key), "validation")
  assert source[0]["captions"] == {"name": texts}


def test_splits_may_be_sliced(directory):
  source = Tfds("tiny_pictures", caption_key="label").open("train[:2]", Reading(directory))
  assert len(source) == 2


@pytest.mark.parametrize(("train", "validation"), [("train[:2]", "train[1:]"), ("train", "train[50%:]")])
@pytest.mark.parametrize("opened", ["train", "validation"])
def test_slices_that_share_examples_are_refused(config, train, validation, opened):
  slices = with_source(config, train_split=train, validation_split=validation)
  with pytest.raises(DataError, match=f"{re.escape(repr(validation))} share 1 examples"):
    make_source(slices, opened)
  apart = with_source(config, train_split="train[:2]", validation_split="train[2:]")
  assert [len(make_source(apart, split)) for split in ("train", "validation")] == [2, 1]
  assert len(make_source(with_source(config, validation_split="train"), "validation")) == 3


@pytest.mark.parametrize(
  "change, message",
  [
    ({"name": "tiny_picture"}, r"Unknown TFDS data set 'tiny_picture'. Did you mean 'tiny_pictures'"),
    ({"name": None}, r"needs --data.source.name"),
    ({"name": "mnist"}, r"'mnist' is not prepared in .*download_and_prepare"),
    ({"caption_key": None}, r"not one text or label feature of tiny_pictures but 3: .*--data.source.caption-key"),
    ({"caption_key": "labels"}, r"Did you mean 'label'"),
    ({"image_key": "imag"}, r"Did you mean 'image'"),
    ({"train_split": "trian"}, r"Unknown split of tiny_pictures 'trian'. Did you mean 'train'"),
  ],
)
def test_wrong_names_are_answered_with_the_nearest(config, change, message):
  with pytest.raises(DataError, match=message):
    make_source(with_source(config, **change), "train")


def test_formats_without_random_access_are_refused(config, directory, monkeypatch):
  def refuse(*_, **__):
    raise NotImplementedError("tfrecord")

  monkeypatch.setattr(TinyPictures, "as_data_source", refuse)
  with pytest.raises(DataError, match=r"cannot be read at random.*array_record"):
    make_source(config, "train")
