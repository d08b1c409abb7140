"""The stream of batches: its order, its restarts, and what bad records do to it."""

import dataclasses
import itertools
import logging

import numpy as np
import pytest

from mmjax.data import DataError, make_loader, make_source
from tests.data.changed import with_source

SIZE = 12


def loader(config, source, tokenizer, *, batch_size=8, seed=3, **options):
  options = {"process_index": 0, "process_count": 1, **options}
  return make_loader(config, source, tokenizer, image_size=SIZE, batch_size=batch_size, seed=seed, **options)


def take(batches, number):
  return list(itertools.islice(batches, number))


def same(ones, others):
  assert len(ones) == len(others)
  for one, other in zip(ones, others):
    assert one.keys() == other.keys()
    for key in one:
      np.testing.assert_array_equal(one[key], other[key], err_msg=key)


def joined(batches, key):
  return np.concatenate([batch[key] for batch in batches])


def test_batches_have_the_documented_keys(emoji_config, train_source, tokenizer):
  batch = next(loader(emoji_config, train_source, tokenizer))
  shapes = {key: (value.shape, value.dtype) for key, value in batch.items()}
  assert shapes == {
    "image": ((8, SIZE, SIZE, 3), np.float32),
    "text": ((8, 16), np.int32),
    "index": ((8,), np.int32),
    "concept": ((8,), np.int32),
    "group": ((8,), np.int32),
  }
  assert -1 <= batch["image"].min() < batch["image"].max() <= 1
  for index, concept in zip(batch["index"], batch["concept"]):
    assert train_source[index]["concept"] == concept


