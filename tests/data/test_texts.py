"""Text corpora: pairs that follow and pairs that do not, and what a batch makes of them."""

import dataclasses
import itertools

import numpy as np
import pytest
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression

from mmjax.data import (
  DataConfig,
  DataError,
  Texts,
  TokenizerConfig,
  eval_transform,
  evaluation_batches,
  make_loader,
  make_source,
  make_tokenizer,
)
from mmjax.data.batching import row_shapes
from mmjax.data.text import corpora
from mmjax.data.text.stories import PEOPLE, TOPICS
from tests.skips import DEBIAN

TOKENIZER = TokenizerConfig(vocab_size=600, cls_token="<cls>", sep_token="<sep>", mask_token="<mask>")


@pytest.fixture(scope="module")
def config(tmp_path_factory):
  directory = str(tmp_path_factory.mktemp("texts"))
  return DataConfig(source=Texts(examples=1200), dir=directory, tokenizer=TOKENIZER)


@pytest.fixture(scope="module")
def source(config):
  return make_source(config, "train")


@pytest.fixture(scope="module")
def tokenizer(config, source):
  return make_tokenizer(config, source)


def words(text):
  return set(text.replace("?", " ").replace('"', " ").replace(",", " ").replace(".", " ").split())


CAST = {*PEOPLE, *itertools.chain.from_iterable((*things, *places) for things, places in TOPICS.values())}


def topic_of(text):
  return {topic for topic, (things, places) in TOPICS.items() if words(text) & {*things, *places}}


def test_stories_hang_together_and_their_decoys_do_not(source):
  for index in range(200):
    record = source[index]
    first = words(record["first"]) & CAST
    assert first & words(record["second"])
    for other in record["others"]:
      assert not first & words(other), "who, what and where are all different"
      assert len(topic_of(record["first"]) | topic_of(other)) <= 1, "but the topic is the same"


def test_neither_topic_nor_words_tell_whether_a_text_follows(source):
  rows, labels = [], []
  for index in range(len(source)):
    record, real = source[index], index // 4 % 2
    second = record["second"] if real else record["others"][0]
    rows.append(" ".join([f"a{w}" for w in words(record["first"])] + [f"b{w}" for w in words(second)]))
    labels.append(real)
  counts = CountVectorizer().fit_transform(rows)
  linear = LogisticRegression(C=0.1, max_iter=500).fit(counts[:800], labels[:800])
  assert linear.score(counts[800:], labels[800:]) < 0.58


def test_story_splits_share_no_pair_and_the_seed_decides(config, source):
  pair = lambda record: (record["first"], record["second"])
  held_out = make_source(config, "validation")
  assert (len(source), len(held_out), len(make_source(config, "all"))) == (1200, 120, 1320)
  assert not {pair(record) for record in source.records} & {pair(record) for record in held_out.records}
  assert make_source(config, "train").records == source.records
  other = dataclasses.replace(config, source=Texts(examples=1200, seed=1))
  assert make_source(other, "train").records != source.records


def test_batches_are_half_real_pairs_drawn_anew_in_every_epoch(config, source, tokenizer):
  loader = make_loader(config, source, tokenizer, image_size=8, batch_size=600)
  first, second, third, _ = itertools.islice(loader, 4)
  shapes = {key: ((600, *shape), dtype) for key, (shape, dtype) in row_shapes(config, 8).items()}
  assert {key: (value.shape, value.dtype) for key, value in first.items()} == shapes
  assert "image" not in first
  assert np.mean([first["next"], second["next"]]) == pytest.approx(0.5, abs=0.06)
  before = dict(zip(first["index"].tolist(), first["next"].tolist()))
  again = [before[index] == value for index, value in zip(third["index"].tolist(), third["next"]) if index in before]
  assert 0.3 < np.mean(again) < 0.7
  for row in range(50):
    record, ids = source[int(first["index"][row])], first["text"][row]
    cut = ids.tolist().index(tokenizer.sep_id)
    assert ids[0] == tokenizer.cls_id and (ids == tokenizer.eos_id).sum() == 1
    assert tokenizer.decode(ids[:cut]).strip() == record["first"]
    said = tokenizer.decode(ids[cut:]).strip()
    assert said == record["second"] if first["next"][row] else said in record["others"]
    segment = np.where(ids == tokenizer.pad_id, 0, np.arange(len(ids)) > cut)
    np.testing.assert_array_equal(first["segment"][row], segment)


def test_evaluation_takes_half_of_the_pairs_as_they_are(config, source, tokenizer):
  batch = next(evaluation_batches(source, eval_transform(config, 8), tokenizer, batch_size=8))
  assert batch.keys() == {"text", "segment", "next", "index", "concept", "valid"}
  assert batch["next"].tolist() == [1, 0, 0, 1, 0, 1, 1, 0]
  expected, _ = tokenizer.pairs(
    [source[index]["first"] for index in range(8)],
    [source[index]["second"] if real else source[index]["others"][0] for index, real in enumerate(batch["next"])],
  )
  np.testing.assert_array_equal(batch["text"], expected)


def test_the_place_in_the_story_says_nothing_of_what_follows_in_evaluation(config, source, tokenizer):
  batch = next(evaluation_batches(source, eval_transform(config, 8), tokenizer, batch_size=32))
  assert batch["next"].reshape(8, 4).mean(0).tolist() == [0.5] * 4  # places take turns


