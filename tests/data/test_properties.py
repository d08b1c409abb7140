"""What holds of any input at all, tried on those that hypothesis thinks of."""

import json
import unicodedata

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmjax.data import DataError, Tokenizer, TokenizerConfig
from mmjax.data.captions import caption_fault, clean
from mmjax.data.order import Order, Part
from mmjax.data.shards.paths import expand
from mmjax.data.shards.record import decode_record, encode_record, parse_json, parse_text
from mmjax.data.text.tokenizer import train_vocabulary
from tests.json_values import JSON_VALUES

UNICODE = st.text(st.characters(exclude_categories=["Cs"]))
CAPTIONS = st.lists(UNICODE.filter(lambda text: caption_fault(text) is None), min_size=1, max_size=4)


@given(st.binary(max_size=200), CAPTIONS, UNICODE)
def test_a_record_comes_back_as_it_was_written(image, captions, key):
  cleaned = [clean(caption) for caption in captions]
  assert decode_record(encode_record(image, captions, key), "r") == (image, cleaned, key)


@given(st.binary(max_size=200), CAPTIONS, st.data())
def test_a_record_that_was_cut_is_refused_or_lacks_the_end_of_its_picture(image, captions, data):
  whole = encode_record(image, captions, "k")
  kept = data.draw(st.integers(0, len(whole) - 1))
  if kept < len(whole) - len(image):
    with pytest.raises(DataError, match="^r: "):
      decode_record(whole[:kept], "r")
  else:
    assert decode_record(whole[:kept], "r")[0] == image[: len(image) - len(whole) + kept]


@given(st.one_of(st.binary(max_size=60), JSON_VALUES.map(lambda value: json.dumps(value).encode())))
def test_whatever_is_read_as_captions_is_text(data):
  for parse in (parse_text, parse_json, lambda data, place: decode_record(b"mmj1" + data, place)[1]):
    try:
      found = parse(data, "r")
    except DataError as error:
      assert str(error).startswith("r: ")
    else:
      assert found and all(text.strip() == text != "" and text.encode() for text in found)


@pytest.fixture(scope="module")
def tokenizer():
  config = TokenizerConfig(vocab_size=300, max_length=12, lowercase=False)
  return Tokenizer(train_vocabulary(["a cat", "a dog"], config), config)


@given(text=UNICODE)
def test_every_text_has_ids_and_short_ones_come_back(tokenizer, text):
  (row,) = tokenizer([text])
  assert row.shape == (12,) and (row >= 0).all() and (row < tokenizer.vocab_size).all()
  end = int(np.flatnonzero(row == tokenizer.eos_id)[0])
  assert (row[end + 1 :] == tokenizer.pad_id).all() and not np.isin(row[:end], tokenizer.special_ids).any()
  if end < 11:
    assert tokenizer.decode(row).strip() == unicodedata.normalize("NFC", text).strip()


@pytest.fixture(scope="module")
def saved(tokenizer, tmp_path_factory):
  folder = tmp_path_factory.mktemp("saved")
  tokenizer.save(folder)
  return folder


@given(name=st.sampled_from(["tokenizer_config.json", "answers.json"]), value=JSON_VALUES)
def test_a_tokenizers_record_is_read_or_refused(saved, name, value):
  before = (saved / "tokenizer_config.json").read_bytes()
  (saved / name).write_text(json.dumps(value))
  try:
    loaded = Tokenizer.load(saved)
    assert name == "answers.json" and list(loaded.answers) == value
  except DataError:
    pass
  finally:
    (saved / "tokenizer_config.json").write_bytes(before)
    (saved / "answers.json").unlink(missing_ok=True)


PARTS = st.lists(st.tuples(st.integers(1, 9), st.integers(1, 3)), min_size=1, max_size=4)


@given(PARTS, st.integers(0, 2**32), st.integers(0, 5))
def test_an_epoch_has_every_record_as_often_as_it_is_repeated(sizes, seed, epoch):
  parts, start, wanted = [], 0, []
  for size, repeats in sizes:
    parts.append(Part(start, size, repeats))
    wanted += [*range(start, start + size)] * repeats
    start += size
  order = Order(parts, seed)
  found = [order(position)[1] for position in range(epoch * len(wanted), (epoch + 1) * len(wanted))]
  assert order.num_records == len(wanted) and sorted(found) == sorted(wanted)


@given(
  st.lists(st.text("ab-_0", min_size=1, max_size=3), min_size=1, max_size=3), st.integers(0, 99), st.integers(0, 9)
)
def test_braces_stand_for_all_their_names_in_order(words, first, more):
  pattern = f"/nowhere/{{{','.join(words)}}}/{{{first:03}..{first + more:03}}}.tar"
  names = [f"/nowhere/{word}/{number:03}.tar" for word in words for number in range(first, first + more + 1)]
  assert [str(path) for path in expand(pattern)] == names
