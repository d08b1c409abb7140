"""Bigram language model, which knows the last token only: the floor of language models."""

import numpy as np
from jaxtyping import Float, Int


class Bigrams:
  """Probabilities of the next token given the last one, by the counts of some texts (Witten and Bell 1991).

  p(b | a) = (count(a b) + kinds(a) p(b)) / (count(a) + kinds(a)), where kinds(a) is the number of different tokens that
  follow a, and p(b) the frequency of b with one added to every count.

  Args:
    ids: token ids, padded at the end.
    pad_id: id of padding.
    vocab_size: number of token ids.
  """

  def __init__(self, ids: Int[np.ndarray, "n t"], *, pad_id: int, vocab_size: int):
    last, following = token_pairs(ids, pad_id)
    self._size = vocab_size
    self._pairs, self._counts = np.unique(last * vocab_size + following, return_counts=True)
    self._seen = np.bincount(last, minlength=vocab_size)
    self._kinds = np.bincount(self._pairs // vocab_size, minlength=vocab_size)
    single = np.bincount(following, minlength=vocab_size) + 1
    self._single = single / single.sum()

  def losses(self, ids: Int[np.ndarray, "n t"], *, pad_id: int) -> Float[np.ndarray, " tokens"]:
    """-log p of every token after the first of each text, in nats."""
    last, following = token_pairs(ids, pad_id)
    pairs = last * self._size + following
    place = np.searchsorted(self._pairs, pairs)
    found = np.append(self._pairs, -1)[place] == pairs
    count = np.where(found, np.append(self._counts, 0)[place], 0)
    kinds, single = np.maximum(self._kinds[last], 1), self._single[following]  # an unseen token: p(b) alone
    return -np.log((count + kinds * single) / (self._seen[last] + kinds))


def token_pairs(ids: Int[np.ndarray, "n t"], pad_id: int) -> tuple[Int[np.ndarray, " p"], Int[np.ndarray, " p"]]:
  """(token, the token after it) for all neighbours of every text, without padding."""
  last, following = ids[:, :-1].astype(np.int64), ids[:, 1:].astype(np.int64)
  real = following != pad_id
  return last[real], following[real]
