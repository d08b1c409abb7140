"""Digits and words: "is this digit WORD?", a task that no modality, and no sum over modalities, can answer.

Each of ten words is true of five digits, and each digit has five of the words, one of every pair of opposites. So
whatever the picture, half of the words are true, and whatever the word, half of the digits are: the best rule that
sees one modality is right exactly half of the time. Neither helps the sum of two such rules: at the logit 0 the
cross-entropy's derivative by any function of the digit alone, and by any function of the word alone, is zero, and the
loss is convex in their sum, so 0 is what training an additive model ends at (loss ln 2; its accuracy is that of noise,
.50 +- .03). A rule must know digit *and* word to be better.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
from jaxtyping import Bool, Float32, Int32

WORDS: Mapping[str, str] = MappingProxyType(
  {
    "even": "02468",
    "odd": "13579",
    "small": "01234",
    "large": "56789",
    "looped": "04689",  # as a seven-segment display or a careful hand closes them
    "open": "12357",
    "evil": "03569",  # an even number of ones in binary
    "odious": "12478",
    "early": "14589",  # in the alphabet: eight, five, four, nine, one; seven, six, three, two, zero
    "late": "02367",
  }
)
"""The words, and the digits of which each is true; neighbours are opposites."""

TRUTH: Bool[np.ndarray, "digits words"] = np.array([[str(d) in true for true in WORDS.values()] for d in range(10)])

_TEST_PER_DIGIT = 35  # every fifth; equally many of each digit, so that words alone tell exactly nothing


class DigitsWords:
  """The 1,797 digits of scikit-learn (8 x 8 pixels), in one of two splits, with all words.

  Attributes:
    words: the words, and the digits of which each is true.
    truth: True where a word is true of a digit.
    images: [n, 8, 8, 3], grey, -1 to 1.
    digits: [n].
  """

  words, truth = WORDS, TRUTH
  images: Float32[np.ndarray, "n 8 8 3"]
  digits: Int32[np.ndarray, "n"]

  def __init__(self, split: str):
    """Args: split: "train" or "test". Raises: ValueError for another one."""
    from sklearn.datasets import load_digits

    if split not in ("train", "test"):
      raise ValueError(f'there is no split {split!r}; splits are "train" and "test"')
    data = load_digits()
    places = [np.flatnonzero(data.target == digit) for digit in range(10)]
    held_out = np.concatenate([mine[::5][:_TEST_PER_DIGIT] for mine in places])
    chosen = held_out if split == "test" else np.setdiff1d(np.concatenate(places), held_out)
    self.images = np.repeat(data.images[chosen, :, :, None] / 8 - 1, 3, axis=3).astype(np.float32)
    self.digits = data.target[chosen].astype(np.int32)

  def __len__(self) -> int:
    """Number of pairs: every image with every word."""
    return len(self.digits) * len(WORDS)

  def __getitem__(self, index: int) -> dict[str, Any]:
    """A pair: `pixels`, the `word` (its number, [1]), and whether it is `true`."""
    place, word = divmod(index, len(WORDS))
    digit = int(self.digits[place])
    name = f"digits_words/{place}/{list(WORDS)[word]}"
    true = bool(TRUTH[digit, word])
    return {"id": name, "concept": index, "pixels": self.images[place], "word": [word], "true": true}

  def all_pairs(self) -> dict[str, np.ndarray]:
    """Every picture with every word."""
    return self._pairs(
      np.repeat(np.arange(len(self.digits)), len(WORDS)), np.tile(np.arange(len(WORDS)), len(self.digits))
    )

  def _pairs(self, places: np.ndarray, words: np.ndarray) -> dict[str, np.ndarray]:
    """image, text (one token: the word's number), answer (1: true) and index."""
    return {
      "image": self.images[places],
      "text": words[:, None].astype(np.int32),
      "answer": TRUTH[self.digits[places], words].astype(np.int32),
      "index": (places * len(WORDS) + words).astype(np.int32),
    }
