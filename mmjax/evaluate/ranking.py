"""Metrics of rankings with one right item for each user, and what guessing would score."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int

from mmjax.evaluate.results import Metrics


def ranking_metrics(rank: Int[np.ndarray, " users"], cutoffs: Sequence[int]) -> Metrics:
  """`hit_rate@K`: share of the users whose item is among the first K. `ndcg@K`: mean of 1 / log2(1 + rank), or 0 beyond
  K (Järvelin and Kekäläinen 2002; with one right item, the ideal gain is 1).

  Args:
    rank: rank of each user's item, from 1.
    cutoffs: values of K.
  """
  found: Metrics = {}
  for cutoff in cutoffs:
    hit = rank <= cutoff
    found[f"hit_rate@{cutoff}"] = float(hit.mean())
    found[f"ndcg@{cutoff}"] = float(np.where(hit, 1 / np.log2(1.0 + rank), 0.0).mean())
  return found


def chance_ranking(sizes: Int[np.ndarray, " users"], cutoffs: Sequence[int]) -> Metrics:
  """Expected `ranking_metrics` of a random order.

  Args:
    sizes: number of items that are ranked for each user.
    cutoffs: values of K.
  """
  found: Metrics = {}
  for cutoff in cutoffs:
    gains = np.concatenate([[0.0], np.cumsum(1 / np.log2(2.0 + np.arange(cutoff)))])
    kept = np.minimum(sizes, cutoff)
    found[f"hit_rate@{cutoff}"] = float((kept / sizes).mean())
    found[f"ndcg@{cutoff}"] = float((gains[kept] / sizes).mean())
  return found


def coverage(lists: Int[np.ndarray, "users k"], items: int, cutoffs: Sequence[int]) -> Metrics:
  """`coverage@K`: share of all items that are among the first K of some user (catalogue coverage, Ge et al. 2010).

  Args:
    lists: first items of each user, the best first. -1 stands for none.
    items: number of items.
    cutoffs: values of K.
  """
  counts = {cutoff: np.setdiff1d(lists[:, :cutoff], [-1]).size for cutoff in cutoffs}
  return {f"coverage@{cutoff}": count / items for cutoff, count in counts.items()}


def first_items(scores: Float[np.ndarray, "users items"], number: int) -> Int[np.ndarray, "users number"]:
  """Places of the largest scores of each user, the best first. -1 where fewer are finite."""
  number = min(number, scores.shape[1])
  some = np.argpartition(-scores, number - 1, axis=1)[:, :number]
  values = np.take_along_axis(scores, some, axis=1)
  order = np.argsort(-values, axis=1, kind="stable")
  best, values = np.take_along_axis(some, order, axis=1), np.take_along_axis(values, order, axis=1)
  return np.where(np.isfinite(values), best, -1)
