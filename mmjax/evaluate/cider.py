"""CIDEr-D: do a caption's rare n-grams occur in people's captions of the same image (Vedantam et al. 2015)?"""

import math
from collections import Counter
from collections.abc import Sequence

Words = Sequence[str]
_ORDERS, _SIGMA = (1, 2, 3, 4), 6.0


def cider(captions: Sequence[Words], references: Sequence[Sequence[Words]]) -> float:
  """The mean over images, between 0 and 10; document frequencies are those of the references.

  Equals the COCO evaluation's: lengths are counted in bigrams there. With a single image nothing is rare: 0.
  """
  frequency: Counter[tuple[str, ...]] = Counter()
  for many in references:
    frequency.update({gram for words in many for order in _ORDERS for gram in _ngrams(words, order)})
  weigh = _Weights(frequency, len(references))
  scores = [_score(weigh, words, many) for words, many in zip(captions, references, strict=True)]
  return sum(scores) / len(scores)


class _Weights:
  """TF-IDF vectors of one order of n-grams."""

  def __init__(self, frequency: Counter[tuple[str, ...]], pictures: int):
    self._frequency, self._log_pictures = frequency, math.log(pictures)

  def __call__(self, words: Words, order: int) -> dict[tuple[str, ...], float]:
    return {
      gram: count * (self._log_pictures - math.log(max(1, self._frequency[gram])))
      for gram, count in _ngrams(words, order).items()
    }


def _score(weigh: _Weights, caption: Words, references: Sequence[Words]) -> float:
  """10 times the mean cosine over orders and references, clipped counts, with a penalty for another length."""
  total = 0.0
  for reference in references:
    delta = max(len(caption) - 1, 0) - max(len(reference) - 1, 0)
    penalty = math.exp(-(delta**2) / (2 * _SIGMA**2))
    total += penalty * sum(_cosine(weigh(caption, order), weigh(reference, order)) for order in _ORDERS)
  return 10 * total / len(_ORDERS) / len(references)


def _cosine(caption: dict[tuple[str, ...], float], reference: dict[tuple[str, ...], float]) -> float:
  dot = sum(min(weight, reference[gram]) * reference[gram] for gram, weight in caption.items() if gram in reference)
  norms = math.sqrt(sum(w * w for w in caption.values()) * sum(w * w for w in reference.values()))
  return dot / norms if norms else 0.0


def _ngrams(words: Words, order: int) -> Counter[tuple[str, ...]]:
  return Counter(tuple(words[at : at + order]) for at in range(len(words) - order + 1))
