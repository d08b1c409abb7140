"""VQA accuracy and its normalisation against values worked out by hand from the official rules."""

import dataclasses
import itertools

import numpy as np
import pytest

from mmjax.data import Answer, Caption, DataConfig, Question
from mmjax.data.columns.image import Image
from mmjax.data.text.answer_text import normalize_answer
from mmjax.evaluate.answers import answer_ranks, prior_accuracy, ranking, vqa_accuracy, vqa_score
from mmjax.evaluate.traits import captioned, entries
from mmjax.evaluators import AnswerAccuracy, WrittenAnswers
from mmjax.models import VqaConfig
from mmjax.objectives import AnswerRanking, AnswerScores, AnswerText
from tests.tiny import EXPERIMENT


@pytest.mark.parametrize(
  ("answer", "normal"),
  [
    ("The Dog", "dog"),
    ("two", "2"),
    ("none", "0"),
    ("a  black, and white cat!", "black and white cat"),
    ("yes/no", "yes no"),  # no space beside the mark: it becomes one
    ("yes / no", "yes no"),
    ("t-shirt", "t shirt"),
    ("1,000 people", "1000 people"),  # a comma inside a number drops every mark
    ("1,000 t-shirts", "1000 tshirts"),
    ("3.5 m.", "3.5 m"),
    ("dont know", "don't know"),
    ("couldn'tve", "couldn't've"),
    ("couldnt've", "couldn't've"),
    ("yall'd've", "y'all'd've"),
    ("its hell", "its hell"),
    ("line\nbreak\t", "line break"),
    ("what?", "what"),
    ("the", ""),
  ],
)
def test_normalisation(answer, normal):
  assert normalize_answer(answer) == normal


def brute(predicted, answers):
  """The rule as written: average over all subsets of all but one."""
  subsets = itertools.combinations(range(len(answers)), len(answers) - 1)
  return float(np.mean([min(1.0, sum(answers[i] == predicted for i in chosen) / 3) for chosen in subsets]))


@pytest.mark.parametrize("agree", range(11))
def test_score_is_the_mean_over_subsets_of_nine(agree):
  answers = ["red"] * agree + ["blue"] * (10 - agree)
  assert vqa_score("red", answers) == pytest.approx(brute("red", answers), abs=1e-12)


def test_known_scores():
  nine = ["x"] * 9
  assert vqa_score("yes", ["yes", *nine]) == pytest.approx(0.3)
  assert vqa_score("yes", ["yes"] * 2 + ["x"] * 8) == pytest.approx(0.6)
  assert vqa_score("yes", ["yes"] * 3 + ["x"] * 7) == pytest.approx(0.9)
  assert vqa_score("yes", ["yes"] * 4 + ["x"] * 6) == 1.0


def test_answers_are_compared_normalised_unless_all_wrote_the_same():
  assert vqa_score("Two.", ["2"] * 5 + ["two"] * 5) == 1.0
  assert vqa_score("two", ["2"] * 10) == 0.0  # the official evaluation does not normalise these


def test_one_answer_is_enough_where_there_is_only_one():
  assert vqa_score("circle", ["circle"]) == 1.0 and vqa_score("square", ["circle"]) == 0.0
  assert vqa_accuracy(["circle", "red"], [["circle"], ["blue"]]) == 0.5


def test_priors_by_hand():
  questions = ["colour?", "colour?", "shape?", "shape?"]
  answers = [["red"], ["red"], ["circle"], ["square"]]
  assert prior_accuracy(questions, answers) == {"prior": 0.5, "question_prior": 0.75}
  learnt = prior_accuracy(questions, answers, (["colour?", "colour?", "colour?"], [["blue"], ["red"], ["blue"]]))
  assert learnt == {"prior": 0.0, "question_prior": 0.0}


def test_ranking_by_hand_and_chance_by_simulation():
  logits = np.array([[3.0, 1.0, 2.0], [1.0, 1.0, 0.0], [np.nan, 0.0, 0.0]], np.float32)
  rank = answer_ranks(logits, np.array([2, 0, 0]))
  np.testing.assert_array_equal(rank, [2, 2, 4])
  assert ranking(rank, 3)[0] == {"answer_mrr": pytest.approx((0.5 + 0.5 + 0.25) / 3)}
  random = answer_ranks(np.random.default_rng(0).random((20_000, 9)), np.zeros(20_000, int))
  metrics, chance = ranking(random, 9)
  for name, value in metrics.items():
    assert value == pytest.approx(chance[name], abs=0.012)  # three standard errors


def test_columns_of_a_run_s_own_fill_the_entries_that_evaluators_look_for():
  asked = DataConfig(columns={"image": Image(relevance=True), "text": Question(), "answer": Answer(scores=True)})
  assert {"image", "relevance", "text", "answer", "answer_text", "answer_scores"} == set(entries(asked))
  said = DataConfig(columns={"image": Image(), "text": Caption(words=True)})
  assert entries(said) == ("image", "text", "text_words") and captioned(said) and not captioned(asked)
  experiment = dataclasses.replace(EXPERIMENT, data=asked, model=VqaConfig(decoder_depth=1))
  for term in (AnswerText(), AnswerRanking()):
    assert WrittenAnswers().applies(dataclasses.replace(experiment, objectives=(term,)))
  assert not WrittenAnswers().applies(dataclasses.replace(experiment, objectives=(AnswerScores(),)))
  assert AnswerAccuracy().applies(dataclasses.replace(experiment, objectives=(AnswerScores(),)))
