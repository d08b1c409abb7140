"""Retrieval in two steps: similarity finds candidates, the match head orders them (Li et al. 2021, section 4)."""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float, Int

from mmjax.evaluate.metrics import TIE, Ids, chance_recalls, ranks, recalls
from mmjax.evaluate.results import Metrics
from mmjax.evaluate.retrieval import Embedded

MatchScore = Callable[[Int[np.ndarray, " pairs"], Int[np.ndarray, " pairs"]], Float[np.ndarray, " pairs"]]
"""(places of queries, places of gallery items) -> how well each pair matches; larger is better."""
_QUERIES = 256  # queries whose similarities and candidates are held at a time


def reranked_ranks(
  queries: Embedded, gallery: Embedded, match: MatchScore, top: int
) -> tuple[Int[np.ndarray, " n"], Int[np.ndarray, " n"]]:
  """The rank of every query's best positive (after re-ranking, before it).

  The `top` most similar items are ordered by `match`; whatever comes after them keeps its place. Ties count against
  the query in both steps: a positive as similar as the last candidate is no candidate.

  Args:
    queries: embeddings and concepts of the queries.
    gallery: embeddings and concepts of the items.
    match: matching score of (indices of queries, indices of items).
    top: number of items that are ordered by `match`.
  """
  top = min(top, len(gallery))
  after, before = [], []
  for start in range(0, len(queries), _QUERIES):
    rows = np.arange(start, min(start + _QUERIES, len(queries)))
    positive = queries.ids[rows, None] == gallery.ids[None]
    similarity = queries.rows[rows] @ gallery.rows.T
    chosen = candidates(similarity, positive, top)
    scores = match(np.repeat(rows, top), chosen.ravel()).reshape(len(rows), top)
    first = ranks(similarity, positive, tie=TIE)
    among = ranks(scores, np.take_along_axis(positive, chosen, axis=1), tie=TIE)
    after.append(np.where(among <= top, among, np.maximum(first, top + 1)))
    before.append(first)
  return np.concatenate(after), np.concatenate(before)


def candidates(similarity: np.ndarray, positive: np.ndarray, top: int) -> Int[np.ndarray, "n top"]:
  """Places of the `top` most similar items of each row; among equals the wrong ones first, and NaN last."""
  handicapped = np.where(np.isnan(similarity), -np.inf, similarity - 2 * TIE * positive)
  return np.argsort(-handicapped, axis=1, kind="stable")[:, :top]


def reranked(
  queries: Embedded, gallery: Embedded, match: MatchScore, top: int, prefix: str
) -> tuple[Metrics, Metrics, Metrics]:
  """Compute recalls. Arguments are those of `reranked_ranks`.

  Args:
    prefix: first part of the metrics' names.
  Returns: (recalls after re-ranking, recalls of a random order, recalls before re-ranking).
  """
  after, before = reranked_ranks(queries, gallery, match, top)
  ids: tuple[Ids, Ids] = (queries.ids, gallery.ids)
  return recalls(after, prefix), chance_recalls(*ids, prefix), recalls(before, prefix)
