"""Evaluators of fusion models: a model that knows everything, one that knows nothing, one device and eight."""

import dataclasses
import sys
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.data import DataConfig, Scenes, Texts, Tokenizer, TokenizerConfig
from mmjax.data.sources.base import PAIR
from mmjax.data.text.tokenizer import train_vocabulary
from mmjax.errors import UserError
from mmjax.evaluate import Shared, evaluate, flatten
from mmjax.evaluate.examples import Examples
from mmjax.evaluators import HiddenWords, NextSentenceAccuracy, WordAttention, WrittenCaptions, captions
from mmjax.evaluators.hidden_words import hide
from mmjax.objectives import Answer, AnswerText, Caption, MaskedWords, Matching, NextSentence, Relevance
from mmjax.report import print_table
from mmjax.report.rows import rows
from mmjax.types import Encoded
from tests.golden import values as golden

sys.path.insert(0, str(Path(__file__).parent))
from knowing import knowing_run, untrained_run

QUESTIONS = (Answer(), AnswerText(), Relevance())
CAPTIONS = (Matching(), Caption(), MaskedWords())


def scenes(directory, text):
  tokenizer = TokenizerConfig(vocab_size=400, max_length=24, bos_token="<bos>", mask_token="<mask>", answer_length=5)
  return DataConfig(source=Scenes(text=text, size=16, examples=120), dir=str(directory), tokenizer=tokenizer)


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
  return tmp_path_factory.mktemp("scenes")


@pytest.fixture(scope="module")
def asked(directory):
  run = knowing_run(scenes(directory, "question"), QUESTIONS, batch_size=8)
  return run, evaluate(run)


@pytest.fixture(scope="module")
def shown(directory):
  run = knowing_run(scenes(directory, "caption"), CAPTIONS, batch_size=16, rerank=4, beams=1)
  return run, evaluate(run)


@pytest.fixture(scope="module")
def untrained(asked):
  experiment = dataclasses.replace(asked[0].experiment, objectives=(Answer(), Relevance()))
  run = untrained_run(dataclasses.replace(asked[0], experiment=experiment))
  return run, evaluate(run)


def metrics(results):
  return {result["dataset"]: result["metrics"] for result in results}


def test_a_model_that_knows_every_answer(asked):
  found = metrics(asked[1])
  assert found["scenes"]["vqa_accuracy"] == found["scenes"]["answer_mrr"] == 1.0
  assert found["scenes_written"]["vqa_accuracy"] == found["scenes_written"]["answer_mrr"] == 1.0
  assert found["scenes_relevance"] == {"miou": 1.0}


@pytest.mark.parametrize("name", ["asked", "shown", "untrained"])
def test_golden_results(name, request):
  found = golden.numbers(request.getfixturevalue(name)[1])
  golden.check("results", f"scenes, {name}", found, abs=1e-6)


def test_chance_stands_beside_every_number(asked, shown):
  for result in asked[1] + shown[1]:
    assert result["metrics"].keys() == result["chance"].keys(), result["dataset"]
    assert result["n"] > 0 and result["step"] == 7
  answers = asked[1][0]
  assert 0.0 <= answers["priors"]["prior"] < 0.7 and 0.0 < answers["priors"]["question_prior"] < 0.7
  assert answers["chance"]["vqa_accuracy"] == answers["priors"]["question_prior"]
  assert answers["report"]["macro avg"]["f1-score"] == 1.0 and len(answers["report"]) > 5


def test_a_model_that_knows_what_belongs_together(shown):
  found = metrics(shown[1])
  assert found["scenes_itm_random"] == found["scenes_itm_hard"] == {"itm_auc": 1.0, "itm_accuracy": 1.0}
  after = next(result for result in shown[1] if result["dataset"] == "scenes_reranked")
  for way in ("image_retrieval_recall@1", "text_retrieval_recall@1"):
    assert after["metrics"][way] == 1.0 and after["floor"][way] < 0.2  # two concepts lie on each other


def test_a_model_that_knows_every_caption_and_hidden_word(shown):
  found = metrics(shown[1])
  captions = found["scenes_captions"]
  assert captions["exact"] == 1.0 and captions["bleu4"] == pytest.approx(1.0) and captions["cider"] > 5
  chance = next(result for result in shown[1] if result["task"] == "captioning")["chance"]
  assert chance["exact"] < 0.1 and chance["bleu4"] < 0.9 and chance["cider"] < captions["cider"] / 2
  assert found["scenes_masked"]["masked_word_accuracy"] == 1.0
  assert found["scenes_masked_shuffled"]["masked_word_accuracy"] < 0.9  # other pictures' words


def test_what_java_scores_is_added_and_what_it_cannot_is_said(shown, monkeypatch):
  monkeypatch.setattr(captions, "java_scores", lambda captions, references: ({"meteor": 0.5}, {"spice": "no models"}))
  (result,) = WrittenCaptions(beams=1, java_metrics=True).run(shown[0], Shared())
  assert result["metrics"]["meteor"] == result["chance"]["meteor"] == 0.5 and result["missing"] == {
    "spice": "no models"
  }


