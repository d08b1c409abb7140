"""Captions of others, on purpose: how many, whose, always the same, and known."""

import dataclasses
import itertools
import pickle

import numpy as np
import pytest

from mmjax.data import DataError, Scenes, make_loader, make_source, make_tokenizer
from mmjax.data.corruption import CorruptedRecords


def noisy(config, share):
  return make_source(dataclasses.replace(config, corrupt_captions=share), "train")


@pytest.mark.parametrize("share", [0.1, 0.4, 1.0])
def test_exactly_that_share_has_the_captions_of_another_concept(emoji_config, train_source, share):
  source = noisy(emoji_config, share)
  assert len(source) == len(train_source)
  assert source.corrupted.sum() == round(share * len(source))
  by_name = {}
  for record in train_source:
    by_name.setdefault(str(record["captions"]), set()).add(record["concept"])
  for index in range(len(source)):
    clean, record = train_source[index], source[index]
    assert {**record, "captions": 0} == {**clean, "captions": 0}, "all but the captions stays"
    if source.corrupted[index]:
      assert record["concept"] not in by_name[str(record["captions"])]
    else:
      assert record == clean


def test_which_ones_is_always_the_same_and_grows_with_the_share(emoji_config):
  some, more = noisy(emoji_config, 0.2), noisy(emoji_config, 0.4)
  np.testing.assert_array_equal(noisy(emoji_config, 0.2).corrupted, some.corrupted)
  assert (more.corrupted | ~some.corrupted).all()
  assert all(some[index] == more[index] for index in np.flatnonzero(some.corrupted).tolist())
  assert not np.array_equal(some.corrupted, np.arange(len(some)) < some.corrupted.sum())


def test_only_training_is_corrupted_and_zero_changes_nothing(emoji_config, train_source):
  config = dataclasses.replace(emoji_config, corrupt_captions=0.5)
  clean = make_source(emoji_config, "validation")
  assert make_source(config, "validation").records == clean.records
  assert type(noisy(emoji_config, 0.0)) is type(train_source)


def test_batches_say_the_wrong_captions_in_every_process(emoji_config, train_source):
  config = dataclasses.replace(emoji_config, keywords_weight=0.0, languages_weight=0.0, corrupt_captions=0.3, views=2)
  source = make_source(config, "train")
  tokenizer = make_tokenizer(config, source)
  batches = [
    list(itertools.islice(make_loader(config, held, tokenizer, image_size=8, batch_size=16), 3))
    for held in (source, pickle.loads(pickle.dumps(source)))
  ]
  for batch, again in zip(*batches):
    for key in batch:
      np.testing.assert_array_equal(batch[key], again[key])
    expected = tokenizer([source[index]["captions"]["name"][0] for index in batch["index"].tolist()])
    np.testing.assert_array_equal(batch["text"], expected)
    np.testing.assert_array_equal(batch["text2"], expected)
  assert source.siblings(0) == train_source.siblings(0)


def test_the_tokenizer_does_not_depend_on_the_noise(emoji_config, train_source, tokenizer, monkeypatch):
  monkeypatch.setattr("mmjax.data.vocabulary.train_vocabulary", lambda *_: pytest.fail("trained again"))
  make_tokenizer(emoji_config, noisy(emoji_config, 0.7))


def test_what_cannot_be_corrupted_is_refused(emoji_config, train_source, tmp_path):
  for share in (-0.1, 1.5):
    with pytest.raises(DataError, match=rf"--data.corrupt-captions {share} is not a share"):
      noisy(emoji_config, share)
  scenes = dataclasses.replace(emoji_config, source=Scenes(examples=12), dir=str(tmp_path))
  with pytest.raises(DataError, match=r"needs captions; this source gives .*answer"):
    noisy(scenes, 0.5)
  alike = CorruptedRecords([{"id": "a", "concept": 1, "captions": {"name": ["x"]}}] * 3, 1.0)
  with pytest.raises(DataError, match=r"a: every record means the same"):
    alike[0]
