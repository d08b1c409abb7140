"""No modality, and no sum over modalities, says anything about whether a word is true of a digit."""

import math

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from mmjax.data.digits_words import TRUTH, WORDS, DigitsWords


def test_half_of_the_words_are_true_of_every_digit_and_half_of_the_digits_have_every_word():
  assert (TRUTH.sum(0) == 5).all() and (TRUTH.sum(1) == 5).all()
  assert (TRUTH[:, ::2] != TRUTH[:, 1::2]).all()  # neighbours are opposites
  assert TRUTH[7].tolist() == [False, True, False, True, False, True, False, True, False, True]
  assert list(WORDS)[8:] == ["early", "late"]
  by_name = "eight five four nine one seven six three two zero".split()
  digits = [["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"].index(n) for n in by_name]
  assert by_name == sorted(by_name) and TRUTH[digits[:5], 8].all() and not TRUTH[digits[5:], 8].any()
  assert all(TRUTH[digit, 6] == (bin(digit).count("1") % 2 == 0) for digit in range(10))  # evil


def test_the_test_pairs_are_balanced_for_every_picture_and_every_word():
  test = DigitsWords("test")
  answers = test.all_pairs()["answer"].reshape(len(test.digits), len(WORDS))
  assert answers.shape == (350, 10) and (np.bincount(test.digits) == 35).all()
  assert (answers.sum(1) == 5).all() and (answers.sum(0) == 175).all()


def test_the_best_additive_rule_says_nothing_and_the_best_interacting_one_all():
  digits, words = (grid.ravel() for grid in np.mgrid[:10, :10])
  one_hot = np.concatenate([np.eye(10)[digits], np.eye(10)[words]], axis=1)
  truth = TRUTH[digits, words]
  additive = LogisticRegression(C=1e6, tol=1e-10).fit(one_hot, truth)
  assert np.abs(additive.decision_function(one_hot)).max() < 1e-6
  p = additive.predict_proba(one_hot)[np.arange(100), truth.astype(int)]
  assert -np.log(p).mean() == pytest.approx(math.log(2), abs=1e-9)
  products = np.einsum("ni,nj->nij", np.eye(10)[digits], np.eye(10)[words]).reshape(100, 100)
  assert LogisticRegression(C=1e6).fit(products, truth).score(products, truth) == 1.0


def test_splits_share_no_image_and_every_image_stands_with_every_word():
  train, test = DigitsWords("train"), DigitsWords("test")
  assert len(train.digits) + len(test.digits) == 1797 and len(test) == 3500
  known = {image.tobytes() for image in train.images}
  assert sum(image.tobytes() in known for image in test.images) == 0
  assert train.images.min() == -1 and train.images.max() == 1
  pairs = test.all_pairs()
  for index in (0, 7, 3499):
    record = test[index]
    assert (record["pixels"] == pairs["image"][index]).all() and record["word"] == pairs["text"][index].tolist()
    assert record["true"] == pairs["answer"][index] and record["concept"] == pairs["index"][index] == index


def test_an_unknown_split_is_named():
  with pytest.raises(ValueError, match="there is no split 'validation'"):
    DigitsWords("validation")
