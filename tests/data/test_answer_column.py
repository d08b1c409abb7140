"""Answers of several annotators in a batch: soft scores, drawn answers, candidates, weights of questions."""

import dataclasses
from collections import Counter

import numpy as np
import pytest
import tokenizers

from mmjax.data import Answer, DataConfig, DataError, Tokenizer, TokenizerConfig, Weight
from mmjax.data.batching import Batcher
from mmjax.evaluate.answers import vqa_score

CLASSES = ("2", "net", "yes", "no", "two", "red and blue")
SETTINGS = TokenizerConfig(vocab_size=300, answer_length=6)
RECORDS = [
  {"id": "q/0", "concept": 0, "answer": "net", "answers": ["net"] * 2 + ["Net."] * 3 + ["yes", "a net"] + ["rug"] * 3},
  {"id": "q/1", "concept": 1, "answer": "2", "answers": ["2", "two", "no", "no", "rug", "rug", "rug", "rug", "a", "b"]},
  {"id": "q/2", "concept": 2, "answer": "no", "answers": ["no"]},
  {"id": "q/3", "concept": 3, "answer": "rug", "answers": ["rug"] * 10},
]


def tokenizer():
  engine = tokenizers.Tokenizer(tokenizers.models.BPE())
  engine.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel()
  engine.decoder = tokenizers.decoders.ByteLevel()
  special = ["<pad>", "<eos>", "<bos>"]
  trainer = tokenizers.trainers.BpeTrainer(
    vocab_size=300, special_tokens=special, initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet()
  )
  engine.train_from_iterator(["net yes no red and blue rug"], trainer)
  return Tokenizer(engine, dataclasses.replace(SETTINGS, bos_token="<bos>"), CLASSES)


def batch(*columns, records=RECORDS, epoch=0):
  """A training batch of all records."""
  named = dict(zip(("answer", "weight"), columns))
  config = DataConfig(columns=named, tokenizer=SETTINGS)
  prepared = Batcher(config, records, tokenizer(), 0, seed=0)(np.full(len(records), epoch), np.arange(len(records)))
  if prepared.error:
    raise DataError(prepared.error)
  return prepared.batch


def test_the_soft_score_of_a_class_is_a_third_per_annotator_who_gave_it():
  scores = batch(Answer(scores=True))["answer_scores"]
  third = np.float32(1 / 3)
  # "2" and "two" are one answer to the VQA evaluation, as are "net", "Net." and "a net"; "rug" is no class.
  want = [[0, 1, third, 0, 0, 0], [2 * third, 0, 0, 2 * third, 2 * third, 0], [0, 0, 0, 1, 0, 0], [0] * 6]
  np.testing.assert_array_equal(scores, np.asarray(want, np.float32))
  assert scores.dtype == np.float32


def test_the_soft_score_is_0_or_1_where_the_vqa_accuracy_is():
  for record, scores in zip(RECORDS, batch(Answer(scores=True))["answer_scores"]):
    accuracy = [vqa_score(answer, record["answers"]) for answer in CLASSES]
    assert [score == 0 for score in scores] == [value == 0 for value in accuracy]
    assert all(score == 1 for score, value in zip(scores, accuracy) if value == 1)


def test_a_drawn_answer_comes_as_often_as_annotators_gave_it():
  column = Answer(drawn=True)
  seen = Counter(int(batch(column, epoch=epoch)["answer"][0]) for epoch in range(600))
  assert set(seen) == {1, 2, -1}  # net (also "Net." and "a net"), yes, and rug, which is no class
  assert abs(seen[2] / 600 - 0.1) < 0.04 and abs(seen[1] / 600 - 0.6) < 0.06
  np.testing.assert_array_equal(batch(column)["answer"], batch(column)["answer"])
  assert batch(Answer())["answer"].tolist() == [1, 0, 3, -1]


def test_candidates_are_the_answer_and_others_that_nobody_gave():
  words, drawn = tokenizer(), set()
  for epoch in range(20):
    made = batch(Answer(candidates=4), epoch=epoch)
    ids = made["answer_candidates"]
    assert ids.shape == (4, 4, 6) and ids.dtype == np.int32
    np.testing.assert_array_equal(ids[:, 0], made["answer_text"])
    for row, record in zip(ids, RECORDS):
      others = [words.decode(answer).strip() for answer in row[1:] if (answer != words.pad_id).any()]
      assert len(set(others)) == len(others) and all(vqa_score(answer, record["answers"]) == 0 for answer in others)
      drawn |= {(record["id"], *others)}
    assert (ids[1, 3:] != words.pad_id).any()  # net, yes, "red and blue": all three there are
  assert len(drawn) > 12, "they are drawn anew"
  made = batch(Answer(candidates=6))["answer_candidates"]
  assert (made[1] != words.pad_id).any(1).tolist() == [True] * 4 + [False] * 2, "two, 2 and no were given"


def test_a_question_weighs_what_its_field_says_or_the_share_of_annotators_who_agree():
  np.testing.assert_allclose(batch(Answer(), Weight())["weight"], [0.6, 0.2, 1, 1], rtol=1e-6)
  records = [record | {"importance": value} for record, value in zip(RECORDS, (0, 0.5, 2, 3))]
  got = batch(Answer(), Weight(field="importance"), records=records)["weight"]
  assert got.tolist() == [0, 0.5, 2, 3] and got.dtype == np.float32


@pytest.mark.parametrize("value", [-1.0, float("nan"), float("inf"), "2", True, None])
def test_what_is_no_weight_is_refused_with_the_record(value):
  with pytest.raises(DataError, match=r"q/0: the field 'importance' is .*, not a number of at least 0"):
    batch(Answer(), Weight(field="importance"), records=[RECORDS[0] | {"importance": value}])
  with pytest.raises(DataError, match=r"\(Weight\) reads the field 'importance'"):
    batch(Answer(), Weight(field="importance"))


def test_one_candidate_is_refused():
  with pytest.raises(ValueError, match="candidates=1 must be 0"):
    Answer(candidates=1)
