"""Caption metrics: BLEU, ROUGE-L and CIDEr, as the COCO caption evaluation defines them."""

import re
from collections.abc import Sequence
from typing import Any

from mmjax.evaluate.cider import cider
from mmjax.evaluate.results import Metrics

Words = Sequence[str]
_WORD = re.compile(r"\w+(?:[-'.]\w+)*")
CAPTION_SCORES = ("bleu1", "bleu2", "bleu3", "bleu4", "rouge_l", "cider")
"""The names of the metrics of `caption_scores`."""
_BETA = 1.2  # of ROUGE-L's F score, in the COCO evaluation


def caption_words(caption: str) -> list[str]:
  """Lower case words without punctuation; "t-shirt", "3.5" and "it's" are one word each.

  The COCO evaluation uses Stanford's Java tokenizer (mmjax.evaluate.coco_captions), which splits "it's" in two.
  """
  return _WORD.findall(caption.lower())


def caption_scores(captions: Sequence[str], references: Sequence[Sequence[str]]) -> Metrics:
  """bleu1..4, rouge_l and cider of captions, each with the references of its image.

  Raises: ValueError where there are no captions, or an image has no reference.
  """
  if not captions or not all(references):
    raise ValueError("captions are scored against references: give at least one of each for every image")
  written = [caption_words(caption) for caption in captions]
  known = [[caption_words(reference) for reference in many] for many in references]
  rouge = sum(rouge_l(words, many) for words, many in zip(written, known, strict=True)) / len(written)
  return bleu(written, known) | {"rouge_l": rouge, "cider": cider(written, known)}


def bleu(captions: Sequence[Words], references: Sequence[Sequence[Words]]) -> Metrics:
  """bleu1..bleu4 of the whole corpus, by sacrebleu: no smoothing, the closest reference's length.

  Source: Papineni et al. 2002.
  """
  from sacrebleu.metrics.bleu import BLEU

  longest = max(map(len, references))
  streams: Any = [[" ".join(many[n]) if n < len(many) else None for many in references] for n in range(longest)]
  score = BLEU(tokenize="none", smooth_method="none", force=True).corpus_score([" ".join(c) for c in captions], streams)
  return {
    f"bleu{order}": BLEU.compute_bleu(
      score.counts, score.totals, score.sys_len, score.ref_len, smooth_method="none", max_ngram_order=order
    ).score
    / 100
    for order in (1, 2, 3, 4)
  }


def rouge_l(caption: Words, references: Sequence[Words]) -> float:
  """F score of the longest common subsequence: the best precision and the best recall over the references.

  Source: Lin 2004; beta = 1.2 and the two maxima as in the COCO evaluation (Chen et al. 2015), which Google's
  rouge-score does not offer.
  """
  common = [_common_subsequence(caption, reference) for reference in references]
  precision = max(common) / max(len(caption), 1)
  recall = max(n / max(len(reference), 1) for n, reference in zip(common, references, strict=True))
  if not precision or not recall:
    return 0.0
  return (1 + _BETA**2) * precision * recall / (recall + _BETA**2 * precision)


def _common_subsequence(first: Words, second: Words) -> int:
  """Length of the longest sequence of words that both contain in order."""
  row = [0] * (len(second) + 1)
  for word in first:
    diagonal = 0
    for place, other in enumerate(second, 1):
      above = row[place]
      row[place] = diagonal + 1 if word == other else max(above, row[place - 1])
      diagonal = above
  return row[-1]
