"""Captioning scores: by hand, and against pycocoevalcap where it is installed."""

import math

import numpy as np
import pytest

from mmjax.evaluate import coco_captions
from mmjax.evaluate.captions import bleu, caption_scores, caption_words, rouge_l
from mmjax.evaluate.cider import cider
from tests.interop.references import reference
from tests.skips import JAVA

VOCABULARY = "a red blue green circle square on the left of above triangle small big".split()


def corpus(seed, pictures=40):
  """Captions with words in common with their references; numbers of references and lengths differ."""
  rng = np.random.default_rng(seed)

  def sentence():
    return list(rng.choice(VOCABULARY, rng.integers(1, 12)))

  references = [[sentence() for _ in range(rng.integers(1, 6))] for _ in range(pictures)]
  captions = [list(many[0][:6]) + sentence()[: rng.integers(0, 5)] for many in references]
  return captions, references


@pytest.mark.references
@pytest.mark.parametrize("seed", [0, 1])
def test_scores_equal_pycocoevalcap(seed, capsys):
  reference("pycocoevalcap")
  from pycocoevalcap.bleu.bleu import Bleu
  from pycocoevalcap.cider.cider import Cider
  from pycocoevalcap.rouge.rouge import Rouge

  captions, references = corpus(seed)
  truth = {n: [" ".join(words) for words in many] for n, many in enumerate(references)}
  written = {n: [" ".join(words)] for n, words in enumerate(captions)}
  theirs, _ = Bleu(4).compute_score(truth, written, verbose=0)
  ours = bleu(captions, references)
  np.testing.assert_allclose([ours[f"bleu{n}"] for n in (1, 2, 3, 4)], theirs, rtol=1e-7)  # they add 1e-9 to counts
  assert cider(captions, references) == pytest.approx(Cider().compute_score(truth, written)[0], rel=1e-9)
  rouge = np.mean([rouge_l(words, many) for words, many in zip(captions, references)])
  assert rouge == pytest.approx(Rouge().compute_score(truth, written)[0], rel=1e-12)


def test_words():
  assert caption_words("A T-shirt, it's 3.5 m.  Red!") == ["a", "t-shirt", "it's", "3.5", "m", "red"]


def test_bleu_by_hand():
  found = bleu([["the", "red", "circle"]], [[["the", "red", "square", "here"]]])
  shorter = math.exp(1 - 4 / 3)
  assert found["bleu1"] == pytest.approx(shorter * 2 / 3)
  assert found["bleu2"] == pytest.approx(shorter * math.sqrt(2 / 3 * 1 / 2))
  assert found["bleu3"] == found["bleu4"] == 0.0


def test_rouge_by_hand():
  assert rouge_l("a b c d".split(), ["a c".split(), "a x c d y z".split()]) == pytest.approx(
    (1 + 1.44) * 0.75 * 1.0 / (1.0 + 1.44 * 0.75)  # precision 3/4 by the second reference, recall 1 by the first
  )
  assert rouge_l([], [["a"]]) == rouge_l(["a"], [["b"]]) == 0.0


def test_cider_by_hand():
  # One shared bigram and two unigrams, each in one picture of two: equal weights, so cosines are plain ratios.
  captions, references = [["red", "dot"], ["blue"]], [[["red", "dot"]], [["big", "box"]]]
  assert cider(captions, references) == pytest.approx((10 * (1 + 1 + 0 + 0) / 4 + 0) / 2)
  assert cider([["a"]], [[["a"]]]) == 0.0  # a single picture: log(1) = 0 for every word


def test_perfect_captions_and_empty_ones():
  texts = [f"a {color} {shape} on the left" for color in ("red", "blue") for shape in ("circle", "square")]
  perfect, empty = (caption_scores(written, [[text] for text in texts]) for written in (texts, [""] * 4))
  assert perfect.pop("cider") == pytest.approx(10)
  assert list(perfect.values()) == pytest.approx([1.0] * 5)
  assert set(empty.values()) == {0.0}
  with pytest.raises(ValueError, match="references"):
    caption_scores(["a"], [[]])


def test_what_java_cannot_score_is_said(monkeypatch):
  monkeypatch.setattr(coco_captions.importlib.util, "find_spec", lambda name: None)
  scores, skipped = coco_captions.java_scores(["a"], [["a"]])
  assert scores == {} and "mmjax[captions]" in skipped["meteor"] and "mmjax[captions]" in skipped["spice"]
  monkeypatch.setattr(coco_captions.importlib.util, "find_spec", lambda name: name)
  monkeypatch.setattr(coco_captions.shutil, "which", lambda name: None)
  assert "no java" in coco_captions.java_scores(["a"], [["a"]])[1]["spice"]


@pytest.mark.references
def test_meteor_where_java_is():
  reference("pycocoevalcap")
  if coco_captions._unavailable():
    pytest.skip(JAVA)
  scores, skipped = coco_captions.java_scores(["a red circle", "a dog"], [["a red circle"], ["blue boxes, it seems"]])
  assert 0.4 < scores["meteor"] < 0.6  # perfect and hopeless
  assert "stanford-corenlp" in skipped["spice"] or "spice" in scores
