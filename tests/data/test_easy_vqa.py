"""easy-VQA from its PyPI package."""

import itertools
import json

import numpy as np
import pytest

from mmjax.data import (
  DataConfig,
  DataError,
  EasyVqa,
  TokenizerConfig,
  easy_vqa_builder,
  make_loader,
  make_source,
  make_tokenizer,
)
from mmjax.data.easy_vqa_builder import package_data
from mmjax.data.images.decoding import decode

ANSWERS = set("circle green red gray yes teal black rectangle yellow triangle brown blue no".split())


@pytest.fixture(scope="module")
def config(tmp_path_factory):
  tokenizer = TokenizerConfig(vocab_size=400, max_length=16)
  return DataConfig(source=EasyVqa(), dir=str(tmp_path_factory.mktemp("easy_vqa")), tokenizer=tokenizer)


@pytest.fixture(scope="module")
def sources(config):
  return {split: make_source(config, split) for split in ("train", "validation")}


def test_it_has_the_published_numbers(sources):
  train, test = sources["train"], sources["validation"]
  assert (len(train), len(test)) == (38_575, 9_673)
  for source, pictures in ((train, 4_000), (test, 1_000)):
    assert len({source[index]["picture"] for index in range(len(source))}) == pictures
    assert {source[index]["answer"] for index in range(len(source))} == ANSWERS


def test_records_are_the_packages_questions(sources):
  for name, split in (("train", "train"), ("test", "validation")):
    published = json.loads((package_data() / name / "questions.json").read_text())
    ours = sources[split]
    by_picture = lambda rows: sorted(map(tuple, rows), key=lambda row: row[2])  # a stable sort
    numbers = [int(ours[index]["id"].split("/")[2]) for index in range(len(ours))]
    assert by_picture(published) == [
      (ours[index]["question"], ours[index]["answer"], number) for index, number in enumerate(numbers)
    ]
  assert sources["train"][0]["question"] == "what is the blue shape?" and sources["train"][0]["answer"] == "rectangle"


def test_pictures_are_the_packages(sources):
  for index in (0, 20_000, 38_574):
    record = sources["train"][index]
    number = record["id"].split("/")[2]
    picture = decode(package_data() / "train" / "images" / f"{number}.png")
    assert picture.size == (64, 64)
    np.testing.assert_array_equal(np.asarray(decode(record["image"])), np.asarray(picture))


def test_batches_and_classes(config, sources):
  tokenizer = make_tokenizer(config, sources["train"])
  assert len(tokenizer.answers) == 13 and tokenizer.answers[:2] == ("yes", "no"), "by frequency"
  batches = make_loader(config, sources["train"], tokenizer, image_size=64, batch_size=32)
  for batch in itertools.islice(batches, 2):
    for row, index in enumerate(batch["index"].tolist()):
      assert tokenizer.answers[batch["answer"][row]] == sources["train"][index]["answer"]
      assert tokenizer.decode(batch["text"][row]).strip() == sources["train"][index]["question"]


def test_a_missing_package_is_named(monkeypatch, tmp_path):
  monkeypatch.setattr(easy_vqa_builder.importlib.util, "find_spec", lambda _: None)
  with pytest.raises(DataError, match=r"needs the package 'easy-vqa'.*mmjax\[vqa\]"):
    make_source(DataConfig(source=EasyVqa(), dir=str(tmp_path)), "train")


def test_unknown_splits_are_answered_with_the_nearest(config):
  with pytest.raises(DataError, match=r"Unknown easy_vqa split 'tset'. Did you mean 'test'"):
    make_source(config, "tset")
