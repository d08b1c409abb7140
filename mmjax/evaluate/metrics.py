"""Retrieval and classification metrics, named as in CLIP_benchmark, and what guessing would score.

Letters: n queries, m gallery items, c classes, d embedding width.

A rank counts everything that is not clearly below the best positive, so ties, NaN and collapsed embeddings
lower a score and never raise it.
"""

from collections.abc import Iterator, Sequence
from math import lgamma

import numpy as np
from jaxtyping import Float, Int

CUTOFFS = (1, 5, 10)
# Cosines of unit-norm float32 rows that are closer than this differ by rounding only.
TIE = 1e-6
_CHUNK = 16_000_000  # scores held at a time
Ids = Int[np.ndarray, " n"] | Sequence[int]
GalleryIds = Int[np.ndarray, " m"] | Sequence[int]


def ranks(scores: Float[np.ndarray, "n m"], positive: np.ndarray, *, tie: float = 0.0) -> Int[np.ndarray, " n"]:
  """The rank, from 1, of every query's best positive; ties count against it.

  Args:
    scores: larger is nearer.
    positive: bool [n, m], True where a gallery item answers a query.
    tie: scores that differ by no more than this are equal.
  Returns: ranks; m + 1 for a query without a positive, or whose score is NaN.
  """
  best = np.where(positive, scores, -np.inf).max(axis=1, keepdims=True)
  ahead = ~(scores < best - tie) & ~positive
  found = positive.any(axis=1) & ~np.isnan(best[:, 0])
  return np.where(found, 1 + ahead.sum(axis=1), scores.shape[1] + 1)


def retrieval_ranks(
  query: Float[np.ndarray, "n d"],
  gallery: Float[np.ndarray, "m d"],
  query_ids: Ids,
  gallery_ids: GalleryIds,
) -> Int[np.ndarray, " n"]:
  """`ranks` of cosine retrieval; equal ids are positives. The n x m matrix is never held as a whole.

  Args:
    query, gallery: unit-norm rows.
    query_ids, gallery_ids: several items may share an id (captions of one image).
  """
  query_ids, gallery_ids = np.asarray(query_ids), np.asarray(gallery_ids)
  found = [
    ranks(query[rows] @ gallery.T, query_ids[rows, None] == gallery_ids[None], tie=TIE)
    for rows in _chunks(len(query), len(gallery))
  ]
  return np.concatenate(found) if found else np.zeros(0, np.int64)


def recalls(rank: Int[np.ndarray, " n"], prefix: str) -> dict[str, float]:
  """`{prefix}_recall@{1,5,10}`: the share of queries with any positive in the top K; and the median rank."""
  values = {f"{prefix}_recall@{cutoff}": float(np.mean(rank <= cutoff)) for cutoff in CUTOFFS}
  return {**values, f"{prefix}_median_rank": float(np.median(rank))}


def recall_names(prefix: str) -> list[str]:
  """The names of the metrics of `recalls`."""
  return [f"{prefix}_recall@{cutoff}" for cutoff in CUTOFFS] + [f"{prefix}_median_rank"]


def chance_recalls(query_ids: Ids, gallery_ids: GalleryIds, prefix: str) -> dict[str, float]:
  """Metrics of a random order, on average. Its median rank is the rank by which half of the queries are found."""
  size = len(gallery_ids)
  ids, copies = np.unique(np.asarray(gallery_ids), return_counts=True)
  count = dict(zip(ids.tolist(), copies.tolist()))
  positives, queries = np.unique([count.get(int(i), 0) for i in np.asarray(query_ids)], return_counts=True)
  share = queries / queries.sum()

  def recall(cutoff: int) -> float:
    return float(sum(s * _chance_in_top(cutoff, int(p), size) for p, s in zip(positives, share)))

  values = {f"{prefix}_recall@{cutoff}": recall(cutoff) for cutoff in CUTOFFS}
  low, high = 1, size + 1
  while low < high:
    middle = (low + high) // 2
    low, high = (low, middle) if recall(middle) >= 0.5 else (middle + 1, high)
  return {**values, f"{prefix}_median_rank": float(low)}


def classification(logits: Float[np.ndarray, "n c"], labels: Ids) -> dict[str, float]:
  """acc1, acc5 (with more than five classes) and mean_per_class_recall; ties count against the answer."""
  labels = np.asarray(labels)
  rank = ranks(logits, labels[:, None] == np.arange(logits.shape[1])[None], tie=TIE)
  present = np.unique(labels)
  values = {"acc1": float(np.mean(rank == 1))}
  if logits.shape[1] > 5:
    values["acc5"] = float(np.mean(rank <= 5))
  values["mean_per_class_recall"] = float(np.mean([np.mean(rank[labels == label] == 1) for label in present]))
  return values


def classification_names(num_classes: int) -> list[str]:
  """The names of the metrics of `classification`."""
  return list(chance_classification(num_classes))


def commonest_share(labels: Ids) -> float:
  """Accuracy of giving every example the commonest class of the examples."""
  return float(np.max(np.unique(labels, return_counts=True)[1]) / len(labels))


def chance_classification(num_classes: int) -> dict[str, float]:
  """The expected scores of a uniform guess."""
  values = {"acc1": 1 / num_classes, "mean_per_class_recall": 1 / num_classes}
  return values | ({"acc5": 5 / num_classes} if num_classes > 5 else {})


def _chance_in_top(cutoff: int, positives: int, size: int) -> float:
  """1 - C(size - positives, cutoff) / C(size, cutoff), by logarithms of factorials."""
  if size - positives < cutoff:
    return 1.0 if positives else 0.0
  if not positives:
    return 0.0
  negatives = size - positives
  logarithm = lgamma(negatives + 1) - lgamma(negatives - cutoff + 1) - lgamma(size + 1) + lgamma(size - cutoff + 1)
  return -float(np.expm1(logarithm))


def _chunks(queries: int, gallery: int) -> Iterator[slice]:
  rows = max(1, _CHUNK // max(gallery, 1))
  for start in range(0, queries, rows):
    yield slice(start, start + rows)
