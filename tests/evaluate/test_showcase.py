"""Examples on the page: what is shown is what the model says, and a run shows what it was trained for."""

import sys
from pathlib import Path

import numpy as np
import pytest

from mmjax.evaluate import Shared, evaluate, write_results
from mmjax.evaluate.attention_maps import AttentionMaps
from mmjax.evaluate.evaluator import applying
from mmjax.evaluate.examples import validation_examples
from mmjax.objectives import Answer, Caption, Relevance
from mmjax.report import showcase, write_report
from mmjax.report.overlay import SIDE, heated, marked, seen_pixels, tile

sys.path.insert(0, str(Path(__file__).parent))
from knowing import knowing_run, untrained_run
from test_multimodal import scenes
from test_report import Reader


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
  return tmp_path_factory.mktemp("scenes")


@pytest.fixture(scope="module")
def asked(directory):
  return knowing_run(scenes(directory, "question"), (Answer(), Relevance()), batch_size=32)


def read(path):
  text = path.read_text(encoding="utf-8")
  return text, Reader(text)


def test_the_report_of_a_model_that_answers(asked, tmp_path):
  write_results(evaluate(asked), tmp_path / "results.json")
  text, reader = read(write_report(tmp_path, asked))
  assert reader.sections == ["results", "training", "questions", "configuration"]  # it has no attention to show
  shown = text[text.index('id="questions"') : text.index('id="configuration"')]
  assert shown.count("✓") == showcase.SHOWN and "✗" not in shown and shown.count("<img") == 2 * showcase.SHOWN
  assert "Answers to questions" in text and "Relevant pixels" in text and "without a look" in text
  assert "<summary>scenes, validation: answers, by class</summary>" in text and ">macro avg<" in text


def test_wrong_answers_say_what_people_say_and_words_look_at_patches(asked, tmp_path):
  run = untrained_run(asked)
  text, reader = read(write_report(tmp_path, run))
  assert reader.sections == ["results", "training", "questions", "attention", "configuration"]
  shown = text[text.index('id="questions"') : text.index('id="attention"')]
  assert "people say" in shown and shown.count("✗") == shown.count("people say")
  looks = text[text.index('id="attention"') : text.index('id="configuration"')]
  ids = run.tokenizer([record["question"] for record in showcase.chosen(validation_examples(run), 6).records])
  words = sum(len(showcase.readable_words(run.tokenizer, row)) for row in ids)
  assert looks.count("<figcaption>") == words and looks.count("<img") == 2 * words + showcase.LOOKED_AT
  assert "<figcaption>[begin]</figcaption>" in looks and "the answer that the model gives" in looks


def test_captions_stand_beside_their_pictures(directory):
  run = knowing_run(scenes(directory, "caption"), (Caption(),), batch_size=32, beams=1)
  examples = validation_examples(run)
  shared = Shared()
  drawn = [section for evaluator in applying(run.experiment) for section in evaluator.sections(run, shared)]
  (anchor, _, html), *rest = drawn
  assert anchor == "captions" and not rest and html.count("<img") == showcase.SHOWN
  for record in showcase.chosen(examples, showcase.SHOWN).records:
    assert html.count(record["captions"]["name"][0]) >= 3  # what it writes, what people say, and the picture's name


def test_one_layer_or_all_together():
  attention, relevance = np.random.default_rng(0).random((2, 3, 1, 2, 4))
  maps = AttentionMaps(attention, relevance)
  np.testing.assert_array_equal(showcase.combined(maps, -1)[1], relevance[2])
  together = showcase.combined(maps, None)
  np.testing.assert_allclose(together[0], attention.mean(0))
  np.testing.assert_allclose(together[1], relevance.sum(0))
  assert showcase.shares(np.array([0.0, 2.0, 1.0])).tolist() == [0, 1, 0.5]
  assert showcase.shares(np.zeros(3)).tolist() == [0, 0, 0]


def test_pictures_with_something_over_them():
  pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3)).astype(np.uint8)
  mean, std = (0.5, 0.4, 0.3), (0.5, 0.25, 0.2)
  normal = (pixels / 255 - np.array(mean)) / np.array(std)
  np.testing.assert_array_equal(seen_pixels(normal, mean, std), pixels)
  heat = np.zeros((4, 4))
  heat[1, 2] = 1.0
  shown = heated(np.full_like(pixels, 128), heat).astype(int)
  patch = slice(SIDE // 4, SIDE // 2), slice(SIDE // 2, 3 * SIDE // 4)
  warm = shown[..., 0] - shown[..., 2]
  assert (warm[patch] > 50).all()
  warm[patch] = 0
  assert (warm <= 0).all()  # elsewhere it is blue
  mask = np.zeros((32, 32), bool)
  mask[8:16, 8:16] = True
  drawn = marked(pixels, mask)
  np.testing.assert_array_equal(drawn[9:15, 9:15], pixels[9:15, 9:15])
  assert (drawn[8, 8:16] == (213, 94, 0)).all() and (drawn[:8] >= 191).all()
  assert tile(pixels).startswith("data:image/webp;base64,")


def test_words_are_put_together_from_their_pieces(asked):
  ids = asked.tokenizer(["what hue is it?"])[0]
  words = showcase.readable_words(asked.tokenizer, ids)
  assert [word for _, word in words] == ["[begin]", "what", "hue", "is", "it?"]
  places = [place for found, _ in words for place in found]
  assert places == list(range(int((ids != asked.tokenizer.pad_id).sum()) - 1))  # all but the end token
