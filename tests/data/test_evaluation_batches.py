"""Records in order, once, in batches of one size."""

import numpy as np
import pytest

from mmjax.data import DataError, eval_transform, evaluation_batches


def batches(config, source, tokenizer, **options):
  return list(evaluation_batches(source, eval_transform(config, 10), tokenizer, batch_size=7, **options))


def test_every_record_comes_once_and_the_last_batch_is_filled_up(emoji_config, train_source, tokenizer):
  records = train_source.records[:17]
  found = batches(emoji_config, records, tokenizer)
  assert [batch["image"].shape for batch in found] == [(7, 10, 10, 3)] * 3
  valid = np.concatenate([batch["valid"] for batch in found])
  index = np.concatenate([batch["index"] for batch in found])
  assert index[valid].tolist() == list(range(17)) and valid.sum() == 17
  last = found[-1]
  np.testing.assert_array_equal(last["image"][3:], np.stack([last["image"][2]] * 4))
  transform = eval_transform(emoji_config, 10)
  np.testing.assert_array_equal(found[1]["image"][0], transform(records[7]["image"]))
  np.testing.assert_array_equal(found[1]["text"][0], tokenizer(records[7]["captions"]["name"])[0])
  assert found[1]["concept"][0] == records[7]["concept"]


def test_the_caption_can_be_chosen(emoji_config, train_source, tokenizer):
  records = train_source.records[:2]
  (batch,) = batches(emoji_config, records, tokenizer, caption=lambda record: record["captions"]["de"][0])
  np.testing.assert_array_equal(batch["text"][1], tokenizer(records[1]["captions"]["de"])[0])


def test_pictures_are_decoded_where_they_are_asked_for(emoji_config, train_source, tokenizer):
  records = [dict(record) for record in train_source.records[:9]]
  records[3]["image"] = b"no picture"
  first, second = batches(emoji_config, records, tokenizer)
  transform, bad = eval_transform(emoji_config, 10), records[3]["id"]
  np.testing.assert_array_equal(first["image"][4:6], [transform(record["image"]) for record in records[4:6]])
  np.testing.assert_array_equal(first["image"][6, :5, 2:], transform(records[6]["image"])[:5, 2:])
  np.testing.assert_array_equal(second["image"][second["valid"]], [transform(r["image"]) for r in records[7:]])
  assert np.asarray(second["image"]).shape == second["image"].shape == (7, 10, 10, 3)
  with pytest.raises(DataError, match=bad):
    first["image"][2:4]


def test_bad_records_are_named(emoji_config, broken_source, tokenizer):
  with pytest.raises(DataError, match=broken_source[4]["id"]):
    batches(emoji_config, broken_source, tokenizer)
