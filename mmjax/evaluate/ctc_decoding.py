"""Texts from the probabilities of CTC: the likeliest path, and a beam search over prefixes."""

from collections import defaultdict

import numpy as np
from jaxtyping import Float


def likeliest_path(log_probs: Float[np.ndarray, "frames symbols"], *, blank_id: int) -> list[int]:
  """Take the likeliest symbol of each frame, leave out repetitions, then blanks (Graves et al. 2006, section 3.2).

  Example:
    >>> likeliest_path(np.log(np.eye(3)[[1, 1, 0, 1, 2]] + 0.1), blank_id=0)
    [1, 1, 2]
  """
  best = log_probs.argmax(axis=1)
  first = np.ones(len(best), bool)
  first[1:] = best[1:] != best[:-1]
  return best[first & (best != blank_id)].tolist()


def prefix_beam(
  log_probs: Float[np.ndarray, "frames symbols"],
  *,
  blank_id: int,
  beams: int,
  length_bonus: float = 0.0,
  threshold: float = -12.0,
) -> list[int]:
  """Search the text with the largest log p(text) + length_bonus * symbols, over all alignments of each prefix.

  Source: Hannun et al. 2014, "First-Pass Large Vocabulary Continuous Speech Recognition", algorithm 1, with a bonus per
  symbol in place of the language model. With enough beams and threshold -inf, the result is the best text.

  Args:
    log_probs: log-probabilities of the symbols for each frame.
    blank_id: id of the blank.
    beams: number of prefixes that are kept after each frame.
    length_bonus: added for each symbol, in nats. Sums over alignments favour short texts.
    threshold: symbols of a lower log-probability are not tried in a frame.
  """

  def score(item: tuple[tuple[int, ...], tuple[float, float]]) -> float:
    prefix, ends = item
    return np.logaddexp(*ends) + length_bonus * len(prefix)

  kept: dict[tuple[int, ...], tuple[float, float]] = {(): (0.0, -np.inf)}  # log p: ends in a blank, in a symbol
  for frame in log_probs:
    tried: list[int] = [each for each in np.flatnonzero(frame >= threshold).tolist() if each != blank_id]
    found: dict[tuple[int, ...], list[float]] = defaultdict(lambda: [-np.inf, -np.inf])
    for prefix, (blank, symbol) in kept.items():
      either = np.logaddexp(blank, symbol)
      own = found[prefix]
      own[0] = np.logaddexp(own[0], either + frame[blank_id])
      if prefix:
        own[1] = np.logaddexp(own[1], symbol + frame[prefix[-1]])
      for each in tried:
        longer = found[(*prefix, each)]
        before = blank if prefix and prefix[-1] == each else either  # a symbol is repeated after a blank only
        longer[1] = np.logaddexp(longer[1], before + frame[each])
    extended = [(prefix, (ends[0], ends[1])) for prefix, ends in found.items()]
    kept = dict(sorted(extended, key=score, reverse=True)[:beams])
  return list(max(kept.items(), key=score)[0])