def test_every_epoch_has_every_record_once_in_another_order(emoji_config, train_source, tokenizer):
  size = len(train_source)
  assert size % 8, "batches must cross the border of an epoch"
  batches = take(loader(emoji_config, train_source, tokenizer), 2 * size // 8)
  order = joined(batches, "index")
  epochs = [order[:size], order[size : 2 * size]]
  assert sorted(epochs[0]) == list(range(size)) and (epochs[0] != np.arange(size)).any()
  assert len(set(epochs[1])) == len(epochs[1]) and (epochs[0][: len(epochs[1])] != epochs[1]).any()


def test_augmentation_depends_on_seed_epoch_and_index_only(emoji_config, train_source, tokenizer):
  size = len(train_source)
  one = take(loader(emoji_config, train_source, tokenizer, batch_size=8), size // 8)
  other = take(loader(emoji_config, train_source, tokenizer, batch_size=4), size // 4)
  images = {index: image for batch in one for index, image in zip(batch["index"], batch["image"])}
  texts = {index: text for batch in one for index, text in zip(batch["index"], batch["text"])}
  for batch in other[: len(one) * 2]:
    for index, image, text in zip(batch["index"], batch["image"], batch["text"]):
      np.testing.assert_array_equal(images[index], image)
      np.testing.assert_array_equal(texts[index], text)
  second = next(loader(emoji_config, train_source, tokenizer, batch_size=size * 2))
  for index in range(3):
    rows = np.flatnonzero(second["index"] == index)
    assert len(rows) == 2 and (second["image"][rows[0]] != second["image"][rows[1]]).any()
  different = next(loader(emoji_config, train_source, tokenizer, seed=4))
  assert (different["index"] != one[0]["index"]).any()


def test_it_resumes_exactly_in_the_middle_of_an_epoch(emoji_config, train_source, tokenizer):
  stream = loader(emoji_config, train_source, tokenizer)
  take(stream, 3)
  state = stream.get_state()
  expected = take(stream, 20)
  resumed = loader(emoji_config, train_source, tokenizer)
  next(resumed)  # a used one can be set back as well
  resumed.set_state(state)
  same(take(resumed, 20), expected)
  assert resumed.get_state() == stream.get_state()


@pytest.mark.parametrize("cache_mb, prefetch", [(0, 1), (1, 5)])
def test_caching_and_prefetching_change_nothing(emoji_config, train_source, tokenizer, cache_mb, prefetch):
  config = dataclasses.replace(emoji_config, cache_mb=cache_mb, prefetch=prefetch)
  same(take(loader(config, train_source, tokenizer), 16), take(loader(emoji_config, train_source, tokenizer), 16))


def test_worker_processes_change_nothing(emoji_config, train_source, tokenizer, caplog):
  records = [dict(train_source[index]) for index in range(20)]
  records[5]["image"] = b"broken"
  config = dataclasses.replace(emoji_config, on_bad_record="skip")
  alone = loader(config, records, tokenizer)
  expected = take(alone, 9)
  working = loader(dataclasses.replace(config, workers=2), records, tokenizer)
  try:
    same(take(working, 4), expected[:4])
    working.set_state(working.get_state())
    same(take(working, 5), expected[4:])
    assert working.get_state() == alone.get_state() and working.num_bad_records > 0
  finally:
    working.close()


@pytest.mark.parametrize("count", [2, 4])
def test_processes_read_their_own_slices_of_the_same_order(emoji_config, train_source, tokenizer, count):
  whole = take(loader(emoji_config, train_source, tokenizer), 9)
  parts = [
    take(loader(emoji_config, train_source, tokenizer, process_index=index, process_count=count), 9)
    for index in range(count)
  ]
  together = [{key: joined(batches, key) for key in batches[0]} for batches in zip(*parts)]
  same(together, whole)


def test_a_process_touches_only_its_own_records(emoji_config, train_source, tokenizer):
  touched = set()

  class Spy(list):
    def __getitem__(self, index):
      touched.add(index)
      return super().__getitem__(index)

  stream = loader(
    dataclasses.replace(emoji_config, prefetch=1),
    Spy(train_source.records),
    tokenizer,
    process_index=1,
    process_count=2,
  )
  touched.clear()  # the fingerprint is of a sample of all
  batches = take(stream, 3)
  stream.close()
  ahead = 2 * 4  # one batch in the queue and one being made
  assert set(joined(batches, "index")) <= touched and len(touched) <= 3 * 4 + ahead


def test_a_bad_record_stops_the_stream_by_name(plain_config, broken_source, tokenizer):
  with pytest.raises(DataError, match=rf"{broken_source[3]['id']}|{broken_source[4]['id']}"):
    take(loader(plain_config, broken_source, tokenizer), 3)


def test_bad_records_are_replaced_counted_and_logged(plain_config, broken_source, tokenizer, caplog):
  config = dataclasses.replace(plain_config, on_bad_record="skip")
  stream = loader(config, broken_source, tokenizer, batch_size=10)
  with caplog.at_level(logging.WARNING, logger="mmjax.data.loader"):
    batches = take(stream, 2)  # two epochs
  for batch in batches:
    assert batch["image"].shape[0] == 10
    numbers = np.bincount(batch["index"], minlength=10).tolist()
    assert numbers == [1, 1, 1, 0, 0, 3, 1, 1, 1, 1], "5 is the next good record after 3 and 4"
  # Coming from 3, record 4 is met as well.
  assert stream.num_bad_records == 2 * 3
  messages = [record.getMessage() for record in caplog.records]
  assert sorted(messages) == sorted(set(messages)) and len(messages) == 2
  assert any(broken_source[3]["id"] in message for message in messages)
  resumed = loader(config, broken_source, tokenizer, batch_size=10)
  resumed.set_state(stream.get_state())
  assert resumed.num_bad_records == 6


def test_nothing_but_bad_records_is_an_error(plain_config, tokenizer):
  records = [{"id": "a", "image": b"", "captions": {"name": ["a"]}, "concept": 0}] * 3
  config = dataclasses.replace(plain_config, on_bad_record="skip")
  with pytest.raises(DataError, match=r"No record of 3 in a row is good"):
    next(loader(config, records, tokenizer))


def test_two_views_are_by_different_artists(emoji_config, train_source, tokenizer):
  config = dataclasses.replace(emoji_config, views=2)
  batch = next(loader(config, train_source, tokenizer))
  assert batch["image2"].shape == batch["image"].shape and batch["text2"].shape == batch["text"].shape
  plain = dataclasses.replace(
    config,
    augmentation=dataclasses.replace(
      config.augmentation,
      crop_scale=(1, 1),
      crop_ratio=(1, 1),
      rotation=0,
      brightness=0,
      contrast=0,
      saturation=0,
      background=0,
    ),
  )
  still = next(loader(plain, train_source, tokenizer))
  whole = next(loader(plain, train_source, tokenizer, batch_size=len(train_source)))
  position = {int(index): row for row, index in enumerate(whole["index"])}
  for row, index in enumerate(still["index"]):
    (other,) = train_source.siblings(int(index))
    np.testing.assert_array_equal(still["image2"][row], whole["image"][position[other]])


def test_a_second_view_without_another_artist_is_the_same_picture_varied_anew(emoji_config, tokenizer):
  config = with_source(dataclasses.replace(emoji_config, views=2), vendors=("noto",))
  batch = next(loader(config, make_source(config, "train"), tokenizer))
  assert (batch["image"] != batch["image2"]).any(axis=(1, 2, 3)).all()


@pytest.mark.parametrize(
  "options, message",
  [
    ({"batch_size": 9, "process_count": 2}, "--run.batch-size 9 cannot be divided among 2"),
    ({"batch_size": 0}, "0"),
  ],
)
def test_batch_sizes_that_cannot_be_shared_are_refused(emoji_config, train_source, tokenizer, options, message):
  with pytest.raises(DataError, match=message):
    loader(emoji_config, train_source, tokenizer, **options)


def test_a_state_of_another_run_is_refused(emoji_config, train_source, tokenizer):
  state = loader(emoji_config, train_source, tokenizer).get_state()
  with pytest.raises(DataError, match=r"position is for seed = 3, this run has 5"):
    loader(emoji_config, train_source, tokenizer, seed=5).set_state(state)


def test_no_records_is_an_error(emoji_config, tokenizer):
  with pytest.raises(DataError, match="no records"):
    loader(emoji_config, [], tokenizer)