def test_emoji_are_described_in_other_words_and_languages(config):
  emoji = dataclasses.replace(config, source=Texts(corpus="emoji"))
  held_out = make_source(emoji, "validation")
  records = {record["id"]: record for record in held_out.records}
  groups = {record["id"].split("/")[1] for record in held_out.records}
  train_groups = {pair.document for pair in corpora.emoji_pairs(False)}
  assert not groups & train_groups
  kinds = {name.rsplit("/", 1)[1] for name in records}
  assert {"keywords", "de", "ja", "ar"} <= kinds and len(records) > 2000
  for record in held_out.records[::50]:
    assert record["others"] and record["second"] not in record["others"]


def _status(tmp_path, text):
  path = tmp_path / "status"
  path.write_text(text, encoding="utf-8")
  return path


def test_debian_descriptions_become_documents(tmp_path):
  status = _status(
    tmp_path,
    "Package: apple\nStatus: install ok\nSection: fruit\nDescription: an apple\n It is red. It is\n sweet.\n .\n"
    "  - a list\n"
    " It keeps.\nHomepage: x\n\nPackage: pear\nSection: fruit\nDescription: a pear\n It is green. It is soft.\n\n"
    "Package: none\nDescription: nothing more\n",
  )
  apple, pear, none = corpora.debian_documents(status)
  assert apple == corpora.Document("apple", "fruit", ("It is red.", "It is sweet.", "It keeps."))
  assert pear.sentences == ("It is green.", "It is soft.") and none.sentences == ()
  pairs = corpora.document_pairs([apple, pear, none])
  assert [(pair.first, pair.second, pair.others) for pair in pairs] == [
    ("It is red.", "It is sweet.", ("It is soft.",)),
    ("It is sweet.", "It keeps.", ("It is soft.",)),
    ("It is green.", "It is soft.", ("It is sweet.", "It keeps.")),
  ]


def test_what_follows_somewhere_is_never_said_not_to_follow():
  documents = [
    corpora.Document("a", "t", ("one", "two", "three")),
    corpora.Document("b", "t", ("one", "four", "five")),
  ]
  pairs = {(pair.first, pair.second): pair.others for pair in corpora.document_pairs(documents)}
  assert pairs[("one", "two")] == ("five",) and pairs[("one", "four")] == ("three",)


def test_this_systems_descriptions_are_pairs(config):
  if not corpora.DPKG_STATUS.is_file():
    pytest.skip(DEBIAN)
  debian = dataclasses.replace(config, source=Texts(corpus="debian"))
  train, held_out = (make_source(debian, split) for split in ("train", "validation"))
  names = [{record["id"].rsplit("/", 1)[0] for record in source.records} for source in (train, held_out)]
  assert names[0] and names[1] and not names[0] & names[1]


def test_files_hold_a_sentence_per_line(config, tmp_path):
  (tmp_path / "sub").mkdir()
  for number in range(30):
    (tmp_path / "sub" / f"{number}.txt").write_text(
      f"first {number}\nsecond {number}\n\n\nthird {number}\n\nlone\nlast {number}"
    )
  files = dataclasses.replace(config, source=Texts(corpus="files", path=str(tmp_path)))
  records = make_source(files, "all").records
  assert len(records) == 60
  (record,) = [record for record in records if record["id"] == "files/sub/7.txt/0/0"]
  assert (record["first"], record["second"]) == ("first 7", "second 7")
  assert record["others"] == ["last 7"], "of the same file, from another document"
  train, held_out = (make_source(files, split).records for split in ("train", "validation"))
  assert len(train) + len(held_out) == 60 and len(held_out) > 0


@pytest.mark.parametrize(
  "write, message",
  [
    ({"a.txt": b"\xff\xfe x"}, r"Cannot read .*a.txt.*UTF-8"),
    ({}, r"has no \*.txt"),
    ({"a.txt": b"one\n\ntwo"}, r"No document of the text corpus has two sentences"),
    ({"a.txt": b"one\ntwo"}, r"needs two documents"),
  ],
)
def test_bad_files_are_named(config, tmp_path, write, message):
  for name, content in write.items():
    (tmp_path / name).write_bytes(content)
  files = dataclasses.replace(config, source=Texts(corpus="files", path=str(tmp_path)))
  with pytest.raises(DataError, match=message):
    make_source(files, "all")


def test_settings_that_cannot_work_are_refused(config, source, tokenizer, monkeypatch, tmp_path):
  with pytest.raises(DataError, match=r"corpus files needs --data.source.path"):
    make_source(dataclasses.replace(config, source=Texts(corpus="files")), "train")
  with pytest.raises(DataError, match=r"Unknown texts split 'tain'. Did you mean 'train'"):
    make_source(config, "tain")
  without = dataclasses.replace(config, tokenizer=dataclasses.replace(TOKENIZER, sep_token=None))
  with pytest.raises(DataError, match=r"set --data.tokenizer.sep-token"):
    make_loader(without, source, tokenizer, image_size=8, batch_size=4)
  with pytest.raises(DataError, match=r"Cannot read .*none.*Debian"):
    corpora.debian_documents(tmp_path / "none")
  (tmp_path / "status").write_bytes(b"Package: a\nDescription: b\n caf\xe9\n")
  with pytest.raises(DataError, match=r"Cannot read .*status.*utf-8"):
    corpora.debian_documents(tmp_path / "status")
  with pytest.raises(ValueError, match=r"data.source.examples is 0"):
    Texts(examples=0)


def test_an_empty_text_is_named(config, source, tokenizer):
  class Broken(list):
    features = source.features

  records = Broken([source[0] | {"others": []}])
  with pytest.raises(DataError, match=r"stories/train/0: the field 'others' is empty"):
    next(make_loader(config, records, tokenizer, image_size=8, batch_size=1))
