"""Summary statistics of the embeddings of a service: sums over many requests, and nothing of any one of them."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from mmjax.errors import UserError

LEAST = 20
"""Embeddings of a modality in one line of a file, at least: a mean of few would say much about each."""


@dataclasses.dataclass(frozen=True)
class Moments:
  """Count, mean and variance of embeddings, and of their norms.

  Attributes:
    count: number of embeddings.
    mean: their mean.
    variance: variance of each dimension: the diagonal of the covariance.
    norm_mean, norm_variance: mean and variance of their Euclidean norms. 1 and 0 for unit-norm embeddings.
  """

  count: int
  mean: Float[np.ndarray, " dim"]
  variance: Float[np.ndarray, " dim"]
  norm_mean: float
  norm_variance: float

  def to_json(self) -> dict[str, Any]:
    """The fields as JSON values."""
    lists = {"mean": self.mean.tolist(), "variance": self.variance.tolist()}
    return {"count": self.count, **lists, "norm_mean": self.norm_mean, "norm_variance": self.norm_variance}

  @classmethod
  def from_json(cls, fields: Mapping[str, Any]) -> Moments:
    """Read `to_json`. Raises ValueError, KeyError or TypeError if it is something else."""
    mean, variance = (np.asarray(fields[name], np.float64) for name in ("mean", "variance"))
    numbers = float(fields["norm_mean"]), float(fields["norm_variance"])
    if mean.ndim != 1 or mean.shape != variance.shape or not len(mean):
      raise ValueError(f"mean has shape {mean.shape}, and variance {variance.shape}")
    if not (np.isfinite([*mean, *variance, *numbers]).all() and (variance >= 0).all() and int(fields["count"]) > 0):
      raise ValueError("a number is not finite, or negative where it cannot be")
    return cls(int(fields["count"]), mean, variance, *numbers)


def moments(rows: Float[np.ndarray, "n dim"]) -> Moments:
  """Moments of some embeddings, in float64."""
  rows = np.asarray(rows, np.float64)
  norms = np.linalg.norm(rows, axis=1)
  return Moments(len(rows), rows.mean(0), rows.var(0), float(norms.mean()), float(norms.var()))


def merged(parts: Iterable[Moments]) -> Moments:
  """Moments of the embeddings of several parts together (Chan et al. 1979).

  Example:
    >>> import numpy as np
    >>> rows = np.arange(12.0).reshape(6, 2)
    >>> both = merged([moments(rows[:2]), moments(rows[2:])])
    >>> both.count, bool(np.allclose(both.variance, rows.var(0)))
    (6, True)
  """
  found = list(parts)
  counts = np.array([part.count for part in found], np.float64)
  shares = counts / counts.sum()

  def pooled(means: np.ndarray, variances: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    mean = shares @ means
    return mean, shares @ (variances + (means - mean) ** 2)

  mean, variance = pooled(np.stack([part.mean for part in found]), np.stack([part.variance for part in found]))
  norm, spread = pooled(
    np.array([[part.norm_mean] for part in found]), np.array([[part.norm_variance] for part in found])
  )
  return Moments(int(counts.sum()), mean, variance, float(norm[0]), float(spread[0]))


class StatisticsFile:
  """JSON Lines file of moments: one line for each span of time, with the fingerprint of the model.

  Embeddings of a modality are written when there are LEAST of them. Until then, they are added to the next line.

  Args:
    path: the file. Lines are appended.
    fingerprint: fingerprint of the model.
    every: seconds of one line.
    clock: function that returns seconds since 1970.
  Raises: UserError: the file cannot be written.
  """

  def __init__(self, path: Path, fingerprint: str, every: float, clock: Callable[[], float] = time.time):
    self._path, self._fingerprint, self._every, self._clock = path, fingerprint, every, clock
    self._since, self._held = clock(), dict[str, Moments]()
    self._append("")

  def add(self, modality: str, rows: Float[np.ndarray, "n dim"]) -> None:
    """Add embeddings of "image" or "text". Writes a line when its time has come."""
    known = [self._held[modality]] if modality in self._held else []
    self._held[modality] = merged([*known, moments(rows)])
    if self._clock() - self._since >= self._every:
      self.flush()

  def flush(self) -> None:
    """Write a line, if there are enough embeddings."""
    ready = {name: part for name, part in self._held.items() if part.count >= LEAST}
    if not ready:
      return
    now = self._clock()
    line = {"fingerprint": self._fingerprint, "since": round(self._since, 3), "until": round(now, 3)}
    self._append(json.dumps(line | {name: part.to_json() for name, part in ready.items()}) + "\n")
    self._since = now
    for name in ready:
      del self._held[name]

  def _append(self, text: str) -> None:
    try:
      with self._path.open("a", encoding="utf-8") as file:
        file.write(text)
    except OSError as error:
      raise UserError(f"--statistics {self._path} cannot be written: {error.strerror}") from error


def read_statistics(path: Path, fingerprint: str) -> list[dict[str, Any]]:
  """Lines of a file: {"since": seconds, "until": seconds, "image": Moments, "text": Moments}.

  Args:
    path: the file. A last line that a crash cut short is left out.
    fingerprint: fingerprint of the model that is asked about.
  Raises: UserError: the file cannot be read, has a bad line, or a line of other parameters.
  """
  try:
    text = path.read_text(encoding="utf-8")
  except (OSError, UnicodeDecodeError) as error:
    raise UserError(f"--statistics {path} cannot be read: {getattr(error, 'strerror', None) or error}") from error
  found = []
  for number, line in enumerate(text.splitlines(keepends=True), 1):
    if not line.endswith("\n"):
      break
    try:
      fields = json.loads(line)
      made_by, entry = fields["fingerprint"], {name: float(fields[name]) for name in ("since", "until")}
      parts = {name: Moments.from_json(fields[name]) for name in ("image", "text") if name in fields}
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
      raise UserError(f"{path}, line {number}: not a line of statistics ({error!r}); remove it") from error
    if made_by != fingerprint:
      raise UserError(
        f"{path}, line {number} is of other parameters: give the --step that was served, or move the file away"
      )
    found.append(entry | parts)
  if not found:
    raise UserError(f"{path} has no statistics yet: a line is written when a modality has {LEAST} embeddings")
  return found