def test_a_layer_that_is_not_there_is_told_by_shapes_alone(untrained):
  run, _ = untrained
  begun = dataclasses.replace(run, params=jax.eval_shape(lambda: run.params))
  shared = Shared()
  for layer in (None, 0, -1):
    WordAttention(attention_layer=layer).check(begun, shared)
  with pytest.raises(UserError, match="attention_layer=1: words read patches in 1 layers, 0 to 0"):
    WordAttention(attention_layer=1).check(begun, shared)


def test_an_untrained_model_scores_the_same_on_one_device_in_other_batches(untrained):
  eight, results = untrained
  assert {r["dataset"] for r in results} == {"scenes", "scenes_relevance"}
  values = flatten(results)
  assert values["scenes/vqa_accuracy"] < 0.5 and values["scenes_relevance/miou"] < 0.5
  settings = dataclasses.replace(eight.experiment.evaluation, batch_size=4)
  one = dataclasses.replace(eight, experiment=dataclasses.replace(eight.experiment, evaluation=settings))
  one = dataclasses.replace(one, mesh=knowing_run(one.experiment.data, QUESTIONS, devices=1).mesh)
  other = flatten(evaluate(one))
  assert other.keys() == values.keys()
  for name in values:  # a logit within rounding of another may change its rank
    assert other[name] == pytest.approx(values[name], abs=1e-6), name


def test_the_table_has_a_line_for_each(asked, shown, capsys):
  print_table(asked[1] + shown[1])
  lines = capsys.readouterr().out.splitlines()
  kinds = {row.kind for row in rows(asked[1] + shown[1])}
  assert kinds == {"answers", "masks", "recall", "matching", "captions", "words"} and len(lines) >= 9
  assert any(line.startswith("scenes, validation: answers (n=20): vqa accuracy 1.000 (chance") for line in lines)


def test_what_is_hidden_depends_on_the_record_alone():
  ids = np.array([[1, 5, 6, 7, 8, 2, 0, 0], [1, 9, 2, 0, 0, 0, 0, 0], [1, 2, 0, 0, 0, 0, 0, 0]], np.int32)
  numbers, options = np.array([4, 5, 6]), dict(mask_id=3, special=(0, 1, 2, 3))
  hidden, places, counted = hide(ids, numbers, **options)
  assert places.shape == (3, 1) and counted[:, 0].tolist() == [True, True, False]
  assert hidden[1].tolist() == [1, 3, 2, 0, 0, 0, 0, 0] and (hidden[2] == ids[2]).all() and (hidden[0] == 3).sum() == 1
  turned = hide(ids[::-1], numbers[::-1], **options)[0]
  np.testing.assert_array_equal(turned[::-1], hidden)
  named, places, counted = hide(ids, numbers, words=np.array([6, 9]), **options)
  assert (named == 3).sum(1).tolist() == [1, 1, 0] and places[0, 0] == 2 and counted.sum() == 2


class Parrot(nn.Module):
  """Says one word everywhere, and that everything follows."""

  config: Any
  word: int

  def encode_words(self, ids, *, rng=None, segment=None):
    assert segment is not None
    return Encoded(jnp.zeros((*ids.shape, 1)), ids > 0, jnp.zeros((len(ids), 1)))

  def word_logits(self, tokens, *, fused=True):
    return jnp.broadcast_to(jax.nn.one_hot(self.word, 400)[None, None], (*tokens.shape[:2], 400))

  def next_logits(self, pooled):
    return jnp.concatenate([pooled, pooled + 1.0], axis=1)


def test_a_parrot_scores_chance_on_pairs_of_sentences(shown):
  texts = [f"the {color} box is here" for color in ("red", "blue", "green", "grey")]
  config = TokenizerConfig(vocab_size=300, max_length=24, cls_token="<cls>", sep_token="<sep>", mask_token="<mask>")
  tokenizer = Tokenizer(train_vocabulary(texts, config), config)
  records = [
    {"id": str(n), "concept": n, "first": text, "second": "so it is", "others": [texts[n - 1]]}
    for n, text in enumerate(texts)
  ]
  commonest = int(np.bincount(tokenizer(texts).ravel(), minlength=300)[max(tokenizer.special_ids) + 1 :].argmax())
  parrot = Parrot(shown[0].model.config, commonest + max(tokenizer.special_ids) + 1)
  objectives = (MaskedWords(image=False, segments=True), NextSentence())
  pairs = dataclasses.replace(shown[0].experiment.data, source=Texts())
  experiment = dataclasses.replace(shown[0].experiment, objectives=objectives, data=pairs)
  run = dataclasses.replace(shown[0], experiment=experiment, model=parrot, params={}, tokenizer=tokenizer)
  shared = Shared()
  shared.once("examples", lambda: Examples("texts", "texts", records, PAIR))
  (words,), (follows,) = HiddenWords().run(run, shared), NextSentenceAccuracy().run(run, shared)
  assert follows["metrics"] == follows["chance"] == {"next_accuracy": 0.5}
  assert words["metrics"]["masked_word_accuracy"] <= words["chance"]["masked_word_accuracy"] < 0.8


def test_words_to_hide_are_one_token_each(shown):
  run = shown[0]
  ids = lambda *words: HiddenWords(masked_words=words).masked_word_ids(run)
  assert ids() is None and len(ids("red", "blue")) == 2
  with pytest.raises(UserError, match="chartreuse is not one token"):
    ids("red", "chartreuse")
