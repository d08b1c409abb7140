"""The endless order of examples: which record comes at a position, computed for any position alone.

Nothing is as long as the data: a permutation is a function of (seed, epoch, index), so a million records cost nothing.
"""

import math
from collections.abc import Sequence
from typing import Any

import grain.python as grain
import numpy as np

from mmjax.data.records import Part

_PERIOD = 10_000  # shares are kept to this precision


def source_parts(source: Any) -> Sequence[Part]:
  """The parts of a source: its `parts`, or all of it as one."""
  return getattr(source, "parts", None) or [Part(0, len(source))]


class Order:
  """Positions 0, 1, 2, ... to (epoch, index), without end.

  Parts without weights are shuffled together: an epoch has every record of a part `repeats` times. Parts with weights
  are shuffled each on its own and take turns in a fixed pattern, as evenly as their weights allow (to 1 in 10,000);
  each then has epochs of its own.

  Attributes:
    num_records: examples in an epoch (with weights: of all parts' epochs together).
  """

  def __init__(self, parts: Sequence[Part], seed: int):
    weighted = parts[0].weight is not None
    groups = [[part] for part in parts] if weighted else [list(parts)]
    self._streams = [_Stream(group, _seed(seed, place)) for place, group in enumerate(groups)]
    self.num_records = sum(stream.length for stream in self._streams)
    self._pattern, self._before = interleave([part.weight or 0.0 for part in parts] if weighted else [1.0])

  def __call__(self, position: int) -> tuple[int, int]:
    """(epoch, index): no pair comes twice."""
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
  """A period in which each part has its share, spread as evenly as it goes.

  Args:
    weights: of the parts, above 0.

  Returns: the part of each place [period], and how often each part came before it [period + 1, parts].
  """
  shares = np.asarray(weights, np.float64) / sum(weights)
  quotas = np.maximum(1, np.floor(shares * _PERIOD).astype(np.int64))
  quotas[int(np.argmax(quotas))] += _PERIOD - int(quotas.sum())
  quotas //= math.gcd(*quotas.tolist())
  period = int(quotas.sum())
  pattern = np.empty(period, np.int32)
  before = np.zeros((period + 1, len(quotas)), np.int64)
  for place in range(period):  # whoever is furthest behind its share is next
    pattern[place] = np.argmax(quotas * (place + 1) - before[place] * period)
    before[place + 1] = before[place]
    before[place + 1, pattern[place]] += 1
  return pattern, before


def _seed(seed: int, place: int) -> int:
  """Of the part at a place: the first part's is the run's own."""
  return seed if place == 0 else int(np.random.SeedSequence([seed, place]).generate_state(1)[0])
