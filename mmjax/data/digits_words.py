"""Digits and words: the question "is this digit WORD?", which needs both modalities.

Each of ten words is true of five digits. Each digit has five of the words, one of each pair of opposites. So for any
image half of the words are true, and for any word half of the digits are. The best model of one modality is correct
exactly half of the time. The sum of two such models is not better: at logit 0, the derivative of the cross-entropy is
zero for any function of the digit alone, and for any function of the word alone. The loss is convex in the sum.
Training an additive model therefore ends at logit 0 (loss ln 2, and an accuracy by chance of .50 +- .03). A better
model must use the digit *and* the word.
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
    "looped": "04689",  # with a closed loop on a seven-segment display or in careful handwriting
    "open": "12357",
    "evil": "03569",  # an even number of ones in binary
    "odious": "12478",
    "early": "14589",  # alphabetical order: eight, five, four, nine, one, then seven, six, three, two, zero
    "late": "02367",
  }
)
"""Each word, and the digits of which it is true. Neighbours are opposites."""

TRUTH: Bool[np.ndarray, "digits words"] = np.array([[str(d) in true for true in WORDS.values()] for d in range(10)])

_TEST_PER_DIGIT = 35  # every fifth image, and equally many of each digit, so that a word alone has no information


class DigitsWords:
  """One split of scikit-learn's 1,797 images of digits (8 x 8 pixels), with all words.

  Args:
    split: "train" or "test".

  Attributes:
    words: the words, and the digits of which each is true.
    truth: True where a word is true of a digit.
    images: [n, 8, 8, 3], grey, -1 to 1.
    digits: [n].

  Raises:
    ValueError: the split is unknown.
  """

  words, truth = WORDS, TRUTH
  images: Float32[np.ndarray, "n 8 8 3"]
  digits: Int32[np.ndarray, "n"]

  def __init__(self, split: str):
    """Load the images of a split."""
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
    """Make all pairs of an image and a word, with fields "image", "text", "answer" and "index"."""
    return self._pairs(
      np.repeat(np.arange(len(self.digits)), len(WORDS)), np.tile(np.arange(len(WORDS)), len(self.digits))
    )

  def _pairs(self, places: np.ndarray, words: np.ndarray) -> dict[str, np.ndarray]:
    """Make a batch: image, text (one token, the number of the word), answer (1 if true, else 0) and index."""
    return {
      "image": self.images[places],
      "text": words[:, None].astype(np.int32),
      "answer": TRUTH[self.digits[places], words].astype(np.int32),
      "index": (places * len(WORDS) + words).astype(np.int32),
    }
