"""Infinite order of examples. The record at a position is computed from the position alone.

No array has the length of the data: a permutation is a function of (seed, epoch, index).
"""

import math
from collections.abc import Sequence
from typing import Any

import grain.python as grain
import numpy as np

from mmjax.data.records import Part

_PERIOD = 10_000  # shares are kept to this precision


def source_parts(source: Any) -> Sequence[Part]:
  """Parts of a source: its attribute `parts`, or else one part with all records."""
  return getattr(source, "parts", None) or [Part(0, len(source))]


class Order:
  """Infinite map from positions 0, 1, 2, ... to (epoch, index).

  Parts without weights are shuffled together. An epoch then has each record of a part `repeats` times. Parts with
  weights are shuffled separately and alternate in a fixed pattern, as evenly as their weights allow (with a precision
  of 1 in 10,000). Each part then has its own epochs.

  Args:
    parts: the parts. Either all or none have a weight.
    seed: seed of the permutations.

  Attributes:
    num_records: number of examples in an epoch. With weights, the sum over the epochs of all parts.
  """

  def __init__(self, parts: Sequence[Part], seed: int):
    weighted = parts[0].weight is not None
    groups = [[part] for part in parts] if weighted else [list(parts)]
    self._streams = [_Stream(group, _seed(seed, place)) for place, group in enumerate(groups)]
    self.num_records = sum(stream.length for stream in self._streams)
    self._pattern, self._before = interleave([part.weight or 0.0 for part in parts] if weighted else [1.0])

  def __call__(self, position: int) -> tuple[int, int]:
    """Epoch and index of the record at a position. No pair occurs twice."""
    turn, place = divmod(position, len(self._pattern))
    stream = int(self._pattern[place])
    quota = int(self._before[-1, stream])
    return self._streams[stream](turn * quota + int(self._before[place, stream]))


class _Stream:
  """Parts that are shuffled together."""

  def __init__(self, parts: Sequence[Part], seed: int):
    self._parts = list(parts)
    self._ends = np.cumsum([part.size * part.repeats for part in parts], dtype=np.int64)
    self.length = int(self._ends[-1])
    self._shuffled = grain.MapDataset.range(self.length).seed(seed).shuffle().repeat()

  def __call__(self, position: int) -> tuple[int, int]:
    epoch, place = position // self.length, int(self._shuffled[position])
    number = int(np.searchsorted(self._ends, place, side="right"))
    part = self._parts[number]
    repetition, offset = divmod(place - (int(self._ends[number - 1]) if number else 0), part.size)
    return epoch * part.repeats + repetition, part.start + offset


def interleave(weights: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
  """Make a period in which each part has its share, as evenly spread as possible.

  Args:
    weights: weights of the parts, above 0.
  Returns: the part at each position [period], and the number of times each part occurs before it [period + 1, parts].
  """
  shares = np.asarray(weights, np.float64) / sum(weights)
  quotas = np.maximum(1, np.floor(shares * _PERIOD).astype(np.int64))
  quotas[int(np.argmax(quotas))] += _PERIOD - int(quotas.sum())
  quotas //= math.gcd(*quotas.tolist())
  period = int(quotas.sum())
  pattern = np.empty(period, np.int32)
  before = np.zeros((period + 1, len(quotas)), np.int64)
  for place in range(period):  # the part that is furthest behind its share is next
    pattern[place] = np.argmax(quotas * (place + 1) - before[place] * period)
    before[place + 1] = before[place]
    before[place + 1, pattern[place]] += 1
  return pattern, before


def _seed(seed: int, place: int) -> int:
  """Seed of the part at a position. The first part has the seed of the run."""
  return seed if place == 0 else int(np.random.SeedSequence([seed, place]).generate_state(1)[0])
